//! Checks whether each selected log shows entries. Logs that the identity may not read, that are
//! not written, or that a sink excludes are all missing without an error.
//!
//! `entries.list` accepts a caller with any one of its permissions, and leaves out what needs
//! another (its reference: "one or more of"). So each log is queried separately. If it shows
//! nothing, it is queried again without the filter for clusters, to see whether the identity sees
//! that log at all. The right to read logs reveals no more. This takes one or two requests per log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_tail::{Limiter, QueryError};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::client::filter::{AuditLog, Selection};
use crate::client::logging::CloudLoggingClient;
use crate::client::resource_name::ResourceName;

/// How far back to look for an entry.
pub(super) const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);
/// Interval after queries that failed.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What one log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// An entry with this time.
    Newest(Option<Timestamp>),
    /// No entries of the clusters, but entries of other services.
    OthersOnly,
    /// No entries.
    Nothing,
}

/// Queries for entries of one log. Waits for the limiter, if there is one.
///
/// # Errors
/// The log cannot be queried.
pub(super) async fn look(
    client: &CloudLoggingClient,
    selection: &Selection,
    log: AuditLog,
    limiter: Option<&Limiter>,
) -> Result<Coverage, QueryError> {
    let newest = async |filter: &str| {
        if let Some(limiter) = limiter {
            limiter.acquire().await;
        }
        client.newest(filter, LOOK_BACK, 1).await
    };
    let one = only(selection, log);
    if let Some(entry) = newest(&one.filter()).await?.first() {
        return Ok(Coverage::Newest(entry.time));
    }
    Ok(match newest(log.filter()).await?.is_empty() {
        true => Coverage::Nothing,
        false => Coverage::OthersOnly,
    })
}

/// The selection, reduced to this log.
pub(super) fn only(selection: &Selection, log: AuditLog) -> Selection {
    Selection {
        logs: match log {
            AuditLog::Activity => &[AuditLog::Activity],
            AuditLog::DataAccess => &[AuditLog::DataAccess],
        },
        ..selection.clone()
    }
}

impl Coverage {
    /// What is wrong with a log that shows no entries of the clusters, and the remedy; `None` if it
    /// shows some.
    pub(super) fn gap(
        &self,
        log: AuditLog,
        selection: &Selection,
        principal: Option<&str>,
    ) -> Option<Unavailable> {
        if matches!(self, Coverage::Newest(_)) {
            return None;
        }
        let hours = LOOK_BACK.as_hours();
        let clusters = selection.name();
        let reason = format!(
            "no {} entry of the last {hours} h of {clusters} can be seen in {}",
            log.name(),
            selection.places(),
        );
        let remedy = match (log, self) {
            (AuditLog::Activity, _) => format!(
                "Google always writes this log, so check --project-id, --cluster-name and \
                 --location, the role ({}), and {}",
                role(log, selection, principal),
                exclusions(selection, "_Required"),
            ),
            (AuditLog::DataAccess, _) if never_there(selection) => {
                "these log views are without Data Access, whatever is granted: name the view \
                 projects/PROJECT/locations/global/buckets/_Default/views/_AllLogs, or one of \
                 your own, with --resource-name, or take out --include-data-access"
                    .to_owned()
            }
            // The role is granted: it sees entries of other services.
            (AuditLog::DataAccess, Coverage::OthersOnly) => {
                format!(
                    "{}; or {}",
                    data_read(selection),
                    exclusions(selection, "_Default")
                )
            }
            (AuditLog::DataAccess, _) => format!(
                "either the role is missing ({}), or {}; or {}",
                role(log, selection, principal),
                data_read(selection),
                exclusions(selection, "_Default"),
            ),
        };
        Some(Unavailable {
            component: Component::Source,
            reason,
            remedy,
        })
    }
}

/// The role that allows reading a log, and where to grant it.
fn role(log: AuditLog, selection: &Selection, principal: Option<&str>) -> String {
    let role = match log {
        AuditLog::Activity => "roles/logging.viewer",
        AuditLog::DataAccess => "roles/logging.privateLogViewer",
    };
    let views = selection
        .resource_names
        .iter()
        .all(|place| place.view().is_some());
    let role = match views {
        true => "roles/logging.viewAccessor",
        false => role,
    };
    let whom = principal.unwrap_or("the identity of the bridge");
    format!("{role} on {} for {whom}", selection.places())
}

fn data_read(selection: &Selection) -> String {
    let project = selection.project.as_deref().unwrap_or("PROJECT");
    format!(
        "Data Read is off for the Kubernetes Engine API (IAM & Admin, Audit Logs; gcloud projects \
         get-iam-policy {project} --format='yaml(auditConfigs)'): a running cluster reads all the time"
    )
}

/// Remedy for entries that a sink excludes, or routes elsewhere.
fn exclusions(selection: &Selection, sink: &str) -> String {
    let place = selection.resource_names.first();
    let flag = place.map_or_else(|| "--project PROJECT".to_owned(), ResourceName::owner_flag);
    let mut text = format!(
        "a log sink excludes or does not route it: gcloud logging sinks list {flag}; gcloud logging \
         sinks describe {sink} {flag}"
    );
    if selection
        .resource_names
        .iter()
        .any(ResourceName::is_above_projects)
    {
        text.push_str(
            "; a folder or an organization has the entries of its projects only where an aggregated \
             sink brings them: name the log view of the bucket where they are",
        );
    }
    text
}

/// Whether none of the places can have Data Access entries.
fn never_there(selection: &Selection) -> bool {
    selection
        .resource_names
        .iter()
        .all(ResourceName::excludes_data_access)
}

/// Queries each log until there is an answer, and logs a warning for those that show no entries.
/// Reading continues meanwhile.
pub(super) async fn warn_of_gaps(
    client: CloudLoggingClient,
    selection: Selection,
    limiter: Arc<Limiter>,
    done: Arc<AtomicBool>,
) {
    let mut open = selection.logs.to_vec();
    while !open.is_empty() {
        let mut unanswered = Vec::new();
        for log in open {
            match look(&client, &selection, log, Some(&limiter)).await {
                Ok(coverage) => {
                    let principal = client.principal().await;
                    if let Some(gap) = coverage.gap(log, &selection, principal.as_deref()) {
                        warn!(
                            log = selection.name(),
                            reason = gap.reason,
                            remedy = gap.remedy,
                            "log shows no entries"
                        );
                    }
                }
                // The tail meets the same error, and reports it.
                Err(_) => unanswered.push(log),
            }
        }
        open = unanswered;
        if !open.is_empty() {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    if let Some(principal) = client.principal().await {
        info!(
            log = selection.name(),
            principal, "log is read with this identity"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(places: &[&str], coverage: Coverage, log: AuditLog) -> String {
        let selection = Selection {
            resource_names: places
                .iter()
                .map(|place| ResourceName::read(place).unwrap())
                .collect(),
            project: Some("p".to_owned()),
            cluster: None,
            location: None,
            logs: Selection::logs(true),
        };
        let gap = coverage
            .gap(log, &selection, Some("me@example.com"))
            .unwrap();
        format!("{}: {}", gap.reason, gap.remedy)
    }

    fn check(places: &[&str], coverage: Coverage, log: AuditLog, says: &[&str], not: &[&str]) {
        let said = gap(places, coverage, log);
        for part in says {
            assert!(said.contains(part), "{part}: {said}");
        }
        for part in not {
            assert!(!said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn gap_names_role_audit_configuration_and_exclusion() {
        let (data, activity) = (AuditLog::DataAccess, AuditLog::Activity);
        let role = "roles/logging.privateLogViewer on project p for me@example.com";
        let sink = "gcloud logging sinks describe _Default --project p";
        let off = "Data Read is off";
        check(
            &["projects/p"],
            Coverage::Nothing,
            data,
            &[role, sink, off],
            &[],
        );
        check(
            &["projects/p"],
            Coverage::OthersOnly,
            data,
            &[sink, off],
            &[role],
        );
        let viewer = "roles/logging.viewer on project p";
        check(
            &["projects/p"],
            Coverage::Nothing,
            activity,
            &[viewer, "--cluster-name"],
            &[off],
        );
        let view = "projects/p/locations/global/buckets/audit/views/gke";
        let accessor = format!("roles/logging.viewAccessor on log view {view}");
        check(
            &[view],
            Coverage::Nothing,
            data,
            &[&accessor, off],
            &["privateLogViewer"],
        );
        let required = "projects/p/locations/global/buckets/_Required/views/_AllLogs";
        check(
            &[required],
            Coverage::Nothing,
            data,
            &["buckets/_Default/views/_AllLogs"],
            &[off],
        );
        check(&[required, view], Coverage::Nothing, data, &[off], &[]);
        check(
            &["folders/1"],
            Coverage::Nothing,
            activity,
            &["aggregated sink", "--folder 1"],
            &[],
        );
        let shown = Coverage::Newest(None);
        let selection = Selection {
            resource_names: vec![ResourceName::project("p")],
            project: None,
            cluster: None,
            location: None,
            logs: Selection::logs(true),
        };
        assert_eq!(shown.gap(data, &selection, None), None);
    }
}
