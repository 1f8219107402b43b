//! A canary tests the whole path: a harmless request to the API server that this pod runs under.
//! Its audit event must come back through the provider's log and be accepted by the webhook.
//!
//! Only a canary measures whether the path is complete on the user's own cloud, and how long an
//! event takes. One that does not come back is counted as lost, with the part of the path that is
//! silent ([`Leg`]). A lost canary never restarts anything, and affects neither readiness nor
//! delivery.
//!
//! # What makes an event ours
//! Each request carries a random [`Mark`], used once, in two places. One is its `Audit-ID`:
//! `k8s.io/apiserver` uses the client's value as the event's `auditID` (its
//! `pkg/endpoints/filters/request_received_time.go` and `pkg/audit/context.go`; shown with a real
//! kube-apiserver). The other is the end of its `User-Agent`. One of them is enough: GKE's entries
//! keep the user agent as `requestMetadata.callerSuppliedUserAgent` (Google's
//! `google.cloud.audit.AuditLog`), and in public samples `operation.id` is mostly, not always, the
//! `auditID`.
//!
//! The mark alone is not enough, since everyone who reads the log sees it. The event must also be
//! of our own user (which the API server tells us, `SelfSubjectReview`), without impersonation,
//! with our verb and object, and of a canary that is still pending. An event with a mark that fails
//! this is delivered as any other, with a warning.
//!
//! # Which request
//! One that each cloud's audit policy logs: a merge patch of our own `ConfigMap`. It is a write
//! because GKE's Admin Activity log has no reads (Google's page "Audit policy": get and list are
//! Data Access), nor has AKS's category `kube-audit-admin`, which many export alone (Microsoft's
//! "AKS monitoring data reference"); EKS logs both, at the level `Metadata` (EKS Best Practices,
//! "Auditing and logging"). It is not a URL such as `/version`: EKS's policy and GKE's
//! (`create-master-audit-policy`, which "Audit policy" names) leave `/healthz*`, `/version` and
//! `/swagger*` out.
//!
//! # Who waits for it
//! The patch writes the mark's hash and the time into the object ([`records`]). So if a process
//! dies with a canary in flight, the next process waits for it, and if another replica receives the
//! event, it is counted there. Where one process reads everything ([`CanarySettings::shared`] is
//! false) it needs no record to recognise its own canaries.
//!
//! # What it costs
//! A canary costs one request, and recording its end another one; where another replica received
//! its event, that replica reads the records first: three requests per `--canary-interval`, and one
//! read for each replica that does not send. Events that look like a canary but are none cost a
//! read, at most one a second.

mod check;
mod event;
mod leg;
mod mark;
mod observer;
mod records;
pub(crate) mod sender;
mod settle;
mod task;
mod watch;

use std::time::Duration;

pub(crate) use self::check::ask_replicas;
pub(crate) use self::event::{CanaryIdentity, ExpectedRequest};
pub(crate) use self::leg::Leg;
pub(crate) use self::mark::Mark;
pub(crate) use self::observer::CanaryObserver;
pub(crate) use self::task::{CanaryTask, spawn};
pub(crate) use self::watch::CanaryWatch;

/// The settings of canaries, from `--canary-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CanarySettings {
    /// The time between two canaries; `None`: none are sent.
    pub(crate) interval: Option<Duration>,
    /// A canary that the webhook has not accepted after this time is lost.
    pub(crate) wait_max: Duration,
    /// Whether the webhook gets the canaries' events. Otherwise they are skipped as `canary`, and
    /// count as arrived once they are read.
    pub(crate) deliver: bool,
    /// Whether other processes may receive the events of canaries: replicas that share the logs.
    pub(crate) shared: bool,
}
