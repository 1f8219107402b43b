//! What the flags choose: log groups that are queried, or a stream that subscriptions feed.

use audit_bridge_app::config::Problems;
use audit_bridge_app::provider::either::Either;

use super::stream::StreamProvider;
use super::{EksProvider, EksProviderArgs};
use crate::convert::EksConvertOptions;

/// Log groups, by `FilterLogEvents`, or `--stream`.
pub(crate) type Mode = Either<EksProvider, StreamProvider>;

/// Checks the flags of the one that they choose.
pub(crate) fn check(
    live: &EksProviderArgs,
    options: &EksConvertOptions,
    problems: &mut Problems,
) -> Mode {
    match live.stream.is_given() {
        true => {
            let access = live.stream_access(problems);
            Either::B(live.stream.check(access, problems))
        }
        false => {
            live.stream.check_absent(problems);
            Either::A(live.check(options, problems))
        }
    }
}
