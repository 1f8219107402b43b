//! Chooses the source by the flags: log groups that are queried, a stream that subscriptions feed,
//! or the events of log groups that the stream missed.

use audit_bridge_app::config::Problems;
use audit_bridge_app::provider::either::Either;

use super::catch_up::{self, CatchUp};
use super::stream::StreamProvider;
use super::{EksProvider, EksProviderArgs};
use crate::convert::EksConvertOptions;

/// Log groups (`FilterLogEvents`), `--stream`, or `--catch-up`.
pub(crate) type Mode = Either<EksProvider, Either<StreamProvider, CatchUp>>;

/// Checks the flags of the chosen mode.
pub(crate) fn check(
    live: &EksProviderArgs,
    options: &EksConvertOptions,
    problems: &mut Problems,
) -> Mode {
    if live.stream.is_catch_up() {
        return Either::B(Either::B(catch_up::check(live, options, problems)));
    }
    match live.stream.is_given() {
        true => {
            let access = live.stream_access(problems);
            Either::B(Either::A(live.stream.check(options, access, problems)))
        }
        false => {
            live.stream.check_absent(problems);
            Either::A(live.check(options, problems))
        }
    }
}
