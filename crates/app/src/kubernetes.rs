//! The cluster that a bridge runs in: the API client, and the meaning of its failures.
//!
//! The checkpoint's ConfigMap and the Lease use this file for their connection. Every call has a
//! time limit and is retried by its caller, never by the client itself, so that no request is sent
//! later than its caller believes. Tokens and certificates stay in the client; no error here quotes
//! them.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use audit_bridge_core::checkpoint::StoreError;
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use kube::config::KubeConfigOptions;
use kube::core::Status;
use kube::{Client, Config};
use tokio::time::timeout;

/// How much of the API server's message is quoted.
const SAID_CHARS_MAX: usize = 300;

/// How long to wait for a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

type BoxError = Box<dyn StdError + Send + Sync>;

/// There is no way to reach the Kubernetes API.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kubernetes api cannot be used: {problem}; in a pod, mount the service account's token \
     (automountServiceAccountToken: true); elsewhere, set KUBECONFIG"
)]
pub struct ConnectError {
    problem: String,
}

/// A client of the API server, and the namespace to work in.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// Uses an existing client.
    pub fn new(client: Client, namespace: impl Into<String>) -> Cluster {
        Cluster {
            client,
            namespace: namespace.into(),
        }
    }

    /// The cluster of `KUBECONFIG` if that is set, else the one this pod runs in, else that of the
    /// user's own kubeconfig. The default namespace is that of the service account (or of the
    /// kubeconfig's context). The API server's audit log names `bridge` and our version as the user
    /// agent. Does not connect yet.
    ///
    /// # Errors
    /// No configuration is found, or one of its files is damaged.
    pub async fn connect(bridge: &str, namespace: Option<&str>) -> Result<Cluster, ConnectError> {
        let agent = format!("{bridge}/{}", env!("CARGO_PKG_VERSION"));
        let agent = HeaderValue::try_from(agent).map_err(connect_error)?;
        let mut cluster = Cluster::connect_with(vec![(USER_AGENT, agent)]).await?;
        if let Some(namespace) = namespace {
            cluster.namespace = namespace.trim().to_owned();
        }
        Ok(cluster)
    }

    /// The same cluster, with these headers in every request.
    ///
    /// # Errors
    /// As of [`Cluster::connect`].
    pub(crate) async fn connect_with(
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Cluster, ConnectError> {
        let mut config = configuration().await?;
        config.headers.extend(headers);
        config.connect_timeout = Some(CONNECT_WAIT_MAX);
        config.default_retry = false;
        let namespace = config.default_namespace.trim().to_owned();
        let client = Client::try_from(config).map_err(connect_error)?;
        Ok(Cluster { client, namespace })
    }

    /// The client, for typed access.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace for the bridge's objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

async fn configuration() -> Result<Config, ConnectError> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !set("KUBECONFIG") && set("KUBERNETES_SERVICE_HOST") {
        return Config::incluster().map_err(connect_error);
    }
    Config::from_kubeconfig(&KubeConfigOptions::default())
        .await
        .map_err(connect_error)
}

fn connect_error(error: impl Display) -> ConnectError {
    ConnectError {
        problem: one_line(&error.to_string()),
    }
}

/// The kind of a failure, as far as callers distinguish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// 401: the token is missing, expired or of another cluster.
    Unauthorized,
    /// 403: the service account lacks a right, or the request is refused for another reason.
    Forbidden(ForbiddenReason),
    /// 404: the object or its namespace does not exist.
    NotFound,
    /// 409 for a create: the object exists.
    AlreadyExists,
    /// 409 for an update: another writer changed the object in between.
    Conflict,
    /// No answer in time. The request may have been carried out, or may still be.
    TimedOut,
    /// No connection.
    Unreachable,
    /// Any other answer, or one that cannot be parsed.
    Other,
}

/// The reason for a 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForbiddenReason {
    /// No Role grants the right. An API server that has just started may also answer this.
    Role,
    /// A quota of the namespace is used up.
    Quota,
    /// The namespace is being deleted.
    Terminating,
    /// The API server has just started.
    Starting,
    /// An admission webhook or policy.
    Admission,
}

impl ForbiddenReason {
    /// The API server uses one status for all of them and distinguishes them only in its message.
    fn of(status: &Status) -> ForbiddenReason {
        let message = status.message.as_str();
        let causes = status.details.as_ref().map(|details| &details.causes);
        let is_terminating = causes
            .into_iter()
            .flatten()
            .any(|cause| cause.reason == "NamespaceTerminating");
        if is_terminating || message.contains("because it is being terminated") {
            ForbiddenReason::Terminating
        } else if message.contains("exceeded quota") || message.contains("failed quota") {
            ForbiddenReason::Quota
        } else if message.contains("not yet ready to handle request") {
            ForbiddenReason::Starting
        } else if message.contains("is forbidden: User ") && message.contains(" cannot ") {
            ForbiddenReason::Role
        } else {
            ForbiddenReason::Admission
        }
    }
}

impl ForbiddenReason {
    fn remedy(self, resource: &str, namespace: &str) -> String {
        match self {
            ForbiddenReason::Role => format!(
                "give the pod's service account a Role with the verbs get and update on {resource} in \
                 the namespace {namespace} (and create, where nobody makes them beforehand), and a \
                 RoleBinding to it (an API server that has just started may answer so for a moment)"
            ),
            ForbiddenReason::Quota => format!(
                "raise the ResourceQuota of the namespace {namespace} that the answer names, or \
                 delete {resource} there that nobody needs"
            ),
            ForbiddenReason::Terminating => format!(
                "the namespace {namespace} is being deleted: let the bridge run in one that stays"
            ),
            ForbiddenReason::Starting => {
                "the API server has just started; it is tried again, and nothing need be done"
                    .to_owned()
            }
            ForbiddenReason::Admission => format!(
                "an admission policy or webhook of the cluster refuses it, not the Role: exempt \
                 {resource} of the bridge in the namespace {namespace} from what the answer names"
            ),
        }
    }
}

/// A failed call to the Kubernetes API.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    kind: ApiErrorKind,
    text: String,
    #[source]
    source: Option<BoxError>,
}

impl ApiError {
    /// What a caller can act on.
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// What to do about it, for calls on `resource` (its plural name) that need get, update and
    /// create.
    pub fn remedy(&self, resource: &str, namespace: &str) -> String {
        match self.kind {
            ApiErrorKind::Unauthorized => "the service account's token is not accepted: check \
                 that the pod mounts one (automountServiceAccountToken: true) and that its \
                 ServiceAccount still exists; the token is read again before it expires"
                .to_owned(),
            ApiErrorKind::Forbidden(refusal) => refusal.remedy(resource, namespace),
            ApiErrorKind::NotFound => format!("check that the namespace {namespace} exists"),
            ApiErrorKind::AlreadyExists
            | ApiErrorKind::Conflict
            | ApiErrorKind::TimedOut
            | ApiErrorKind::Unreachable
            | ApiErrorKind::Other => "it is tried again; if it lasts, check the API server and \
                 the network policies of this pod"
                .to_owned(),
        }
    }

    fn timed_out(after: Duration) -> ApiError {
        ApiError {
            kind: ApiErrorKind::TimedOut,
            text: format!("the kubernetes api did not answer within {after:?}"),
            source: None,
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> ApiError {
        let (kind, text, source) = match error {
            kube::Error::Api(status) => {
                let kind = match (status.code, status.reason.as_str()) {
                    (401, _) => ApiErrorKind::Unauthorized,
                    (403, _) => ApiErrorKind::Forbidden(ForbiddenReason::of(&status)),
                    (404, _) => ApiErrorKind::NotFound,
                    (409, "AlreadyExists") => ApiErrorKind::AlreadyExists,
                    (409, _) => ApiErrorKind::Conflict,
                    _ => ApiErrorKind::Other,
                };
                let said = one_line(&status.message);
                let text = format!("the kubernetes api answered {}: {said}", status.code);
                (kind, text, None)
            }
            kube::Error::Service(source) => (
                ApiErrorKind::Unreachable,
                "the kubernetes api cannot be reached".to_owned(),
                Some(source),
            ),
            kube::Error::HyperError(source) => (
                ApiErrorKind::Unreachable,
                "the connection to the kubernetes api broke".to_owned(),
                Some(source.into()),
            ),
            // The client's other errors include their cause in their own text.
            other => {
                let said = one_line(&other.to_string());
                let text = format!("the call to the kubernetes api failed: {said}");
                (ApiErrorKind::Other, text, None)
            }
        };
        ApiError { kind, text, source }
    }
}

/// The error for an object that should exist and may not be created, because our Role names its
/// objects.
pub(crate) fn missing_config_map(place: String, namespace: &str, name: &str) -> StoreError {
    StoreError::Unavailable {
        place,
        problem: "is not there, and the pod's Role does not let it create one".to_owned(),
        remedy: format!(
            "create it (helm upgrade, or kubectl -n {namespace} create configmap {name})"
        ),
        source: None,
    }
}

/// Waits for an answer for at most `wait`.
pub(crate) async fn bounded<T>(
    wait: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match timeout(wait, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::timed_out(wait)),
    }
}

/// A foreign message on one line of bounded length.
fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, reason: &str) -> ApiError {
        let status = Status::failure("no\nway", reason).with_code(code);
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn api_error_kind_is_told_by_code_and_reason() {
        for (code, reason, kind) in [
            (401, "Unauthorized", ApiErrorKind::Unauthorized),
            (404, "NotFound", ApiErrorKind::NotFound),
            (409, "AlreadyExists", ApiErrorKind::AlreadyExists),
            (409, "Conflict", ApiErrorKind::Conflict),
            (409, "", ApiErrorKind::Conflict),
            (500, "InternalError", ApiErrorKind::Other),
        ] {
            let error = api(code, reason);
            assert_eq!(error.kind(), kind);
            let text = format!("the kubernetes api answered {code}: no way");
            assert_eq!(error.to_string(), text);
        }
    }

    /// Messages of kube-apiserver 1.31 and 1.37.
    #[test]
    fn api_error_forbidden_keeps_server_words_and_has_a_remedy() {
        let user = r#"User "system:serviceaccount:audit:b""#;
        let role = format!(
            r#"configmaps "b" is forbidden: {user} cannot update resource "configmaps" in API group "" in the namespace "audit""#
        );
        for (message, want, remedy) in [
            (
                role.as_str(),
                ForbiddenReason::Role,
                "get and update on configmaps",
            ),
            (
                r#"configmaps "b" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"#,
                ForbiddenReason::Quota,
                "ResourceQuota of the namespace audit",
            ),
            (
                r#"configmaps "b" is forbidden: unable to create new content in namespace audit because it is being terminated"#,
                ForbiddenReason::Terminating,
                "namespace audit is being deleted",
            ),
            (
                r#"configmaps "b" is forbidden: not yet ready to handle request"#,
                ForbiddenReason::Starting,
                "just started",
            ),
            (
                r#"admission webhook "w.example" denied the request: no"#,
                ForbiddenReason::Admission,
                "webhook",
            ),
        ] {
            let status = Status::failure(message, "Forbidden").with_code(403);
            let error = ApiError::from(kube::Error::Api(status.boxed()));
            assert_eq!(error.kind(), ApiErrorKind::Forbidden(want));
            assert!(error.to_string().contains(message), "{error}");
            let said = error.remedy("configmaps", "audit");
            assert!(said.contains(remedy), "{said}");
        }
    }
}
