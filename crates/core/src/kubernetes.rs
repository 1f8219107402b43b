//! The cluster that a bridge runs in: the API client, and what its failures mean.
//!
//! The checkpoint's ConfigMap and the Lease talk to the API server through this file only for the
//! connection: every call is bounded in time and tried again by whoever made it, never by the
//! client itself, so that nothing is sent later than its sender believes. Tokens and certificates
//! stay in the client; no error here quotes them.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use tokio::time::timeout;

/// The part of the API server's own words that a message quotes.
const SAID_CHARS_MAX: usize = 300;

/// How long to wait for a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

type BoxError = Box<dyn StdError + Send + Sync>;

/// There is no way to the Kubernetes API from here.
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
    /// Uses a client that is there already.
    pub fn new(client: Client, namespace: impl Into<String>) -> Cluster {
        Cluster {
            client,
            namespace: namespace.into(),
        }
    }

    /// The cluster of `KUBECONFIG` when that is set, else the one this pod runs in, else the one
    /// of the user's own kubeconfig. Without a namespace, that of the service account (or of the
    /// kubeconfig's context) is taken. Connects to nothing yet.
    ///
    /// # Errors
    /// Neither is there, or a file of theirs is damaged.
    pub async fn connect(namespace: Option<&str>) -> Result<Cluster, ConnectError> {
        let mut config = configuration().await?;
        config.connect_timeout = Some(CONNECT_WAIT_MAX);
        config.default_retry = false;
        let namespace = namespace.unwrap_or(&config.default_namespace).trim();
        let namespace = namespace.to_owned();
        let client = Client::try_from(config).map_err(connect_error)?;
        Ok(Cluster { client, namespace })
    }

    /// The client, for typed access.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace that holds what the bridge keeps.
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
        problem: said(&error.to_string()),
    }
}

/// What kind of failure it was, as far as a caller acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// 401: the token is missing, expired or of another cluster.
    Unauthorized,
    /// 403: the service account lacks a right.
    Forbidden,
    /// 404: the object, or its namespace, is not there.
    NotFound,
    /// 409 to a create: the object is there.
    AlreadyExists,
    /// 409 to an update: somebody else changed the object in between.
    Conflict,
    /// No answer in time. The request may have been carried out, or may yet be.
    TimedOut,
    /// No connection.
    Unreachable,
    /// Any other answer, or one that cannot be understood.
    Other,
}

/// A call to the Kubernetes API that failed.
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

    /// What to do about it, for calls to `resource` (its plural name) that need get, update and
    /// create.
    pub fn remedy(&self, resource: &str, namespace: &str) -> String {
        match self.kind {
            ApiErrorKind::Unauthorized => "the service account's token is not accepted: check \
                 that the pod mounts one (automountServiceAccountToken: true) and that its \
                 ServiceAccount still exists; the token is read again before it expires"
                .to_owned(),
            ApiErrorKind::Forbidden => format!(
                "give the pod's service account a Role with the verbs get, update and create on \
                 {resource} in the namespace {namespace}, and a RoleBinding to it"
            ),
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
                    (403, _) => ApiErrorKind::Forbidden,
                    (404, _) => ApiErrorKind::NotFound,
                    (409, "AlreadyExists") => ApiErrorKind::AlreadyExists,
                    (409, _) => ApiErrorKind::Conflict,
                    _ => ApiErrorKind::Other,
                };
                let said = said(&status.message);
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
            // The client's other errors carry their cause in their own text.
            other => {
                let said = said(&other.to_string());
                let text = format!("the call to the kubernetes api failed: {said}");
                (ApiErrorKind::Other, text, None)
            }
        };
        ApiError { kind, text, source }
    }
}

/// Waits for an answer, but not for longer than `wait`.
pub(crate) async fn bounded<T>(
    wait: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match timeout(wait, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::timed_out(wait)),
    }
}

/// Somebody else's words on one line of bounded length.
fn said(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(SAID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, reason: &str) -> ApiError {
        let status = Status::failure("no\nway", reason).with_code(code);
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn answers_are_told_apart() {
        for (code, reason, kind) in [
            (401, "Unauthorized", ApiErrorKind::Unauthorized),
            (403, "Forbidden", ApiErrorKind::Forbidden),
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

    #[test]
    fn a_missing_right_names_the_verbs() {
        let remedy = api(403, "Forbidden").remedy("configmaps", "audit");
        for part in ["get, update and create", "configmaps", "audit", "Role"] {
            assert!(remedy.contains(part), "{remedy}");
        }
    }
}
