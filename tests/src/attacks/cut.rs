//! Padding that moves the provider's cut to a harmful place: in the URI, at the verb, in the user,
//! in the `Audit-ID`, within an object, within a character.

use super::carrier::{
    AKS_UNITS_MAX, EKS_BYTES_MAX, cloudwatch, cut_by_aks, cut_by_eks, diagnostic, quoted,
};
use super::event::{Draft, HALF_CHARACTER, POD, broken};
use super::{Attack, Expected, Rule, whole};

/// The provider that cuts, and its limit.
#[derive(Debug, Clone, Copy)]
enum Cutter {
    Eks,
    Aks(usize),
}

const CUTTERS: [Cutter; 3] = [
    Cutter::Eks,
    Cutter::Aks(AKS_UNITS_MAX[0]),
    Cutter::Aks(AKS_UNITS_MAX[1]),
];

impl Cutter {
    fn limit(self) -> usize {
        match self {
            Cutter::Eks => EKS_BYTES_MAX,
            Cutter::Aks(units) => units,
        }
    }

    fn record_time(self) -> &'static str {
        match self {
            Cutter::Eks => "2026-11-21T10:00:00.000000Z",
            Cutter::Aks(_) => "2026-11-21T10:00:00.500000Z",
        }
    }

    /// The cut event in its record. The event's own time is behind the cut, so the record's time is
    /// expected.
    fn attack(self, name: &str, event: &[u8], expected: Expected) -> Attack {
        let expected = expected.rule("/stageTimestamp", Rule::Is(self.record_time().into()));
        let (bridge, record) = match self {
            Cutter::Eks => ("eks", cloudwatch(&quoted(&cut_by_eks(event)))),
            Cutter::Aks(units) => {
                let log = quoted(&cut_by_aks(event, units));
                ("aks", diagnostic(&log, "SHOP-PROD", "kube-audit"))
            }
        };
        Attack {
            name: format!("{name} (cut by {bridge} at {})", self.limit()),
            bridge,
            records: vec![record],
            expected: vec![expected],
        }
    }
}

/// The members in the API server's order.
const ORDER: [&str; 11] = [
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
];

/// What is expected if the cut falls in this member: it and those after it are partial or absent.
fn cut_in(draft: &Draft, member: &str) -> Expected {
    let mut expected = Expected::equal_to(draft).marked(true).only_falco("none");
    let behind = ORDER.iter().skip_while(|name| **name != member);
    for name in behind {
        expected = match *name {
            "stage" | "verb" if *name != member => {
                expected.rule(&format!("/{name}"), Rule::Is("".into()))
            }
            "verb" => expected.rule("/verb", Rule::Is("".into())),
            // Derived from the URI if it was cut; see object_ref_of.
            "objectRef" => expected.rule("/objectRef", Rule::Any),
            "responseStatus" => expected.rule("/responseStatus/code", Rule::Part),
            name => expected.rule(&format!("/{name}"), Rule::Part),
        };
    }
    expected
}

/// Pads the URI's query so that the cut text ends right after `ends_behind`.
fn padded_to(cutter: Cutter, draft: &Draft, ends_behind: &str) -> Option<Draft> {
    let text = draft.text();
    let at = text.find(ends_behind)? + ends_behind.len();
    let padding = "p".repeat(cutter.limit().checked_sub(at + "&pad=".len() + 1)?);
    let uri = draft.get("requestURI");
    let glue = if uri.contains('?') { '&' } else { '?' };
    let uri = format!("{}{glue}pad={padding}\"", &uri[..uri.len() - 1]);
    let padded = draft.with("requestURI", &uri);
    // One byte was reserved for the separator.
    let at = padded.text().find(ends_behind)? + ends_behind.len();
    let more = "p".repeat(cutter.limit() - at);
    Some(padded.replace("requestURI", "pad=", &format!("pad={more}")))
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    for cutter in CUTTERS {
        behind_the_uri(cutter, &mut all);
        in_the_uri(cutter, &mut all);
        in_the_audit_id(cutter, &mut all);
        in_objects(cutter, &mut all);
    }
    for cutter in [CUTTERS[0], CUTTERS[1]] {
        in_characters(cutter, &mut all);
    }
    all
}

fn behind_the_uri(cutter: Cutter, all: &mut Vec<Attack>) {
    let places = [
        ("verb", r#","ver"#),
        ("verb", r#","verb":"#),
        ("verb", r#","verb":"cre"#),
        ("user", r#","verb":"create","#),
        ("user", r#""user":{"userna"#),
        ("user", r#""user":{"username":"mallo"#),
        ("user", r#""groups":["team-blue","sys"#),
        ("user", r#""extra":{"accessKeyId":["#),
        (
            "impersonatedUser",
            r#""impersonatedUser":{"username":"system:adm"#,
        ),
        ("impersonatedUser", r#""groups":["system:masters","#),
        ("sourceIPs", r#""sourceIPs":["203.0.113.7","10"#),
        ("userAgent", r#""userAgent":"kubectl/v1"#),
        ("objectRef", r#""objectRef":{"resource":"pods","names"#),
        ("objectRef", r#""objectRef":"#),
        ("responseStatus", r#""responseStatus":{"metadata":{},"co"#),
    ];
    for (member, place) in places {
        for draft in [Draft::pod(), Draft::exec()] {
            let Some(padded) = padded_to(cutter, &draft, place) else {
                continue;
            };
            let mut expected = cut_in(&padded, member);
            // What a client chose may be shortened if the event is too large otherwise.
            expected = expected.rule("/requestURI", Rule::Shortened);
            if place.contains("\"groups\":[\"team") {
                let name = Rule::Is("mallory@example.com".into());
                expected = expected.rule("/user/username", name);
            }
            if place == r#""groups":["system:masters","# {
                let name = Rule::Is("system:admin".into());
                expected = expected.rule("/impersonatedUser/username", name);
            }
            if member != "responseStatus" {
                let uri = draft.get("requestURI").trim_matches('"');
                expected.object_ref_of = Some(uri.to_owned());
            }
            let kind = draft.get("objectRef");
            let kind = if kind.contains("exec") { "exec" } else { "pod" };
            let name = format!("cut: {kind}, behind {place}");
            all.push(cutter.attack(&name, &padded.bytes(), expected));
        }
    }
}

fn in_the_uri(cutter: Cutter, all: &mut Vec<Attack>) {
    let long = "p".repeat(cutter.limit() + 1_000);
    let exec = Draft::exec();
    let mut add = |name: &str, uri: &str, complete: &str| {
        let draft = exec.with("requestURI", &format!("\"{uri}\""));
        let mut expected = cut_in(&draft, "requestURI").rule("/requestURI", Rule::Shortened);
        expected.object_ref_of = Some(complete.to_owned());
        all.push(cutter.attack(
            &format!("cut: in the URI, {name}"),
            &draft.bytes(),
            expected,
        ));
    };
    let path = "/api/v1/namespaces/shop/pods/web-0/exec";
    add("in the query", &format!("{path}?command=id&x={long}"), path);
    add(
        "in the query, behind an escape",
        &format!("{path}?x={}%2", &long[..cutter.limit() / 2])
            .replace("%2", &"%2F".repeat(cutter.limit() / 4)),
        path,
    );
    add(
        "in the name",
        &format!("/api/v1/namespaces/shop/pods/{long}"),
        "/api/v1/namespaces/shop/pods",
    );
    add(
        "in a path that is no resource's",
        &format!("/metrics/{long}"),
        "/metrics",
    );
    add("in the group", &format!("/apis/{long}"), "/apis");
    // The text before it is known, so the cut can be placed within the subresource.
    let draft = |fill: usize| {
        let name = "n".repeat(fill);
        exec.with(
            "requestURI",
            &format!("\"/api/v1/namespaces/shop/pods/{name}/exec?command=id\""),
        )
    };
    let ends = |fill| {
        draft(fill)
            .text()
            .find("/exec?")
            .map_or(0, |at| at + "/ex".len())
    };
    let fill = cutter.limit() - ends(0);
    let name = "n".repeat(fill);
    let mut expected = cut_in(&draft(fill), "requestURI").rule("/requestURI", Rule::Shortened);
    expected.object_ref_of = Some(format!("/api/v1/namespaces/shop/pods/{name}"));
    all.push(cutter.attack(
        "cut: in the URI, in the subresource",
        &draft(fill).bytes(),
        expected,
    ));
}

fn in_the_audit_id(cutter: Cutter, all: &mut Vec<Attack>) {
    let draft = Draft::pod().id(&"i".repeat(cutter.limit() + 500));
    let mut expected = cut_in(&draft, "auditID").rule("/auditID", Rule::Shortened);
    expected = expected.rule("/requestURI", Rule::Part);
    all.push(cutter.attack("cut: in the Audit-ID", &draft.bytes(), expected));
}

/// Complete members of the object stay, at every depth.
fn in_objects(cutter: Cutter, all: &mut Vec<Attack>) {
    let long = "o".repeat(cutter.limit());
    let pod = Draft::pod().without("responseObject");
    let objects = [
        (
            "behind the spec",
            format!(r#"{},"x":"{long}"}}"#, &POD[..POD.len() - 1]),
        ),
        (
            "at the end of the spec",
            format!(r#"{},"x":"{long}"}}}}"#, &POD[..POD.len() - 2]),
        ),
        (
            "in a list",
            format!(r#"{},"x":[0,{{"y":["{long}"]}}]}}"#, &POD[..POD.len() - 1]),
        ),
        (
            "in a key",
            format!(r#"{},"{long}":0}}"#, &POD[..POD.len() - 1]),
        ),
        (
            "in a number",
            format!(
                r#"{},"x":{}}}"#,
                &POD[..POD.len() - 1],
                "1".repeat(cutter.limit())
            ),
        ),
        (
            "in small things",
            format!(
                r#"{},"x":[{}]}}"#,
                &POD[..POD.len() - 1],
                vec!["{}"; cutter.limit() / 2].join(",")
            ),
        ),
    ];
    for (name, object) in &objects {
        let draft = pod.with("requestObject", object);
        let expected = Expected::equal_to(&pod).marked(true).only_falco("ka.req.");
        let name = format!("cut: in requestObject, {name}");
        all.push(cutter.attack(&name, &draft.bytes(), expected));
    }
    // Within deep nesting that is still open at the cut.
    let depth = cutter.limit() / 8;
    let deep = format!(
        r#"{},"x":{}"#,
        &POD[..POD.len() - 1],
        r#"{"abcd":"#.repeat(depth)
    );
    let draft = pod.with("requestObject", &deep);
    let expected = Expected::equal_to(&pod).marked(true).only_falco("ka.req.");
    all.push(cutter.attack(
        "cut: in requestObject, in deep nesting",
        &draft.bytes(),
        expected,
    ));
}

/// A cut within a character, and half of a surrogate pair in the record's string.
fn in_characters(cutter: Cutter, all: &mut Vec<Attack>) {
    let pod = Draft::pod().without("responseObject");
    let object = format!(r#"{},"x":"euro"#, &POD[..POD.len() - 1]);
    let text = pod.with("requestObject", &object).text();
    let end = text.find("\"euro").map_or(0, |at| at + "\"euro".len());
    let expected = Expected::equal_to(&pod)
        .marked(true)
        .only_falco("ka.req.")
        .rule("/stageTimestamp", Rule::Is(cutter.record_time().into()));
    let cut = broken(&format!("{}{HALF_CHARACTER}", &text[..end]));
    let record = match cutter {
        Cutter::Eks => cloudwatch(&quoted(&[&cut, &b"[Truncated...]"[..]].concat())),
        Cutter::Aks(_) => diagnostic(&quoted(&cut), "SHOP-PROD", "kube-audit"),
    };
    let bridge = if matches!(cutter, Cutter::Eks) {
        "eks"
    } else {
        "aks"
    };
    all.push(Attack {
        name: format!("cut: within a character of three bytes ({bridge})"),
        bridge,
        records: vec![record],
        expected: vec![expected.clone()],
    });
    let mut string = quoted(&text.as_bytes()[..end]);
    string.pop();
    string.extend_from_slice(br#"\ud83d""#);
    let record = match cutter {
        Cutter::Eks => cloudwatch(&string),
        Cutter::Aks(_) => diagnostic(&string, "SHOP-PROD", "kube-audit"),
    };
    all.push(Attack {
        name: format!("cut: within a surrogate pair ({bridge})"),
        bridge,
        records: vec![record],
        expected: vec![expected],
    });
    // Not at the end, and without a cut: the record's own string contains half a pair.
    let whole_event = Draft::pod()
        .replace("userAgent", "kubectl", "kube@@ctl")
        .text();
    let string = String::from_utf8_lossy(&quoted(whole_event.as_bytes())).replace("@@", r"\ud83d");
    let record = match cutter {
        Cutter::Eks => cloudwatch(string.as_bytes()),
        Cutter::Aks(_) => diagnostic(string.as_bytes(), "SHOP-PROD", "kube-audit"),
    };
    let reference = Draft::pod().replace("userAgent", "kubectl", "kube\u{fffd}ctl");
    all.push(Attack {
        name: format!("surrogates: half a pair in the record's own string ({bridge})"),
        bridge,
        records: vec![record],
        expected: vec![Expected::equal_to(&reference)],
    });
    if matches!(cutter, Cutter::Eks) {
        let name = "cut: already marked by the API server, whole";
        let annotations =
            pod.get("annotations")
                .replacen('{', r#"{"audit.k8s.io/truncated":"true","#, 1);
        let marked = pod.with("annotations", &annotations);
        let expected = Expected::equal_to(&marked).marked(true);
        all.extend(whole(name, &marked.bytes(), &expected));
    }
}
