//! The source against an Event Hubs namespace that fails on cue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod failovers;
mod faults;
mod positions;
mod refusals;
mod starts;
mod volume;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aks_audit_bridge::client::{
    Credential, HubAddress, HubClient, IdentityKind, IdentityTokens, Transport,
};
use aks_audit_bridge::source::EventHub;
use aks_audit_bridge::source::partition::PartitionTiming;
use audit_bridge_app::provider::{Resume, Start};
use audit_bridge_app::telemetry::Telemetry;
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{Page, Position, Source, StoredPositions};
use audit_bridge_testkit::EventHubs;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use jiff::Timestamp;
use tokio::time::timeout;

/// The hub of most tests.
const HUB: &str = "audit";

/// Long enough for whatever must come on a machine that is busy.
const MUST_COME: Duration = Duration::from_secs(60);

/// Gives a token that is good for an hour.
#[derive(Debug)]
struct FakeTokens;

#[async_trait::async_trait]
impl TokenCredential for FakeTokens {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://eventhubs.azure.net/.default"]);
        let hour = azure_core::time::Duration::hours(1);
        Ok(AccessToken::new("fake", OffsetDateTime::now_utc() + hour))
    }
}

fn identity() -> Credential {
    Credential::Identity {
        kind: IdentityKind::WorkloadIdentity,
        tokens: Arc::new(IdentityTokens::new(Arc::new(FakeTokens), || {
            Ok(Arc::new(FakeTokens))
        })),
    }
}

fn hub(hubs: &EventHubs) -> HubAddress {
    HubAddress {
        namespace: "audit.servicebus.windows.net".to_owned(),
        name: HUB.to_owned(),
        consumer_group: "$Default".to_owned(),
        transport: Transport::AmqpTcp,
        endpoint: Some(hubs.endpoint()),
    }
}

fn client(hubs: &EventHubs) -> HubClient {
    HubClient::new(hub(hubs), identity())
}

/// Quick enough for a test, slow enough for a machine that is busy.
fn timing() -> PartitionTiming {
    PartitionTiming {
        attach: Duration::from_millis(500),
        idle: Duration::from_millis(200),
        probe: Duration::from_millis(500),
        confirm: Duration::from_millis(200),
        renew: Duration::from_secs(60),
        discover: Duration::from_millis(300),
    }
}

fn resume(start: Start) -> Resume {
    Resume {
        positions: BTreeMap::new(),
        start,
        until: None,
        term: None,
        seen_dir: "unused".into(),
        identities: None,
        telemetry: Telemetry::new("aks-audit-bridge", "0").log("hub"),
    }
}

fn latest() -> Start {
    Start::Latest(Timestamp::now())
}

async fn open(hubs: &EventHubs, resume: Resume) -> Result<EventHub, Unavailable> {
    EventHub::open(&client(hubs), resume, 8 << 20, timing()).await
}

/// A message with one record that is named so.
fn body(name: &str) -> String {
    format!("{{\"records\":[{{\"category\":\"kube-audit\",\"name\":\"{name}\"}}]}}")
}

/// What a reader got so far.
#[derive(Default)]
struct Got {
    /// Names of records, by partition, in order.
    names: BTreeMap<u32, Vec<String>>,
    /// The last position of each partition.
    positions: StoredPositions,
}

impl Got {
    fn add<P: Position>(&mut self, page: Page<P>) {
        assert_eq!(page.problems, []);
        for record in page.records {
            let text = String::from_utf8(record.payload.to_vec()).unwrap();
            let name = text.split("\"name\":\"").nth(1).unwrap_or(&text);
            let name = name.split('"').next().unwrap().to_owned();
            self.names.entry(page.partition).or_default().push(name);
        }
        if let Some(position) = page.position {
            self.positions.insert(page.partition, position.to_stored());
        }
    }

    fn count(&self) -> usize {
        self.names.values().map(Vec::len).sum()
    }

    fn of(&self, partition: u32) -> Vec<&str> {
        let names = self.names.get(&partition).map_or(&[][..], Vec::as_slice);
        names.iter().map(String::as_str).collect()
    }
}

/// Reads until so many records came.
async fn read(source: &mut EventHub, got: &mut Got, records: usize) {
    while got.count() < records {
        let page = timeout(MUST_COME, source.read()).await;
        let page = page.unwrap_or_else(|_| {
            panic!("{} of {records} records came: {:?}", got.count(), got.names)
        });
        got.add(page.expect("the source does not end"));
    }
}

/// Reads for so long, whatever comes.
async fn listen(source: &mut EventHub, got: &mut Got, span: Duration) {
    let _ = timeout(span, async {
        while let Some(page) = source.read().await {
            got.add(page);
        }
    })
    .await;
}

/// Reads until something holds.
async fn read_until(source: &mut EventHub, got: &mut Got, what: impl Fn(&Got) -> bool) {
    while !what(got) {
        let page = timeout(MUST_COME, source.read()).await;
        got.add(page.expect("it comes in time").expect("no end"));
    }
}

/// Waits, without reading, until something holds.
async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(MUST_COME, wait).await.expect("it comes to that");
}

/// A metric's value.
fn metric(telemetry: &Telemetry, name: &str) -> f64 {
    let text = telemetry.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .trim()
        .parse()
        .unwrap()
}
