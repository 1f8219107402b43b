use super::*;

fn uri(method: &str, resource_name: &str, query: Query<'_>) -> String {
    let request = Request::parse(method, resource_name).expect(method);
    let mut out = String::new();
    write(&mut out, &request, Some(query));
    out
}

#[test]
fn uri_path_is_built_from_the_resource() {
    for (method, resource_name, want) in [
        (
            "io.k8s.core.v1.nodes.list",
            "core/v1/nodes",
            "/api/v1/nodes",
        ),
        (
            "io.k8s.core.v1.namespaces.create",
            "core/v1/namespaces/test-ns",
            "/api/v1/namespaces",
        ),
        (
            "io.k8s.core.v1.namespaces.delete",
            "core/v1/namespaces/test-ns",
            "/api/v1/namespaces/test-ns",
        ),
        (
            "io.k8s.core.v1.namespaces.finalize.update",
            "core/v1/namespaces/ns/finalize",
            "/api/v1/namespaces/ns/finalize",
        ),
        (
            "com.example.v1.namespaces.get",
            "example.com/v1/namespaces/n/namespaces/x",
            "/apis/example.com/v1/namespaces/n/namespaces/x",
        ),
        (
            "com.example.v1.namespaces.list",
            "example.com/v1/namespaces/n/namespaces",
            "/apis/example.com/v1/namespaces/n/namespaces",
        ),
        (
            "com.example.v1.namespaces.get",
            "example.com/v1/namespaces/x",
            "/apis/example.com/v1/namespaces/x",
        ),
        (
            "io.k8s.authorization.rbac.v1.clusterroles.get",
            "rbac.authorization.k8s.io/v1/clusterroles/system:node",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ),
        (
            "io.k8s.core.v1.pods.create",
            "core/v1/namespaces/ns/pods/p",
            "/api/v1/namespaces/ns/pods",
        ),
        (
            "io.k8s.core.v1.pods.get",
            "core/v1/namespaces/ns/pods/p",
            "/api/v1/namespaces/ns/pods/p",
        ),
        (
            "io.k8s.core.v1.pods.deletecollection",
            "core/v1/namespaces/ns/pods",
            "/api/v1/namespaces/ns/pods",
        ),
        (
            "io.k8s.core.v1.nodes.status.patch",
            "core/v1/nodes/n/status",
            "/api/v1/nodes/n/status",
        ),
        (
            "io.k8s.core.v1.pods.eviction.create",
            "core/v1/namespaces/ns/pods/p/eviction",
            "/api/v1/namespaces/ns/pods/p/eviction",
        ),
        (
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/ns/pods/p/exec/p",
            "/api/v1/namespaces/ns/pods/p/exec",
        ),
        (
            "io.k8s.core.v1.services.proxy.get",
            "core/v1/namespaces/ns/services/https:s:443/proxy/a b/ü?x",
            "/api/v1/namespaces/ns/services/https:s:443/proxy/a%20b/%C3%BC%3Fx",
        ),
        ("io.k8s.get", "readyz", "/readyz"),
        ("io.k8s.get", "", "/"),
        ("io.k8s.get", "a%2Fb%zz", "/a%2Fb%25zz"),
    ] {
        assert_eq!(
            uri(method, resource_name, Query::default()),
            want,
            "{method} {resource_name}"
        );
    }
}

#[test]
fn uri_query_is_restored_where_the_entry_implies_it() {
    let exec = |command| {
        let query = Query {
            command: Some(command),
            dry_run: None,
        };
        uri(
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/n/pods/p/exec",
            query,
        )
    };
    let path = "/api/v1/namespaces/n/pods/p/exec";
    assert_eq!(
        exec("[\"sh\",\"-c\",\"a b&c\"]"),
        format!("{path}?command=sh&command=-c&command=a+b%26c")
    );
    assert_eq!(exec("ls -l /"), format!("{path}?command=ls+-l+%2F"));
    assert_eq!(exec("[1,\"x"), format!("{path}?command=%5B1%2C%22x"));
    assert_eq!(exec("[1]"), format!("{path}?command=1"));
    for (dry_run, want) in [("true", "All"), ("All", "All"), ("x", "x")] {
        let query = Query {
            command: Some("not of an exec"),
            dry_run: Some(dry_run),
        };
        let found = uri(
            "io.k8s.core.v1.pods.create",
            "core/v1/namespaces/n/pods/p",
            query,
        );
        assert_eq!(found, format!("/api/v1/namespaces/n/pods?dryRun={want}"));
    }
    let none = Query::default();
    assert_eq!(
        uri(
            "io.k8s.core.v1.pods.watch",
            "core/v1/namespaces/n/pods/p",
            none
        ),
        "/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp&watch=true"
    );
    assert_eq!(
        uri(
            "io.k8s.core.v1.pods.list",
            "core/v1/namespaces/n/pods/p",
            none
        ),
        "/api/v1/namespaces/n/pods?fieldSelector=metadata.name%3Dp"
    );
    assert_eq!(
        uri("io.k8s.core.v1.pods.watch", "core/v1/pods", none),
        "/api/v1/pods?watch=true"
    );
}

#[test]
fn uri_path_byte_that_rfc_3986_does_not_allow_is_escaped() {
    let allowed = "-._~!$&'()*+,;=:@/";
    for byte in 0..=127u8 {
        let c = char::from(byte);
        let mut out = String::new();
        write_path(&mut out, &format!("é{c}"));
        let want = match c.is_ascii_alphanumeric() || allowed.contains(c) {
            true => format!("%C3%A9{c}"),
            false => format!("%C3%A9%{byte:02X}"),
        };
        assert_eq!(out, want);
    }
}
