use super::*;
use proptest::prelude::*;

/// `group/version resource.subresource verb [namespace] name rest`
fn read(method: &str, resource_name: &str) -> Option<String> {
    let request = Request::parse(method, resource_name)?;
    Some(match &request.target {
        Target::Path(path) => format!("{} /{path}", request.verb),
        Target::Resource(r) => format!(
            "{}/{} {}.{} {} [{}] {} {}",
            r.group,
            r.version,
            r.resource,
            r.subresource,
            request.verb,
            request.object_namespace(),
            r.name,
            r.rest
        )
        .trim_end()
        .to_owned(),
    })
}

#[test]
fn reads_every_shape() {
    for (method, resource_name, want) in [
        // By the number of segments.
        (
            "io.k8s.core.v1.nodes.list",
            "core/v1/nodes",
            "/v1 nodes. list []",
        ),
        (
            "io.k8s.core.v1.secrets.list",
            "core/v1/secrets",
            "/v1 secrets. list []",
        ),
        (
            "io.k8s.core.v1.namespaces.create",
            "core/v1/namespaces/test-ns",
            "/v1 namespaces. create [] test-ns",
        ),
        (
            "io.k8s.core.v1.namespaces.get",
            "core/v1/namespaces/test-ns",
            "/v1 namespaces. get [test-ns] test-ns",
        ),
        (
            "io.k8s.authorization.rbac.v1.clusterroles.get",
            "rbac.authorization.k8s.io/v1/clusterroles/system:node",
            "rbac.authorization.k8s.io/v1 clusterroles. get [] system:node",
        ),
        (
            "io.k8s.core.v1.pods.list",
            "core/v1/namespaces/ns/pods",
            "/v1 pods. list [ns]",
        ),
        (
            "io.k8s.core.v1.namespaces.finalize.update",
            "core/v1/namespaces/ns/finalize",
            "/v1 namespaces.finalize update [ns] ns",
        ),
        (
            "io.k8s.core.v1.nodes.status.patch",
            "core/v1/nodes/n/status",
            "/v1 nodes.status patch [] n",
        ),
        (
            "io.k8s.core.v1.pods.get",
            "core/v1/namespaces/ns/pods/p",
            "/v1 pods. get [ns] p",
        ),
        (
            "io.k8s.core.v1.nodes.proxy.get",
            "core/v1/nodes/n/proxy/metrics",
            "/v1 nodes.proxy get [] n metrics",
        ),
        (
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/ns/pods/p/exec",
            "/v1 pods.exec create [ns] p",
        ),
        (
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/ns/pods/p/exec/p",
            "/v1 pods.exec create [ns] p",
        ),
        (
            "io.k8s.core.v1.services.proxy.get",
            "core/v1/namespaces/ns/services/https:s:443/proxy/x/y",
            "/v1 services.proxy get [ns] https:s:443 x/y",
        ),
        ("io.k8s.get", "readyz", "get /readyz"),
        ("io.k8s.get", "api/v1", "get /api/v1"),
        ("io.k8s.post", "/some/path/", "post /some/path"),
        ("io.k8s.get", "", "get /"),
        // Groups.
        (
            "io.k8s.apps.v1.deployments.update",
            "apps/v1/namespaces/n/deployments/d",
            "apps/v1 deployments. update [n] d",
        ),
        (
            "com.coreos.database.etcd.v1beta2.etcdbackups.create",
            "etcd.database.coreos.com/v1beta2/namespaces/n/etcdbackups",
            "etcd.database.coreos.com/v1beta2 etcdbackups. create [n]",
        ),
        (
            "com.google.cloud.v1.backendconfigs.get",
            "cloud.google.com/v1/namespaces/n/backendconfigs/b",
            "cloud.google.com/v1 backendconfigs. get [n] b",
        ),
        // A group's label that looks like a version does not confuse the anchor.
        (
            "com.example.v2.v1.things.status.get",
            "v2.example.com/v1/things/t/status",
            "v2.example.com/v1 things.status get [] t",
        ),
        // The names disagree: the resource name's group wins.
        (
            "io.k8s.rbac.v1.clusterroles.create",
            "rbac.authorization.k8s.io/v1/clusterroles/c",
            "rbac.authorization.k8s.io/v1 clusterroles. create [] c",
        ),
        // The method alone.
        ("io.k8s.core.v1.pods.create", "", "/v1 pods. create []"),
        (
            "io.k8s.apps.v1.deployments.scale.get",
            "",
            "apps/v1 deployments.scale get []",
        ),
        (
            "io.k8s.authorization.rbac.v1.roles.list",
            "",
            "rbac.authorization.k8s.io/v1 roles. list []",
        ),
        (
            "io.k8s.core.v1.pods.get",
            "namespaces/n/pods/p",
            "/v1 pods. get [n] p",
        ),
        // A subresource that only the resource name tells.
        (
            "io.k8s.core.v1.pods.get",
            "core/v1/namespaces/n/pods/p/log",
            "/v1 pods.log get [n] p",
        ),
        // An unknown verb passes.
        (
            "io.k8s.core.v1.pods.frobnicate",
            "core/v1/namespaces/n/pods/p",
            "/v1 pods. frobnicate [n] p",
        ),
    ] {
        assert_eq!(
            read(method, resource_name).as_deref(),
            Some(want),
            "{method} {resource_name}"
        );
    }
}

#[test]
fn refuses_what_is_no_method_of_kubernetes() {
    for method in [
        "",
        "io.k8s.",
        "io.k8s",
        "pods",
        ".",
        "...",
        "v1.pods.create",
        "io.k8s.core.pods.create",
        "io.k8s.core.v1.create",
        "io.k8s.core.v1..create",
        "io.k8s.core.v1.pods.",
        "io.k8s.core.v1.a.b.c.d",
        "google.iam.admin.CreateRole",
    ] {
        assert_eq!(read(method, "core/x"), None, "{method}");
    }
}

#[test]
fn versions_are_told_from_names() {
    for (token, want) in [
        ("v1", true),
        ("v12beta3", true),
        ("v2alpha1", true),
        ("v", false),
        ("v1beta", false),
        ("vbeta1", false),
        ("v1gamma1", false),
        ("v1.2", false),
        ("1", false),
        ("", false),
    ] {
        assert_eq!(is_version(token), want, "{token}");
    }
}

proptest! {
    #[test]
    fn reading_is_total(method in "\\PC*", resource_name in "\\PC*") {
        let _ = Request::parse(&method, &resource_name);
    }

    #[test]
    fn reading_near_misses_is_total(
        method in "(io|com|k8s|core|v1|v1beta1|pods|exec|create|get|é|)(\\.(io|k8s|core|v1|pods|exec|create|get|))*",
        resource_name in "/?(core|apps|v1|namespaces|n|pods|exec|é|)(/(core|v1|namespaces|n|pods|exec|))*",
    ) {
        if let Some(request) = Request::parse(&method, &resource_name) {
            prop_assert!(!request.verb.is_empty());
            if let Some(resource) = request.resource() {
                prop_assert!(!resource.resource.is_empty());
                prop_assert!(!resource.version.is_empty());
            }
            let mut uri = String::new();
            crate::uri::write(&mut uri, &request, Some(crate::uri::Query::default()));
            prop_assert!(uri.starts_with('/'), "{}", uri);
            prop_assert!(uri.is_ascii());
        }
    }
}
