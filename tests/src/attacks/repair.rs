//! What is not too large and not cut, only odd: an empty verb, half of a surrogate pair, bytes that
//! are no UTF-8, escaped names, keys that stand twice, times and types as nobody writes them.

use super::carrier::{diagnostic, quoted};
use super::event::{Draft, NO_UTF8, POD};
use super::{Attack, Expected, Rule, whole};

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = verbs();
    all.extend(untouched());
    all.extend(encodings());
    all.extend(names());
    all.extend(borrowed_ids());
    all.extend(betas());
    all.extend(duplicates());
    all.extend(times());
    all.extend(types());
    all
}

fn verbs() -> Vec<Attack> {
    let mut all = Vec::new();
    for draft in [Draft::pod(), Draft::refused()] {
        let draft = draft.with("verb", r#""""#);
        let expected = Expected::equal_to(&draft).untouched();
        let name = format!("verb: empty, of {}", draft.get("requestURI").len());
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    all
}

/// Odd, and what receivers take: nothing is mended that need not be.
fn untouched() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    let mut add = |what: &str, draft: &Draft| {
        let name = format!("untouched: {what}");
        let expected = Expected::equal_to(draft).untouched();
        all.extend(whole(&name, &draft.bytes(), &expected));
    };
    for (what, object) in [
        (
            "numbers beyond doubles",
            "[1e400,-0,1.0,123456789012345678901234567890,1E-7]".to_owned(),
        ),
        (
            "escapes that need not be",
            r#"{"a":"\u003c\u003e\u0026\/\u0041","\u0062":0}"#.to_owned(),
        ),
        (
            "zero characters",
            r#"{"a\u0000":"\u0000\u001f\u007f"}"#.to_owned(),
        ),
        (
            "whole surrogate pairs",
            r#"{"\ud83d\ude00":"\uD83D\uDE00😀"}"#.to_owned(),
        ),
        (
            "blanks between everything",
            "{ \"a\" : [ 1 ,\t2 ] , \"b\" : { } }".to_owned(),
        ),
        ("a string", r#""skipped-too-big-size-object""#.to_owned()),
        ("null", "null".to_owned()),
        (
            "a JSON patch",
            r#"[{"op":"add","path":"/spec","value":{"a":[]}}]"#.to_owned(),
        ),
        (
            "keys that differ only in case",
            r#"{"a":1,"A":2,"":3," ":4}"#.to_owned(),
        ),
        (
            "a string of 200 kB",
            format!("[\"{}\"]", "s".repeat(200_000)),
        ),
        ("ten thousand keys", {
            let keys: Vec<String> = (0..10_000).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", keys.join(","))
        }),
        (
            "many objects with the same keys",
            format!("[{}]", vec![r#"{"a":1,"b":{"a":2}}"#; 5_000].join(",")),
        ),
    ] {
        add(
            &format!("requestObject with {what}"),
            &pod.with("requestObject", &object),
        );
    }
    add(
        "a member that nobody knows",
        &pod.before("verb", "novelty", r#"{"kind":"Event","verb":[null]}"#),
    );
    let uri = r#""/api/v1/pods?a=%zz;b&c=\u003c%2e%2E&&=;""#;
    add("a query that is none", &pod.with("requestURI", uri));
    let agent = format!("\"{}\"", "u".repeat(100_000));
    add("a user agent of 100 kB", &pod.with("userAgent", &agent));
    all
}

fn encodings() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    for (what, written) in [
        ("half a pair", r"\ud800".to_owned()),
        ("the other half", r"\udc00".to_owned()),
        ("pairs the wrong way round", r"\udc00\ud800".to_owned()),
        ("a byte that is no UTF-8", NO_UTF8.to_string()),
    ] {
        let read = match what {
            "pairs the wrong way round" => "\u{fffd}\u{fffd}",
            _ => "\u{fffd}",
        };
        let places = [
            (
                "in a value",
                format!(r#"{{"x":"a{written}b",{}"#, &POD[1..]),
            ),
            ("in a key", format!(r#"{{"a{written}b":0,{}"#, &POD[1..])),
        ];
        for (place, object) in places {
            let draft = pod.with("requestObject", &object);
            let name = format!("encoding: {what} {place}");
            all.extend(whole(&name, &draft.bytes(), &Expected::equal_to(&pod)));
        }
        for member in ["userAgent", "auditID", "requestURI"] {
            let value = pod.get(member);
            let end = value.len() - 1;
            let with = |text: &str| pod.with(member, &format!("{}{text}\"", &value[..end]));
            let expected = Expected::equal_to(&with(read));
            let name = format!("encoding: {what} in {member}");
            all.extend(whole(&name, &with(&written).bytes(), &expected));
        }
        let with = |text: &str| pod.replace("user", "mallory@", &format!("mal{text}lory@"));
        let name = format!("encoding: {what} in the user's name");
        all.extend(whole(
            &name,
            &with(&written).bytes(),
            &Expected::equal_to(&with(read)),
        ));
    }
    all
}

fn names() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    for (what, draft) in [
        (
            "a slash in apiVersion",
            pod.with("apiVersion", r#""audit.k8s.io\/v1""#),
        ),
        (
            "a letter in the key kind",
            pod.renamed("kind", r"kin\u0064"),
        ),
        (
            "a letter in the value of kind",
            pod.with("kind", r#""\u0045vent""#),
        ),
        (
            "a letter in the key verb",
            pod.renamed("verb", r"ver\u0062"),
        ),
        (
            "a letter in the key user",
            pod.renamed("user", r"\u0075ser"),
        ),
        (
            "a letter in the key requestObject",
            pod.renamed("requestObject", r"request\u004fbject"),
        ),
        (
            "a letter in the key stageTimestamp",
            pod.renamed("stageTimestamp", r"stage\u0054imestamp"),
        ),
        (
            "a letter in the stage",
            pod.replace("stage", "Response", r"\u0052esponse"),
        ),
        (
            "a letter in hostPID",
            pod.replace("requestObject", "hostPID", r"host\u0050ID"),
        ),
    ] {
        let name = format!("escaped: {what}");
        all.extend(whole(&name, &draft.bytes(), &Expected::equal_to(&pod)));
    }
    all
}

/// Two clusters write into one hub; a client chooses the `Audit-ID` in both.
fn borrowed_ids() -> Vec<Attack> {
    let mut all = Vec::new();
    for (name, first, second) in [
        (
            "in another category of another cluster",
            ("A", "kube-audit"),
            ("B", "kube-audit-admin"),
        ),
        (
            "in the same category of another cluster",
            ("A", "kube-audit"),
            ("B", "kube-audit"),
        ),
    ] {
        for who in ["mallory", "alice"] {
            let drafts = [Draft::pod(), Draft::pod().replace("user", "mallory", who)];
            let records = drafts.iter().zip([first, second]);
            let records = records.map(|(draft, (cluster, category))| {
                diagnostic(&quoted(&draft.bytes()), cluster, category)
            });
            all.push(Attack {
                name: format!("borrowed: an Audit-ID {name}, by {who}"),
                bridge: "aks",
                records: records.collect(),
                expected: drafts.iter().map(Expected::equal_to).collect(),
            });
        }
    }
    // Of one cluster, but not the same event.
    let drafts = [
        Draft::pod(),
        Draft::pod().replace("user", "mallory", "alice"),
    ];
    let records = drafts.iter().zip(["kube-audit", "kube-audit-admin"]);
    all.push(Attack {
        name: "borrowed: an Audit-ID in another category, by somebody else".to_owned(),
        bridge: "aks",
        records: records
            .map(|(draft, category)| diagnostic(&quoted(&draft.bytes()), "A", category))
            .collect(),
        expected: drafts.iter().map(Expected::equal_to).collect(),
    });
    all
}

fn betas() -> Vec<Attack> {
    let pod = Draft::pod();
    let beta = pod
        .with("apiVersion", r#""audit.k8s.io/v1beta1""#)
        .before(
            "level",
            "metadata",
            r#"{"creationTimestamp":"2026-11-21T10:00:00Z"}"#,
        )
        .before("auditID", "timestamp", r#""2026-11-21T10:00:00Z""#);
    let mut all = whole(
        "v1beta1: with both its members",
        &beta.bytes(),
        &Expected::equal_to(&pod),
    );
    let short = beta
        .with("stageTimestamp", r#""2026-11-21T10:00:00Z""#)
        .without("requestReceivedTimestamp");
    let expected = Expected::equal_to(&pod)
        .rule(
            "/stageTimestamp",
            Rule::Is("2026-11-21T10:00:00.000000Z".into()),
        )
        .rule("/requestReceivedTimestamp", Rule::Any);
    all.extend(whole(
        "v1beta1: a time without digits",
        &short.bytes(),
        &expected,
    ));
    let none = beta
        .without("stageTimestamp")
        .without("requestReceivedTimestamp");
    all.extend(whole(
        "v1beta1: only its own time",
        &none.bytes(),
        &expected,
    ));
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
            // The order of the keys is nobody's business.
            expected = expected.without_falco(&["ka.req.role.rules"]);
        }
        let name = format!("twice: a key {what}");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let pod = Draft::pod();
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

/// Only forged records have these.
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
