//! A canary through the whole path: a harmless request to the API server that this pod runs under, of
//! which the audit event has to come back through the provider's log and be accepted by the webhook.
//!
//! It measures what nothing else can: whether the trail is whole on the user's own cloud, and how late
//! it is. One that does not come back is counted as lost, with the leg of the way that is silent
//! ([`Leg`]). It is never a reason to restart anything, to be unready, or to hold up delivery.
//!
//! # What makes an event ours
//! Each request carries a [`Mark`], random and used once, in two places: as its `Audit-ID`, which
//! `k8s.io/apiserver` takes for the event's `auditID` as a client sends it (its
//! `pkg/endpoints/filters/request_received_time.go` and `pkg/audit/context.go`; shown with a real
//! kube-apiserver), and at the end of its `User-Agent`. One of them is enough: GKE's entries keep the
//! user agent as `requestMetadata.callerSuppliedUserAgent` (Google's `google.cloud.audit.AuditLog`), and
//! in public samples `operation.id` is mostly, not always, the `auditID`.
//!
//! The mark alone is not enough, since whoever reads the log sees it: the event must also be of our own
//! user (asked of the API server, `SelfSubjectReview`), without impersonation, of our verb and our
//! object, and of a canary that is still waited for. What bears a mark and fails in that is delivered as
//! any other event, and warned about.
//!
//! # Which request
//! One that each cloud's audit policy logs ([`CanaryRequest`]), at a `ConfigMap` of our own that holds
//! nothing. No URL such as `/version`: EKS's policy (EKS Best Practices, "Auditing and logging") and
//! GKE's (`create-master-audit-policy`, which Google's page "Audit policy" names) leave `/healthz*`,
//! `/version` and `/swagger*` out.

mod event;
mod leg;
mod mark;
mod observer;
pub(crate) mod sender;
mod task;
mod watch;

use std::time::Duration;

pub(crate) use self::event::{CanaryIdentity, ExpectedRequest};
pub(crate) use self::leg::Leg;
pub(crate) use self::mark::Mark;
pub(crate) use self::observer::CanaryObserver;
pub(crate) use self::task::{CanaryTask, spawn};
pub(crate) use self::watch::CanaryWatch;

/// The smallest request that a provider's audit log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryRequest {
    /// A GET of the `ConfigMap`: EKS's audit policy logs it, at the level `Metadata`.
    Get,
    /// An empty merge patch of the `ConfigMap`, which changes nothing: the API server writes nothing to
    /// etcd. For a log that has no reads: GKE's Admin Activity log (Google's page "Audit policy": get
    /// and list are Data Access), and AKS's category `kube-audit-admin`, which many export alone
    /// (Microsoft's "AKS monitoring data reference": it excludes get and list).
    Patch,
}

impl CanaryRequest {
    /// The verb, as the audit event and a Role have it.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            CanaryRequest::Get => "get",
            CanaryRequest::Patch => "patch",
        }
    }
}

/// How canaries are sent: `--canary-interval` and its company.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CanarySettings {
    /// From one to the next; `None`: none is sent.
    pub(crate) interval: Option<Duration>,
    /// One that is not accepted by the webhook after this time is lost.
    pub(crate) wait_max: Duration,
    /// Whether the webhook gets their events. Otherwise they are skipped as `canary`, and have
    /// arrived when they were read.
    pub(crate) deliver: bool,
}
