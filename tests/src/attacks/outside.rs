//! Padding outside the objects: the URI and its query, the user agent, the `Audit-ID`, groups,
//! extra, addresses. Each has a budget, which only applies if the event is too large.

use super::event::Draft;
use super::{Attack, Expected, Rule, whole};

const MUCH: usize = 260_000;

const URI_FIELDS: [&str; 2] = ["ka.uri", "ka.uri.param"];

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = uris();
    all.extend(users());
    all.extend(strings());
    for expected in all.iter_mut().flat_map(|attack| &mut attack.expected) {
        expected.marked = Some(true);
        expected.noted = true;
    }
    all
}

/// The exec request, with this text at the start of its query.
fn exec_with(query: &str) -> Draft {
    Draft::exec().replace("requestURI", "exec?", &format!("exec?{query}"))
}

fn uris() -> Vec<Attack> {
    let exec = Draft::exec();
    let long = "q".repeat(MUCH);
    let many = |parameter: &str, n: usize| -> String {
        (0..n)
            .map(|n| format!("{}&", parameter.replace('#', &n.to_string())))
            .collect()
    };
    let queries = [
        ("one long parameter", format!("pad={long}&")),
        (
            "one long parameter of escapes",
            format!("pad={}&", "%E2%82%AC".repeat(MUCH / 9)),
        ),
        (
            "escapes out of step with any limit",
            format!("p={}&", "%2F".repeat(MUCH / 3 + 1)),
        ),
        ("plus signs", format!("p={}&", "+".repeat(MUCH))),
        ("thirty thousand parameters", many("p#=v#", 25_000)),
        ("thirty thousand empty parameters", many("#", 45_000)),
        (
            "parameters with brackets and tildes",
            many("p[#]=~", 25_000),
        ),
        (
            "many long parameters",
            many(&format!("p#={}", "v".repeat(5_000)), 52),
        ),
        ("a long key", format!("{long}=1&")),
        ("many selectors", many("labelSelector=a%3Db#", 13_000)),
        ("many commands", many("command=c#", 18_000)),
    ];
    let mut all = Vec::new();
    for (name, query) in &queries {
        let draft = exec_with(query);
        let kept = exec.text();
        let mut expected = Expected::equal_to(&exec)
            .rule("/requestURI", Rule::Any)
            .without_falco(&URI_FIELDS)
            .contains("ka.uri.param", "container=app");
        if !query.contains("command=") {
            expected = expected.contains("ka.uri.param", "command=cat");
        }
        expected.reference = kept;
        all.extend(whole(
            &format!("outside: the query, {name}"),
            &draft.bytes(),
            &expected,
        ));
    }
    // The path is shortened last.
    let name = "n".repeat(MUCH);
    let draft = exec
        .replace("requestURI", "web-0", &name)
        .replace("objectRef", "web-0", &name);
    let expected = Expected::equal_to(&draft)
        .rule("/requestURI", Rule::Shortened)
        .rule("/objectRef", Rule::Shortened)
        .without_falco(&["ka.uri", "ka.uri.param", "ka.target.name"]);
    all.extend(whole(
        "outside: a long name in the path",
        &draft.bytes(),
        &expected,
    ));
    // The command itself is the padding: its container must still be seen.
    let draft = exec.replace("requestURI", "command=cat", &format!("command={long}"));
    let expected = Expected::equal_to(&exec)
        .rule("/requestURI", Rule::Any)
        .without_falco(&URI_FIELDS)
        .contains("ka.uri.param", "container=app");
    all.extend(whole("outside: a long command", &draft.bytes(), &expected));
    all
}

fn users() -> Vec<Attack> {
    let mut all = Vec::new();
    let refused = Draft::refused();
    let groups: Vec<String> = (0..16_000)
        .map(|n| format!("\"team-{n}-abcdefgh\""))
        .collect();
    let groups = groups.join(",");
    let evil = r#""system:masters","system:authenticated""#;
    for (where_, list) in [
        ("first", format!("{evil},{groups}")),
        ("last", format!("{groups},{evil}")),
        ("in the middle", format!("{groups},{evil},{groups}")),
    ] {
        let draft = refused.replace("impersonatedUser", evil, &list);
        let expected = Expected::equal_to(&draft)
            .rule("/impersonatedUser", Rule::Shortened)
            .without_falco(&["jevt.value[/impersonatedUser/groups]"])
            .contains("jevt.value[/impersonatedUser/groups]", "system:masters")
            .contains(
                "jevt.value[/impersonatedUser/groups]",
                "system:authenticated",
            );
        let name = format!("outside: thousands of groups, system:masters {where_}");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let draft = refused.replace("user", r#""team-blue","#, &format!("{groups},"));
    let expected = Expected::equal_to(&draft)
        .rule("/user", Rule::Shortened)
        .without_falco(&["ka.user.groups"])
        .contains("ka.user.groups", "system:authenticated");
    all.extend(whole(
        "outside: thousands of groups of the user",
        &draft.bytes(),
        &expected,
    ));
    let extra: Vec<String> = (0..9_000)
        .map(|n| format!("\"example.com/k{n}\":[\"v{n}\"]"))
        .collect();
    let extra = extra.join(",");
    let long = "x".repeat(MUCH);
    for (name, extra) in [
        ("thousands of keys", extra),
        ("one long value", format!("\"k\":[\"{long}\"]")),
        ("one long key", format!("\"{long}\":[\"v\"]")),
        (
            "many values",
            format!("\"k\":[{}]", vec!["\"v\""; 70_000].join(",")),
        ),
    ] {
        let with_extra = format!(r#"{{"extra":{{{extra}}},"username""#);
        let draft = refused.replace("impersonatedUser", r#"{"username""#, &with_extra);
        let expected = Expected::equal_to(&refused)
            .rule("/impersonatedUser", Rule::Any)
            .rule("/impersonatedUser/username", Rule::Equal)
            .rule("/impersonatedUser/groups", Rule::Equal);
        all.extend(whole(
            &format!("outside: extra, {name}"),
            &draft.bytes(),
            &expected,
        ));
    }
    let draft = refused.replace("impersonatedUser", "system:admin", &long);
    let expected = Expected::equal_to(&draft)
        .rule("/impersonatedUser", Rule::Shortened)
        .without_falco(&["ka.impuser.name"]);
    all.extend(whole(
        "outside: a long impersonated name",
        &draft.bytes(),
        &expected,
    ));
    let addresses: String = (0..18_000)
        .map(|n| format!("\"2001:db8::{n:x}\","))
        .collect();
    let draft = refused.replace("sourceIPs", "[", &format!("[{addresses}"));
    let expected = Expected::equal_to(&draft)
        .rule("/sourceIPs", Rule::Shortened)
        .without_falco(&["jevt.value[/sourceIPs]"])
        .contains("jevt.value[/sourceIPs]", "10.0.0.9");
    all.extend(whole(
        "outside: thousands of addresses",
        &draft.bytes(),
        &expected,
    ));
    all
}

fn strings() -> Vec<Attack> {
    let mut all = Vec::new();
    let refused = Draft::refused();
    let fillings = [
        ("letters", "a".repeat(MUCH)),
        ("escapes", r"\u0001\\".repeat(MUCH / 8)),
        ("wide characters", "€😀".repeat(MUCH / 7)),
    ];
    for (what, long) in &fillings {
        let draft = refused.replace("userAgent", "kubectl", &format!("kubectl{long}"));
        let expected = Expected::equal_to(&draft)
            .rule("/userAgent", Rule::Shortened)
            .without_falco(&["ka.useragent"]);
        all.extend(whole(
            &format!("outside: a user agent of {what}"),
            &draft.bytes(),
            &expected,
        ));
        let draft = refused.clone().id(long);
        let expected = Expected::equal_to(&draft)
            .rule("/auditID", Rule::Shortened)
            .without_falco(&["ka.auditid"]);
        all.extend(whole(
            &format!("outside: an Audit-ID of {what}"),
            &draft.bytes(),
            &expected,
        ));
        let draft = refused.replace("responseStatus", "secrets ", &format!("secrets {long} "));
        let expected = Expected::equal_to(&refused);
        all.extend(whole(
            &format!("outside: a status message of {what}"),
            &draft.bytes(),
            &expected,
        ));
        let reason = format!(r#""authorization.k8s.io/reason":"{long}""#);
        let draft = refused.replace(
            "annotations",
            r#""authorization.k8s.io/reason":"""#,
            &reason,
        );
        let expected = Expected::equal_to(&refused).without_falco(&["ka.auth.reason"]);
        all.extend(whole(
            &format!("outside: a reason of {what}"),
            &draft.bytes(),
            &expected,
        ));
        let note = format!(r#"{{"example.com/note":"{long}","#);
        let draft = refused.replace("annotations", "{", &note);
        let expected = Expected::equal_to(&refused);
        all.extend(whole(
            &format!("outside: an annotation of {what}"),
            &draft.bytes(),
            &expected,
        ));
    }
    // Everything at once, each member below its limit.
    let long = "e".repeat(90_000);
    let draft = exec_with(&format!("pad={long}&"))
        .id(&long)
        .replace("userAgent", "kubectl", &format!("kubectl{long}"))
        .replace(
            "impersonatedUser",
            "system:admin",
            &format!("system:admin{long}"),
        );
    let expected = Expected::equal_to(&draft)
        .rule("/auditID", Rule::Shortened)
        .rule("/userAgent", Rule::Shortened)
        .rule("/impersonatedUser", Rule::Shortened)
        .rule("/requestURI", Rule::Any)
        .without_falco(&[
            "ka.auditid",
            "ka.useragent",
            "ka.impuser.name",
            "ka.uri",
            "ka.uri.param",
        ])
        .contains("ka.uri.param", "command=cat")
        .contains("ka.uri.param", "container=app");
    all.extend(whole("outside: all of it", &draft.bytes(), &expected));
    all
}
