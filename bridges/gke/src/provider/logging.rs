//! Cloud Logging's API as a live log.

use std::collections::BTreeSet;
use std::sync::Arc;

use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_tail::{Limiter, QueryError, Tail};
use jiff::{SignedDuration, Timestamp};

use super::{Logging, Named, identity, no_identity};
use crate::client::filter::Selection;
use crate::client::logging::CloudLoggingClient;
use crate::client::metadata::{self, InstanceMetadata};
use crate::wire;

/// No bucket keeps entries longer: ten years.
const KEPT_MAX: SignedDuration = SignedDuration::from_hours(3650 * 24);
/// How far back `check` looks for an entry.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);

/// Cloud Logging, as configured.
#[derive(Debug)]
pub struct LoggingProvider {
    pub(super) logging: Logging,
    /// One for all requests that draw on the project's quota.
    pub(super) limiter: Arc<Limiter>,
}

impl Provider for LoggingProvider {
    type Log = LoggingLog;

    async fn connect(&self) -> Result<Vec<LoggingLog>, Unavailable> {
        Ok(vec![LoggingLog::find(&self.logging, &self.limiter).await?])
    }
}

/// One log that is read through the API.
#[derive(Debug)]
pub struct LoggingLog {
    settings: Logging,
    selection: Selection,
    name: String,
    limiter: Arc<Limiter>,
}

impl LoggingLog {
    /// Finds out whose log it is.
    async fn find(settings: &Logging, limiter: &Arc<Limiter>) -> Result<LoggingLog, Unavailable> {
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
            limiter: Arc::clone(limiter),
        })
    }

    fn client(&self) -> Result<CloudLoggingClient, Unavailable> {
        let endpoint = &self.settings.endpoint;
        CloudLoggingClient::new(endpoint, self.selection.clone()).map_err(|what| Unavailable {
            component: Component::Source,
            reason: what,
            remedy: "check the system's certificates (SSL_CERT_FILE)".to_owned(),
        })
    }
}

/// Where this runs, when the settings leave something to it.
///
/// A server that cannot be reached is no answer: a bridge that took "unknown" for "everywhere"
/// would read other clusters whenever its node is slow to start.
async fn here(settings: &Logging) -> Result<InstanceMetadata, Unavailable> {
    let names = &settings.names;
    let settled = names.project != Named::Unset
        && (names.cluster != Named::Unset || names.location != Named::Unset);
    if settled || (settings.endpoint.plain && !metadata::host_is_named()) {
        return Ok(InstanceMetadata::default());
    }
    metadata::place().await.map_err(|what| Unavailable {
        component: Component::Source,
        reason: format!("project and cluster are not known: the metadata server: {what}"),
        remedy: "outside of Google Cloud name --project-id and --cluster-name (* is all clusters)"
            .to_owned(),
    })
}

/// What to read: as the settings say, and for the rest what is here. Another project's clusters
/// have nothing to do with this one, nor has another cluster's location.
fn select(settings: &Logging, here: InstanceMetadata) -> Option<Selection> {
    let names = &settings.names;
    let project = names.project.name().or(here.project.clone())?;
    let unset = names.cluster == Named::Unset && names.location == Named::Unset;
    let (cluster, location) = match unset && here.project.as_ref() == Some(&project) {
        true => (here.cluster, here.location),
        false => (names.cluster.name(), names.location.name()),
    };
    Some(Selection {
        project,
        cluster,
        location,
        data_access: settings.data_access,
    })
}

impl ProviderLog for LoggingLog {
    type Source = Tail<CloudLoggingClient>;

    fn name(&self) -> &str {
        &self.name
    }

    fn silence_remedy(&self) -> String {
        let project = &self.selection.project;
        format!(
            "a running cluster is seldom so quiet: check --project-id, --cluster-name and \
             --location, and whether entries are excluded or turned away: gcloud logging sinks \
             describe _Default --project {project}; gcloud logging sinks list --project {project}"
        )
    }

    async fn open(&self, resume: Resume) -> Result<Tail<CloudLoggingClient>, Unavailable> {
        let earliest = Timestamp::now().checked_sub(KEPT_MAX);
        let opened = self.settings.tail.open(
            self.client()?,
            resume,
            earliest.unwrap_or(Timestamp::UNIX_EPOCH),
            Arc::clone(&self.limiter),
        );
        opened.await
    }

    async fn check(&self) -> Vec<Finding> {
        let log = match self.client() {
            Ok(log) => log,
            Err(unavailable) => return vec![Finding::failed("source", unavailable)],
        };
        let identity = match log.identify().await {
            Ok(true) => identity(),
            Ok(false) => no_identity(),
            Err(missing) => return vec![Finding::failed("identity", missing.into_unavailable())],
        };
        let mut source = match self.probe_source(&log).await {
            Ok(found) => Finding::ok("source", found),
            Err(unavailable) => Finding::failed("source", unavailable),
        };
        source.server_time = log.server_time();
        vec![identity, source]
    }
}

impl LoggingLog {
    /// Finds an entry of the selection, or else tells what there is in its place.
    async fn probe_source(&self, log: &CloudLoggingClient) -> Result<String, Unavailable> {
        let newest = log
            .newest(&self.selection, LOOK_BACK, 1)
            .await
            .map_err(to_unavailable)?;
        if let Some(entry) = newest.first() {
            let time = entry.time.map_or("?".to_owned(), |time| time.to_string());
            return Ok(format!("{} can be read; newest entry {time}", self.name));
        }
        let everywhere = Selection {
            cluster: None,
            location: None,
            ..self.selection.clone()
        };
        let entries = log
            .newest(&everywhere, LOOK_BACK, 1000)
            .await
            .map_err(to_unavailable)?;
        let clusters: BTreeSet<String> = entries
            .iter()
            .filter_map(|entry| {
                let mut read = wire::Entry::default();
                read.read(std::str::from_utf8(&entry.text).ok()?).ok()?;
                let cluster = read.resource.cluster_name?;
                let location = read.resource.location.unwrap_or_default();
                Some(format!("{cluster} in {location}"))
            })
            .collect();
        let others = match clusters.is_empty() {
            true => "nor of any other cluster of the project".to_owned(),
            false => {
                let clusters = clusters.into_iter().collect::<Vec<_>>().join(", ");
                format!("but of {clusters}")
            }
        };
        Err(Unavailable {
            component: Component::Source,
            reason: format!(
                "{} can be read, but has no audit entry of the last 24 h, {others}",
                self.name
            ),
            remedy: "check --project-id, --cluster-name and --location".to_owned(),
        })
    }
}

/// What a request's failure means to `check`.
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

    fn settings([project, cluster, location]: [&str; 3]) -> Logging {
        let matches = TailArgs::augment_args(clap::Command::new("t")).get_matches_from(["t"]);
        let tail = TailArgs::from_arg_matches(&matches).unwrap();
        Logging {
            endpoint: Endpoint::google("logging.example.com"),
            names: Names {
                project: named(project),
                cluster: named(cluster),
                location: named(location),
            },
            data_access: false,
            tail: tail.check(&[30], &mut Problems::default()),
        }
    }

    fn check(set: [&str; 3], want: &str) {
        let here = InstanceMetadata {
            project: Some("here".to_owned()),
            cluster: Some("cluster".to_owned()),
            location: Some("zone".to_owned()),
        };
        let selection = select(&settings(set), here).unwrap();
        assert_eq!(selection.name(), want, "{set:?}");
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
        assert_eq!(select(&settings(["", "c", "l"]), nowhere), None);
    }
}
