//! Restarts, kills and outages: nothing is lost, and only what was in flight is repeated.

use std::time::Duration;

use audit_bridge_testkit::WebhookAnswer;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_continues_exactly_where_it_stopped() {
    let stage = Stage::new(4).await;
    stage.publish(0..50, 4);
    let mut bridge = stage.start(&["--start", "earliest"]);
    bridge.until_ready();
    stage.until_accepted(&bridge, 0..50);
    assert_eq!(bridge.terminate(), 0);
    stage.publish(50..90, 4);
    for round in 0..3 {
        // Even with nothing to do.
        let mut bridge = stage.start(&[]);
        bridge.until_ready();
        stage.until_accepted(&bridge, 0..90);
        assert_eq!(bridge.terminate(), 0, "round {round}");
    }
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_latest_skips_the_past_and_restart_finds_the_rest() {
    let stage = Stage::new(3).await;
    for n in 0..9 {
        let old = vec![message(&[record(n)]).into()];
        stage
            .hubs
            .publish_at(HUB, n % 3, old, Duration::from_secs(600));
    }
    let mut bridge = stage.start(&[]);
    bridge.until_ready();
    stage.until_settled(9);
    bridge.kill();
    // No event was delivered, yet the next process knows where the first started.
    stage.publish(9..30, 3);
    let bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 9..30);
    stage.assert_no_duplicates();
    assert_eq!(stage.webhook.accepted_ids().len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_midway_loses_nothing_and_repeats_only_in_flight() {
    let stage = Stage::new(8).await;
    let mut published = 0;
    let mut may_repeat = BTreeSet::new();
    for life in 0..4 {
        // Each process settles something, and is killed while more arrives.
        let mut bridge = stage.start(&["--start", "earliest"]);
        bridge.until_ready();
        stage.publish(published..published + 200, 8);
        published += 200;
        stage.until_accepted(&bridge, 0..published);
        stage.until_settled(i64::try_from(published).unwrap());
        let settled: BTreeSet<_> = stage.webhook.accepted_ids().into_iter().collect();
        stage
            .webhook
            .set_answer(WebhookAnswer::status(200).after(Duration::from_millis(30)));
        stage.publish(published..published + 1000, 8);
        published += 1000;
        let some = wait(|| {
            (stage.webhook.accepted_ids().len() > settled.len() + 100 * (life + 1)).then_some(())
        });
        assert!(some.is_some(), "{}", bridge.log());
        bridge.kill();
        stage.webhook.accept();
        may_repeat.extend((published - 1000..published).map(audit_id));
    }
    let bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 0..published);
    let mut seen = BTreeSet::new();
    for id in stage.webhook.accepted_ids() {
        if !seen.insert(id.clone()) {
            assert!(may_repeat.contains(&id), "{id} was settled, and came again");
        }
    }
    assert_eq!(seen.len(), published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_hub_or_receiver_loses_nothing() {
    let stage = Stage::new(4).await;
    let mut bridge = stage.start(&["--start", "earliest"]);
    bridge.until_ready();
    stage.publish(0..100, 4);
    stage.until_accepted(&bridge, 0..100);

    // `OUTAGE_SECONDS=180` for a longer outage.
    let seconds = std::env::var("OUTAGE_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(6);
    stage.hubs.stop_listening().await;
    stage.publish(100..300, 4);
    let why = bridge.until_not_ready("source", "refused");
    assert!(why.contains("something listens at"), "{why}");
    assert_eq!(bridge.get("/livez").0, 200);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stage.hubs.come_back().await;
    stage.until_accepted(&bridge, 0..300);
    bridge.until_ready();

    stage.webhook.set_answer(WebhookAnswer::status(503));
    stage.publish(300..400, 4);
    bridge.until_not_ready("webhook", "");
    stage.hubs.cut();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.publish(400..500, 4);
    stage.webhook.accept();
    stage.until_accepted(&bridge, 0..500);
    bridge.until_ready();
    assert_eq!(bridge.terminate(), 0);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_down_at_start_loses_nothing() {
    let stage = Stage::new(2).await;
    stage.hubs.stop_listening().await;
    let mut bridge = stage.start(&[]);
    bridge.until_not_ready("source", "something listens at");
    stage.publish(0..20, 2);
    stage.hubs.come_back().await;
    stage.until_accepted(&bridge, 0..20);
    stage.hubs.stop_listening().await;
    // A bridge in an outage still ends on SIGTERM.
    bridge.until_not_ready("source", "refused");
    assert_eq!(bridge.terminate(), 0);
    stage.assert_no_duplicates();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_detached_or_token_expired_loses_and_repeats_nothing() {
    let stage = Stage::new(4).await;
    stage.hubs.token_lifetime(Duration::from_secs(5));
    let mut bridge = stage.start(&["--start", "earliest"]);
    bridge.until_ready();
    for round in 0..8 {
        stage.publish(round * 50..(round + 1) * 50, 4);
        stage.hubs.detach(HUB, round % 4);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stage.until_accepted(&bridge, 0..400);
    stage.assert_no_duplicates();
    assert!(stage.hubs.attached().len() > 8);
    let log = bridge.log();
    assert!(log.contains("link ended: reopening it"), "{log}");
    let sas = "servicebus.windows.net:sastoken";
    assert!(stage.hubs.tokens().iter().all(|put| put.kind == sas));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn position_expired_is_logged_and_counted_and_reading_continues() {
    let stage = Stage::new(1).await;
    stage.publish(0..10, 1);
    let bridge = stage.start(&["--start", "earliest"]);
    stage.until_accepted(&bridge, 0..10);
    assert_eq!(bridge.terminate(), 0);
    stage.publish(10..60, 1);
    stage.hubs.trim(HUB, 0, 45);
    let mut bridge = stage.start(&[]);
    stage.until_accepted(&bridge, 45..60);
    bridge.until_metric("audit_bridge_records_expired_total", 35.0);
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("they are lost"));
    let line = line.unwrap_or_else(|| panic!("not told:\n{log}"));
    assert!(line.contains("\"ERROR\"") && line.contains("35"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_delivers_what_there_is_and_ends() {
    let stage = Stage::new(3).await;
    stage.publish(0..30, 3);
    let mut bridge = stage.start(&["--start", "earliest", "--until", "now"]);
    assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
    stage.until_accepted(&bridge, 0..30);
    stage.assert_no_duplicates();
}
