use audit_bridge_core::convert::{Convert, Outcome, Output, RecordId, Skip};
use audit_bridge_core::source::Position as _;
use audit_bridge_replay::read_bytes;
use audit_bridge_testkit::kinesis::subscription::{
    SubscribedEvent, SubscriptionOrigin, bomb, broken_records, control_message, foreign_records,
    gzip,
};

use super::*;
use crate::client::kinesis::Packed;
use crate::client::kinesis::SequenceNumber;
use crate::convert::{EksConvert, STREAM_PREFIX};

fn pages(data: Bytes) -> Vec<ShardPage> {
    let mut unpacker = Unpacker::new(
        3,
        Arc::from("audit/shardId-000000000003"),
        Duration::ZERO,
        GapDetector::default(),
        STREAM_PREFIX.into(),
    );
    let (pages, _) = unpacker.pages(&Packed {
        number: SequenceNumber::parse("4711").unwrap(),
        arrived: Some("2026-11-21T10:00:00Z".parse().unwrap()),
        data,
    });
    pages
}

fn records(data: Bytes) -> Vec<Record> {
    pages(data)
        .into_iter()
        .flat_map(|page| page.records)
        .collect()
}

fn event(n: usize) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
         \"auditID\":\"{n:08}-0000-4000-8000-000000000000\",\"stage\":\"ResponseComplete\",\
         \"requestURI\":\"/api/v1/pods\",\"verb\":\"list\",\"user\":{{\"username\":\"u\"}},\
         \"requestReceivedTimestamp\":\"2026-11-21T10:00:00.000001Z\",\
         \"stageTimestamp\":\"2026-11-21T10:00:00.000002Z\"}}"
    )
}

fn subscribed(n: usize) -> SubscribedEvent {
    SubscribedEvent::new(n, 1_790_000_000_000, event(n))
}

fn convert(records: &[Record]) -> Vec<Outcome> {
    let mut out = Output::default();
    let mut convert = EksConvert::default();
    for (id, record) in (1..).zip(records) {
        convert.convert(RecordId(id), record, &mut out);
    }
    out.drain().collect()
}

#[test]
fn record_of_a_subscription_gives_what_replay_makes_of_it() {
    let subscription = SubscriptionOrigin::of_cluster("111122223333", "prod");
    let events: Vec<_> = (0..5).map(subscribed).collect();
    let live = records(subscription.record(&events));
    let dump: Arc<dyn Dump> = Arc::new(EksDump);
    // The member order of CloudWatch Logs; the stand-in puts the events first.
    let json = subscription.json(&events);
    let text = format!(
        "{{\"messageType\":\"DATA_MESSAGE\",\"owner\":{},\"logGroup\":{},\"logStream\":{},\"logEvents\":{}}}",
        json["owner"], json["logGroup"], json["logStream"], json["logEvents"]
    );
    let replayed = read_bytes(&dump, "dump.json", text.into_bytes());
    let payloads = |records: &[Record]| -> Vec<Bytes> {
        records
            .iter()
            .map(|record| record.payload.clone())
            .collect()
    };
    assert_eq!(payloads(&live), payloads(&replayed.records));
    let payload = std::str::from_utf8(&live[0].payload).unwrap();
    let head = r#"{"owner":"111122223333","logGroup":"/aws/eks/prod/cluster","logStreamName":"kube-apiserver-audit-"#;
    assert!(payload.starts_with(head), "{payload}");
    // The dead letter's record reads back as the same payload.
    let again = read_bytes(&dump, "dead-letter", live[0].payload.to_vec());
    assert_eq!(payloads(&again.records), payloads(&live[..1]));
    for (n, outcome) in convert(&live).iter().enumerate() {
        let Outcome::Event { event: made, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(made.text(), event(n).as_bytes());
    }
    assert_eq!(
        live[4].origin.to_string(),
        "audit/shardId-000000000003: 4711:5"
    );
}

#[test]
fn position_stands_behind_the_last_event_of_a_record() {
    let subscription = SubscriptionOrigin::of_cluster("111122223333", "prod");
    let padding = " ".repeat(200_000);
    let large = |n| SubscribedEvent::new(n, 1, format!("{}{padding}", event(n)));
    let events: Vec<_> = (0..20).map(large).collect();
    let pages = pages(subscription.record(&events));
    assert!(pages.len() >= 3, "{}", pages.len());
    let (last, rest) = pages.split_last().unwrap();
    assert!(
        rest.iter()
            .all(|page| page.position.is_none() && page.read_to.is_none())
    );
    assert!(pages.iter().all(|page| page.partition == 3));
    let bytes = |page: &ShardPage| {
        page.records
            .iter()
            .map(|it| it.payload.len())
            .sum::<usize>()
    };
    assert!(pages.iter().all(|page| bytes(page) < PAGE_BYTES + 300_000));
    let position = last.position.as_ref().unwrap();
    assert_eq!(position.to_stored()["sequence_number"], "4711");
    assert!(last.read_to.is_some());
}

#[test]
fn control_message_is_skipped() {
    let records = records(control_message(1_790_000_000_000));
    let outcomes = convert(&records);
    let [Outcome::Skip { reason, .. }] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(reason.name(), "control_message");
}

#[test]
fn record_of_another_producer_is_skipped_and_never_kept() {
    for (kind, data) in foreign_records() {
        let records = records(data.clone());
        let outcomes = convert(&records);
        let skipped = |it: &Outcome| {
            matches!(
                it,
                Outcome::Skip {
                    reason: Skip::NOT_AUDIT,
                    ..
                }
            )
        };
        assert!(outcomes.iter().all(skipped), "{kind}: {outcomes:?}");
        assert_eq!(records.len(), usize::from(!data.is_empty()), "{kind}");
    }
}

#[test]
fn broken_record_is_kept_and_position_goes_on() {
    // These are not rejected, as they hold no event.
    let whole = ["gzip of nothing", "gzip of an array", "no events"];
    let why = [
        ("cut within gzip", "no gzip of text"),
        ("wrong checksum", "no gzip of text"),
        ("gzip of cut JSON", "json ends early"),
        ("gzip of bytes that are no UTF-8", "no gzip of text"),
        ("event without message", "no message"),
    ];
    for (what, data) in broken_records() {
        let pages = pages(data.clone());
        assert!(pages.last().unwrap().position.is_some(), "{what}");
        let outcomes = convert(&records(data));
        let rejected = outcomes
            .iter()
            .any(|it| matches!(it, Outcome::Reject { .. }));
        if let Some((_, why)) = why.iter().find(|(it, _)| *it == what) {
            assert!(
                format!("{outcomes:?}").contains(why),
                "{what}: {outcomes:?}"
            );
        }
        assert_eq!(rejected, !whole.contains(&what), "{what}: {outcomes:?}");
    }
}

#[test]
fn bomb_is_unpacked_up_to_a_limit_and_kept_as_it_came() {
    let data = bomb(200 << 20);
    assert!(data.len() < 1 << 20);
    let records = records(data.clone());
    let kept = records.last().unwrap();
    assert!(kept.damaged);
    let text = std::str::from_utf8(&kept.payload).unwrap();
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let packed = STANDARD.decode(json["Data"].as_str().unwrap()).unwrap();
    assert_eq!(packed, data);
    let outcomes = convert(&records);
    let Some(Outcome::Reject { error, .. }) = outcomes.last() else {
        panic!("{outcomes:?}");
    };
    assert!(error.contains("more than 16 MiB unpacked"), "{error}");
    let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
    assert!(bytes < 20 << 20, "{bytes}");
}

#[test]
fn group_is_told_of_a_subscription_only() {
    let told = |data: Bytes| {
        group_of(&Packed {
            number: SequenceNumber::parse("1").unwrap(),
            arrived: None,
            data,
        })
    };
    let subscription = SubscriptionOrigin::of_cluster("111122223333", "prod");
    let record = subscription.record(&[subscribed(1)]);
    assert_eq!(
        told(record).as_deref(),
        Some("/aws/eks/prod/cluster (111122223333)")
    );
    assert!(told(control_message(1)).unwrap().contains("control"));
    assert_eq!(told(gzip(b"{}")), None);
    assert_eq!(told(Bytes::from_static(b"hello")), None);
}

#[test]
fn gap_of_a_log_stream_with_the_given_prefix_is_told_with_both_its_ends() {
    let place = Arc::from("audit/shardId-000000000003");
    let gap_detector = GapDetector::default();
    let mut unpacker = Unpacker::new(3, place, Duration::ZERO, gap_detector, "api-".into());
    let mut follow = |log_stream: &str| {
        let seconds = (0..60).chain([660]);
        let gaps = seconds.filter_map(|second| {
            let subscription = SubscriptionOrigin {
                log_stream: log_stream.to_owned(),
                ..SubscriptionOrigin::of_cluster("111122223333", "prod")
            };
            let time_ms = 1_790_000_000_000 + second * 1000;
            let event = SubscribedEvent::new(1, time_ms, event(1));
            let packed = Packed {
                number: SequenceNumber::parse("4711").unwrap(),
                arrived: None,
                data: subscription.record(&[event]),
            };
            unpacker.pages(&packed).1
        });
        gaps.collect::<Vec<_>>()
    };
    assert_eq!(follow("kube-apiserver-audit-1"), []);
    let found = follow("api-1");
    assert_eq!(found.len(), 1);
    let (from, until) = (found[0].from, found[0].until);
    assert!(from.as_millisecond() < 1_790_000_059_000, "{from}");
    assert!(until.as_millisecond() > 1_790_000_660_000, "{until}");
}
