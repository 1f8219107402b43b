use super::*;
use proptest::prelude::*;

/// `group/version resource.subresource verb [namespace] name rest`
fn read(method: &str, resource_name: &str) -> Option<String> {
    let request = Request::parse(method, resource_name)?;
    Some(match &request.target {
        RequestTarget::Path(path) => format!("{} /{path}", request.verb),
        RequestTarget::Resource(r) => format!(
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
fn method_each_shape_is_read() {
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
        // Resources of other groups may have this name too (`requestinfo.go` checks no group).
        (
            "com.example.v1.namespaces.get",
            "example.com/v1/namespaces/n/namespaces/x",
            "example.com/v1 namespaces. get [n] x",
        ),
        (
            "com.example.v1.namespaces.list",
            "example.com/v1/namespaces/n/namespaces",
            "example.com/v1 namespaces. list [n]",
        ),
        (
            "com.example.v1.namespaces.create",
            "example.com/v1/namespaces/n/namespaces/x",
            "example.com/v1 namespaces. create [n] x",
        ),
        (
            "com.example.v1.namespaces.status.update",
            "example.com/v1/namespaces/n/namespaces/x/status",
            "example.com/v1 namespaces.status update [n] x",
        ),
        (
            "com.example.v1.namespaces.get",
            "example.com/v1/namespaces/x",
            "example.com/v1 namespaces. get [x] x",
        ),
        (
            "com.example.v1.namespaces.status.update",
            "example.com/v1/namespaces/x/status",
            "example.com/v1 namespaces.status update [x] x",
        ),
        // The paths of these verbs have no name: it is of a field selector.
        (
            "io.k8s.core.v1.namespaces.list",
            "core/v1/namespaces/x",
            "/v1 namespaces. list [] x",
        ),
        (
            "io.k8s.core.v1.namespaces.watch",
            "core/v1/namespaces/x",
            "/v1 namespaces. watch [] x",
        ),
        // Clients may choose segments with dots, even for resources that nobody serves.
        (
            "io.k8s.core.v1.pods.a.b.c.get",
            "core/v1/namespaces/n/pods/p/a.b.c",
            "/v1 pods.a.b.c get [n] p",
        ),
        (
            "io.k8s.core.v1.po.ds.get",
            "core/v1/namespaces/n/po.ds/p",
            "/v1 po.ds. get [n] p",
        ),
        (
            "io.k8s.apps.v1.2.deployments.get",
            "apps/v1.2/namespaces/n/deployments/d",
            "apps/v1.2 deployments. get [n] d",
        ),
        (
            "io.k8s.apps..deployments.list",
            "apps//deployments",
            "apps/ deployments. list []",
        ),
        // Kubernetes has no verb for this method, so it is empty.
        (
            "io.k8s.core.v1.pods.",
            "core/v1/namespaces/n/pods/p",
            "/v1 pods.  [n] p",
        ),
        (
            "io.k8s.core.v1.pods",
            "core/v1/namespaces/n/pods/p",
            "/v1 pods.  [n] p",
        ),
        (
            "io.k8s.core.v1.pods.log.",
            "core/v1/namespaces/n/pods/p/log",
            "/v1 pods.log  [n] p",
        ),
        (
            "io.k8s.core.v1.pods.log",
            "core/v1/namespaces/n/pods/p/log",
            "/v1 pods.log  [n] p",
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
fn method_foreign_is_refused() {
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
fn method_missing_is_read_off_the_resource_name() {
    let guess = |method: &str, resource_name: &str| {
        let request = Request::guess(method, resource_name);
        let mut uri = String::new();
        crate::convert::uri::write(&mut uri, &request, None);
        let resource = request.resource();
        let resource =
            resource.map(|r| format!("{}/{} {}.{}", r.group, r.version, r.resource, r.subresource));
        format!(
            "{:?} {} {}",
            request.verb,
            uri,
            resource.unwrap_or_default()
        )
        .trim_end()
        .to_owned()
    };
    for (method, resource_name, want) in [
        (
            "",
            "apps/v1/namespaces/n/deployments/d/scale",
            "\"\" /apis/apps/v1/namespaces/n/deployments/d/scale apps/v1 deployments.scale",
        ),
        (
            "",
            "core/v1/namespaces/n",
            "\"\" /api/v1/namespaces/n /v1 namespaces.",
        ),
        (
            "",
            "core/v1/namespaces/n/finalize",
            "\"\" /api/v1/namespaces/n/finalize /v1 namespaces.finalize",
        ),
        ("", "readyz", "\"\" /readyz"),
        ("", "apis/apps/v1", "\"\" /apis/apps/v1"),
        ("", "core/v1", "\"\" /core/v1"),
        ("", "", "\"\" /"),
        (
            "google.iam.admin.CreateRole",
            "core/v1/pods/p",
            "\"CreateRole\" /api/v1/pods/p /v1 pods.",
        ),
        // A method of a request without resource may have a dot: it is a token of RFC 9110.
        ("io.k8s.get.x", "readyz", "\"get.x\" /readyz"),
        ("io.k8s.get.x", "core/v1/pods", "\"get.x\" /core/v1/pods"),
        ("io.k8s.", "readyz", "\"\" /readyz"),
    ] {
        assert_eq!(
            guess(method, resource_name),
            want,
            "{method} {resource_name}"
        );
    }
}

#[test]
fn method_version_is_told_from_a_name() {
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
    fn method_of_any_text_never_panics(method in "\\PC*", resource_name in "\\PC*") {
        let _ = Request::parse(&method, &resource_name);
        let mut uri = String::new();
        crate::convert::uri::write(&mut uri, &Request::guess(&method, &resource_name), None);
        prop_assert!(uri.starts_with('/') && uri.is_ascii(), "{}", uri);
    }

    #[test]
    fn method_of_near_misses_never_panics(
        method in "(io|com|k8s|core|v1|v1beta1|pods|exec|create|get|é|)(\\.(io|k8s|core|v1|pods|exec|create|get|))*",
        resource_name in "/?(core|apps|v1|namespaces|n|pods|exec|é|)(/(core|v1|namespaces|n|pods|exec|))*",
    ) {
        if let Some(request) = Request::parse(&method, &resource_name) {
            if let Some(resource) = request.resource() {
                prop_assert!(!resource.resource.is_empty());
            }
            let mut uri = String::new();
            crate::convert::uri::write(&mut uri, &request, Some(crate::convert::uri::Query::default()));
            prop_assert!(uri.starts_with('/'), "{}", uri);
            prop_assert!(uri.is_ascii());
        }
    }
}
