//! `run --catch-up` delivers once what the log group has and the stream did not bring.

use audit_bridge_testkit::{CloudWatch, WebhookAnswer};

use super::*;

const GROUP: &str = "/aws/eks/prod/cluster";

/// A stream, and the log group that feeds it.
struct Subscribed {
    stage: Stage,
    cloud: CloudWatch,
    began_ms: i64,
}

impl Subscribed {
    async fn new(shards: u32) -> Subscribed {
        let stage = Stage::new(shards).await;
        let cloud = CloudWatch::start().await;
        cloud.group(GROUP);
        let began_ms = stage.kinesis.now_ms();
        Subscribed {
            stage,
            cloud,
            began_ms,
        }
    }

    /// Writes this event to the log group, `second` seconds into the window.
    fn log(&self, n: usize, second: i64, text: &str) {
        let stream = log_stream(n).log_stream;
        self.cloud.put(GROUP, &stream, self.at(second), text);
    }

    /// Writes it to the stream.
    fn bring(&self, n: usize, second: i64, text: &str) {
        self.bring_of(&log_stream(n), n, second, text);
    }

    fn bring_of(&self, from: &SubscriptionOrigin, n: usize, second: i64, text: &str) {
        let event = SubscribedEvent::new(n, self.at(second), text.to_owned());
        self.stage.kinesis.deliver(STREAM, from, &[event]);
    }

    /// Milliseconds since 1970 of a second in the window. The window is over, and so is the time
    /// for late records.
    fn at(&self, second: i64) -> i64 {
        self.began_ms - 1_800_000 + second * 1000
    }

    fn window(&self) -> String {
        let time = |second| jiff::Timestamp::from_millisecond(self.at(second)).unwrap();
        format!("--catch-up={},{}", time(0), time(300))
    }

    /// Runs the job to its end.
    fn catch_up(&self, more: &[&str]) -> String {
        let window = self.window();
        let mut args = vec![
            window.as_str(),
            "--cluster-name=prod",
            "--requests-per-second=60",
        ];
        args.extend(more);
        let mut bridge = self.start(&args);
        assert_eq!(bridge.until_end(), 0, "{}", bridge.log());
        bridge.log()
    }

    fn start(&self, args: &[&str]) -> Running {
        let url = self.cloud.url();
        let logs = ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", url.as_str());
        self.stage.start_as(args, &[logs])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_delivers_what_the_stream_did_not_bring_and_only_that() {
    let all = Subscribed::new(3).await;
    let text = |n| event(n, 600);
    // The filter was off from the 100th to the 199th event.
    for n in 0..300 {
        let second = i64::try_from(n).unwrap();
        all.log(n, second, &text(n));
        if !(100..200).contains(&n) {
            all.bring(n, second, &text(n));
            // AWS delivers at least once.
            if n % 7 == 0 {
                all.bring(n, second, &text(n));
            }
        }
        if n == 150 {
            all.stage.kinesis.reshard(STREAM, 7, 6);
        }
    }
    // A foreign cluster of the same name with the same bytes does not replace a missing event, nor
    // does another event with the same auditID.
    let other = SubscriptionOrigin {
        log_stream: log_stream(120).log_stream,
        ..SubscriptionOrigin::of_cluster("111122223333", "other")
    };
    all.bring_of(&other, 120, 120, &text(120));
    all.bring(
        121,
        121,
        &text(121).replacen("\"verb\":\"", "\"verb\":\"x", 1),
    );
    let log = all.catch_up(&[]);
    let accepted: BTreeSet<_> = all.stage.accepted().into_iter().collect();
    let missing: BTreeSet<_> = (100..200).map(audit_id).collect();
    assert_eq!(accepted, missing, "{log}");
    all.stage.assert_no_duplicates();
    // The same window again: its checkpoint says that it is complete.
    all.catch_up(&[]);
    assert_eq!(all.stage.accepted().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_killed_goes_on_and_repeats_no_more_than_was_in_flight() {
    let all = Subscribed::new(1).await;
    for n in 0..250 {
        all.log(n, i64::try_from(n).unwrap(), &event(n, 600));
    }
    all.stage.webhook.set_answer(WebhookAnswer::status(503));
    let window = all.window();
    let bridge = all.start(&[&window, "--cluster-name=prod"]);
    let first = wait(|| (!all.stage.webhook.received().is_empty()).then_some(()));
    assert!(first.is_some(), "{}", bridge.log());
    bridge.kill();
    all.stage.webhook.accept();
    let log = all.catch_up(&[]);
    assert!(log.contains("nothing of this log group"), "{log}");
    let accepted: BTreeSet<_> = all.stage.accepted().into_iter().collect();
    assert_eq!(accepted.len(), 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catch_up_settings_without_sense_are_all_named() {
    let all = Subscribed::new(1).await;
    let window = all.window();
    for (args, said) in [
        (vec!["--catch-up=now"], "is not FROM,UNTIL"),
        (
            vec!["--catch-up=2026-11-02T00:00:00Z,2026-11-01T00:00:00Z"],
            "before it begins",
        ),
        (
            vec!["--catch-up=2026-11-02T00:00:00Z,9999-11-01T00:00:00Z"],
            "in the future",
        ),
        (
            vec![&window, "--start=earliest"],
            "AUDIT_BRIDGE_START): cannot be combined",
        ),
        (
            vec![&window, "--until=now"],
            "AUDIT_BRIDGE_UNTIL): cannot be combined",
        ),
        (vec![&window, "--unmask=true"], "is masked"),
        (vec![&window, "--stream="], "needs --stream"),
    ] {
        let mut args = args;
        args.push("--cluster-name=prod");
        let (status, text) = all.stage.check(&args);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(said), "{said}: {text}");
    }
}
