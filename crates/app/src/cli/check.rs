//! `check`: verifies all settings and connections before `run` needs them.
//!
//! It changes nothing: it reads the source once, writes and removes a temporary state file, and
//! sends the webhook an empty list.

mod canary;

use std::io::Write as _;
use std::path::Path;

use audit_bridge_core::chain::chain;
use audit_bridge_core::checkpoint::{Owner, StoreError};
use audit_bridge_core::dead_letter::refuse_pipe_without_reader;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::sink::{ReceiverAnswer, RequestFailure, Verdict};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::run_args::{Checked, RunArgs};
use super::{Bridge, DONE, FAILED, init_logging, usage};
use crate::balancer::member_lease_name;
use crate::config::{Destination, Problems};
use crate::kubernetes::Cluster;
use crate::lease::{self, Elector, LeaseTiming, Waiting};
use crate::provider::{Finding, Provider, ProviderLog};
use crate::state::{StateLayout, StoreKind};

/// A clock that is off by more misleads a tail: it would read ahead of the log, or late.
const SKEW_SECONDS_MAX: f64 = 60.0;

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs<A: Args, L: Args> {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Send a canary too, and wait until its audit event has arrived at the webhook (--canary-wait-max): read by the check itself, or, where replicas share what is read, by one that runs with --canary-interval
    #[arg(long)]
    canary: bool,
    #[command(flatten)]
    run: RunArgs<A, L>,
}

pub(super) fn check<B: Bridge>(args: &CheckArgs<B::Args, B::ProviderArgs>) -> u8 {
    let mut problems = Problems::default();
    init_logging::<B>(&args.run.log, &mut problems);
    let checked = args.run.check::<B>(&mut problems);
    if !problems.is_empty() {
        return usage(&problems);
    }
    let found = super::runtime().map(|runtime| {
        let found = runtime.block_on(run_checks(&checked, args.canary));
        runtime.shutdown_background();
        found
    });
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return FAILED;
        }
    };
    let good = found.iter().all(|finding| finding.result.is_ok());
    let printed = match args.json {
        true => json(&found, good),
        false => table(&found),
    };
    match writeln!(std::io::stdout(), "{printed}") {
        Ok(()) if good => DONE,
        _ => FAILED,
    }
}

/// Runs every check, also after a failed one: one run shows everything to fix.
async fn run_checks<B: Bridge>(checked: &Checked<B>, with_canary: bool) -> Vec<Finding> {
    let mut found = vec![Finding::ok("configuration", "every setting is valid")];
    let owner = |source: String| Owner {
        provider: B::PROVIDER.to_owned(),
        source,
    };
    let whole = checked.provider.shared().map(|shared| owner(shared.name));
    let mut places = Places {
        owners: whole.iter().cloned().collect(),
        parts: Vec::new(),
    };
    match checked.provider.connect().await {
        Ok(logs) => {
            // Logs that replicas share have one source, so checking one of them is enough.
            let spoken_for = whole.as_ref().map_or(usize::MAX, |_| 1);
            for log in logs.iter().take(spoken_for) {
                found.extend(log.check().await);
            }
            let names = logs.iter().map(|log| log.name().to_owned());
            match whole {
                Some(_) => places.parts = names.collect(),
                None => places.owners.extend(names.map(owner)),
            }
        }
        Err(unavailable) => found.push(Finding::failed(unavailable.component.name(), unavailable)),
    }
    found.push(state(checked, &places).await);
    found.push(dead_letter(checked.delivery.dead_letter.as_deref()));
    found.push(webhook(checked).await);
    found.push(clock(&found));
    if with_canary {
        // A canary would wait in vain if the source cannot be read or the webhook does not accept.
        let is_good = found.iter().all(|finding| finding.result.is_ok());
        found.push(match is_good {
            true => canary::canary(checked).await,
            false => canary::not_sent(),
        });
    }
    found
}

/// The checkpoints that must be storable, as far as known.
struct Places {
    /// Empty if the source cannot be reached.
    owners: Vec<Owner>,
    /// The names of the logs that replicas share.
    parts: Vec<String>,
}

/// Checks whether the checkpoint can be stored.
async fn state<B: Bridge>(checked: &Checked<B>, places: &Places) -> Finding {
    let what = "checkpoint";
    let state = &checked.state;
    let refused = |error: StoreError| Finding::failed(what, error.to_unavailable());
    let mut layout = match StateLayout::lock(&state.dir).await {
        Ok(layout) => layout,
        // A running bridge holds the lock.
        Err(StoreError::Locked { holder, .. }) => {
            let found = format!("in use by {holder}: a bridge that runs, so it can be kept");
            return Finding::ok(what, found);
        }
        Err(error) => return refused(error),
    };
    if state.store == StoreKind::Kubernetes {
        match Cluster::connect(B::NAME, None).await {
            Ok(cluster) => {
                let shared = checked.provider.shared().is_some();
                let name = match shared {
                    true => member_lease_name(&state.name, 0),
                    false => state.name.clone(),
                };
                if (state.leader_election || shared)
                    && let Err(unavailable) = lease(&cluster, &name).await
                {
                    return Finding::failed(what, unavailable);
                }
                let several = shared || places.owners.len() > 1;
                layout = layout.with_config_maps(cluster.clone(), &state.name, &lease::identity());
                if several && let Err(unavailable) = slots(&layout, &cluster, places, shared).await
                {
                    return Finding::failed(what, unavailable);
                }
            }
            Err(error) => {
                let unavailable = Unavailable {
                    component: Component::Checkpoint,
                    reason: chain(&error),
                    remedy: "or use --checkpoint-store file".to_owned(),
                };
                return Finding::failed(what, unavailable);
            }
        }
    }
    let Places { owners, .. } = places;
    let mut there = 0;
    for owner in owners {
        let mut log_state = match layout.open_log(owner, owners.len() > 1).await {
            Ok(log_state) => log_state,
            Err(error) => return refused(error),
        };
        there += usize::from(log_state.checkpoint.is_some());
        if let Err(error) = log_state.store.probe().await {
            return refused(error);
        }
    }
    // Without known logs, only the base name can be probed.
    if owners.is_empty()
        && let Err(error) = layout.probe(&state.name).await
    {
        return refused(error);
    }
    let found = match there {
        _ if owners.is_empty() => "can be written; whose it is, the source has to tell".to_owned(),
        0 => format!(
            "can be written; there is none yet, so reading begins at --start ({})",
            state.start
        ),
        _ => "can be written; there is one to go on from".to_owned(),
    };
    Finding::ok(what, found)
}

/// Checks whether there is a slot for each log, and whether its objects can be used. If the source
/// could not list its logs, only the first slot is checked.
async fn slots(
    layout: &StateLayout,
    cluster: &Cluster,
    places: &Places,
    shared: bool,
) -> Result<(), Unavailable> {
    let Some(store) = layout.slots() else {
        return Ok(());
    };
    let unavailable = |error: StoreError| error.to_unavailable();
    layout
        .probe(&store.table_name())
        .await
        .map_err(unavailable)?;
    let owners = places.owners.iter().map(|owner| owner.source.as_str());
    let logs: Vec<&str> = match shared {
        true => places.parts.iter().map(String::as_str).collect(),
        false => owners.collect(),
    };
    let table = layout.check_slots(&logs).await.map_err(unavailable)?;
    let mut used: Vec<usize> = logs.iter().filter_map(|log| table.slot(log)).collect();
    if used.is_empty() {
        used.push(0);
    }
    for name in used.into_iter().map(|slot| store.object_name(slot)) {
        layout.probe(&name).await.map_err(unavailable)?;
        if shared {
            lease(cluster, &name).await?;
        }
    }
    Ok(())
}

/// Checks whether the Lease can be taken.
async fn lease(cluster: &Cluster, name: &str) -> Result<(), Unavailable> {
    let unavailable = |what: String, remedy: String| Unavailable {
        component: Component::Checkpoint,
        reason: what,
        remedy,
    };
    let elector = Elector::new(cluster, name, &lease::identity(), LeaseTiming::default());
    let mut elector = elector.map_err(|error| {
        let remedy = "this is a defect, please report it".to_owned();
        unavailable(chain(&error), remedy)
    })?;
    match elector.probe().await {
        Err(Waiting::Unavailable { error, remedy }) => Err(unavailable(chain(&error), remedy)),
        Ok(()) | Err(Waiting::Held { .. }) => Ok(()),
    }
}

/// Checks whether rejects can be stored.
fn dead_letter(path: Option<&Path>) -> Finding {
    let what = "dead letter";
    let Some(path) = path else {
        return Finding::ok(what, "none");
    };
    if path.is_symlink() {
        return Finding::failed(
            what,
            Unavailable {
                component: Component::Checkpoint,
                reason: format!("{} is a symbolic link", path.display()),
                remedy: "name the file itself with --dead-letter (AUDIT_BRIDGE_DEAD_LETTER)"
                    .to_owned(),
            },
        );
    }
    let there = path.exists();
    let opened = refuse_pipe_without_reader(path).and_then(|()| {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
    });
    match opened {
        Ok(_) => {
            if !there {
                let _ = std::fs::remove_file(path);
            }
            Finding::ok(what, format!("{} can be written", path.display()))
        }
        Err(error) => Finding::failed(
            what,
            Unavailable {
                component: Component::Checkpoint,
                reason: format!("{} cannot be written: {error}", path.display()),
                remedy: "make its folder and let this user write there, or name another with \
                         --dead-letter (AUDIT_BRIDGE_DEAD_LETTER)"
                    .to_owned(),
            },
        ),
    }
}

/// Checks whether the webhook accepts an empty list.
async fn webhook<B: Bridge>(checked: &Checked<B>) -> Finding {
    let what = "webhook";
    let unavailable = |what: String, remedy: &str| Unavailable {
        component: Component::Webhook,
        reason: what,
        remedy: remedy.to_owned(),
    };
    let target = match checked.delivery.destination.open() {
        Ok(target) => target,
        Err(error) => {
            return Finding::failed(what, unavailable(error.into(), "mend it and check again"));
        }
    };
    let ReceiverAnswer {
        verdict,
        server_time,
    } = target.ask().await;
    let result = match verdict {
        Verdict::Accepted { status } => {
            let warning = match &checked.delivery.destination {
                Destination::Webhook(settings) => settings.warning(),
                Destination::Output(..) => None,
            };
            let warning = warning.map(|it| format!("; warning: {it}"));
            let warning = warning.unwrap_or_default();
            Ok(format!("answered {status} to an empty EventList{warning}"))
        }
        Verdict::Failed(RequestFailure { detail, remedy, .. }) => {
            let reach = "check that the receiver at --webhook-url (AUDIT_BRIDGE_WEBHOOK_URL) is up \
                         and can be reached from here (network policies, proxies)";
            Err(unavailable(detail, remedy.as_deref().unwrap_or(reach)))
        }
        Verdict::Broken { detail, .. } => Err(unavailable(detail, "mend it and check again")),
    };
    Finding {
        what: what.to_owned(),
        result,
        server_time,
    }
}

/// The deviation of this clock from the provider's, or else from the receiver's.
fn clock(found: &[Finding]) -> Finding {
    let what = "clock";
    let now = Timestamp::now();
    let Some((teller, time)) = found
        .iter()
        .find_map(|finding| Some((&finding.what, finding.server_time?)))
    else {
        return Finding::ok(what, "nobody told the time: not compared");
    };
    let skew = now.duration_since(time).as_secs_f64();
    if skew.abs() <= SKEW_SECONDS_MAX {
        return Finding::ok(what, format!("{skew:+.0} s against the {teller}'s"));
    }
    Finding::failed(
        what,
        Unavailable {
            component: Component::Source,
            reason: format!("this clock is {skew:+.0} s off against the {teller}'s"),
            remedy: "set it right (chrony, NTP): the tail reads up to now, and what now is must \
                     be right"
                .to_owned(),
        },
    )
}

fn table(found: &[Finding]) -> String {
    let width = found.iter().map(|finding| finding.what.len()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for finding in found {
        let (mark, said) = match &finding.result {
            Ok(found) => ("ok    ", found.clone()),
            Err(unavailable) => {
                let indent = " ".repeat(width + 8);
                (
                    "FAILED",
                    format!("{}\n{indent}→ {}", unavailable.reason, unavailable.remedy),
                )
            }
        };
        text.push_str(&format!("{:width$}  {mark}  {said}\n", finding.what));
    }
    text.pop();
    text
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    check: &'a str,
    ok: bool,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

fn json(found: &[Finding], ok: bool) -> String {
    let checks = found
        .iter()
        .map(|finding| {
            let (detail, remedy) = match &finding.result {
                Ok(found) => (found.as_str(), None),
                Err(unavailable) => (
                    unavailable.reason.as_str(),
                    Some(unavailable.remedy.as_str()),
                ),
            };
            Line {
                check: &finding.what,
                ok: finding.result.is_ok(),
                detail,
                remedy,
            }
        })
        .collect();
    // Plain text and flags cannot fail to serialise.
    serde_json::to_string(&Report { ok, checks }).unwrap_or_default()
}
