//! Cloud Logging's API as a live log.

use std::collections::BTreeSet;
use std::sync::Arc;

use audit_bridge_app::provider::{Finding, Resume};
use audit_bridge_core::readiness::{Part, Trouble};
use audit_bridge_tail::{Limiter, QueryError, Tail};
use jiff::{SignedDuration, Timestamp};

use super::{Logging, Named, identity, no_identity};
use crate::client::filter::Selection;
use crate::client::logging::CloudLogging;
use crate::client::metadata::{self, Place};
use crate::wire;

/// No bucket keeps entries longer: ten years.
const KEPT_MAX: SignedDuration = SignedDuration::from_hours(3650 * 24);
/// How far back `check` looks for an entry.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);

/// One log that is read through the API.
#[derive(Debug)]
pub(super) struct LoggingLog {
    settings: Logging,
    selection: Selection,
    name: String,
    limiter: Arc<Limiter>,
}

impl LoggingLog {
    /// Finds out whose log it is.
    pub(super) async fn find(
        settings: &Logging,
        limiter: &Arc<Limiter>,
    ) -> Result<LoggingLog, Trouble> {
        let here = here(settings).await?;
        let selection = select(settings, here).ok_or_else(|| Trouble {
            part: Part::Source,
            what: "no project is known".to_owned(),
            remedy: "name it with --project-id (AUDIT_BRIDGE_PROJECT_ID)".to_owned(),
        })?;
        Ok(LoggingLog {
            settings: settings.clone(),
            name: selection.name(),
            selection,
            limiter: Arc::clone(limiter),
        })
    }

    fn client(&self) -> Result<CloudLogging, Trouble> {
        let endpoint = &self.settings.endpoint;
        CloudLogging::new(endpoint, self.selection.clone()).map_err(|what| Trouble {
            part: Part::Source,
            what,
            remedy: "check the system's certificates (SSL_CERT_FILE)".to_owned(),
        })
    }
}

/// Where this runs, when the settings leave something to it.
///
/// A server that cannot be reached is no answer: a bridge that took "unknown" for "everywhere"
/// would read other clusters whenever its node is slow to start.
async fn here(settings: &Logging) -> Result<Place, Trouble> {
    let names = &settings.names;
    let settled = names.project != Named::Unset
        && (names.cluster != Named::Unset || names.location != Named::Unset);
    if settled || (settings.endpoint.plain && !metadata::host_is_named()) {
        return Ok(Place::default());
    }
    metadata::place().await.map_err(|what| Trouble {
        part: Part::Source,
        what: format!("project and cluster are not known: the metadata server: {what}"),
        remedy: "outside of Google Cloud name --project-id and --cluster-name (* is all clusters)"
            .to_owned(),
    })
}

/// What to read: as the settings say, and for the rest what is here. Another project's clusters
/// have nothing to do with this one, nor has another cluster's location.
fn select(settings: &Logging, here: Place) -> Option<Selection> {
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

impl LoggingLog {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn when_silent(&self) -> String {
        let project = &self.selection.project;
        format!(
            "a running cluster is seldom so quiet: check --project-id, --cluster-name and \
             --location, and whether entries are excluded or turned away: gcloud logging sinks \
             describe _Default --project {project}; gcloud logging sinks list --project {project}"
        )
    }

    pub(super) async fn open(&self, resume: Resume) -> Result<Tail<CloudLogging>, Trouble> {
        let earliest = Timestamp::now().checked_sub(KEPT_MAX);
        let opened = self.settings.tail.open(
            self.client()?,
            resume,
            earliest.unwrap_or(Timestamp::UNIX_EPOCH),
            Arc::clone(&self.limiter),
        );
        opened.await
    }

    pub(super) async fn check(&self) -> Vec<Finding> {
        let log = match self.client() {
            Ok(log) => log,
            Err(trouble) => return vec![Finding::bad("source", trouble)],
        };
        let identity = match log.identify().await {
            Ok(true) => identity(),
            Ok(false) => no_identity(),
            Err(missing) => return vec![Finding::bad("identity", missing.trouble())],
        };
        let mut source = match self.look(&log).await {
            Ok(found) => Finding::good("source", found),
            Err(trouble) => Finding::bad("source", trouble),
        };
        source.server_time = log.server_time();
        vec![identity, source]
    }

    /// Finds an entry of the selection, or else tells what there is in its place.
    async fn look(&self, log: &CloudLogging) -> Result<String, Trouble> {
        let newest = log
            .newest(&self.selection, LOOK_BACK, 1)
            .await
            .map_err(trouble)?;
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
            .map_err(trouble)?;
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
        Err(Trouble {
            part: Part::Source,
            what: format!(
                "{} can be read, but has no audit entry of the last 24 h, {others}",
                self.name
            ),
            remedy: "check --project-id, --cluster-name and --location".to_owned(),
        })
    }
}

/// What a request's failure means to `check`.
fn trouble(error: QueryError) -> Trouble {
    let what = error.to_string();
    let (part, remedy) = match error {
        QueryError::Unauthenticated { remedy, .. } => (Part::Identity, remedy),
        QueryError::Denied { remedy, .. } => (Part::Source, remedy),
        QueryError::Throttled { .. } => (
            Part::Source,
            "wait a minute: the project's quota of 60 requests a minute is used up".to_owned(),
        ),
        QueryError::TokenExpired | QueryError::Transient { .. } => (
            Part::Source,
            "check that the API can be reached from here (network policies, proxies, \
             --logging-endpoint)"
                .to_owned(),
        ),
    };
    Trouble { part, what, remedy }
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
        let here = Place {
            project: Some("here".to_owned()),
            cluster: Some("cluster".to_owned()),
            location: Some("zone".to_owned()),
        };
        let selection = select(&settings(set), here).unwrap();
        assert_eq!(selection.name(), want, "{set:?}");
    }

    #[test]
    fn what_is_not_set_is_where_it_runs() {
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
        let nowhere = Place::default();
        assert_eq!(select(&settings(["", "c", "l"]), nowhere), None);
    }
}
