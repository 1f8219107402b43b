//! Nesting: Falco loses a whole POST that nests deeper than 300 levels. What is deeper than the
//! limit is removed, the rest of the object stays.

use super::event::{Draft, POD};
use super::{Attack, Expected, whole};

fn nested(levels: usize, open: &str, close: &str, leaf: &str) -> String {
    format!("{}{leaf}{}", open.repeat(levels), close.repeat(levels))
}

pub(super) fn attacks() -> Vec<Attack> {
    let pod = Draft::pod();
    let mut all = Vec::new();
    let mut add = |name: String, draft: &Draft, marked: bool| {
        let expected = Expected::equal_to(&pod).marked(marked);
        all.extend(whole(&name, &draft.bytes(), &expected));
    };
    // The list, its items, the event and the object make four levels.
    for (levels, marked) in [
        (240, false),
        (292, true),
        (400, true),
        (1_030, true),
        (9_000, true),
    ] {
        let shapes = [
            ("lists", nested(levels, "[", "]", "0")),
            ("objects", nested(levels, r#"{"a":"#, "}", "0")),
            ("both", nested(levels / 2, r#"[{"a":"#, "}]", "\"}]\"")),
        ];
        for (shape, deep) in shapes {
            // Before or after everything that rules read.
            let front = format!(r#"{{"x":{deep},{}"#, &POD[1..]);
            let name = format!("depth: {levels} levels of {shape} in front in requestObject");
            add(name, &pod.with("requestObject", &front), marked);
        }
        let deep = nested(levels, "[", "]", "");
        let behind = format!(r#"{},"x":{deep}}}"#, &POD[..POD.len() - 1]);
        let name = format!("depth: {levels} levels behind the rest of requestObject");
        add(name, &pod.with("requestObject", &behind), marked);
        let name = format!("depth: {levels} levels in responseObject");
        add(name, &pod.with("responseObject", &behind), marked);
    }
    let deep = nested(400, r#"{"spec":"#, "}", "{}");
    let inner = POD.replacen(
        r#""hostPID":true"#,
        &format!(r#""x":{deep},"hostPID":true"#),
        1,
    );
    let name = "depth: 400 levels beside hostPID".to_owned();
    add(name, &pod.with("requestObject", &inner), true);
    let name = "depth: 400 levels in a member that nobody knows".to_owned();
    add(name, &pod.before("annotations", "novelty", &deep), true);
    let many = vec![nested(400, "[", "]", ""); 50].join(",");
    let front = format!(r#"{{"x":[{many}],{}"#, &POD[1..]);
    let name = "depth: fifty times 400 levels".to_owned();
    add(name, &pod.with("requestObject", &front), true);
    all
}
