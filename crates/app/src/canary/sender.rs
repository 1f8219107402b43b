//! Sends one canary to the API server, on a connection of its own, and knows who we are there.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{CanaryRequest, ExpectedRequest, Mark};
use crate::kubernetes::{ApiError, ApiErrorKind, Cluster, ForbiddenReason, bounded};

/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Sends canaries with the identity of this pod.
#[derive(Debug)]
pub(crate) struct CanarySender {
    bridge: &'static str,
    /// The `ConfigMap`.
    name: String,
    request: CanaryRequest,
    /// Who we are, once asked; `Some(None)` where the API server cannot say.
    user: Option<Option<String>>,
}

/// A canary that can be sent.
#[derive(Debug)]
pub(crate) struct ReadyCanary {
    cluster: Cluster,
    pub(crate) mark: Mark,
    pub(crate) expected: ExpectedRequest,
}

/// A canary was not taken, or taken in a way that should not be so.
#[derive(Debug)]
pub(crate) struct SendFailure {
    /// Bounded, for metrics.
    pub(crate) status: &'static str,
    /// The API server handled the request, so that its event is to be expected all the same.
    pub(crate) is_audited: bool,
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl SendFailure {
    /// Nothing was sent.
    fn unsent(status: &'static str, why: &impl ToString, remedy: &str) -> SendFailure {
        SendFailure {
            status,
            is_audited: false,
            why: why.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}

impl CanarySender {
    /// `name`: that of the checkpoint.
    pub(crate) fn new(bridge: &'static str, name: &str, request: CanaryRequest) -> CanarySender {
        CanarySender {
            bridge,
            name: format!("{name}-canary"),
            request,
            user: None,
        }
    }

    /// A canary with a new mark, and what its event will say. Connects to the API server only to ask
    /// who we are, and only until it has said so.
    ///
    /// # Errors
    /// There is no API server to be asked, or no randomness.
    pub(crate) async fn prepare(&mut self) -> Result<ReadyCanary, SendFailure> {
        let mark = Mark::random()
            .map_err(|error| SendFailure::unsent("error", &error, "it is tried again"))?;
        let version = env!("CARGO_PKG_VERSION");
        let agent = format!("{}/{version} canary/{}", self.bridge, mark.as_str());
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|error| SendFailure::unsent("error", &error, "please report it"))
        };
        // A client of its own for each: its headers go with every request of a client.
        let headers = vec![
            (USER_AGENT, header(&agent)?),
            (AUDIT_ID, header(mark.as_str())?),
        ];
        let off = "or set --canary-interval off (AUDIT_BRIDGE_CANARY_INTERVAL)";
        let cluster = Cluster::connect_with(headers)
            .await
            .map_err(|error| SendFailure::unsent("unreachable", &error, off))?;
        if self.user.is_none() {
            self.user = self.ask_user().await?;
        }
        let expected = ExpectedRequest {
            user: self.user.clone().flatten(),
            request: self.request,
            namespace: cluster.namespace().to_owned(),
            name: self.name.clone(),
        };
        Ok(ReadyCanary {
            cluster,
            mark,
            expected,
        })
    }

    /// Sends it, and waits for the API server's answer.
    ///
    /// # Errors
    /// The API server has not taken it, or refuses it.
    pub(crate) async fn send(&self, canary: &ReadyCanary) -> Result<(), SendFailure> {
        let (cluster, name) = (&canary.cluster, &self.name);
        let api: Api<ConfigMap> = Api::namespaced(cluster.client(), cluster.namespace());
        let answered = match self.request {
            CanaryRequest::Get => bounded(REQUEST_MAX, api.get(name)).await,
            CanaryRequest::Patch => {
                // Without a change the API server writes nothing.
                let (how, nothing) = (PatchParams::default(), Patch::Merge(json!({})));
                bounded(REQUEST_MAX, api.patch(name, &how, &nothing)).await
            }
        };
        match answered {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(&error, cluster.namespace())),
        }
    }

    /// Our user name; `Some(None)` where the API server cannot say (before Kubernetes 1.28).
    async fn ask_user(&self) -> Result<Option<Option<String>>, SendFailure> {
        let cluster = Cluster::connect(self.bridge, None).await;
        let cluster = cluster.map_err(|error| SendFailure::unsent("unreachable", &error, ""))?;
        let api: Api<SelfSubjectReview> = Api::all(cluster.client());
        let review = SelfSubjectReview::default();
        match bounded(REQUEST_MAX, api.create(&PostParams::default(), &review)).await {
            Ok(answer) => {
                let user = answer.status.and_then(|status| status.user_info);
                Ok(Some(user.and_then(|user| user.username)))
            }
            Err(error) => match error.kind() {
                ApiErrorKind::NotFound | ApiErrorKind::Forbidden(ForbiddenReason::Role) => {
                    tracing::info!(
                        %error,
                        "the API server does not say who this pod is: canaries are known by mark, verb \
                         and object alone"
                    );
                    Ok(Some(None))
                }
                _ => Err(self.failure(&error, cluster.namespace())),
            },
        }
    }

    fn failure(&self, error: &ApiError, namespace: &str) -> SendFailure {
        let (name, verb) = (&self.name, self.request.verb());
        let (status, is_audited) = match error.kind() {
            ApiErrorKind::Unauthorized => ("unauthorized", false),
            ApiErrorKind::Forbidden(_) => ("forbidden", true),
            ApiErrorKind::NotFound => ("not_found", true),
            ApiErrorKind::TimedOut => ("timeout", false),
            ApiErrorKind::Unreachable => ("unreachable", false),
            ApiErrorKind::AlreadyExists | ApiErrorKind::Conflict | ApiErrorKind::Other => {
                ("error", false)
            }
        };
        let remedy = match error.kind() {
            ApiErrorKind::Forbidden(ForbiddenReason::Role) => format!(
                "give the pod's service account a Role with the verb {verb} on the ConfigMap {name} in \
                 the namespace {namespace}, as the chart does with canary.enabled; the API server logs \
                 the refusal too, so canaries go on"
            ),
            ApiErrorKind::NotFound => format!(
                "make a ConfigMap {name} without data in the namespace {namespace}, as the chart does \
                 with canary.enabled; the API server logs the request all the same, so canaries go on"
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
