use std::sync::Arc;

use audit_bridge_core::convert::Outcome;
use audit_bridge_core::event::json::Raw;
use audit_bridge_core::record::Origin;
use audit_bridge_testkit::arbitrary::{any_event, any_json, assert_left_of_cut, quoted};
use proptest::prelude::*;

use super::*;

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api?x=1\u0026y=2","verb":"create","stageTimestamp":"2026-03-05T09:15:02.149911Z"}"#;
const LOGS: &str = include_str!("../../fixtures/logs.jsonl");
const CLUSTER: &str = "/SUBSCRIPTIONS/00000000-1111-2222-3333-444444444444/RESOURCEGROUPS/SHOP/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/SHOP-PROD";

fn record(payload: impl Into<Bytes>) -> Record {
    let origin = Origin::File {
        file: Arc::from("test"),
        record: 1,
    };
    Record::new(payload, origin)
}

fn run_with(convert: &mut AksConvert, record: &Record) -> Outcome {
    let mut out = Output::default();
    convert.convert(RecordId(1), record, &mut out);
    let mut outcomes: Vec<_> = out.drain().collect();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    outcomes.remove(0)
}

fn run(record: &Record) -> Outcome {
    run_with(&mut AksConvert::default(), record)
}

/// The event's text, or the reason in brackets and the error.
fn show_with(convert: &mut AksConvert, record: &Record) -> String {
    match run_with(convert, record) {
        Outcome::Event { event, .. } => String::from_utf8(event.text().to_vec()).unwrap(),
        Outcome::Skip { reason, .. } => format!("[{reason}]"),
        Outcome::Reject { reason, error, .. } => format!("[{reason}] {error}"),
    }
}

fn show(record: &Record) -> String {
    show_with(&mut AksConvert::default(), record)
}

/// A record as Azure writes it; `log` is JSON.
fn of(category: &str, log: &str) -> String {
    format!(
        "{{\"category\":\"{category}\",\"operationName\":\"x\",\"properties\":{{\"pod\":\"p\",\"log\":{log},\"stream\":\"stdout\"}},\"resourceId\":\"{CLUSTER}\",\"time\":\"2026-03-05T09:15:02.1500217Z\"}}"
    )
}

fn audit(log: &str) -> String {
    of("kube-audit", &quoted(log))
}

#[test]
fn convert_each_rule_of_the_table_holds() {
    let log = quoted(EVENT);
    let klog = quoted("I0305 09:15:04.111222       1 wrap.go:47] PUT /x\n");
    let no_time = EVENT.replace(r#","stageTimestamp":"2026-03-05T09:15:02.149911Z""#, "");
    let at = |micros: &str| {
        no_time.replace(
            "\"create\"}",
            &format!("\"create\",\"stageTimestamp\":\"2026-03-05T09:15:02.{micros}Z\",\"annotations\":{{\"audit-bridge/stage-timestamp\":\"record\"}}}}"),
        )
    };
    let timed = |time: &str| audit(&no_time).replace("2026-03-05T09:15:02.1500217Z", time);
    let too_big = EVENT.replace(
        "\"verb\"",
        "\"requestObject\":\"skipped-too-big-size-object\",\"verb\"",
    );
    let no_other = "[unparsable] no stageTimestamp and no other time to take instead";
    for (payload, want) in [
        // The event's bytes are unchanged.
        (EVENT.to_owned(), EVENT.to_owned()),
        (audit(EVENT), EVENT.to_owned()),
        (audit(&format!("{EVENT}\n")), EVENT.to_owned()),
        (audit(EVENT).replace('/', "\\/"), EVENT.to_owned()),
        (of("kube-audit-admin", &log), EVENT.to_owned()),
        (of("Kube-Audit", &log), EVENT.to_owned()),
        (of("kube-audit", EVENT), EVENT.to_owned()),
        (audit(&too_big), too_big.clone()),
        (
            format!("{{\"properties\":{{\"log\":{log}}},\"time\":\"x\"}}"),
            EVENT.to_owned(),
        ),
        (
            format!("{{\"category\":\"\",\"properties\":{{\"log\":{log}}}}}"),
            EVENT.to_owned(),
        ),
        (
            format!(
                "{{\"properties\":{}}}",
                quoted(&format!("{{\"log\":{log}}}"))
            ),
            EVENT.to_owned(),
        ),
        (
            format!(
                "{{\"properties\":{}}}",
                quoted(&format!("{{\"log\":{EVENT}}}"))
            ),
            EVENT.to_owned(),
        ),
        (
            format!("{{\"Category\":\"kube-audit\",\"Properties\":{{\"Log\":{log}}}}}"),
            EVENT.to_owned(),
        ),
        (
            format!("{{\"level\":\"Informational\",\"properties\":{{\"log\":{log}}}}}"),
            EVENT.to_owned(),
        ),
        (
            format!("{{\"properties\":{{\"log\":1,\"log\":{log}}}}}"),
            EVENT.to_owned(),
        ),
        // Records of other categories, whatever their content.
        (of("kube-apiserver", &klog), "[other_category]".to_owned()),
        (of("guard", &log), "[other_category]".to_owned()),
        (of("guard", "\"\\ud800\""), "[other_category]".to_owned()),
        // Records without a category to identify them.
        (
            format!("{{\"properties\":{{\"log\":{klog}}}}}"),
            "[not_audit]".to_owned(),
        ),
        (
            r#"{"properties":{"log":"{\"level\":\"info\"}"}}"#.to_owned(),
            "[not_audit]".to_owned(),
        ),
        (
            r#"{"properties":{"log":{"kind":"Event"}}}"#.to_owned(),
            "[unparsable] no auditID".to_owned(),
        ),
        (r#"{"properties":{}}"#.to_owned(), "[not_audit]".to_owned()),
        (r#"{"properties":7}"#.to_owned(), "[not_audit]".to_owned()),
        (
            r#"{"properties":"text"}"#.to_owned(),
            "[not_audit]".to_owned(),
        ),
        (
            "I0305 09:15:04.111222 1 wrap.go:47] PUT /x".to_owned(),
            "[not_audit]".to_owned(),
        ),
        (String::new(), "[not_audit]".to_owned()),
        ("{}".to_owned(), "[not_audit]".to_owned()),
        ("[]".to_owned(), "[not_audit]".to_owned()),
        (r#"{"kind":0}"#.to_owned(), "[not_audit]".to_owned()),
        (
            r#"{"kind":"Event"}"#.to_owned(),
            "[unparsable] no auditID".to_owned(),
        ),
        // A record of an audit category is an event, or is kept.
        (
            of("kube-audit", &klog),
            "[unparsable] expected an object at byte 0".to_owned(),
        ),
        (
            of("kube-audit", "{\"kind\":\"Event\"}"),
            "[unparsable] no auditID".to_owned(),
        ),
        (
            of("kube-audit", "{\"kind\":0}"),
            "[unparsable] kind is 0, not \"Event\"".to_owned(),
        ),
        (
            of("kube-audit", "null"),
            "[unparsable] expected an object at byte 0".to_owned(),
        ),
        (
            r#"{"category":"kube-audit","properties":{"stream":"stdout"}}"#.to_owned(),
            "[unparsable] no properties.log".to_owned(),
        ),
        (
            r#"{"category":"kube-audit","properties":null}"#.to_owned(),
            "[unparsable] no properties.log".to_owned(),
        ),
        (
            r#"{"category":"kube-audit","properties":{"log":"\ud83d!"}}"#.to_owned(),
            "[unparsable] expected an object at byte 0".to_owned(),
        ),
        // Damaged envelopes.
        (
            r#"{"category":"kube-audit""#.to_owned(),
            "[unparsable] json ends early, at byte 24".to_owned(),
        ),
        (
            r#"{"properties":{"log":'x'}}"#.to_owned(),
            "[unparsable] expected a value at byte 21".to_owned(),
        ),
        (
            format!("{} {{}}", audit(EVENT)),
            format!(
                "[unparsable] expected the end of the text at byte {}",
                audit(EVENT).len() + 1
            ),
        ),
        // The record's time is the last resort, in each of Azure's forms.
        (audit(&no_time), at("150021")),
        (timed("2026-03-05T09:15:02.150021734Z"), at("150021")),
        (timed("2026-03-05T09:15:02Z"), at("000000")),
        (timed("2026-03-05T09:15:02.1500217"), at("150021")),
        (timed("2026-03-05 09:15:02.15"), at("150000")),
        (timed("2026-03-05T11:15:02.15+02:00"), at("150000")),
        (timed("0001-01-01T00:00:00Z"), no_other.to_owned()),
        (timed("NaN"), no_other.to_owned()),
    ] {
        assert_eq!(show(&record(payload.clone())), want, "{payload}");
    }
}

#[test]
fn convert_damaged_text_is_rejected_and_kept() {
    for (payload, want) in [
        ("\":\"x\"}", "[unparsable]"),
        (r#"{"properties":{"log":"text"}}"#, "[unparsable]"),
        (r#"{"a":1}"#, "[unparsable]"),
        (r#"{"category":"guard"}"#, "[other_category]"),
        (EVENT, EVENT),
    ] {
        let mut damaged = record(payload);
        damaged.damaged = true;
        assert!(
            show(&damaged).starts_with(want),
            "{payload}: {}",
            show(&damaged)
        );
    }
    assert_eq!(
        show(&record(&b"{\"category\":\"\xff\"}"[..])),
        "[other_category]"
    );
}

fn clusters(names: &[&str]) -> Vec<ClusterSelector> {
    let read = names
        .iter()
        .map(|name| ClusterSelector::read(name).unwrap());
    read.collect()
}

#[test]
fn convert_cluster_of_the_same_name_elsewhere_is_told_apart_by_id() {
    let mut convert = AksConvert::new(AksConvertOptions {
        clusters: clusters(&[&CLUSTER.to_ascii_lowercase()]),
        ..AksConvertOptions::default()
    });
    assert_eq!(show_with(&mut convert, &record(audit(EVENT))), EVENT);
    for elsewhere in [
        CLUSTER.replace("RESOURCEGROUPS/SHOP", "RESOURCEGROUPS/BANK"),
        CLUSTER.replace("4444/", "4445/"),
    ] {
        assert_ne!(elsewhere, CLUSTER);
        let payload = audit(EVENT).replace(CLUSTER, &elsewhere);
        let got = show_with(&mut convert, &record(payload));
        assert_eq!(got, "[other_cluster]", "{elsewhere}");
    }
}

#[test]
fn convert_clusters_are_selected_by_resource_suffix() {
    let mut convert = AksConvert::new(AksConvertOptions {
        clusters: clusters(&["other", "shop-prod"]),
        ..AksConvertOptions::default()
    });
    for (resource, converted) in [
        (CLUSTER, true),
        ("/x/managedClusters/shop-PROD/", true),
        ("/x/managedClusters/shop-prod-2", false),
        ("/SHOP-PROD/managedClusters/x", false),
        // Unknown cluster: it may be one of the chosen.
        ("", true),
    ] {
        let payload = audit(EVENT).replace(CLUSTER, resource);
        let want = if converted { EVENT } else { "[other_cluster]" };
        assert_eq!(
            show_with(&mut convert, &record(payload)),
            want,
            "{resource}"
        );
    }
    assert_eq!(show_with(&mut convert, &record(EVENT)), EVENT);
}

#[test]
fn convert_event_names_its_cluster_when_asked() {
    let named = |names: &[&str]| {
        AksConvert::new(AksConvertOptions {
            clusters: clusters(names),
            annotate_cluster: true,
            ..AksConvertOptions::default()
        })
    };
    let annotated = |convert: &mut AksConvert, resource: &str| {
        let payload = audit(EVENT).replace(CLUSTER, resource);
        let text = show_with(convert, &record(payload));
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        let annotations = event["annotations"].as_object().cloned();
        let cluster = annotations.and_then(|all| all.get("audit-bridge/cluster").cloned());
        cluster.map(|cluster| cluster.as_str().unwrap().to_owned())
    };
    // The ID in the user's spelling, else in Azure's; the next record may be of another cluster.
    let (own, azures) = (CLUSTER.to_ascii_lowercase(), "/X/MANAGEDCLUSTERS/B");
    let mut convert = named(&[&own, "b"]);
    for (resource, want) in [
        (CLUSTER, Some(&*own)),
        (azures, Some(azures)),
        (CLUSTER, Some(&*own)),
        ("", None),
    ] {
        let got = annotated(&mut convert, resource);
        assert_eq!(got.as_deref(), want, "{resource}");
    }
    let mut convert = named(&[]);
    let got = annotated(&mut convert, "/X/MANAGEDCLUSTERS/SHOP-PROD/");
    assert_eq!(got.as_deref(), Some("/X/MANAGEDCLUSTERS/SHOP-PROD"));
}

#[test]
fn convert_categories_are_selected() {
    let mut convert = AksConvert::new(AksConvertOptions {
        categories: vec!["kube-audit-admin".to_owned()],
        ..AksConvertOptions::default()
    });
    let admin = of("kube-audit-admin", &quoted(EVENT));
    assert_eq!(
        show_with(&mut convert, &record(audit(EVENT))),
        "[other_category]"
    );
    assert_eq!(show_with(&mut convert, &record(admin.clone())), EVENT);
    assert_eq!(show_with(&mut convert, &record(admin)), EVENT);
}

/// A converter that has seen a record of each category.
fn converter_of_both() -> AksConvert {
    let mut convert = AksConvert::default();
    for category in CATEGORIES {
        let first = EVENT.replace("a-1", category);
        assert_eq!(
            show_with(&mut convert, &record(of(category, &quoted(&first)))),
            first
        );
    }
    convert
}

#[test]
fn convert_same_request_in_another_cluster_is_delivered() {
    let mut convert = converter_of_both();
    let [all, admin] = CATEGORIES.map(|category| of(category, &quoted(EVENT)));
    assert_eq!(show_with(&mut convert, &record(all)), EVENT);
    // A client of another cluster on the same hub reuses an audit ID; one of the clusters has the
    // same name.
    for other in [
        admin.replace("SHOP-PROD", "SHOP-TEST"),
        admin.replace("RESOURCEGROUPS/SHOP", "RESOURCEGROUPS/BANK"),
        admin.replace("4444/", "4445/"),
    ] {
        assert_eq!(show_with(&mut convert, &record(other)), EVENT);
    }
    let lower = admin.replace(CLUSTER, &CLUSTER.to_lowercase());
    for copy in [admin, lower] {
        assert_eq!(show_with(&mut convert, &record(copy)), "[duplicate]");
    }
}

#[test]
fn convert_request_in_both_categories_is_delivered_once() {
    let other = |from: &str, to: &str| EVENT.replace(from, to);
    let cut = &EVENT[..EVENT.len() - 10];
    let (all, admin) = ("kube-audit", "kube-audit-admin");
    // (category, log, delivered), in the order of reading
    for steps in [
        vec![
            (all, EVENT.to_owned(), true),
            (admin, EVENT.to_owned(), false),
            (admin, EVENT.to_owned(), false),
        ],
        vec![
            (admin, EVENT.to_owned(), true),
            (all, EVENT.to_owned(), false),
        ],
        // The broker's redelivery.
        vec![
            (all, EVENT.to_owned(), true),
            (all, EVENT.to_owned(), true),
            (admin, EVENT.to_owned(), false),
        ],
        // Other events.
        vec![
            (all, EVENT.to_owned(), true),
            (admin, other("a-1", "a-2"), true),
        ],
        vec![
            (all, EVENT.to_owned(), true),
            (admin, other("ResponseComplete", "ResponseStarted"), true),
        ],
        // A client sends one audit ID twice, with different requests or the same.
        vec![
            (admin, EVENT.to_owned(), true),
            (all, other("create", "get"), true),
            (all, other("02.149911Z", "02.149912Z"), true),
            (all, other("Metadata", "Request"), true),
            (all, EVENT.to_owned(), false),
        ],
        // A truncated copy is not remembered, and is no duplicate of a whole one; a whole one is
        // remembered.
        vec![
            (all, cut.to_owned(), true),
            (admin, EVENT.to_owned(), true),
            (all, EVENT.to_owned(), false),
        ],
        vec![(all, EVENT.to_owned(), true), (admin, cut.to_owned(), true)],
        vec![(all, cut.to_owned(), true), (admin, cut.to_owned(), true)],
        // A rejected event does not count as delivered.
        vec![
            (all, "{\"auditID\":\"a-1\"}".to_owned(), false),
            (admin, EVENT.to_owned(), true),
        ],
    ] {
        let mut convert = converter_of_both();
        for (step, (category, log, delivered)) in steps.iter().enumerate() {
            let payload = of(category, &quoted(log));
            let outcome = run_with(&mut convert, &record(payload));
            let event = matches!(outcome, Outcome::Event { .. });
            assert_eq!(event, *delivered, "step {step} of {steps:?}: {outcome:?}");
        }
    }
}

#[test]
fn convert_deep_nesting_is_survived() {
    let nested = |levels: usize| {
        EVENT.replace(
            "\"verb\"",
            &format!(
                "\"requestObject\":{}{},\"verb\"",
                "[".repeat(levels),
                "]".repeat(levels)
            ),
        )
    };
    let deep = nested(200);
    assert_eq!(show(&record(audit(&deep))), deep);
    assert_eq!(show(&record(of("kube-audit", &deep))), deep);
    for payload in [
        audit(&nested(100_000)),
        of("kube-audit", &nested(100_000)),
        "{\"a\":".repeat(100_000),
    ] {
        let shown = show(&record(payload));
        // Text that is no event is not converted, however deep it nests.
        let is_event = shown.starts_with("{\"kind\"") && shown.contains("audit.k8s.io/truncated");
        assert!(
            is_event || shown.contains("json ends early"),
            "{}",
            &shown[..40]
        );
    }
}

#[test]
fn convert_any_cut_gives_whole_members_or_a_reject() {
    let whole: Vec<&str> = LOGS.lines().filter(|line| line.ends_with('}')).collect();
    assert_eq!(whole.len(), 2);
    for event in whole.into_iter().chain([EVENT]) {
        for cut in (0..event.len()).filter(|&cut| event.is_char_boundary(cut)) {
            match run(&record(audit(&event[..cut]))) {
                Outcome::Event { event: cut, .. } => {
                    assert!(cut.truncated());
                    assert_left_of_cut(event, std::str::from_utf8(cut.text()).unwrap());
                }
                Outcome::Reject { .. } => {}
                Outcome::Skip { reason, .. } => panic!("{cut}: {reason}"),
            }
        }
    }
}

/// Azure counts UTF-16 units, so a cut may leave half a character.
#[test]
fn convert_cut_inside_surrogate_pair_is_a_cut() {
    let event = EVENT
        .replace("\"get\"", "\"get\",\"x\":\"")
        .replace("\"}", "\",\"x\":\"");
    let log = quoted(&event);
    let log = format!("{}\\uD83d\"", &log[..log.len() - 1]);
    for payload in [of("kube-audit", &log), of("", &log)] {
        let shown = show(&record(payload));
        assert!(shown.contains("audit.k8s.io/truncated"), "{shown}");
        assert_left_of_cut(EVENT, &shown);
    }
}

proptest! {
    #[test]
    fn convert_native_event_keeps_every_byte(event in any_event()) {
        prop_assert_eq!(&show(&record(event.clone())), &event);
        prop_assert_eq!(&show(&record(audit(&event))), &event);
        prop_assert_eq!(&show(&record(of("kube-audit-admin", &event))), &event);
        let escaped = serde_json::to_string(&format!("{event}\n")).unwrap().replace('/', "\\/");
        prop_assert_eq!(&show(&record(of("", &escaped))), &event);
        let properties = quoted(&format!("{{\"log\":{escaped}}}"));
        prop_assert_eq!(&show(&record(format!("{{\"properties\":{properties}}}"))), &event);
    }

    #[test]
    fn convert_any_bytes_have_one_outcome(bytes: Vec<u8>, damaged: bool) {
        let mut any = record(bytes);
        any.damaged = damaged;
        run(&any);
    }

    #[test]
    fn convert_mutated_record_has_one_outcome(at: prop::sample::Index, byte: u8, event in any_event()) {
        let mut bytes = audit(&event).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Outcome::Event { event, .. } = run(&record(bytes)) {
            prop_assert!(Raw::parse(std::str::from_utf8(event.text()).unwrap()).is_ok());
        }
    }

    #[test]
    fn convert_any_json_has_one_outcome(json in any_json()) {
        run(&record(json.clone()));
        run(&record(format!("{{\"category\":\"kube-audit\",\"properties\":{json},\"resourceId\":{json},\"time\":{json}}}")));
        run(&record(of("kube-audit", &json)));
    }
}
