//! Tests the judges themselves: they accept valid input and refuse what is known to be bad.

use audit_bridge_tests::event;
use audit_bridge_tests::judges::{Account, FalcoItem, Judges, LostItem};
use serde_json::{Value, json};

use crate::event_list;

/// An ordinary event with a text replaced.
fn with(what: &str, by: &str) -> String {
    let event = event(1, 0);
    assert!(event.contains(what), "{what} is not in {event}");
    event.replacen(what, by, 1)
}

fn with_member(member: &str) -> String {
    with(r#","sourceIPs""#, &format!(r#",{member},"sourceIPs""#))
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn decoder_ordinary_events_survive_a_round_trip() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let decoded = judges.decode(&event_list(&[event(1, 0), event(2, 5000)]));
    assert_eq!(decoded.complaints(), Vec::<String>::new());
    assert_eq!(decoded.items, 2);
    assert_eq!(judges.decode(event(3, 0).as_bytes()).items, 1);
}

#[test]
fn decoder_unknown_member_is_accepted() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let decoded = judges.decode(with_member(r#""novelty":{"a":[1]}"#).as_bytes());
    assert_eq!(decoded.complaints(), Vec::<String>::new());
    assert_eq!(decoded.unknown, [r#"unknown field "novelty""#]);
}

#[test]
fn decoder_known_bad_events_are_refused() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let object = |value: &str| with_member(&format!(r#""requestObject":{value}"#));
    let known_bad = [
        ("hard: parsing time", with("00.000002Z", "00.02Z")),
        ("hard: parsing time", with("00.000002Z", "00Z")),
        (
            "hard: json: cannot unmarshal string",
            with(r#"["10.0.0.7"]"#, r#""10.0.0.7""#),
        ),
        (
            "hard: json: cannot unmarshal number 200.5",
            with("201", "200.5"),
        ),
        (
            "difference: changed .stageTimestamp",
            with("00.000002Z", "00.000002+01:00"),
        ),
        ("strict: duplicate field", with_member(r#""verb":"get""#)),
        (
            "form: key stands twice: .requestObject.a",
            object(r#"{"a":1,"\u0061":2}"#),
        ),
        (
            "form: half of a surrogate pair",
            object(r#"{"a":"\ud800"}"#),
        ),
        (
            "form: half of a surrogate pair",
            object(r#"{"a":"\udc00\ud800x"}"#),
        ),
        ("hard: ", with("{", "")),
    ];
    for (says, text) in &known_bad {
        let complaints = judges.decode(text.as_bytes()).complaints();
        let said = complaints
            .iter()
            .any(|complaint| complaint.starts_with(says));
        assert!(said, "not {says:?} but {complaints:?} of {text}");
        // Such an event spoils its whole body, or is found in it.
        let list = event_list(&[event(1, 0).as_str(), text]);
        assert_ne!(
            judges.decode(&list).complaints(),
            Vec::<String>::new(),
            "{text}"
        );
    }
    let no_utf8 = [object("{\"a\":\"").as_bytes(), b"\xff\"}"].concat();
    assert_ne!(judges.decode(&no_utf8).complaints(), Vec::<String>::new());
    assert_eq!(judges.decode(object(&nested(300)).as_bytes()).depth, 301);
}

#[test]
fn falco_known_bad_bodies_are_lost() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let deep = |levels| with_member(&format!(r#""requestObject":{}"#, nested(levels)));
    // The list, its items and the event make three levels.
    let taken = judges.falco(&event_list(&[deep(297)]));
    assert_eq!(taken.refused, None);
    for bad in [
        event_list(&[event(1, 0), deep(298)]),
        event_list(&[event(1, 0), "{".to_owned()]),
        format!("{}\n{}", event(1, 0), event(2, 0)).into_bytes(),
        b"\xef\xbb\xbf{}".to_vec(),
        br#"{"kind":"EventList"}"#.to_vec(),
    ] {
        assert!(judges.falco(&bad).refused.is_some());
        assert_eq!(Account::of_bodies(judges, [&*bad]).lost_bodies.len(), 1);
    }
}

#[test]
fn falco_known_bad_item_is_lost_alone() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let stamp = r#""stageTimestamp":"2026-11-21T10:00:00.000002Z""#;
    let events = [
        event(1, 0),
        event(2, 262_400),
        with(stamp, r#""stageTimestamp":"""#),
        with(stamp, r#""other":0"#),
        event(3, 262_000),
    ];
    let account = Account::of_bodies(judges, [&*event_list(&events)]);
    let lost: Vec<usize> = account.lost_items.iter().map(|lost| lost.item).collect();
    assert_eq!(lost, [1, 2, 3], "{:?}", account.lost_items);
    assert_eq!(account.falco_ids.len(), 2);
    let LostItem { reason, .. } = &account.lost_items[0];
    assert!(reason.contains("more than 262144"), "{reason}");
}

#[test]
fn falco_duplicate_key_gives_the_first() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let twice =
        with_member(r#""requestObject":{"rules":[{"verbs":["get"]}],"rules":[{"verbs":["*"]}]}"#);
    let verdict = judges.falco(twice.as_bytes());
    let [FalcoItem { fields, .. }] = &verdict.items[..] else {
        panic!("{verdict:?}");
    };
    assert_eq!(fields["ka.req.role.rules.verbs"], json!(["get"]));
}

#[test]
fn falco_fields_are_what_rules_read() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let pod = concat!(
        r#""impersonatedUser":{"username":"system:admin"},"requestObject":{"spec":{"hostPID":true,"#,
        r#""volumes":[{"name":"root","hostPath":{"path":"/"}}],"containers":[{"image":"a.b/c:1","#,
        r#""securityContext":{"privileged":true,"capabilities":{"add":["SYS_ADMIN"]}},"#,
        r#""ports":[{"hostPort":80},{"containerPort":81}]},{"image":"d@sha256:0","ports":[]}]}}"#,
    );
    let text = with_member(pod).replace("limit=500", "command=cat%20%2Fetc&command=x");
    let verdict = judges.falco(text.as_bytes());
    let fields = &verdict.items[0].fields;
    let expected = json!({
        "ka.user.name": "kubernetes-admin",
        "ka.user.groups": ["system:masters", "system:authenticated"],
        "ka.impuser.name": "system:admin",
        "ka.uri.param": { "command": "cat /etc", "watch": "1" },
        "ka.target.resource": "configmaps",
        "ka.response.code": "201",
        "ka.auth.decision": "allow",
        "ka.req.pod.host_pid": "true",
        "ka.req.pod.volumes.hostpath": ["/"],
        "ka.req.pod.volumes.volume_type": ["hostPath"],
        "ka.req.pod.containers.privileged": ["true"],
        "ka.req.container.privileged": "true",
        "ka.req.pod.containers.host_port": ["80", "81"],
        "ka.req.pod.containers.image.repository": ["a.b/c", "d"],
        "jevt.value[/sourceIPs]": ["10.0.0.7"],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&fields[name], value, "{name}");
    }
    // One container has no such list, so the field is not available.
    assert_eq!(fields.get("ka.req.pod.containers.add_capabilities"), None);
    // An invalid escape makes all parameters unavailable.
    let text = text.replace("%2F", "%zz");
    let fields = &judges.falco(text.as_bytes()).items[0].fields;
    assert_eq!(fields.get("ka.uri.param"), None);
}

#[test]
fn request_info_matches_the_api_server() {
    let Some(judges) = Judges::start() else {
        return;
    };
    let scale = judges.request_info("/apis/apps/v1/namespaces/x/deployments/d/scale?a", "update");
    assert_eq!(
        scale.object_ref(),
        json!({ "resource": "deployments", "namespace": "x", "name": "d", "apiGroup": "apps",
                "apiVersion": "v1", "subresource": "scale" })
    );
    assert_eq!(scale.verb, "update");
    let exec = judges.request_info("/api/v1/namespaces/x/pods/y/ex", "POST");
    assert_eq!(
        (exec.verb.as_str(), exec.subresource.as_str()),
        ("create", "ex")
    );
    let namespace = judges.request_info("/api/v1/namespaces/x", "DELETE");
    assert_eq!(
        (namespace.name.as_str(), namespace.namespace.as_str()),
        ("x", "x")
    );
    assert_eq!(
        judges.request_info("/healthz", "get").object_ref(),
        Value::Null
    );
    assert!(judges.request_info("no uri", "get").error.is_some());
}

#[test]
fn judges_asked_in_parallel_answer_each() {
    let Some(judges) = Judges::start() else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..25 {
                    let events: Vec<String> = (0..=n).map(|n| event(n, 0)).collect();
                    let decoded = judges.decode(&event_list(&events));
                    assert_eq!(decoded.items, n + 1, "thread {thread}");
                }
            });
        }
    });
}
