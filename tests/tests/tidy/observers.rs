//! The observer of canaries stands between the loop and the telemetry. The methods of the trait have
//! defaults, so one that it does not pass on would compile and count nothing.

use audit_bridge_tests::root;

/// The names of the functions behind `begin`, up to the bracket that closes it.
fn functions(file: &str, begin: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let (_, inside) = text.split_once(begin).unwrap();
    let (inside, _) = inside.split_once("\n}").unwrap();
    let lines = inside.lines();
    let names = lines.filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
    names.map(str::to_owned).collect()
}

#[test]
fn observer_of_canaries_passes_each_method_on() {
    let mut told = functions("crates/core/src/observer.rs", "pub trait Observer {");
    let mut passed_on = functions(
        "crates/app/src/canary/observer.rs",
        "impl Observer for CanaryObserver {",
    );
    told.sort();
    passed_on.sort();
    assert!(told.len() > 8, "{told:?}");
    assert_eq!(passed_on, told);
}
