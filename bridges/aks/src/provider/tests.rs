use std::io::Write as _;

use super::*;

fn args() -> AksProviderArgs {
    AksProviderArgs {
        event_hub_namespace: None,
        event_hub: None,
        consumer_group: None,
        connection_string_file: None,
        event_hub_endpoint: None,
        event_hub_transport: None,
        prefetch_bytes_max: None,
        share_partitions: None,
    }
}

fn with_file(text: &str) -> (tempfile::NamedTempFile, AksProviderArgs) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{text}").unwrap();
    let path = file.path().to_owned();
    let args = AksProviderArgs {
        connection_string_file: Some(path),
        ..args()
    };
    (file, args)
}

fn check(args: &AksProviderArgs) -> (AksProvider, String) {
    let mut problems = Problems::default();
    let live = args.check(&mut problems);
    let text = match problems.is_empty() {
        true => String::new(),
        false => problems.to_string(),
    };
    (live, text)
}

const KEY: &str = "SharedAccessKeyName=listen;SharedAccessKey=dG9wc2VjcmV0";

#[test]
fn settings_with_identity_need_the_namespace_only() {
    let (live, problems) = check(&AksProviderArgs {
        event_hub_namespace: Some("Audit.servicebus.windows.net".to_owned()),
        ..args()
    });
    assert_eq!(problems, "");
    assert_eq!(
        live.hub,
        HubAddress {
            namespace: "audit.servicebus.windows.net".to_owned(),
            name: "insights-logs-kube-audit".to_owned(),
            consumer_group: "$Default".to_owned(),
            transport: Transport::AmqpTcp,
            endpoint: None,
        }
    );
}

#[test]
fn settings_with_connection_string_need_nothing_else() {
    let (_file, args) = with_file(&format!(
        "Endpoint=sb://localhost:7001/;{KEY};EntityPath=hub;UseDevelopmentEmulator=true"
    ));
    let (live, problems) = check(&args);
    assert_eq!(problems, "");
    assert_eq!(live.hub.namespace, "localhost");
    assert_eq!(live.hub.name, "hub");
    assert_eq!(live.hub.endpoint.as_deref(), Some("amqp://localhost:7001"));
}

#[test]
fn settings_wrong_are_all_named_and_none_is_shown() {
    let ns = "Endpoint=sb://ns.servicebus.windows.net/";
    let (_missing, nothing) = with_file("");
    let (_other, other) = with_file(&format!("{ns};{KEY};EntityPath=other"));
    let (_plain, plain) = with_file(&format!(
        "Endpoint=sb://emulator:5672/;{KEY};UseDevelopmentEmulator=true"
    ));
    let named = |namespace: &str| AksProviderArgs {
        event_hub_namespace: Some(namespace.to_owned()),
        ..args()
    };
    for (args, said) in [
        (args(), "is missing; name the namespace"),
        (named("audit"), "is no host name"),
        (named("sb://ns.servicebus.windows.net/"), "is no host name"),
        (
            AksProviderArgs {
                event_hub: Some("a/b".to_owned()),
                ..named("ns.example.com")
            },
            "--event-hub (AUDIT_BRIDGE_EVENT_HUB): is no name",
        ),
        (
            AksProviderArgs {
                event_hub_endpoint: Some("amqp://10.1.2.3".to_owned()),
                ..named("ns.example.com")
            },
            "only an endpoint on this machine",
        ),
        (
            AksProviderArgs {
                event_hub_transport: Some("kafka".to_owned()),
                ..named("ns.example.com")
            },
            "is none of amqp-tcp",
        ),
        (
            AksProviderArgs {
                event_hub_transport: Some("AmqpWebSockets".to_owned()),
                event_hub_endpoint: Some("amqp://localhost:5672".to_owned()),
                ..named("ns.example.com")
            },
            "always with TLS",
        ),
        (nothing, "has no Endpoint"),
        (
            AksProviderArgs {
                event_hub: Some("mine".to_owned()),
                ..other.clone()
            },
            "is for another event hub",
        ),
        (
            AksProviderArgs {
                event_hub_namespace: Some("else.servicebus.windows.net".to_owned()),
                ..other
            },
            "is another one than that of the connection string",
        ),
        (plain, "UseDevelopmentEmulator=true: without TLS"),
        (
            AksProviderArgs {
                connection_string_file: Some("/does/not/exist".into()),
                ..args()
            },
            "--connection-string-file (AUDIT_BRIDGE_CONNECTION_STRING_FILE): /does/not/exist",
        ),
    ] {
        let (_, problems) = check(&args);
        assert!(problems.contains(said), "{said}: {problems}");
        assert!(!problems.contains("dG9wc2VjcmV0"), "{problems}");
        assert_eq!(problems.matches("\n  --").count(), 1, "{problems}");
    }
}
