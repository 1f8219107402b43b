//! The settings that only this bridge needs.

use std::sync::Arc;

use audit_bridge_app::cli::Bridge;
use audit_bridge_app::config::{Problems, given};
use audit_bridge_core::convert::Convert;
use audit_bridge_core::event::conformance;
use audit_bridge_replay::dump::Dump;

use crate::convert::{EksConvert, EksConvertOptions, STREAM_PREFIX};
use crate::dump::EksDump;
use crate::provider::{EksProvider, EksProviderArgs};

/// The flags of CloudWatch Logs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "CloudWatch Logs")]
pub struct EksArgs {
    /// Streams that begin so hold audit events [default: kube-apiserver-audit-]
    #[arg(long, value_name = "PREFIX")]
    log_stream_prefix: Option<String>,
}

/// The EKS bridge, configured.
#[derive(Debug)]
pub struct Eks {
    stream_prefix: String,
}

impl Bridge for Eks {
    const NAME: &'static str = "eks-audit-bridge";
    const ABOUT: &'static str = "Delivers the audit events of EKS clusters to an audit webhook";
    const PROVIDER: &'static str = "eks";
    type Args = EksArgs;
    type ProviderArgs = EksProviderArgs;
    type Provider = EksProvider;

    fn configure(args: &EksArgs, _: &mut Problems) -> Eks {
        let prefix = given(args.log_stream_prefix.as_deref()).unwrap_or(STREAM_PREFIX);
        Eks {
            stream_prefix: prefix.to_owned(),
        }
    }

    fn provider(
        &self,
        _: &EksArgs,
        provider: &EksProviderArgs,
        problems: &mut Problems,
    ) -> EksProvider {
        provider.check(&self.stream_prefix, problems)
    }

    fn dump() -> Arc<dyn Dump> {
        Arc::new(EksDump)
    }

    fn converter(&self, native: conformance::EventOptions) -> impl Convert + 'static {
        EksConvert::new(EksConvertOptions {
            stream_prefix: self.stream_prefix.clone(),
            native,
        })
    }
}
