//! While nothing is accepted, nothing is given up, and everything is delivered afterwards.

use std::time::Duration;

use audit_bridge_core::sink::{Cause, Verdict};
use tokio::time::Instant;

use super::fake::{Fake, accepted, answered, failed};
use super::{Ends, batch, delivery};

fn outages() -> Vec<(Verdict, Duration)> {
    let quick = Duration::from_millis(5);
    let mut all: Vec<(Verdict, Duration)> = [301, 400, 401, 403, 404, 413, 422, 429, 500, 503]
        .into_iter()
        .map(|status| (answered(status), quick))
        .collect();
    for cause in [
        Cause::Connect,
        Cause::Dns,
        Cause::Tls,
        Cause::Token,
        Cause::Other,
    ] {
        all.push((failed(cause), quick));
    }
    all.push((failed(Cause::Timeout), Duration::from_secs(10)));
    all
}

#[tokio::test(start_paused = true)]
async fn outage_total_delivers_everything_afterwards() {
    for slots in [1, 4] {
        for (verdict, took) in outages() {
            for hours in [0, 1] {
                let (begins, ends_at) = {
                    let begins = Instant::now() + Duration::from_secs(30);
                    (begins, begins + Duration::from_secs(60 + hours * 3600))
                };
                let outage = verdict.clone();
                let (fake, log) =
                    Fake::new(
                        move |_, _, _| match (begins..ends_at).contains(&Instant::now()) {
                            true => (took, outage.clone()),
                            false => (Duration::from_millis(5), accepted()),
                        },
                    );
                let mut delivery = delivery(fake, slots);
                let mut ends = Ends::default();
                let (mut from, mut in_outage) = (0, false);
                let what = format!("{verdict:?} for {hours} h in {slots} slots");
                while Instant::now() < ends_at + Duration::from_secs(120) {
                    if delivery.has_room() && from < 100_000 {
                        delivery.start(batch(from..from + 50));
                        from += 50;
                    }
                    ends += super::receipts_for(&mut delivery, Duration::from_secs(5)).await;
                    in_outage |= delivery.status().outage.is_some();
                }
                assert!(in_outage, "{what}");
                assert_eq!(delivery.status().outage, None, "{what}");
                assert!(delivery.is_idle(), "{what}: {delivery:?}");
                assert!(
                    ends.refused.is_empty() && ends.undeliverable.is_empty(),
                    "{what}"
                );
                if slots == 1 {
                    // A batch that was tried in place of the first may be through before it.
                    let back = ends.delivered.windows(2).filter(|two| two[0] > two[1]);
                    let most = usize::try_from(hours).unwrap();
                    assert!(back.count() <= most, "{what}: one slot keeps the order");
                }
                ends.delivered.sort_unstable();
                assert_eq!(ends.delivered, (0..from).collect::<Vec<_>>(), "{what}");
                // Just before its end, an event may be tried without its objects.
                let most = if verdict == answered(413) { slots } else { 0 };
                assert!(ends.stripped <= most, "{what}: {}", ends.stripped);
                let log = log.lock().unwrap();
                let failed = log
                    .requests
                    .iter()
                    .filter(|(at, _)| (begins..ends_at).contains(at));
                let most = 400 + usize::try_from(hours).unwrap() * 3600;
                let failed = failed.count();
                assert!(failed < most, "{what}: {failed} requests");
            }
        }
    }
}
