use super::*;

fn written(text: &str) -> String {
    let object = Object::parse(text).expect(text);
    let mut out = String::new();
    object.write(&mut out);
    out
}

#[test]
fn object_type_url_becomes_kind_and_version() {
    for (text, want) in [
        (
            r#"{"@type":"core.k8s.io/v1.Pod","apiVersion":"v1","kind":"Pod","spec":{}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","spec":{}}"#,
        ),
        (
            r#"{"apiVersion":"v1","@type":"core.k8s.io/v1.Pod","kind":"Pod"}"#,
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
        ),
        (
            r#"{"apiVersion":"v1","kind":"Pod","@type":"core.k8s.io/v1.Pod"}"#,
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
        ),
        (
            r#"{"@type":"core.k8s.io/v1.Pod","spec":{"@type":"kept"}}"#,
            r#"{"kind":"Pod","apiVersion":"v1","spec":{"@type":"kept"}}"#,
        ),
        (
            r#"{"@type":"apps.k8s.io/v1.Deployment","kind":"Odd"}"#,
            r#"{"apiVersion":"apps/v1","kind":"Odd"}"#,
        ),
        (
            r#"{"@type":"rbac.authorization.k8s.io/v1.Role"}"#,
            r#"{"kind":"Role","apiVersion":"rbac.authorization.k8s.io/v1"}"#,
        ),
        (
            r#"{"@type":"meta.k8s.io/__internal.DeleteOptions","gracePeriodSeconds":0}"#,
            r#"{"kind":"DeleteOptions","gracePeriodSeconds":0}"#,
        ),
        (r#"{"@type":"odd","a":1}"#, r#"{"a":1}"#),
        (r#"{"@type":7,"a":1,"@type":"b"}"#, r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":1}"#),
        (r"{}", r"{}"),
        (r#"{"@type":"k8s.io/Patch"}"#, r"{}"),
        (
            r#"{"@type":"k8s.io/Patch","spec":{"$retainKeys":["type"],"x":null}}"#,
            r#"{"spec":{"$retainKeys":["type"],"x":null}}"#,
        ),
        (
            r#"{"@type":"k8s.io/Patch","value":[{"op":"add"}]}"#,
            r#"[{"op":"add"}]"#,
        ),
        (
            r#"{"@type":"k8s.io/Patch","value":[1],"more":2}"#,
            r#"{"value":[1],"more":2}"#,
        ),
        // Spread over lines: events are written on one line.
        (
            "{\n  \"@type\" : \"k8s.io/Patch\",\n  \"a\" : [ 1,\r\n 2 ],\n  \"b\": \"x \\n y\"\n}",
            r#"{"a":[1,2],"b":"x \n y"}"#,
        ),
        ("{\n  \"a\" : 1 ,\n  \"@type\" : \"x\"\n}", r#"{"a":1}"#),
    ] {
        assert_eq!(written(text), want, "{text}");
        assert!(Raw::parse(&written(text)).is_ok());
    }
    assert!(Object::parse("[]").is_none());
    assert!(Object::parse("null").is_none());
}

#[test]
fn object_integers_are_written_as_integers() {
    for (number, want) in [
        ("1e3", "1000"),
        ("1000.0", "1000"),
        ("1.5e1", "15"),
        ("-2.50e2", "-250"),
        ("12300e-2", "123"),
        ("0.5", "0.5"),
        ("12345e-2", "12345e-2"),
        ("-0.0", "0"),
        ("0e9", "0"),
        ("1E+2", "100"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("9007199254740993.0", "9007199254740993"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e21"),
        ("1e400", "1e400"),
        ("1e-400", "1e-400"),
        ("1e99999999999", "1e99999999999"),
        ("0.000", "0"),
    ] {
        assert_eq!(integral(number), want, "{number}");
    }
    assert_eq!(
        written(
            r#"{"a":1e3,"b":"1e3 \" 2.0","metadata":{"generation":2.0},"c":[-1.0,{"d":0.25}],"e":9007199254740993}"#
        ),
        r#"{"a":1000,"b":"1e3 \" 2.0","metadata":{"generation":2},"c":[-1,{"d":0.25}],"e":9007199254740993}"#
    );
}

#[test]
fn object_metadata_of_other_type_has_its_numbers_repaired() {
    for (side, keys) in [
        (Side::Request, Keys::Seen),
        (Side::Request, Keys::NotSeen),
        (Side::Response, Keys::NotSeen),
    ] {
        for text in [
            r#"{"metadata":[1e3,{"a":2.0}],"b":1}"#,
            r#"{"metadata":{"a":[1e3,{"a":2.0}]},"b":1}"#,
        ] {
            let object = Object::read(&mut Scanner::new(text), text, side, keys);
            let mut out = String::new();
            object.expect("json").expect("an object").write(&mut out);
            assert_eq!(out, text.replace("1e3", "1000").replace("2.0", "2"));
        }
    }
}

#[test]
fn object_duplicate_key_is_found_at_every_level() {
    let repeats = |text: &str| {
        let object = Object::read(&mut Scanner::new(text), text, Side::Request, Keys::Seen);
        let object = object.expect("json").expect("an object");
        object.findings().may_repeat_a_key()
    };
    for twice in [
        r#"{"rules":[1],"rules":[2]}"#,
        r#"{"rules":[1],"r\u0075les":[2]}"#,
        r#"{"metadata":{"name":"a","name":"b"}}"#,
        r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#,
        r#"{"metadata":[{"a":1,"a":2}]}"#,
        r#"{"metadata":{},"metadata":{}}"#,
        r#"{"spec":{"a":[{"b":{"c":1,"c":2}}]}}"#,
    ] {
        assert!(repeats(twice), "{twice}");
    }
    for once in [
        r#"{}"#,
        r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#,
        r#"{"metadata":{"metadata":1,"name":"a"},"name":"a"}"#,
    ] {
        assert!(!repeats(once), "{once}");
    }
    let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":{n}")).collect();
    assert!(repeats(&format!("{{{}}}", many.join(","))), "a guess");
}
