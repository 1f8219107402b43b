//! What a real API server wrote to its log and sent to its webhook during the tour.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_bridge_testkit::ScriptedWebhook;
use audit_bridge_tests::apiserver::{ApiServer, Release, tour};
use audit_bridge_tests::leaves::Leaves;
use serde_json::json;
use tokio::sync::OnceCell;

/// One event.
pub(crate) struct Native {
    /// Its line in the log.
    pub(crate) line: Vec<u8>,
    /// The event that the API server sent to its webhook.
    pub(crate) sent: Leaves,
}

/// The tour of a release, made once for all tests.
pub(crate) async fn tour(release: Release) -> Option<Arc<Vec<Native>>> {
    static NEWEST: OnceCell<Option<Arc<Vec<Native>>>> = OnceCell::const_new();
    static OLDEST: OnceCell<Option<Arc<Vec<Native>>>> = OnceCell::const_new();
    let cell = match release {
        Release::Newest => &NEWEST,
        Release::Oldest => &OLDEST,
    };
    cell.get_or_init(|| record(release)).await.clone()
}

async fn record(release: Release) -> Option<Arc<Vec<Native>>> {
    let webhook = ScriptedWebhook::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("webhook.kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "clusters": [{"name": "webhook", "cluster": {"server": webhook.url()}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "webhook"}}],
    });
    std::fs::write(&config, kubeconfig.to_string()).unwrap();
    let log = folder.path().join("audit.log");
    let flags = [
        format!("--audit-log-path={}", log.display()),
        "--audit-log-maxsize=10000".to_owned(),
        format!("--audit-webhook-config-file={}", config.display()),
        "--audit-webhook-mode=blocking".to_owned(),
    ];
    tokio::task::block_in_place(|| {
        let mut server = ApiServer::start(release, &flags)?;
        let requests = tour::make(&server);
        server.stop();
        println!("{release:?}: a tour of {requests} requests");
        Some(())
    })?;
    let text = std::fs::read(&log).unwrap();
    let bodies = webhook.received();
    let sent = bodies.iter().flat_map(|request| {
        assert!(request.accepted);
        Leaves::of(&request.body).elements("/items")
    });
    let mut sent: BTreeMap<_, _> = sent.map(|event| (key(&event), event)).collect();
    let lines = text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    let all: Vec<_> = lines
        .map(|line| {
            let event = Leaves::of(line);
            let Some(sent) = sent.remove(&key(&event)) else {
                panic!("logged, but not sent: {:?}", key(&event));
            };
            Native {
                line: line.to_vec(),
                sent,
            }
        })
        .collect();
    assert!(sent.is_empty(), "sent, but not logged: {:?}", sent.keys());
    assert!(all.len() > 400, "{} events", all.len());
    println!("{release:?}: {} events", all.len());
    Some(Arc::new(all))
}

/// Identifies an event within a tour.
pub(crate) fn key(event: &Leaves) -> [String; 2] {
    ["/auditID", "/stage"].map(|place| event.get(place).unwrap_or_default().to_owned())
}
