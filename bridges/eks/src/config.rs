//! The flags that only this bridge has.

use std::sync::Arc;

use audit_bridge_app::cli::Bridge;
use audit_bridge_app::config::{Problems, flag, given, split_list};
use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::conformance;
use audit_bridge_replay::dump::Dump;

use crate::client::LOG_FILTER;
use crate::client::cluster::{ClusterName, NO_CLUSTER};
use crate::convert::{EksConvert, EksConvertOptions, STREAM_PREFIX};
use crate::dump::EksDump;
use crate::provider::EksProviderArgs;
use crate::provider::mode::{self, Mode};

/// The flags of CloudWatch Logs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "CloudWatch Logs")]
pub struct EksArgs {
    /// Streams that begin so hold audit events [default: kube-apiserver-audit-]
    #[arg(long, value_name = "PREFIX")]
    log_stream_prefix: Option<String>,
    /// Only this cluster, or ACCOUNT/CLUSTER where records name their account; may be repeated
    #[arg(long, value_name = "NAME")]
    cluster_name: Vec<String>,
    /// Say in each event which cluster it is of, as the annotation audit-bridge/cluster
    #[arg(long, value_name = "BOOL")]
    annotate_cluster: Option<String>,
}

/// The EKS bridge, configured.
#[derive(Debug)]
pub struct Eks {
    options: EksConvertOptions,
}

impl Bridge for Eks {
    const NAME: &'static str = "eks-audit-bridge";
    const ABOUT: &'static str = "Delivers the audit events of EKS clusters to an audit webhook";
    const PROVIDER: &'static str = "eks";
    const LOG_FILTER: &'static str = LOG_FILTER;
    type Args = EksArgs;
    type ProviderArgs = EksProviderArgs;
    type Provider = Mode;

    fn configure(args: &EksArgs, problems: &mut Problems) -> Eks {
        let prefix = given(args.log_stream_prefix.as_deref()).unwrap_or(STREAM_PREFIX);
        let names = args.cluster_name.iter().flat_map(|names| split_list(names));
        let clusters: Vec<ClusterName> = names.map(|name| ClusterName::read(&name)).collect();
        if !clusters.iter().all(ClusterName::is_valid) {
            problems.add("cluster-name", NO_CLUSTER);
        }
        Eks {
            options: EksConvertOptions {
                stream_prefix: prefix.to_owned(),
                clusters,
                annotate_cluster: problems.read(
                    "annotate-cluster",
                    args.annotate_cluster.as_deref(),
                    false,
                    flag,
                ),
                native: conformance::EventOptions::default(),
            },
        }
    }

    fn provider(&self, _: &EksArgs, provider: &EksProviderArgs, problems: &mut Problems) -> Mode {
        mode::check(provider, &self.options, problems)
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(EksDump)
    }

    fn converter(&self, native: conformance::EventOptions) -> impl Convert + 'static {
        EksConvert::new(EksConvertOptions {
            native,
            ..self.options.clone()
        })
    }
}
