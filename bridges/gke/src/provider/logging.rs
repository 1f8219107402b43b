//! A live log from Cloud Logging's API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_bridge_app::config::bad_position;
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::chain::chain;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::StoredPositions;
use audit_bridge_tail::{
    Limiter, Paired, QueryError, SystemClock, Tail, TailSettings, TimeLog as _, cursor_times,
    split_positions,
};
use jiff::{SignedDuration, Timestamp};

use super::coverage::{self, Coverage, LOOK_BACK};
use super::{Logging, Named, identity, no_identity};
use crate::client::filter::{AuditLog, Selection};
use crate::client::late::LateEntries;
use crate::client::logging::CloudLoggingClient;
use crate::client::metadata::{self, InstanceMetadata};
use crate::client::resource_name::ResourceName;
use crate::wire;

/// Longest retention of a bucket: ten years.
const KEPT_MAX: SignedDuration = SignedDuration::from_hours(3650 * 24);
/// Time until a received entry can be found. Shorter if the interval for late entries is short, as
/// in tests.
const SETTLED_AFTER: Duration = Duration::from_secs(300);
/// Late entries older than this are not queried for.
const LATE_BACK_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Cloud Logging, as configured.
#[derive(Debug)]
pub struct LoggingProvider {
    pub(super) logging: Logging,
    /// Shared by all requests that use the project's quota.
    pub(super) limiter: Arc<Limiter>,
    /// Whether each log was checked for missing entries.
    pub(super) looked: Arc<AtomicBool>,
}

impl Provider for LoggingProvider {
    type Log = LoggingLog;

    async fn connect(&self) -> Result<Vec<LoggingLog>, Unavailable> {
        Ok(vec![LoggingLog::find(self).await?])
    }
}

/// A log that is read through the API.
#[derive(Debug)]
pub struct LoggingLog {
    settings: Logging,
    selection: Selection,
    name: String,
    limiter: Arc<Limiter>,
    looked: Arc<AtomicBool>,
}

impl LoggingLog {
    /// Determines project and cluster, and selects the log.
    async fn find(provider: &LoggingProvider) -> Result<LoggingLog, Unavailable> {
        let settings = &provider.logging;
        let here = here(settings).await?;
        let selection = select(settings, here).ok_or_else(|| Unavailable {
            component: Component::Source,
            reason: "no project is known".to_owned(),
            remedy: "name it with --project-id (AUDIT_BRIDGE_PROJECT_ID)".to_owned(),
        })?;
        Ok(LoggingLog {
            settings: settings.clone(),
            name: selection.name(),
            selection,
            limiter: Arc::clone(&provider.limiter),
            looked: Arc::clone(&provider.looked),
        })
    }

    fn client(&self) -> Result<CloudLoggingClient, Unavailable> {
        let endpoint = &self.settings.endpoint;
        CloudLoggingClient::new(endpoint, self.selection.clone()).map_err(|error| Unavailable {
            component: Component::Source,
            reason: chain(&error),
            remedy: "check the system's certificates (SSL_CERT_FILE)".to_owned(),
        })
    }
}

/// Where this process runs, if the settings leave that open.
///
/// An unreachable metadata server is an error: if "unknown" meant "everywhere", the bridge would
/// read other clusters' logs whenever its node is slow to start.
async fn here(settings: &Logging) -> Result<InstanceMetadata, Unavailable> {
    let names = &settings.names;
    let unset = names.cluster == Named::Unset && names.location == Named::Unset;
    let settled = match names.project {
        Named::Unset => !settings.resource_names.is_empty(),
        Named::Any => true,
        Named::One(_) => !unset,
    };
    if settled || (settings.endpoint.plain && !metadata::host_is_named()) {
        return Ok(InstanceMetadata::default());
    }
    metadata::place().await.map_err(|error| Unavailable {
        component: Component::Source,
        reason: format!("project and cluster are not known: the metadata server: {error}"),
        remedy: "outside of Google Cloud name --project-id and --cluster-name (* is all clusters)"
            .to_owned(),
    })
}

/// The selection by the settings, completed by where this process runs: its cluster and location
/// are only used for its own project, and only if the settings name neither. Places of
/// `--resource-name` are read completely, unless a project is named too.
fn select(settings: &Logging, here: InstanceMetadata) -> Option<Selection> {
    let names = &settings.names;
    let named = !settings.resource_names.is_empty();
    let project = match names.project.name() {
        None if !named => Some(here.project.clone()?),
        project => project,
    };
    let unset = names.cluster == Named::Unset && names.location == Named::Unset;
    let (cluster, location) = match unset && project.is_some() && here.project == project {
        true => (here.cluster, here.location),
        false => (names.cluster.name(), names.location.name()),
    };
    let resource_names = match &project {
        Some(project) if !named => vec![ResourceName::project(project)],
        _ => settings.resource_names.clone(),
    };
    Some(Selection {
        resource_names,
        project,
        cluster,
        location,
        logs: Selection::logs(settings.data_access),
    })
}

impl ProviderLog for LoggingLog {
    type Source = Paired<Tail<CloudLoggingClient>, Tail<LateEntries>>;

    fn name(&self) -> &str {
        &self.name
    }

    fn silence_remedy(&self) -> String {
        let mut owners: Vec<_> = self.selection.resource_names.iter().collect();
        owners.truncate(3);
        let owners: Vec<String> = owners.iter().map(|it| it.owner_flag()).collect();
        let commands = owners.iter().map(|flag| {
            format!(
                "gcloud logging sinks describe _Default {flag}; gcloud logging sinks list {flag}"
            )
        });
        let commands: Vec<String> = commands.collect();
        format!(
            "a running cluster is seldom so quiet: check --project-id, --cluster-name and \
             --location, and whether entries are excluded or turned away: {}",
            commands.join("; ")
        )
    }

    async fn open(&self, mut resume: Resume) -> Result<Self::Source, Unavailable> {
        let mut client = self.client()?;
        if !self.looked.load(Ordering::Relaxed) {
            let (limiter, looked) = (Arc::clone(&self.limiter), Arc::clone(&self.looked));
            let (beside, selection) = (self.client()?, self.selection.clone());
            client.accompany(coverage::warn_of_gaps(beside, selection, limiter, looked));
        }
        let earliest = Timestamp::now().checked_sub(KEPT_MAX);
        let earliest = earliest.unwrap_or(Timestamp::UNIX_EPOCH);
        let (first, second) = split_positions(std::mem::take(&mut resume.positions));
        resume.positions = first;
        let late = self.late_tail(&resume, second, earliest)?;
        let limiter = Arc::clone(&self.limiter);
        let tail = self
            .settings
            .tail
            .open(client, resume, earliest, limiter)
            .await?;
        Ok(Paired::new(tail, late))
    }

    async fn check(&self) -> Vec<Finding> {
        let log = match self.client() {
            Ok(log) => log,
            Err(unavailable) => return vec![Finding::failed("source", unavailable)],
        };
        let identity = match log.identify().await {
            Ok(true) => identity(log.principal().await),
            Ok(false) => no_identity(),
            Err(missing) => return vec![Finding::failed("identity", missing.into_unavailable())],
        };
        let mut source = match self.probe_source(&log).await {
            Ok(found) => Finding::ok("source", found),
            Err(unavailable) => Finding::failed("source", unavailable),
        };
        source.server_time = log.server_time();
        let readable = source.result.is_ok();
        let mut found = vec![identity, source];
        if readable && self.selection.data_access() {
            found.push(self.check_data_access(&log).await);
        }
        found
    }
}

impl LoggingLog {
    /// The tail for late entries; `None` if it is switched off, or the job has an end.
    fn late_tail(
        &self,
        resume: &Resume,
        mut positions: StoredPositions,
        earliest: Timestamp,
    ) -> Result<Option<Tail<LateEntries>>, Unavailable> {
        let Some(interval) = self.settings.late_interval else {
            return Ok(None);
        };
        if resume.until.is_some() {
            return Ok(None);
        }
        let began = resume.positions.get(&0).and_then(cursor_times);
        let start = Timestamp::now();
        let oldest = start.checked_sub(LATE_BACK_MAX).unwrap_or(Timestamp::MIN);
        let kept = positions.get(&0).and_then(cursor_times);
        // The stored position may be from a time before this flag was set.
        let start = match kept {
            Some((_, read_to)) if read_to >= oldest => start,
            Some(_) => {
                positions.clear();
                oldest
            }
            None => {
                positions.clear();
                start
            }
        };
        let log = LateEntries {
            client: self.client()?,
            name: format!("{} (late entries)", self.name),
            age: self.settings.tail.oldest_age(),
            settled_after: SETTLED_AFTER.min(interval / 2),
            since: began.map_or_else(|| resume.start.time(earliest), |(since, _)| since),
            observer: Arc::new(resume.telemetry.clone()),
        };
        let settings = TailSettings {
            poll_interval: interval,
            start,
            ..TailSettings::default()
        };
        let limiter = Arc::clone(&self.limiter);
        let tail = Tail::new(log, settings, &positions, limiter, Arc::new(SystemClock));
        tail.map(Some).map_err(|error| bad_position(&error))
    }

    /// Checks whether Data Access, if selected, shows entries.
    async fn check_data_access(&self, client: &CloudLoggingClient) -> Finding {
        let (what, log) = ("data access", AuditLog::DataAccess);
        let principal = client.principal().await;
        match coverage::look(client, &self.selection, log, None).await {
            Err(error) => Finding::failed(what, to_unavailable(error)),
            Ok(coverage) => match coverage.gap(log, &self.selection, principal.as_deref()) {
                Some(gap) => Finding::failed(what, gap),
                None => {
                    let time = match coverage {
                        Coverage::Newest(Some(time)) => time.to_string(),
                        _ => "?".to_owned(),
                    };
                    Finding::ok(what, format!("can be read; newest entry {time}"))
                }
            },
        }
    }

    /// Finds an entry of the selected Admin Activity log, or says what the log shows instead.
    async fn probe_source(&self, log: &CloudLoggingClient) -> Result<String, Unavailable> {
        let activity = coverage::only(&self.selection, AuditLog::Activity);
        let newest = log
            .newest(&activity.filter(), LOOK_BACK, 1)
            .await
            .map_err(to_unavailable)?;
        let places = self.selection.places();
        if let Some(entry) = newest.first() {
            let time = entry.time.map_or("?".to_owned(), |time| time.to_string());
            let name = &self.name;
            return Ok(format!(
                "{name} can be read in {places}; newest entry {time}"
            ));
        }
        let everywhere = Selection {
            project: None,
            cluster: None,
            location: None,
            ..activity.clone()
        };
        let entries = log
            .newest(&everywhere.filter(), LOOK_BACK, 1000)
            .await
            .map_err(to_unavailable)?;
        let clusters: BTreeSet<String> = entries
            .iter()
            .filter_map(|entry| {
                let mut read = wire::Entry::default();
                read.read(std::str::from_utf8(&entry.text).ok()?).ok()?;
                let cluster = read.resource.cluster_name?;
                let location = read.resource.location.unwrap_or_default();
                let project = read.resource.project_id.unwrap_or_default();
                Some(match self.selection.project.as_deref() == Some(&*project) {
                    true => format!("{cluster} in {location}"),
                    false => format!("{cluster} in {location} of project {project}"),
                })
            })
            .collect();
        let others = match clusters.is_empty() {
            true => format!("nor of any other cluster of {places}"),
            false => {
                let clusters: Vec<&str> = clusters.iter().map(String::as_str).collect();
                format!("but of {}", clusters.join(", "))
            }
        };
        let principal = log.principal().await;
        let gap = Coverage::Nothing.gap(AuditLog::Activity, &activity, principal.as_deref());
        Err(Unavailable {
            component: Component::Source,
            reason: format!(
                "{} can be read, but has no audit entry of the last 24 h, {others}",
                self.name
            ),
            remedy: match (clusters.is_empty(), gap) {
                (true, Some(gap)) => gap.remedy,
                _ => "check --project-id, --cluster-name and --location".to_owned(),
            },
        })
    }
}

/// The failure of a request, for `check`.
fn to_unavailable(error: QueryError) -> Unavailable {
    let what = error.to_string();
    let (component, remedy) = match error {
        QueryError::Unauthenticated { remedy, .. } => (Component::Identity, remedy),
        QueryError::Denied { remedy, .. } => (Component::Source, remedy),
        QueryError::Throttled { .. } => (
            Component::Source,
            "wait a minute: the project's quota of 60 requests a minute is used up".to_owned(),
        ),
        QueryError::TokenExpired | QueryError::Transient { .. } => (
            Component::Source,
            "check that the API can be reached from here (network policies, proxies, \
             --logging-endpoint)"
                .to_owned(),
        ),
    };
    Unavailable {
        component,
        reason: what,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use audit_bridge_app::config::{Problems, TailArgs};
    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::client::endpoint::Endpoint;
    use crate::provider::Names;

    fn named(text: &str) -> Named {
        match text {
            "" => Named::Unset,
            "*" => Named::Any,
            name => Named::One(name.to_owned()),
        }
    }

    fn settings([project, cluster, location]: [&str; 3], places: &[&str]) -> Logging {
        let matches = TailArgs::augment_args(clap::Command::new("t")).get_matches_from(["t"]);
        let tail = TailArgs::from_arg_matches(&matches).unwrap();
        Logging {
            endpoint: Endpoint::google("logging.example.com"),
            names: Names {
                project: named(project),
                cluster: named(cluster),
                location: named(location),
            },
            resource_names: places
                .iter()
                .map(|place| ResourceName::read(place).unwrap())
                .collect(),
            data_access: false,
            tail: tail.check(&[30], &mut Problems::default()),
            late_interval: None,
        }
    }

    fn check_in(places: &[&str], set: [&str; 3], want: &str) -> Vec<String> {
        let here = InstanceMetadata {
            project: Some("here".to_owned()),
            cluster: Some("cluster".to_owned()),
            location: Some("zone".to_owned()),
        };
        let selection = select(&settings(set, places), here).unwrap();
        assert_eq!(selection.name(), want, "{places:?} {set:?}");
        let places = selection.resource_names.iter();
        places.map(|place| place.as_str().to_owned()).collect()
    }

    fn check(set: [&str; 3], want: &str) {
        let places = check_in(&[], set, want);
        let project = want.split("/locations/").next().unwrap();
        assert_eq!(places, [project]);
    }

    #[test]
    fn settings_missing_come_from_the_metadata_server() {
        check(
            ["", "", ""],
            "projects/here/locations/zone/clusters/cluster",
        );
        check(
            ["here", "", ""],
            "projects/here/locations/zone/clusters/cluster",
        );
        check(["there", "", ""], "projects/there/locations/-/clusters/-");
        check(
            ["", "other", ""],
            "projects/here/locations/-/clusters/other",
        );
        check(["", "*", ""], "projects/here/locations/-/clusters/-");
        check(["", "", "*"], "projects/here/locations/-/clusters/-");
        check(["", "*", "zone"], "projects/here/locations/zone/clusters/-");
        check(["there", "c", "l"], "projects/there/locations/l/clusters/c");
        let nowhere = InstanceMetadata::default();
        assert_eq!(select(&settings(["", "c", "l"], &[]), nowhere), None);
    }

    #[test]
    fn resource_names_hold_all_clusters_unless_a_project_is_named() {
        let view = "folders/1/locations/global/buckets/audit/views/gke";
        let places = [view, "projects/central"];
        for (set, want) in [
            (["", "", ""], "projects/-/locations/-/clusters/-"),
            (["*", "", ""], "projects/-/locations/-/clusters/-"),
            (["", "c", "l"], "projects/-/locations/l/clusters/c"),
            (
                ["here", "", ""],
                "projects/here/locations/zone/clusters/cluster",
            ),
            (["here", "*", ""], "projects/here/locations/-/clusters/-"),
            (["there", "", ""], "projects/there/locations/-/clusters/-"),
        ] {
            assert_eq!(check_in(&places, set, want), places);
        }
        let nowhere = InstanceMetadata::default();
        assert!(select(&settings(["", "", ""], &places), nowhere).is_some());
    }
}
