//! Builds the content of a Lease. Pure, except for the wall clock, whose times are only for people.

use std::time::Duration;

use audit_bridge_core::event::time::micros;
use jiff::{Timestamp, ToSpan};

use super::object::{Lease, LeaseSpec};
use super::{LEASE_DURATION_MAX, LeaseTiming};

/// The holder's identity; empty without a holder.
pub(super) fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// How long a candidate must observe no change: the duration in the Lease, but never less than our
/// own (a holder of another release may use a shorter one), and bounded.
pub(super) fn duration(lease: &Lease, timing: LeaseTiming) -> Duration {
    let promised = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    promised.max(timing.lease_duration).min(LEASE_DURATION_MAX)
}

/// Whether it ever had a holder: one that was created beforehand has no content.
pub(super) fn was_ever_taken(lease: &Lease) -> bool {
    lease
        .spec
        .as_ref()
        .is_some_and(|spec| *spec != LeaseSpec::default())
}

/// How often the Lease has changed hands.
pub(super) fn transitions(lease: &Lease) -> i64 {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.lease_transitions)
        .unwrap_or(0)
        .into()
}

/// How long ago it was renewed, by the clocks of its holder and of this machine; `None` if that is
/// unknown or lies ahead.
pub(super) fn age(lease: &Lease) -> Option<Duration> {
    let renewed = lease.spec.as_ref()?.renew_time.as_deref()?;
    let renewed: Timestamp = renewed.parse().ok()?;
    Timestamp::now().duration_since(renewed).try_into().ok()
}

/// A new Lease that we hold.
pub(super) fn made(name: &str, identity: &str, timing: LeaseTiming) -> Lease {
    let now = micros(Timestamp::now());
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: seconds(timing.lease_duration),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(0),
        ..LeaseSpec::default()
    };
    Lease::new(name, spec)
}

/// The Lease, taken over or renewed by us. It keeps its version, so that the API server refuses the
/// write if another one came first.
pub(super) fn taken(mut lease: Lease, identity: &str, timing: LeaseTiming) -> Lease {
    let ours = holder(&lease) == identity;
    let spec = lease.spec.get_or_insert_default();
    let now = after(spec.renew_time.as_deref());
    if !ours {
        spec.holder_identity = Some(identity.to_owned());
        spec.acquire_time = Some(now.clone());
        let transitions = spec.lease_transitions.unwrap_or(0);
        spec.lease_transitions = Some(transitions.saturating_add(1));
    }
    spec.lease_duration_seconds = seconds(timing.lease_duration);
    spec.renew_time = Some(now);
    lease
}

/// The Lease, released, so that the next candidate may take it at once.
pub(super) fn released(mut lease: Lease) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(after(spec.renew_time.as_deref()));
    lease
}

/// The wall clock, but never the `last` time: candidates notice a renewal by its change, and a
/// clock may stand still or be set back.
fn after(last: Option<&str>) -> String {
    let now = Timestamp::now();
    let written = micros(now);
    match last == Some(written.as_str()) {
        true => micros(now.checked_add(1.microsecond()).unwrap_or(now)),
        false => written,
    }
}

fn seconds(duration: Duration) -> Option<i32> {
    i32::try_from(duration.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_counts_a_transition_and_renewal_does_not() {
        let timing = LeaseTiming::default();
        let first = made("x", "a", timing);
        let renewed = taken(first.clone(), "a", timing);
        let other = taken(renewed.clone(), "b", timing);
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        assert_eq!(spec(&renewed).acquire_time, spec(&first).acquire_time);
        assert_ne!(spec(&renewed).renew_time, spec(&first).renew_time);
        assert_eq!(spec(&renewed).lease_transitions, Some(0));
        assert_eq!(spec(&other).lease_transitions, Some(1));
        assert_eq!(spec(&other).acquire_time, spec(&other).renew_time);
        let free = released(other);
        assert_eq!(holder(&free), "");
        assert_eq!(spec(&taken(free, "b", timing)).lease_transitions, Some(2));
    }

    #[test]
    fn lease_duration_is_at_least_ours_and_bounded() {
        let timing = LeaseTiming::default();
        for (seconds, want) in [
            (None, 15),
            (Some(-1), 15),
            (Some(1), 15),
            (Some(60), 60),
            (Some(i32::MAX), 3600),
        ] {
            let mut lease = made("x", "a", timing);
            lease.spec.as_mut().unwrap().lease_duration_seconds = seconds;
            assert_eq!(duration(&lease, timing).as_secs(), want);
        }
    }

    #[test]
    fn renewal_always_changes_the_time() {
        for _ in 0..1000 {
            let last = micros(Timestamp::now());
            assert_ne!(after(Some(&last)), last);
        }
    }
}
