//! Values that receivers read differently or not at all: duplicate keys, and unusual times and
//! types.

use super::event::Draft;
use super::{Attack, Expected, Rule, whole};

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = duplicates();
    all.extend(times());
    all.extend(types());
    all
}

fn duplicates() -> Vec<Attack> {
    let mut all = Vec::new();
    let role = Draft::role();
    let harmless = r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]"#;
    let first = |key: &str| role.replace("requestObject", "{", &format!("{{{key}:{harmless},"));
    let many = format!(r#""rules":{harmless},"#).repeat(500);
    let deep = role.replace(
        "requestObject",
        r#"[{"#,
        r#"[{"verbs":["get"],"resources":["pods"],"#,
    );
    for (what, draft) in [
        ("in a patch", first(r#""rules""#)),
        ("in a patch, escaped", first(r#""r\u0075les""#)),
        (
            "in a patch, both escaped",
            first(r#""r\u0075les""#).replace("requestObject", r#","rules""#, r#","rul\u0065s""#),
        ),
        (
            "in a patch, five hundred times",
            role.replace("requestObject", "{", &format!("{{{many}")),
        ),
        ("in a rule of a patch", deep),
        (
            "at the top: requestObject",
            role.before("requestObject", "requestObject", r#"{"rules":[]}"#),
        ),
        (
            "at the top: user",
            role.before("user", "user", r#"{"username":"system:node:a"}"#),
        ),
        (
            "at the top: verb, escaped",
            role.before("verb", r"v\u0065rb", r#""get""#),
        ),
        (
            "at the top: stageTimestamp",
            role.before("stageTimestamp", "stageTimestamp", r#""""#),
        ),
        (
            "in the user",
            role.replace("user", "{", r#"{"username":"system:node:a","#),
        ),
        (
            "in objectRef",
            role.replace("objectRef", "{", r#"{"resource":"pods","#),
        ),
        (
            "in the annotations",
            role.replace(
                "annotations",
                "{",
                r#"{"authorization.k8s.io/decision":"forbid","#,
            ),
        ),
        (
            "that is empty",
            role.replace("requestObject", "{", r#"{"":1,"":2,"#),
        ),
        (
            "that is empty, at the end",
            role.replace("requestObject", "}]}", r#"}],"":1,"":2}"#),
        ),
        (
            "in extra",
            role.replace("user", r#""extra":{"#, r#""extra":{"accessKeyId":["X"],"#),
        ),
        (
            "in a list in the annotations of an object",
            role.replace(
                "requestObject",
                "{",
                r#"{"metadata":[{"annotations":{"a":"1","b":"2","a":"3"}}],"#,
            ),
        ),
        (
            "among a thousand others",
            role.replace(
                "requestObject",
                "{",
                &format!(
                    r#"{{"rules":[],{}"#,
                    (0..1_000)
                        .map(|n| format!(r#""k{n}":[],"#))
                        .collect::<String>()
                ),
            ),
        ),
        (
            "a thousand times, each another",
            role.replace(
                "requestObject",
                "{",
                &format!(
                    "{{{}",
                    (0..1_000)
                        .map(|n| format!(r#""k{}":{n},"#, n % 500))
                        .collect::<String>()
                ),
            ),
        ),
        (
            "in responseStatus",
            role.replace("responseStatus", "{", r#"{"code":404,"#),
        ),
    ] {
        let mut expected = Expected::equal_to(&role);
        if what == "in a rule of a patch" {
            // The order of the keys does not matter.
            expected = expected.without_falco(&["ka.req.role.rules"]);
        }
        let name = format!("twice: a key {what}");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    // Only a patch is logged as the client wrote it.
    let pod = Draft::pod().with("verb", r#""patch""#);
    let draft = pod.replace(
        "requestObject",
        r#""hostPID":true"#,
        r#""hostPID":false,"hostPID":true"#,
    );
    all.extend(whole(
        "twice: hostPID",
        &draft.bytes(),
        &Expected::equal_to(&pod),
    ));
    all
}

fn times() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    let known = [
        (
            "no digits",
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:00.000000Z",
        ),
        (
            "three digits",
            "2026-11-21T10:00:00.123Z",
            "2026-11-21T10:00:00.123000Z",
        ),
        (
            "nine digits",
            "2026-11-21T10:00:00.123456789Z",
            "2026-11-21T10:00:00.123456Z",
        ),
        (
            "an offset",
            "2026-11-21T12:00:00.123456+02:00",
            "2026-11-21T10:00:00.123456Z",
        ),
        (
            "an escaped letter",
            r"2026-11-21\u005410:00:00.123456Z",
            "2026-11-21T10:00:00.123456Z",
        ),
    ];
    for member in ["stageTimestamp", "requestReceivedTimestamp"] {
        for (what, written, read) in known {
            let draft = pod.with(member, &format!("\"{written}\""));
            let expected = Expected::equal_to(&pod).marked(false);
            let expected = expected.rule(&format!("/{member}"), Rule::Is(read.into()));
            all.extend(whole(
                &format!("time: {what} in {member}"),
                &draft.bytes(),
                &expected,
            ));
        }
        for (what, written) in [
            ("nothing", r#""""#),
            ("a number", "1795255200"),
            ("null", "null"),
            ("the year 10000", r#""10000-01-01T00:00:00.000000Z""#),
            ("a word", r#""yesterday""#),
            ("an object", r#"{"seconds":1}"#),
        ] {
            let draft = pod.with(member, written);
            let expected = Expected::equal_to(&pod);
            let expected = expected.rule(&format!("/{member}"), Rule::Any);
            all.extend(whole(
                &format!("time: {what} in {member}"),
                &draft.bytes(),
                &expected,
            ));
        }
    }
    all
}

/// Types that only forged records have.
fn types() -> Vec<Attack> {
    let mut all = Vec::new();
    let refused = Draft::refused();
    let whole_number = refused.replace("responseStatus", "403", "403.0");
    let expected = Expected::equal_to(&refused).or_reject("code");
    all.extend(whole(
        "type: a code with a fraction of zero",
        &whole_number.bytes(),
        &expected,
    ));
    for (what, draft, member) in [
        (
            "groups as a string",
            refused.replace(
                "user",
                r#"["team-blue","system:authenticated"]"#,
                r#""system:masters""#,
            ),
            "groups",
        ),
        (
            "a code as a string",
            refused.replace("responseStatus", "403", r#""403""#),
            "code",
        ),
        (
            "a code with a fraction",
            refused.replace("responseStatus", "403", "403.5"),
            "code",
        ),
        (
            "a huge code",
            refused.replace("responseStatus", "403", "4030000000000"),
            "code",
        ),
        (
            "sourceIPs as a string",
            refused.with("sourceIPs", r#""10.0.0.9""#),
            "sourceIPs",
        ),
        (
            "a number among the addresses",
            refused.with("sourceIPs", r#"["10.0.0.9",7]"#),
            "sourceIPs",
        ),
        (
            "objectRef as a string",
            refused.with("objectRef", r#""secrets/db""#),
            "objectRef",
        ),
        (
            "user as a list",
            refused.with("user", r#"["mallory"]"#),
            "user",
        ),
        (
            "a name as a number",
            refused.replace("user", r#""mallory@example.com""#, "7"),
            "username",
        ),
        (
            "extra without lists",
            refused.replace("user", r#"["AKIA"]"#, r#""AKIA""#),
            "extra",
        ),
        (
            "an annotation as a number",
            refused.replace("annotations", r#""forbid""#, "1"),
            "annotations",
        ),
        (
            "annotations as a list",
            refused.with("annotations", "[]"),
            "annotations",
        ),
        (
            "a user agent as a list",
            refused.with("userAgent", r#"["kubectl"]"#),
            "userAgent",
        ),
        (
            "a URI as an object",
            refused.with("requestURI", "{}"),
            "requestURI",
        ),
        ("a level as a number", refused.with("level", "3"), "level"),
        (
            "details as a string",
            refused.replace("responseStatus", "{", r#"{"details":"x","#),
            "details",
        ),
    ] {
        let mut expected = Expected::equal_to(&refused)
            .or_reject(member)
            .only_falco("none");
        for place in [
            "/user",
            "/sourceIPs",
            "/objectRef",
            "/userAgent",
            "/requestURI",
            "/responseStatus/code",
        ] {
            if place.contains(member) || draft.get(&place[1..]) != refused.get(&place[1..]) {
                expected = expected.rule(place, Rule::Any);
            }
        }
        all.extend(whole(&format!("type: {what}"), &draft.bytes(), &expected));
    }
    all
}
