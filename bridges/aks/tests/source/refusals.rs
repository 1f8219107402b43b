//! What is wrong is said with what to do about it, and mended by itself where it can be.

use std::io::Write as _;

use audit_bridge_testkit::Pki;

use super::*;

async fn refused(client: &HubClient) -> Unavailable {
    let opening = EventHub::open(client, resume(latest()), 8 << 20, timing());
    let opened = timeout(MUST_COME, opening).await.expect("an answer");
    opened.map(drop).expect_err("it does not open")
}

fn says(unavailable: &Unavailable, part: Component, words: &[&str]) {
    let text = unavailable.to_string();
    assert_eq!(unavailable.component, part, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
}

#[tokio::test]
async fn hub_missing_is_named_with_its_option() {
    let hubs = EventHubs::start().await;
    hubs.add_hub("another", 1);
    let unavailable = refused(&client(&hubs)).await;
    says(
        &unavailable,
        Component::Source,
        &["404", "--event-hub (audit)"],
    );
}

#[tokio::test]
async fn role_missing_is_named_with_remedy() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.deny_listen(true);
    let unavailable = refused(&client(&hubs)).await;
    let role = "Azure Event Hubs Data Receiver";
    says(&unavailable, Component::Source, &["401", role]);

    // A token that is no good is refused before.
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    hubs.answer_tokens(Some((
        401,
        "InvalidIssuer: Token issuer is invalid. TrackingId:1",
    )));
    let unavailable = refused(&client(&hubs)).await;
    says(&unavailable, Component::Source, &["InvalidIssuer", role]);
    assert!(!unavailable.reason.contains("TrackingId"), "{unavailable}");
}

#[tokio::test]
async fn namespace_unresolved_or_silent_is_named() {
    let mut wrong = HubAddress {
        namespace: "no-such-namespace.invalid".to_owned(),
        name: HUB.to_owned(),
        consumer_group: "$Default".to_owned(),
        transport: Transport::AmqpTcp,
        endpoint: None,
    };
    let unavailable = refused(&HubClient::new(wrong.clone(), identity())).await;
    says(
        &unavailable,
        Component::Source,
        &["--event-hub-namespace (no-such-namespace.invalid)"],
    );

    let hubs = EventHubs::start().await;
    hubs.stop_listening().await;
    wrong.endpoint = Some(hubs.endpoint());
    let unavailable = refused(&HubClient::new(wrong, identity())).await;
    says(
        &unavailable,
        Component::Source,
        &["refused", &hubs.endpoint()],
    );
    // That of the namespace itself is another one.
    assert!(!unavailable.remedy.contains("5671"), "{unavailable}");
}

#[tokio::test]
async fn certificate_untrusted_is_named() {
    let pki = Pki::new();
    let hubs = EventHubs::start_tls(pki.acceptor(&["localhost"], None)).await;
    let mut hub = hub(&hubs);
    hub.endpoint = Some(format!("amqps://localhost:{}", hubs.port()));
    let unavailable = refused(&HubClient::new(hub, identity())).await;
    says(
        &unavailable,
        Component::Source,
        &["certificate", "SSL_CERT_FILE"],
    );
}

#[tokio::test]
async fn identity_without_token_is_named_with_remedy() {
    #[derive(Debug)]
    struct NoTokens;
    #[async_trait::async_trait]
    impl TokenCredential for NoTokens {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Credential,
                "AADSTS700213: No matching federated identity record found.\nTo troubleshoot, visit",
            ))
        }
    }
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let credential = Credential::Identity {
        kind: IdentityKind::WorkloadIdentity,
        tokens: Arc::new(IdentityTokens::new(Arc::new(NoTokens), || {
            Ok(Arc::new(NoTokens))
        })),
    };
    let unavailable = refused(&HubClient::new(hub(&hubs), credential)).await;
    says(
        &unavailable,
        Component::Identity,
        &["AADSTS700213", "system:serviceaccount:NAMESPACE:NAME"],
    );
}

#[tokio::test]
async fn connection_string_file_is_reread_and_must_name_the_same_hub() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 1);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut hub = hub(&hubs);
    hub.namespace = "localhost".to_owned();
    let write = |file: &mut tempfile::NamedTempFile, text: &str| {
        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(file).unwrap();
        writeln!(file, "{text}").unwrap();
    };
    let client = HubClient::new(
        hub,
        Credential::ConnectionStringFile(file.path().to_owned()),
    );
    for (text, said) in [
        (hubs.connection_string("other"), "another event hub"),
        (
            hubs.connection_string(HUB)
                .replace("localhost", "elsewhere.example.com"),
            "another namespace",
        ),
        ("nonsense".to_owned(), "--connection-string-file"),
    ] {
        write(&mut file, &text);
        says(&refused(&client).await, Component::Identity, &[said]);
    }
    write(&mut file, &hubs.connection_string(HUB));
    hubs.answer_tokens(Some((401, "InvalidSignature")));
    let unavailable = refused(&client).await;
    says(
        &unavailable,
        Component::Source,
        &["InvalidSignature", "shared access policy with Listen"],
    );
    hubs.answer_tokens(None);
    let source = EventHub::open(&client, resume(latest()), 8 << 20, timing()).await;
    assert!(source.is_ok());
    let sas = "servicebus.windows.net:sastoken";
    assert!(hubs.tokens().iter().all(|put| put.kind == sas));
}

#[tokio::test]
async fn consumer_group_missing_is_named_and_used_once_created() {
    let hubs = EventHubs::start().await;
    hubs.add_hub(HUB, 2);
    hubs.publish(HUB, 0, body("waits"));
    let mut hub = hub(&hubs);
    hub.consumer_group = "bridge".to_owned();
    let begun = resume(Start::Earliest);
    let telemetry = begun.telemetry.clone();
    let client = HubClient::new(hub, identity());
    let mut source = EventHub::open(&client, begun, 8 << 20, timing())
        .await
        .unwrap();
    let mut got = Got::default();
    let not_ready = || {
        let unready = telemetry.unready();
        unready
            .get("source")
            .is_some_and(|why| why.contains("--consumer-group (bridge)"))
    };
    tokio::join!(
        until(not_ready),
        listen(&mut source, &mut got, Duration::from_secs(4)),
    );
    assert_eq!(got.count(), 0);
    hubs.add_consumer_group(HUB, "bridge");
    read(&mut source, &mut got, 1).await;
    tokio::join!(
        until(|| telemetry.is_ready(Component::Source)),
        listen(&mut source, &mut got, Duration::from_secs(8)),
    );
}
