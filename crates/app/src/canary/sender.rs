//! Sends canaries to the API server, each on its own connection; finds out our own user there, and
//! reads and changes the records of canaries.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::event::VERB;
use super::mark::Digest;
use super::records::{CanaryRecords, DataChange};
use super::{ExpectedRequest, Mark};
use crate::kubernetes::{ApiError, ApiErrorKind, Cluster, ConnectError, ForbiddenReason, bounded};

/// The limit for one request.
const REQUEST_MAX: Duration = Duration::from_secs(10);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Sends canaries with the identity of this pod.
#[derive(Debug)]
pub(crate) struct CanarySender {
    bridge: &'static str,
    /// The name of the `ConfigMap`.
    name: String,
    /// Our user, once the API server has told it.
    user: OnceLock<String>,
    /// Whether it was logged that the API server does not tell it.
    is_unknown_told: AtomicBool,
    /// The client for other requests, without the headers of a canary.
    plain: OnceCell<Cluster>,
}

/// A canary that is ready to be sent.
#[derive(Debug)]
pub(crate) struct ReadyCanary {
    cluster: Cluster,
    pub(crate) mark: Mark,
    pub(crate) expected: ExpectedRequest,
}

/// The API server did not accept a canary, or refused it.
#[derive(Debug)]
pub(crate) struct SendFailure {
    /// A label for metrics, from a bounded set.
    pub(crate) status: &'static str,
    /// Whether the API server handled the request, so that its audit event is still expected.
    pub(crate) is_audited: bool,
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl SendFailure {
    /// The failure of a canary that was not sent.
    fn unsent(status: &'static str, why: &impl ToString, remedy: &str) -> SendFailure {
        SendFailure {
            status,
            is_audited: false,
            why: why.to_string(),
            remedy: remedy.to_owned(),
        }
    }

    /// Whether somebody changed the object since it was read.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == CONFLICT
    }
}

const CONFLICT: &str = "conflict";

/// The name of the `ConfigMap`. `name`: the checkpoint's.
pub(crate) fn object_name(name: &str) -> String {
    format!("{name}-canary")
}

impl CanarySender {
    /// `name`: the checkpoint's.
    pub(crate) fn new(bridge: &'static str, name: &str) -> CanarySender {
        CanarySender {
            bridge,
            name: object_name(name),
            user: OnceLock::new(),
            is_unknown_told: AtomicBool::new(false),
            plain: OnceCell::new(),
        }
    }

    /// Prepares a canary with a new mark, and what its event will contain.
    ///
    /// # Errors
    /// The API server does not say who we are, or the random source failed.
    pub(crate) async fn prepare(&self) -> Result<ReadyCanary, SendFailure> {
        let mark = Mark::random()
            .map_err(|error| SendFailure::unsent("error", &error, "it is tried again"))?;
        let (version, before) = (env!("CARGO_PKG_VERSION"), super::event::AGENT);
        let agent = format!("{}/{version}{before}{}", self.bridge, mark.as_str());
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|error| SendFailure::unsent("error", &error, "please report it"))
        };
        // A client sends its headers with every request, so each canary needs its own.
        let headers = vec![
            (USER_AGENT, header(&agent)?),
            (AUDIT_ID, header(mark.as_str())?),
        ];
        let cluster = Cluster::connect_with(headers)
            .await
            .map_err(|error| unreachable(&error))?;
        let expected = self.expected().await?;
        Ok(ReadyCanary {
            cluster,
            mark,
            expected,
        })
    }

    /// Sends the canary with this change of the object's data, which may be empty, and waits for
    /// the answer: the object after the change.
    ///
    /// # Errors
    /// The API server did not accept the request, or refused it.
    pub(super) async fn send(
        &self,
        canary: &ReadyCanary,
        change: &DataChange,
    ) -> Result<CanaryRecords, SendFailure> {
        self.patch(&canary.cluster, &body(None, change)).await
    }

    /// Sends the canary without a change of the data.
    ///
    /// # Errors
    /// As of [`CanarySender::send`].
    pub(crate) async fn send_alone(&self, canary: &ReadyCanary) -> Result<(), SendFailure> {
        self.send(canary, &DataChange::new()).await.map(|_| ())
    }

    /// Reads the records.
    ///
    /// # Errors
    /// The API server did not return them.
    pub(super) async fn look(&self) -> Result<CanaryRecords, SendFailure> {
        let cluster = self.plain().await?;
        let api: Api<ConfigMap> = Api::namespaced(cluster.client(), cluster.namespace());
        let answered = bounded(REQUEST_MAX, api.get(&self.name)).await;
        let object = answered.map_err(|error| self.failure(&error, cluster.namespace()))?;
        Ok(CanaryRecords::read(&object))
    }

    /// Changes the records as they were read, with a request that is no canary.
    ///
    /// # Errors
    /// The records were changed in between, or the API server did not accept the request.
    pub(super) async fn change(
        &self,
        seen: &CanaryRecords,
        change: &DataChange,
    ) -> Result<CanaryRecords, SendFailure> {
        let body = body(seen.version.as_deref(), change);
        self.patch(self.plain().await?, &body).await
    }

    /// Removes a record.
    ///
    /// # Errors
    /// The API server did not accept the request.
    pub(super) async fn forget(&self, digest: Digest) -> Result<(), SendFailure> {
        let change = [(digest.to_string(), None)].into();
        let body = body(None, &change);
        self.patch(self.plain().await?, &body).await.map(|_| ())
    }

    async fn patch(&self, cluster: &Cluster, body: &Value) -> Result<CanaryRecords, SendFailure> {
        let api: Api<ConfigMap> = Api::namespaced(cluster.client(), cluster.namespace());
        let (how, what) = (PatchParams::default(), Patch::Merge(body));
        match bounded(REQUEST_MAX, api.patch(&self.name, &how, &what)).await {
            Ok(object) => Ok(CanaryRecords::read(&object)),
            Err(error) => Err(self.failure(&error, cluster.namespace())),
        }
    }

    async fn plain(&self) -> Result<&Cluster, SendFailure> {
        let connect = async || Cluster::connect(self.bridge, None).await;
        self.plain
            .get_or_try_init(connect)
            .await
            .map_err(|error| unreachable(&error))
    }

    /// What our canaries' events contain. Asks the API server for our user until it tells once: one that
    /// has just started may refuse it.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(super) async fn expected(&self) -> Result<ExpectedRequest, SendFailure> {
        let user = match self.user.get() {
            Some(user) => Some(user.clone()),
            None => self.ask_user().await?,
        };
        if let Some(user) = &user {
            let _ = self.user.set(user.clone());
        }
        Ok(ExpectedRequest {
            user,
            namespace: self.plain().await?.namespace().to_owned(),
            name: self.name.clone(),
        })
    }

    /// Our user name; `None` if the API server cannot say (before Kubernetes 1.28).
    async fn ask_user(&self) -> Result<Option<String>, SendFailure> {
        let cluster = self.plain().await?;
        let api: Api<SelfSubjectReview> = Api::all(cluster.client());
        let review = SelfSubjectReview::default();
        match bounded(REQUEST_MAX, api.create(&PostParams::default(), &review)).await {
            Ok(answer) => {
                let user = answer.status.and_then(|status| status.user_info);
                Ok(user.and_then(|user| user.username))
            }
            Err(error) => match error.kind() {
                ApiErrorKind::NotFound | ApiErrorKind::Forbidden(ForbiddenReason::Role) => {
                    if !self.is_unknown_told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            %error,
                            "the API server does not say who this pod is: until it does, canaries are \
                             known by mark, verb and object alone"
                        );
                    }
                    Ok(None)
                }
                _ => Err(self.failure(&error, cluster.namespace())),
            },
        }
    }

    fn failure(&self, error: &ApiError, namespace: &str) -> SendFailure {
        let name = &self.name;
        let (status, is_audited) = match error.kind() {
            ApiErrorKind::Unauthorized => ("unauthorized", false),
            ApiErrorKind::Forbidden(_) => ("forbidden", true),
            ApiErrorKind::NotFound => ("not_found", true),
            ApiErrorKind::TimedOut => ("timeout", false),
            ApiErrorKind::Unreachable => ("unreachable", false),
            ApiErrorKind::Conflict => (CONFLICT, false),
            ApiErrorKind::AlreadyExists | ApiErrorKind::Other => ("error", false),
        };
        let remedy = match error.kind() {
            ApiErrorKind::Forbidden(ForbiddenReason::Role) => format!(
                "give the pod's service account a Role with the verbs get and {VERB} on the ConfigMap \
                 {name} in the namespace {namespace}, as the chart does with canary.enabled; the API \
                 server logs the refusal too, so canaries go on where one process reads"
            ),
            ApiErrorKind::NotFound => format!(
                "make a ConfigMap {name} without data in the namespace {namespace}, as the chart does \
                 with canary.enabled; the API server logs the request all the same, so canaries go on \
                 where one process reads"
            ),
            _ => error.remedy("configmaps", namespace),
        };
        SendFailure {
            status,
            is_audited,
            why: error.to_string(),
            remedy,
        }
    }
}

fn unreachable(error: &ConnectError) -> SendFailure {
    let off = "or set --canary-interval off (AUDIT_BRIDGE_CANARY_INTERVAL)";
    SendFailure::unsent("unreachable", error, off)
}

/// A merge patch of the data; with a version it fails if the object has another one.
fn body(version: Option<&str>, change: &DataChange) -> Value {
    let mut body = json!({});
    if !change.is_empty() {
        body["data"] = json!(change);
    }
    if let Some(version) = version {
        body["metadata"] = json!({"resourceVersion": version});
    }
    body
}
