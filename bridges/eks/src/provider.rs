//! Reads the log groups of EKS clusters live.

mod catch_up;
pub(crate) mod mode;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_bridge_app::config::{Problems, TailArgs, TailFlags, flag, given, split_list};
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume};
use audit_bridge_core::event::conformance;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_tail::{Limiter, Tail, TimeLog, Window};
use jiff::{SignedDuration, Timestamp};

use self::stream::StreamArgs;
use crate::client::group::{LogGroupName, is_region};
use crate::client::{Access, AwsConnection, LogGroup};
use crate::convert::EksConvertOptions;

/// Default ages of the older cursors, in seconds: `--revisit-after 15s,2m,10m`.
const REVISIT_AFTER: [u64; 3] = [15, 120, 600];

/// EKS started in June 2018, so no audit log is older.
const EARLIEST: i64 = 1_527_811_200;

/// How far back `check` searches for an event.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(1);

/// Page limit of that search; the first pages may be empty.
const LOOK_PAGES_MAX: u32 = 20;

/// The flags of reading live.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "CloudWatch Logs")]
pub struct EksProviderArgs {
    /// Its log group, one for each cluster; the ARN, where another account or region has it [default: /aws/eks/CLUSTER/cluster]
    #[arg(long, value_name = "NAME|ARN")]
    log_group: Vec<String>,
    /// Requests to CloudWatch Logs, for all clusters together [default: 3]
    #[arg(long, value_name = "N")]
    requests_per_second: Option<String>,
    /// The region of the log groups [default: AWS_REGION, else the profile's]
    #[arg(long, value_name = "REGION")]
    aws_region: Option<String>,
    /// A role of another account to assume for the log groups of that account; may be repeated
    #[arg(long, value_name = "ARN")]
    role_arn: Vec<String>,
    /// The external ID that the trust policies of these roles ask for
    #[arg(long, value_name = "ID")]
    role_external_id: Option<String>,
    /// Read what a data protection policy masks; needs the permission logs:Unmask
    #[arg(long, value_name = "BOOL")]
    unmask: Option<String>,
    #[command(flatten)]
    tail: TailArgs,
    #[command(flatten)]
    pub(crate) stream: StreamArgs,
}

/// A log group to read, and the cluster that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    group: LogGroupName,
    cluster: Option<String>,
}

/// The log groups to read, as configured.
#[derive(Debug)]
pub struct EksProvider {
    wanted: Vec<Wanted>,
    stream_prefix: String,
    annotate_cluster: bool,
    requests_per_second: f64,
    /// How to reach groups whose ARN says nothing else.
    access: Access,
    /// The role to assume, by account.
    roles: BTreeMap<String, String>,
    flags: TailFlags,
}

impl EksProviderArgs {
    /// Checks the flags.
    pub(crate) fn check(
        &self,
        options: &EksConvertOptions,
        problems: &mut Problems,
    ) -> EksProvider {
        let names: Vec<String> = options.clusters.iter().map(ToString::to_string).collect();
        let wanted = wanted(&names, &list(&self.log_group), problems);
        let roles = roles(&list(&self.role_arn), &wanted, problems);
        EksProvider {
            wanted,
            stream_prefix: options.stream_prefix.clone(),
            annotate_cluster: options.annotate_cluster,
            requests_per_second: problems.read(
                "requests-per-second",
                given(self.requests_per_second.as_deref()),
                3.0,
                |text| match text.parse::<f64>() {
                    Ok(rate) if rate > 0.0 && rate <= 100.0 => Ok(rate),
                    _ => Err("is no number above 0 and up to 100".into()),
                },
            ),
            access: self.access(problems),
            roles,
            flags: self.tail.check(&REVISIT_AFTER, problems),
        }
    }

    /// How to reach AWS unless a group's ARN says otherwise.
    fn access(&self, problems: &mut Problems) -> Access {
        Access {
            region: problems.read("aws-region", self.aws_region.as_deref(), None, |text| {
                match is_region(text) {
                    true => Ok(Some(text.to_owned())),
                    false => Err("is no region like eu-central-1".into()),
                }
            }),
            role: None,
            external_id: given(self.role_external_id.as_deref()).map(str::to_owned),
            unmask: problems.read("unmask", self.unmask.as_deref(), false, flag),
        }
    }

    /// The same for a stream; reports the flags that do not apply to one.
    pub(crate) fn stream_access(&self, problems: &mut Problems) -> Access {
        let access = self.access(problems);
        let roles = list(&self.role_arn);
        for role in &roles {
            if account_of_role(role).is_none() {
                problems.add("role-arn", NO_ROLE);
            }
        }
        if roles.len() > 1 {
            problems.add("role-arn", "names several roles, and one stream is read");
        }
        let useless = [
            ("log-group", !list(&self.log_group).is_empty()),
            ("requests-per-second", is_given(&self.requests_per_second)),
            ("unmask", access.unmask),
        ];
        for (flag, given) in useless.into_iter().chain(self.tail.given()) {
            if given {
                problems.add(
                    flag,
                    "cannot be combined with --stream, which has no use for it",
                );
            }
        }
        Access {
            role: roles.into_iter().next(),
            ..access
        }
    }
}

fn is_given(value: &Option<String>) -> bool {
    given(value.as_deref()).is_some()
}

fn list(values: &[String]) -> Vec<String> {
    values.iter().flat_map(|value| split_list(value)).collect()
}

/// The groups to read: those of `--log-group`, else the default groups of the clusters.
fn wanted(clusters: &[String], groups: &[String], problems: &mut Problems) -> Vec<Wanted> {
    if clusters.iter().any(|cluster| cluster.contains('/')) {
        problems.add(
            "cluster-name",
            "names an account, which only the records of a --stream tell; give the ARN of its \
             --log-group instead",
        );
    }
    let mut read = Vec::new();
    for group in groups {
        match LogGroupName::parse(group) {
            Ok(group) => read.push(group),
            Err(what) => {
                problems.add("log-group", what);
                read.push(LogGroupName::named(group));
            }
        }
    }
    if clusters.is_empty() && groups.is_empty() {
        problems.add(
            "cluster-name",
            "is missing; name the cluster, its --log-group, or the --stream that has it",
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
                group: LogGroupName::named(format!("/aws/eks/{cluster}/cluster")),
                cluster: Some(cluster.clone()),
            })
            .collect(),
        false => read
            .into_iter()
            .enumerate()
            .map(|(index, group)| Wanted {
                group,
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

/// The roles by account. Each role serves the groups whose ARN names its account.
fn roles(arns: &[String], wanted: &[Wanted], problems: &mut Problems) -> BTreeMap<String, String> {
    let mut roles = BTreeMap::new();
    for arn in arns {
        let Some(account) = account_of_role(arn) else {
            problems.add("role-arn", NO_ROLE);
            continue;
        };
        let of_account = |wanted: &Wanted| {
            wanted
                .group
                .place
                .as_ref()
                .is_some_and(|it| it.account == account)
        };
        if !wanted.iter().any(of_account) {
            problems.add(
                "role-arn",
                "is of an account of which no --log-group is: give the groups of that account by \
                 their ARNs",
            );
        }
        if roles.insert(account.to_owned(), arn.clone()).is_some() {
            problems.add("role-arn", "names two roles of one account");
        }
    }
    roles
}

const NO_ROLE: &str = "is no ARN like arn:aws:iam::ACCOUNT:role/NAME";

/// The account in a role's ARN.
fn account_of_role(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match *parts {
        ["arn", _, "iam", "", account, role] if role.starts_with("role/") => Some(account),
        _ => None,
    }
}

impl Provider for EksProvider {
    type Log = EksLog;

    async fn connect(&self) -> Result<Vec<EksLog>, Unavailable> {
        // All groups of an account and region share one quota, so they share a limiter.
        let mut reached: BTreeMap<Access, (AwsConnection, Arc<Limiter>)> = BTreeMap::new();
        let mut logs = Vec::new();
        for wanted in &self.wanted {
            let access = self.access(wanted);
            let (connection, limiter) = match reached.get(&access) {
                Some(found) => found.clone(),
                None => {
                    let connection = AwsConnection::new(access.clone()).await?;
                    let limiter = Arc::new(Limiter::new(self.requests_per_second));
                    reached.insert(access, (connection.clone(), Arc::clone(&limiter)));
                    (connection, limiter)
                }
            };
            let cluster = wanted.cluster.clone();
            logs.push(EksLog {
                name: wanted.group.key(connection.region()),
                cluster: cluster
                    .or_else(|| Some(wanted.group.to_string()))
                    .filter(|_| self.annotate_cluster),
                wanted: wanted.clone(),
                stream_prefix: self.stream_prefix.clone(),
                connection,
                limiter,
                flags: self.flags.clone(),
            });
        }
        Ok(logs)
    }
}

impl EksProvider {
    /// How to reach this group.
    fn access(&self, wanted: &Wanted) -> Access {
        match &wanted.group.place {
            Some(place) => Access {
                region: Some(place.region.clone()),
                role: self.roles.get(&place.account).cloned(),
                ..self.access.clone()
            },
            None => self.access.clone(),
        }
    }
}

/// One log group.
#[derive(Debug)]
pub struct EksLog {
    name: String,
    wanted: Wanted,
    /// The value of the cluster annotation, if events get one.
    cluster: Option<String>,
    stream_prefix: String,
    connection: AwsConnection,
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

impl ProviderLog for EksLog {
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

    fn silence_remedy(&self) -> String {
        self.log().silence_remedy()
    }

    async fn open(&self, resume: Resume) -> Result<Tail<LogGroup>, Unavailable> {
        let earliest = Timestamp::from_second(EARLIEST).unwrap_or(Timestamp::UNIX_EPOCH);
        let limiter = Arc::clone(&self.limiter);
        self.flags.open(self.log(), resume, earliest, limiter).await
    }

    async fn check(&self) -> Vec<Finding> {
        let identity = match self.connection.identity().await {
            Ok(found) => Finding::ok("identity", found),
            Err(unavailable) => return vec![Finding::failed("identity", unavailable)],
        };
        let what = format!("source {}", self.name);
        let mut source = match self.probe_source().await {
            Ok(found) => Finding::ok(what, found),
            Err(unavailable) => Finding::failed(what, unavailable),
        };
        source.server_time = self.log().server_time();
        vec![identity, source]
    }
}

impl EksLog {
    /// Searches the last hour for an event.
    async fn probe_source(&self) -> Result<String, Unavailable> {
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
            let page = page.map_err(|error| error.to_unavailable())?;
            let audit = page
                .entries
                .iter()
                .filter(|entry| self.is_audit(entry.raw.log_stream_name()));
            let (mut count, mut masked) = (0, 0);
            for entry in audit {
                count += 1;
                masked += usize::from(is_masked(entry.raw.message().unwrap_or_default()));
            }
            if count > 0 {
                let masked = match masked {
                    0 => String::new(),
                    _ => format!(
                        "; {masked} of the first {count} look as a data protection policy leaves \
                         them, with asterisks for what they said: --unmask (AUDIT_BRIDGE_UNMASK) \
                         and the permission logs:Unmask read the whole"
                    ),
                };
                return Ok(format!(
                    "can be read; {count} or more audit events in the last hour{masked}"
                ));
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        Err(Unavailable {
            component: Component::Source,
            reason: "can be read, and holds no audit event of the last hour".to_owned(),
            remedy: log.silence_remedy(),
        })
    }

    fn is_audit(&self, stream: Option<&str>) -> bool {
        stream.is_some_and(|stream| stream.starts_with(&self.stream_prefix))
    }
}

/// Whether a data protection policy seems to have masked something: it replaces each character by
/// an asterisk. A client can write asterisks too, so this is only reported, and nothing depends on
/// it.
fn is_masked(message: &str) -> bool {
    message.contains("******")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[&str]) -> Vec<String> {
        text.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn log_groups_are_named_or_derived_from_clusters() {
        let mut problems = Problems::default();
        let all = wanted(&names(&["b", "a_1"]), &[], &mut problems);
        assert_eq!(all[0].group.name, "/aws/eks/a_1/cluster");
        assert_eq!(all[1].cluster.as_deref(), Some("b"));
        let all = wanted(&names(&["a"]), &names(&["/own/group"]), &mut problems);
        assert_eq!(
            all,
            [Wanted {
                group: LogGroupName::named("/own/group"),
                cluster: Some("a".to_owned())
            }]
        );
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn roles_must_match_accounts_of_the_groups() {
        let group = "arn:aws:logs:eu-west-1:123456789012:log-group:g";
        let role = |account: &str| format!("arn:aws:iam::{account}:role/reader");
        for (arns, said) in [
            (vec!["reader".to_owned()], "is no ARN like"),
            (vec![role("210987654321")], "no --log-group"),
            (
                vec![role("123456789012"), role("123456789012")],
                "two roles",
            ),
            (vec![role("123456789012")], ""),
        ] {
            let mut problems = Problems::default();
            let wanted = wanted(&[], &names(&[group]), &mut problems);
            let roles = roles(&arns, &wanted, &mut problems);
            assert!(problems.to_string().contains(said), "{said}: {problems}");
            assert_eq!(problems.is_empty(), said.is_empty());
            if said.is_empty() {
                assert_eq!(roles["123456789012"], arns[0]);
            }
        }
    }

    #[test]
    fn settings_contradicting_are_all_named() {
        for (clusters, groups, said) in [
            (vec![], vec![], "is missing"),
            (vec!["123456789012/x"], vec![], "names an account"),
            (vec!["x", "y"], vec!["/g"], "once for each"),
            (vec!["x", "x"], vec![], "twice"),
            (vec![], vec!["/aws/eks/*/cluster"], "neither a name"),
            (vec![], vec!["arn:aws:logs:x"], "is no ARN like"),
        ] {
            let mut problems = Problems::default();
            wanted(&names(&clusters), &names(&groups), &mut problems);
            assert!(problems.to_string().contains(said), "{said}: {problems}");
        }
    }
}
