//! The flags that only this bridge has.

use std::sync::Arc;

use audit_bridge_app::cli::Bridge;
use audit_bridge_app::config::{Problems, flag, split_list};
use audit_bridge_app::provider::Provider as _;
use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::conformance;
use audit_bridge_replay::dump::Dump;

use crate::client::LOG_FILTER;
use crate::client::cluster::ClusterSelector;
use crate::convert::{AksConvert, AksConvertOptions, CATEGORIES};
use crate::dump::AksDump;
use crate::provider::{AksProvider, AksProviderArgs};

/// The flags of diagnostic settings.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Diagnostic settings")]
pub struct AksArgs {
    /// The categories to convert, with commas between [default: kube-audit,kube-audit-admin]
    #[arg(long, value_name = "LIST")]
    categories: Option<String>,
    /// Only records of this cluster, by its name or its whole resource ID; may be repeated
    #[arg(long, value_name = "NAME|ID")]
    cluster_name: Vec<String>,
    /// Say in each event which cluster it is of, as the annotation audit-bridge/cluster
    #[arg(long, value_name = "BOOL")]
    annotate_cluster: Option<String>,
}

/// The AKS bridge, configured.
#[derive(Debug)]
pub struct Aks {
    options: AksConvertOptions,
}

impl Bridge for Aks {
    const NAME: &'static str = "aks-audit-bridge";
    const ABOUT: &'static str = "Delivers the audit events of AKS clusters to an audit webhook";
    const PROVIDER: &'static str = "aks";
    const LOG_FILTER: &'static str = LOG_FILTER;
    type Args = AksArgs;
    type ProviderArgs = AksProviderArgs;
    type Provider = AksProvider;

    fn configure(args: &AksArgs, problems: &mut Problems) -> Aks {
        let default = CATEGORIES.map(str::to_owned).to_vec();
        let categories = problems.read("categories", args.categories.as_deref(), default, |text| {
            let words: Vec<_> = split_list(text).collect();
            if words.is_empty() {
                Err("names no category".into())
            } else {
                Ok(words)
            }
        });
        let names = args.cluster_name.iter().flat_map(|names| split_list(names));
        let clusters = names.filter_map(|name| {
            let cluster = ClusterSelector::read(&name);
            cluster
                .map_err(|what| problems.add("cluster-name", what))
                .ok()
        });
        let clusters = clusters.collect();
        Aks {
            options: AksConvertOptions {
                categories,
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

    fn provider(
        &self,
        _: &AksArgs,
        provider: &AksProviderArgs,
        problems: &mut Problems,
    ) -> AksProvider {
        let provider = provider.check(problems);
        if provider.shared().is_some() && self.options.categories.len() > 1 {
            tracing::warn!(
                categories = self.options.categories.join(","),
                "replicas that share partitions cannot tell the two copies of a request that is \
                 sent in two categories: if the diagnostic setting sends both, choose one with \
                 --categories (AUDIT_BRIDGE_CATEGORIES)"
            );
        }
        provider
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(AksDump)
    }

    fn converter(&self, native: conformance::EventOptions) -> impl Convert + 'static {
        AksConvert::new(AksConvertOptions {
            native,
            ..self.options.clone()
        })
    }
}
