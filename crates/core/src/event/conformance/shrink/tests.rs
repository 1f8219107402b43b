use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn shrunk(value: &Value, bytes_max: usize) -> String {
    let text = value.to_string();
    shrink(Raw::parse(&text).unwrap(), bytes_max, None)
}

#[test]
fn shrink_string_keeps_its_ends_and_names_the_gap() {
    let text = format!("\"{}\"", "ab".repeat(500));
    let short = shrink(Raw::parse(&text).unwrap(), 100, None);
    assert!(short.len() <= 100 && short.len() > 90);
    assert!(
        short.starts_with("\"abab") && short.ends_with("abab\""),
        "{short}"
    );
    assert!(short.contains("bytes left out"), "{short}");
    assert_eq!(shrunk(&json!("x".repeat(50)), 10), "\"\"");
}

#[test]
fn shrink_large_member_leaves_small_ones_whole() {
    let value =
        json!({"a": "x".repeat(9000), "b": 1, "c": "y".repeat(9000), "d": [true], "e": null});
    let short: Value = serde_json::from_str(&shrunk(&value, 9000)).unwrap();
    assert_eq!((&short["b"], &short["d"]), (&json!(1), &json!([true])));
    for name in ["a", "c"] {
        assert!(short[name].as_str().unwrap().len() > 4000, "{name}");
    }
}

#[test]
fn shrink_levels_share_the_budget_evenly() {
    assert_eq!(level(&[1, 2, 3], 6), usize::MAX);
    assert_eq!(level(&[10, 10, 10], 15), 5);
    assert_eq!(level(&[1, 10, 100], 61), 50);
    assert_eq!(level(&[], 0), usize::MAX);
    assert_eq!(level(&[5], 0), 0);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        (1_usize..3000).prop_map(|n| Value::from("ü\"".repeat(n))),
    ];
    leaf.prop_recursive(6, 200, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::hash_map(".{0,12}", inner.clone(), 0..12)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            (inner, 0_usize..3000).prop_map(|(value, n)| json!([vec![0; n], value, "k".repeat(n)])),
        ]
    })
}

proptest! {
    #[test]
    fn shrink_any_value_fits_and_keeps_its_type(value in any_value(), bytes_max in 2_usize..20_000) {
        let text = value.to_string();
        let short = shrunk(&value, bytes_max);
        prop_assert!(short.len() <= bytes_max.max(2), "{} > {bytes_max}", short.len());
        let got: Value = serde_json::from_str(&short).unwrap();
        if text.len() <= bytes_max {
            prop_assert_eq!(short, text);
        } else if value.is_object() || value.is_array() || value.is_string() {
            prop_assert_eq!(
                std::mem::discriminant(&got),
                std::mem::discriminant(&value)
            );
        }
    }
}
