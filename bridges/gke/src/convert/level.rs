//! `level`: how much of the request GKE's audit policy logs.
//!
//! An entry with a body shows it. Reads, connections and requests without resource have no body, so
//! the level follows the audit policy of Kubernetes' `configure-helper.sh`
//! (`create-master-audit-policy`), on which GKE's policy is based according to its documentation.

use crate::convert::method::{Request, Resource};

/// Groups that the policy lists by name.
const KNOWN_GROUPS: [&str; 18] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "extensions",
    "metrics.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// `k8s.io/apiserver/pkg/apis/audit/v1.Level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    /// The level at which this request was logged with these bodies.
    pub(crate) fn of(request: &Request<'_>, has_request: bool, has_response: bool) -> Level {
        if has_response {
            return Level::RequestResponse;
        }
        if has_request {
            return Level::Request;
        }
        let reads = is_read(request.verb);
        match request.resource() {
            Some(resource) if reads || request.connect().is_some() => by_policy(resource, reads),
            _ => Level::Metadata,
        }
    }
}

fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch")
}

fn by_policy(resource: &Resource<'_>, reads: bool) -> Level {
    let secretive = matches!(
        (&*resource.group, resource.resource, resource.subresource),
        ("", "secrets" | "configmaps", _)
            | ("", "serviceaccounts", "token")
            | ("authentication.k8s.io", "tokenreviews", _)
    );
    if secretive || !KNOWN_GROUPS.contains(&&*resource.group) {
        Level::Metadata
    } else if reads {
        Level::Request
    } else {
        Level::RequestResponse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_follows_the_bodies_then_the_policy() {
        for (method, resource_name, has_request, has_response, want) in [
            (
                "io.k8s.core.v1.pods.create",
                "core/v1/namespaces/n/pods",
                true,
                true,
                "RequestResponse",
            ),
            (
                "io.k8s.core.v1.pods.status.patch",
                "core/v1/namespaces/n/pods/p/status",
                true,
                false,
                "Request",
            ),
            (
                "io.k8s.core.v1.configmaps.create",
                "core/v1/namespaces/n/configmaps/c",
                false,
                false,
                "Metadata",
            ),
            // A response on a path without resource still wins over the policy.
            ("io.k8s.get", "readyz", false, true, "RequestResponse"),
            ("io.k8s.get", "readyz", false, false, "Metadata"),
            (
                "io.k8s.core.v1.nodes.list",
                "core/v1/nodes",
                false,
                false,
                "Request",
            ),
            (
                "io.k8s.core.v1.secrets.get",
                "core/v1/namespaces/n/secrets/s",
                false,
                false,
                "Metadata",
            ),
            (
                "io.k8s.core.v1.secrets.list",
                "core/v1/secrets",
                false,
                false,
                "Metadata",
            ),
            (
                "io.k8s.authorization.rbac.v1.roles.watch",
                "rbac.authorization.k8s.io/v1/roles",
                false,
                false,
                "Request",
            ),
            (
                "io.k8s.coordination.v1.leases.get",
                "coordination.k8s.io/v1/namespaces/n/leases/l",
                false,
                false,
                "Metadata",
            ),
            (
                "com.example.v1.things.list",
                "example.com/v1/things",
                false,
                false,
                "Metadata",
            ),
            (
                "io.k8s.core.v1.pods.exec.create",
                "core/v1/namespaces/n/pods/p/exec",
                false,
                false,
                "RequestResponse",
            ),
            (
                "io.k8s.core.v1.pods.exec.get",
                "core/v1/namespaces/n/pods/p/exec",
                false,
                false,
                "Request",
            ),
            (
                "io.k8s.core.v1.nodes.proxy.get",
                "core/v1/nodes/n/proxy/metrics",
                false,
                false,
                "Request",
            ),
            (
                "io.k8s.core.v1.services.proxy.create",
                "core/v1/namespaces/n/services/s/proxy",
                false,
                false,
                "RequestResponse",
            ),
            (
                "io.k8s.core.v1.pods.delete",
                "core/v1/namespaces/n/pods/p",
                false,
                false,
                "Metadata",
            ),
        ] {
            let request = Request::parse(method, resource_name).expect(method);
            let level = Level::of(&request, has_request, has_response);
            assert_eq!(level.name(), want, "{method} {resource_name}");
        }
    }
}
