//! Events that are neither too large nor cut, but odd: an empty verb, half of a surrogate pair,
//! invalid UTF-8, escaped names, borrowed identities, an older version.

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

/// Odd events that receivers accept: nothing is repaired without need.
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

/// Two clusters write to one hub; a client chooses the same `Audit-ID` in both.
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
    // Different events of one cluster.
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
