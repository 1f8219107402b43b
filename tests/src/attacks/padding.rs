//! Padding of the objects, so that the event is larger than receivers accept: what rules read next
//! to it must still be seen.

use super::event::{Draft, POD};
use super::{Attack, Expected, Rule, whole};

/// Enough bytes to make an event too large.
const MUCH: usize = 300_000;

/// Padding of about [`MUCH`] bytes: long values and keys, lists and maps of many small elements.
fn paddings() -> Vec<(&'static str, String)> {
    let keys = |n: usize| -> String {
        let members: Vec<String> = (0..n).map(|n| format!("\"k{n}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    vec![
        ("a long string", format!("\"{}\"", "s".repeat(MUCH))),
        (
            "a string of escapes",
            format!("\"{}\"", r"\u0000\n".repeat(MUCH / 8)),
        ),
        (
            "a string of wide characters",
            format!("\"{}\"", "€😀".repeat(MUCH / 7)),
        ),
        ("a long key", format!("{{\"{}\":0}}", "k".repeat(MUCH))),
        ("a long number", "1".repeat(MUCH)),
        (
            "a list of small things",
            format!("[{}]", vec!["0"; 150_000].join(",")),
        ),
        (
            "a list of empty objects",
            format!("[{}]", vec!["{}"; 100_000].join(",")),
        ),
        ("a map of small things", keys(40_000)),
        ("a list of long strings", {
            let item = format!("\"{}\"", "l".repeat(3_000));
            format!("[{}]", vec![item.as_str(); 100].join(","))
        }),
        ("a list of maps of lists", {
            let item = r#"{"a":[1,2,3],"b":["x"],"c":{}}"#;
            format!("[{}]", vec![item; 10_000].join(","))
        }),
        ("blanks", format!("[0{}]", " ".repeat(MUCH))),
    ]
}

fn front(padding: &str) -> String {
    format!(r#"{{"x":{padding},{}"#, &POD[1..])
}

fn behind(padding: &str) -> String {
    format!(r#"{},"x":{padding}}}"#, &POD[..POD.len() - 1])
}

fn in_spec(padding: &str) -> String {
    POD.replacen(r#""hostPID""#, &format!(r#""x":{padding},"hostPID""#), 1)
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    for (what, padding) in paddings() {
        let places = [
            ("in front in requestObject", front(&padding)),
            ("behind the rest of requestObject", behind(&padding)),
            ("in requestObject's spec", in_spec(&padding)),
        ];
        for (place, object) in places {
            let draft = pod.with("requestObject", &object);
            let expected = Expected::equal_to(&pod).only_falco("ka.req.");
            // Blanks need not be kept.
            let expected = if what == "blanks" {
                expected
            } else {
                expected.marked(true)
            };
            let name = format!("padding: {what} {place}");
            all.extend(whole(&name, &draft.bytes(), &expected));
        }
        // The response is removed first, and nothing of the request.
        let draft = pod.with("responseObject", &behind(&padding));
        let name = format!("padding: {what} in responseObject");
        let expected = Expected::equal_to(&pod).without_falco(&["ka.resp.name"]);
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let (_, long) = &paddings()[0];
    let both = pod
        .with("requestObject", &front(long))
        .with("responseObject", &front(long));
    let expected = Expected::equal_to(&pod).marked(true).only_falco("ka.req.");
    all.extend(whole("padding: both objects", &both.bytes(), &expected));
    all.extend(in_lists());
    all.extend(where_rules_read());
    all
}

/// Many elements next to the one that matters, which is the first or the last.
fn in_lists() -> Vec<Attack> {
    let mut all = Vec::new();
    let pod = Draft::pod();
    let volume = r#"{"name":"root","hostPath":{"path":"/"}}"#;
    let fill = vec![r#"{"name":"v","emptyDir":{}}"#; 10_000].join(",");
    for (where_, volumes) in [
        ("first", format!("{volume},{fill}")),
        ("last", format!("{fill},{volume}")),
    ] {
        let draft = pod.replace("requestObject", volume, &volumes);
        let expected = Expected::equal_to(&pod)
            .marked(true)
            .only_falco("ka.req.pod.host_")
            .contains("ka.req.pod.volumes.hostpath, those there are", "/")
            .contains("ka.req.pod.containers.privileged", "true");
        let name = format!("padding: ten thousand volumes, the hostPath {where_}");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let fill = vec![r#"{"name":"E","value":"v"}"#; 12_000].join(",");
    let draft = pod.replace(
        "requestObject",
        r#""name":"c","#,
        &format!(r#""name":"c","env":[{fill}],"#),
    );
    let expected = Expected::equal_to(&pod).marked(true).only_falco("ka.req.");
    all.extend(whole(
        "padding: an environment beside privileged",
        &draft.bytes(),
        &expected,
    ));
    let role = Draft::role();
    let evil = r#"{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}"#;
    let fill = vec![r#"{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}"#; 6_000].join(",");
    for (where_, rules) in [
        ("first", format!("{evil},{fill}")),
        ("last", format!("{fill},{evil}")),
    ] {
        let draft = role.replace("requestObject", evil, &rules);
        let expected = Expected::equal_to(&role)
            .marked(true)
            .only_falco("ka.target.")
            .contains("ka.req.role.rules.verbs", "*")
            .contains("ka.req.role.rules.resources", "*");
        let name = format!("padding: six thousand rules, the evil one {where_}");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let fill = vec![r#""s""#; 80_000].join(",");
    let draft = role.replace(
        "requestObject",
        r#""resources":["*"]"#,
        &format!(r#""resources":[{fill},"*"]"#),
    );
    let expected = Expected::equal_to(&role)
        .marked(true)
        .only_falco("ka.req.role.rules.verbs")
        .contains("ka.req.role.rules.resources", "*");
    all.extend(whole(
        "padding: many resources in a rule",
        &draft.bytes(),
        &expected,
    ));
    all
}

/// Padding of a value that rules read: it is shortened, but stays.
fn where_rules_read() -> Vec<Attack> {
    let mut all = Vec::new();
    let map = Draft::config_map();
    let long = "d".repeat(MUCH);
    for (where_, data) in [
        ("in front of", format!(r#""a":"{long}","password":"#)),
        ("as", format!(r#""password":"{long}","a":"#)),
    ] {
        let draft = map.replace("requestObject", r#""password":"#, &data);
        let expected = Expected::equal_to(&map)
            .marked(true)
            .only_falco("ka.target.");
        let name = format!("padding: a long value {where_} the password");
        all.extend(whole(&name, &draft.bytes(), &expected));
    }
    let pod = Draft::pod();
    let draft = pod.replace("requestObject", "nsenter -t 1", &long);
    let expected = Expected::equal_to(&pod).marked(true).only_falco("ka.req.");
    all.extend(whole("padding: a long argument", &draft.bytes(), &expected));
    let draft = pod.replace(
        "requestObject",
        "evil.example/miner:1.0",
        &format!("evil.example/{long}"),
    );
    let expected = Expected::equal_to(&pod)
        .marked(true)
        .only_falco("ka.req.pod.host_")
        .rule("/requestURI", Rule::Equal);
    all.extend(whole("padding: a long image", &draft.bytes(), &expected));
    all
}
