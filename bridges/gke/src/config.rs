//! The flags that only this bridge has.

use std::sync::Arc;
use std::time::Duration;

use audit_bridge_app::cli::Bridge;
use audit_bridge_app::config::{Problems, flag};
use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::conformance;
use audit_bridge_replay::dump::Dump;

use crate::convert::{Derive, GkeConvert, GkeConvertOptions};
use crate::dump::GkeDump;
use crate::provider::{GkeProvider, GkeProviderArgs, Named, Names};

/// The flags of Cloud Logging.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cloud Logging")]
pub struct GkeArgs {
    /// Only entries of this project; for run and check: whose log to read, unless --resource-name says where [default: of the metadata server]
    #[arg(long, value_name = "ID")]
    project_id: Option<String>,
    /// Only entries of this cluster; * is all [default for run and check: of the metadata server]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Only entries of clusters in this location; * is all
    #[arg(long, value_name = "LOCATION")]
    location: Option<String>,
    /// Say in each event which cluster it is of, as the annotation audit-bridge/cluster
    #[arg(long, value_name = "BOOL")]
    annotate_cluster: Option<String>,
    /// Convert the Data Access log too: reads, and exec by GET
    #[arg(long, value_name = "BOOL")]
    include_data_access: Option<String>,
    /// What to derive where the entry does not say it: some of groups,query,started, or none [default: groups,query,started]
    #[arg(long, value_name = "LIST")]
    derive: Option<String>,
}

/// The GKE bridge, configured.
#[derive(Debug)]
pub struct Gke {
    options: GkeConvertOptions,
}

impl Bridge for Gke {
    const NAME: &'static str = "gke-audit-bridge";
    const ABOUT: &'static str = "Delivers the audit events of GKE clusters to an audit webhook";
    const PROVIDER: &'static str = "gke";
    // A quiet cluster's log may have no entries for long.
    const SILENCE_MAX: Option<Duration> = None;
    type Args = GkeArgs;
    type ProviderArgs = GkeProviderArgs;
    type Provider = GkeProvider;

    fn configure(args: &GkeArgs, problems: &mut Problems) -> Gke {
        let named = |value: &Option<String>| Named::of(value.as_deref()).name();
        let include_data_access = problems.read(
            "include-data-access",
            args.include_data_access.as_deref(),
            false,
            flag,
        );
        let derive = problems.read(
            "derive",
            args.derive.as_deref(),
            Derive::default(),
            |text| {
                text.parse()
                    .map_err(|_| "is not a list of groups, query and started, nor none".into())
            },
        );
        Gke {
            options: GkeConvertOptions {
                include_data_access,
                derive,
                annotate_cluster: problems.read(
                    "annotate-cluster",
                    args.annotate_cluster.as_deref(),
                    false,
                    flag,
                ),
                native: conformance::EventOptions::default(),
                project: named(&args.project_id),
                cluster: named(&args.cluster_name),
                location: named(&args.location),
            },
        }
    }

    fn provider(
        &self,
        args: &GkeArgs,
        provider: &GkeProviderArgs,
        problems: &mut Problems,
    ) -> GkeProvider {
        let named = |value: &Option<String>| Named::of(value.as_deref());
        let names = Names {
            project: named(&args.project_id),
            cluster: named(&args.cluster_name),
            location: named(&args.location),
        };
        provider.check(names, self.options.include_data_access, problems)
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(GkeDump)
    }

    fn converter(&self, native: conformance::EventOptions) -> impl Convert + 'static {
        GkeConvert::new(GkeConvertOptions {
            native,
            ..self.options.clone()
        })
    }
}
