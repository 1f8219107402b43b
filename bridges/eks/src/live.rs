//! The log groups of EKS clusters, read live.

use std::sync::Arc;

use audit_bridge_core::config::{Problems, TailArgs, TailFlags, flag, given, words};
use audit_bridge_core::event::conformance;
use audit_bridge_core::live::{Finding, Live, LiveLog, Resume, Trouble};
use audit_bridge_core::tail::{Limiter, Tail, TimeLog, Window};
use audit_bridge_core::telemetry::Part;
use jiff::{SignedDuration, Timestamp};

use crate::client::{Connection, LogGroup};

/// Ages of the older cursors, in seconds: `--revisit-after 15s,2m,10m`.
const REVISIT_AFTER: [u64; 3] = [15, 120, 600];

/// EKS began in June 2018: no audit log is older.
const EARLIEST: i64 = 1_527_811_200;

/// How far back `check` looks for an event.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(1);

/// Pages of that look; the first ones may be empty.
const LOOK_PAGES_MAX: u32 = 20;

/// The flags of reading live.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "CloudWatch Logs")]
pub struct LiveArgs {
    /// The cluster to read; may be repeated, for clusters of one account and region
    #[arg(
        long,
        env = "AUDIT_BRIDGE_CLUSTER_NAME",
        hide_env_values = true,
        value_name = "NAME"
    )]
    cluster_name: Vec<String>,
    /// Its log group, one for each cluster [default: /aws/eks/CLUSTER/cluster]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_LOG_GROUP",
        hide_env_values = true,
        value_name = "GROUP"
    )]
    log_group: Vec<String>,
    /// Say in each event which cluster it is of, as the annotation audit-bridge/cluster
    #[arg(
        long,
        env = "AUDIT_BRIDGE_ANNOTATE_CLUSTER",
        hide_env_values = true,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    annotate_cluster: Option<String>,
    /// Requests to CloudWatch Logs, for all clusters together [default: 3]
    #[arg(
        long,
        env = "AUDIT_BRIDGE_REQUESTS_PER_SECOND",
        hide_env_values = true,
        value_name = "N"
    )]
    requests_per_second: Option<String>,
    #[command(flatten)]
    tail: TailArgs,
}

/// A group to read, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    group: String,
    cluster: Option<String>,
}

/// The log groups of one account and region, configured.
#[derive(Debug)]
pub struct EksLive {
    wanted: Vec<Wanted>,
    stream_prefix: String,
    annotate_cluster: bool,
    requests_per_second: f64,
    flags: TailFlags,
}

impl LiveArgs {
    /// Checks the flags.
    pub(crate) fn check(&self, stream_prefix: &str, problems: &mut Problems) -> EksLive {
        let list = |values: &[String]| -> Vec<String> {
            values.iter().flat_map(|value| words(value)).collect()
        };
        EksLive {
            wanted: wanted(&list(&self.cluster_name), &list(&self.log_group), problems),
            stream_prefix: stream_prefix.to_owned(),
            annotate_cluster: problems.read(
                "annotate-cluster",
                self.annotate_cluster.as_deref(),
                false,
                flag,
            ),
            requests_per_second: problems.read(
                "requests-per-second",
                given(self.requests_per_second.as_deref()),
                3.0,
                |text| match text.parse::<f64>() {
                    Ok(rate) if rate > 0.0 && rate <= 100.0 => Ok(rate),
                    _ => Err("is no number above 0 and up to 100".to_owned()),
                },
            ),
            flags: self.tail.check(&REVISIT_AFTER, problems),
        }
    }
}

/// The groups to read: those named, else those that EKS makes for the clusters.
fn wanted(clusters: &[String], groups: &[String], problems: &mut Problems) -> Vec<Wanted> {
    for cluster in clusters {
        if !is_cluster(cluster) {
            problems.add(
                "cluster-name",
                "is no name of an EKS cluster: up to 100 letters, digits, dashes and underscores, \
                 a letter or digit first; not an ARN",
            );
        }
    }
    for group in groups {
        if !is_group(group) {
            problems.add(
                "log-group",
                "is no name of a log group: up to 512 letters, digits and . - _ / #; not an ARN",
            );
        }
    }
    if clusters.is_empty() && groups.is_empty() {
        problems.add(
            "cluster-name",
            "is missing; name the cluster, or its --log-group",
        );
    }
    if !groups.is_empty() && !clusters.is_empty() && groups.len() != clusters.len() {
        problems.add(
            "log-group",
            "must be given once for each --cluster-name, in the same order, or not at all",
        );
    }
    let mut all: Vec<Wanted> = match groups.is_empty() {
        true => clusters
            .iter()
            .map(|cluster| Wanted {
                group: format!("/aws/eks/{cluster}/cluster"),
                cluster: Some(cluster.clone()),
            })
            .collect(),
        false => groups
            .iter()
            .enumerate()
            .map(|(index, group)| Wanted {
                group: group.clone(),
                cluster: clusters.get(index).cloned(),
            })
            .collect(),
    };
    all.sort_by(|a, b| a.group.cmp(&b.group));
    let before = all.len();
    all.dedup_by(|a, b| a.group == b.group);
    if all.len() != before {
        problems.add("cluster-name", "names a log group twice");
    }
    all
}

/// A name that the EKS API takes (`CreateCluster`, `name`).
fn is_cluster(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.len() <= 100
        && name.chars().all(inside)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// A name that CloudWatch Logs takes (`CreateLogGroup`, `logGroupName`).
fn is_group(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "._/#-".contains(c);
    !name.is_empty() && name.len() <= 512 && name.chars().all(inside)
}

impl Live for EksLive {
    type Log = EksLog;

    async fn connect(&self) -> Result<Vec<EksLog>, Trouble> {
        let connection = Connection::new().await?;
        // The quota is the account's in that region, whatever is read.
        let limiter = Arc::new(Limiter::new(self.requests_per_second));
        let logs = self.wanted.iter().map(|wanted| EksLog {
            name: format!("{}:{}", connection.region(), wanted.group),
            cluster: match self.annotate_cluster {
                true => wanted.cluster.clone().or(Some(wanted.group.clone())),
                false => None,
            },
            wanted: wanted.clone(),
            stream_prefix: self.stream_prefix.clone(),
            connection: connection.clone(),
            limiter: Arc::clone(&limiter),
            flags: self.flags.clone(),
        });
        Ok(logs.collect())
    }
}

/// One log group.
#[derive(Debug)]
pub struct EksLog {
    name: String,
    wanted: Wanted,
    /// What the annotation says, if it is wanted.
    cluster: Option<String>,
    stream_prefix: String,
    connection: Connection,
    limiter: Arc<Limiter>,
    flags: TailFlags,
}

impl EksLog {
    fn log(&self) -> LogGroup {
        LogGroup::new(
            self.connection.clone(),
            &self.name,
            &self.wanted.group,
            &self.stream_prefix,
        )
    }
}

impl LiveLog for EksLog {
    type Source = Tail<LogGroup>;

    fn name(&self) -> &str {
        &self.name
    }

    fn annotations(&self) -> Vec<(String, String)> {
        let cluster = self.cluster.iter();
        cluster
            .map(|cluster| (conformance::CLUSTER.to_owned(), cluster.clone()))
            .collect()
    }

    fn when_silent(&self) -> String {
        self.log().when_silent()
    }

    async fn open(&self, resume: Resume) -> Result<Tail<LogGroup>, Trouble> {
        let earliest = Timestamp::from_second(EARLIEST).unwrap_or(Timestamp::UNIX_EPOCH);
        let limiter = Arc::clone(&self.limiter);
        self.flags.open(self.log(), resume, earliest, limiter)
    }

    async fn check(&self) -> Vec<Finding> {
        let identity = match self.connection.identity().await {
            Ok(found) => Finding::good("identity", found),
            Err(trouble) => return vec![Finding::bad("identity", trouble)],
        };
        let what = format!("source {}", self.name);
        let source = match self.look().await {
            Ok(found) => Finding::good(what, found),
            Err(trouble) => Finding::bad(what, trouble),
        };
        vec![identity, source]
    }
}

impl EksLog {
    /// Looks for an event of the last hour.
    async fn look(&self) -> Result<String, Trouble> {
        let log = self.log();
        let now = Timestamp::now();
        let window = Window {
            start: now.checked_sub(LOOK_BACK).unwrap_or(now),
            end: now,
        };
        let mut token = None;
        for _ in 0..LOOK_PAGES_MAX {
            self.limiter.acquire().await;
            let page = log.query(&window, token.as_deref()).await;
            let page = page.map_err(|error| error.trouble())?;
            let audit = page
                .entries
                .iter()
                .filter(|entry| self.is_audit(entry.raw.log_stream_name()))
                .count();
            if audit > 0 {
                return Ok(format!(
                    "can be read; {audit} or more audit events in the last hour"
                ));
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        Err(Trouble {
            part: Part::Source,
            what: "can be read, and holds no audit event of the last hour".to_owned(),
            remedy: log.when_silent(),
        })
    }

    fn is_audit(&self, stream: Option<&str>) -> bool {
        stream.is_some_and(|stream| stream.starts_with(&self.stream_prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[&str]) -> Vec<String> {
        text.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn groups_are_named_or_made_of_clusters() {
        let mut problems = Problems::default();
        let all = wanted(&names(&["b", "a_1"]), &[], &mut problems);
        assert_eq!(all[0].group, "/aws/eks/a_1/cluster");
        assert_eq!(all[1].cluster.as_deref(), Some("b"));
        let all = wanted(&names(&["a"]), &names(&["/own/group"]), &mut problems);
        assert_eq!(
            all,
            [Wanted {
                group: "/own/group".to_owned(),
                cluster: Some("a".to_owned())
            }]
        );
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn what_cannot_be_is_said_at_once() {
        for (clusters, groups, said) in [
            (vec![], vec![], "is missing"),
            (vec!["arn:aws:eks:eu:1:cluster/x"], vec![], "not an ARN"),
            (vec!["-x"], vec![], "no name of an EKS cluster"),
            (vec!["x y"], vec![], "no name of an EKS cluster"),
            (vec!["x", "y"], vec!["/g"], "once for each"),
            (vec!["x", "x"], vec![], "twice"),
            (vec![], vec!["/aws/eks/*/cluster"], "no name of a log group"),
        ] {
            let mut problems = Problems::default();
            wanted(&names(&clusters), &names(&groups), &mut problems);
            assert!(problems.to_string().contains(said), "{said}: {problems}");
        }
    }
}
