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
//! One that each cloud's audit policy logs: a merge patch of a `ConfigMap` of our own. A write, since GKE's
//! Admin Activity log has no reads (Google's page "Audit policy": get and list are Data Access), nor has
//! AKS's category `kube-audit-admin`, which many export alone (Microsoft's "AKS monitoring data
//! reference"); EKS logs both, at the level `Metadata` (EKS Best Practices, "Auditing and logging"). No URL
//! such as `/version`: EKS's policy and GKE's (`create-master-audit-policy`, which "Audit policy" names)
//! leave `/healthz*`, `/version` and `/swagger*` out.
//!
//! # Who waits for it
//! The patch writes the mark's hash and the time into the object ([`records`]): so a canary that is under
//! way when its process dies is waited for by the next one, and one whose event comes to another replica
//! is counted there. Where one process reads ([`CanarySettings::shared`] is false) it needs no record to
//! know its own.
//!
//! # What it costs
//! A canary is one request, and the note of its end another one; where another replica was given its event
//! it looks first: three requests per `--canary-interval`, and one look for each replica that does not send.
//! Events that have the form of a canary and are none cost a look, at most one a second.

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
    /// Other processes may be given the events of canaries: replicas that share what is read.
    pub(crate) shared: bool,
}
