//! Reads an event hub with diagnostic logs of AKS clusters live.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use audit_bridge_app::config::{self, InvalidValue, Problems, given};
use audit_bridge_app::provider::{Finding, Provider, ProviderLog, Resume, SharedLogs, Start};
use audit_bridge_core::readiness::{Component, Unavailable};
use audit_bridge_core::source::{StoredPosition, StoredPositions};
use jiff::{SignedDuration, Timestamp};

use crate::client::connection_string::ConnectionString;
use crate::client::{
    Credential, HubAddress, HubClient, HubError, HubErrorKind, Transport, read_connection_string,
};
use crate::source::partition::PartitionTiming;
use crate::source::position::{self, PartitionStart};
use crate::source::{EventHub, Partition};

/// The event hub that a diagnostic setting creates for this category by default.
const EVENT_HUB: &str = "insights-logs-kube-audit";
/// The consumer group that every event hub has.
const CONSUMER_GROUP: &str = "$Default";
/// Default limit of the bytes in flight from one partition.
const PREFETCH_BYTES_MAX: usize = 8 << 20;
/// The flag that lets replicas share the partitions.
const SHARE_PARTITIONS: &str = "share-partitions";
/// Interval of the queries for new partitions; each opens a connection.
const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// How far back `check` searches for a message.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(1);

/// The flags of reading live.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "event_hubs")]
#[command(next_help_heading = "Event Hubs")]
pub struct AksProviderArgs {
    /// Host name of the namespace, like NAME.servicebus.windows.net
    #[arg(long, value_name = "HOST")]
    event_hub_namespace: Option<String>,
    /// The event hub [default: the connection string's, else insights-logs-kube-audit]
    #[arg(long, value_name = "NAME")]
    event_hub: Option<String>,
    /// The consumer group; one that nobody else reads with [default: $Default]
    #[arg(long, value_name = "NAME")]
    consumer_group: Option<String>,
    /// File with a connection string (Listen), instead of an identity; read again for each connection
    #[arg(long, value_name = "PATH")]
    connection_string_file: Option<PathBuf>,
    /// What carries AMQP: amqp-tcp (port 5671), or amqp-web-sockets (port 443) [default: amqp-tcp]
    #[arg(long, value_name = "NAME")]
    event_hub_transport: Option<String>,
    /// Where to connect to instead of the namespace: amqps://, wss://, or amqp:// on this machine
    #[arg(long, value_name = "URL")]
    event_hub_endpoint: Option<String>,
    /// What may be on its way from one partition; 16MiB for all together at most [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    prefetch_bytes_max: Option<String>,
    /// Let replicas share the partitions, each read by one; needs --checkpoint-store kubernetes
    #[arg(long, value_name = "BOOL")]
    share_partitions: Option<String>,
}

/// An event hub, as configured.
#[derive(Debug)]
pub struct AksProvider {
    hub: HubAddress,
    connection_string_file: Option<PathBuf>,
    prefetch_bytes_max: usize,
    share_partitions: bool,
    /// Shared by all logs, so that a token is requested once.
    client: OnceLock<HubClient>,
}

impl AksProviderArgs {
    /// Checks the flags.
    pub(crate) fn check(&self, problems: &mut Problems) -> AksProvider {
        let file = config::path(self.connection_string_file.as_ref());
        let read = file.as_ref().and_then(|path| {
            let text = read_connection_string(path);
            let read = text.and_then(|text| ConnectionString::parse(&text));
            read.map_err(|what| problems.add("connection-string-file", what))
                .ok()
        });
        let transport = problems.read(
            "event-hub-transport",
            self.event_hub_transport.as_deref(),
            Transport::default(),
            Transport::read,
        );
        let hub = HubAddress {
            transport,
            namespace: self.namespace(file.is_some(), read.as_ref(), problems),
            name: self.hub(read.as_ref(), problems),
            consumer_group: problems.read(
                "consumer-group",
                self.consumer_group.as_deref(),
                CONSUMER_GROUP.to_owned(),
                name,
            ),
            endpoint: problems.read(
                "event-hub-endpoint",
                self.event_hub_endpoint.as_deref(),
                None,
                |text| transport.endpoint(text).map(Some),
            ),
        };
        let emulator = read.and_then(|read| read.emulator);
        let emulator = emulator.and_then(|endpoint| {
            transport
                .endpoint(&endpoint)
                .map_err(|what| {
                    problems.add(
                        "connection-string-file",
                        format!("says UseDevelopmentEmulator=true: {what}"),
                    );
                })
                .ok()
        });
        AksProvider {
            hub: HubAddress {
                endpoint: hub.endpoint.or(emulator),
                ..hub
            },
            connection_string_file: file,
            prefetch_bytes_max: problems.read(
                "prefetch-bytes-max",
                self.prefetch_bytes_max.as_deref(),
                PREFETCH_BYTES_MAX,
                config::bytes,
            ),
            share_partitions: problems.read(
                SHARE_PARTITIONS,
                self.share_partitions.as_deref(),
                false,
                config::flag,
            ),
            client: OnceLock::new(),
        }
    }

    fn namespace(
        &self,
        by_file: bool,
        read: Option<&ConnectionString>,
        problems: &mut Problems,
    ) -> String {
        let flag = "event-hub-namespace";
        let own = problems.read(flag, self.event_hub_namespace.as_deref(), None, |text| {
            host(text).map(Some)
        });
        let told = read.map(|read| read.namespace.to_ascii_lowercase());
        match (own, told) {
            (Some(own), Some(told)) if own != told => {
                problems.add(
                    flag,
                    "is another one than that of the connection string; leave one of them out",
                );
                own
            }
            (Some(own), _) => own,
            (None, Some(told)) => told,
            (None, None) => {
                if !by_file && given(self.event_hub_namespace.as_deref()).is_none() {
                    problems.add(
                        flag,
                        "is missing; name the namespace's host, like NAME.servicebus.windows.net",
                    );
                }
                String::new()
            }
        }
    }

    fn hub(&self, read: Option<&ConnectionString>, problems: &mut Problems) -> String {
        let told = read.and_then(|read| read.entity_path.clone());
        let own = problems.read("event-hub", self.event_hub.as_deref(), None, |text| {
            name(text).map(Some)
        });
        if let (Some(own), Some(told)) = (&own, &told)
            && own != told
        {
            problems.add(
                "connection-string-file",
                "is for another event hub (its EntityPath) than --event-hub",
            );
        }
        own.or(told).unwrap_or_else(|| EVENT_HUB.to_owned())
    }
}

/// Checks a host name in the form that the portal shows.
fn host(text: &str) -> Result<String, InvalidValue> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if text.chars().all(inside) && (text.contains('.') || text == "localhost") {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("is no host name; write it whole, like NAME.servicebus.windows.net".into())
    }
}

/// Checks the name of an event hub or consumer group, which becomes part of a path.
fn name(text: &str) -> Result<String, InvalidValue> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if text.len() <= 256 && text.chars().all(inside) {
        Ok(text.to_owned())
    } else {
        Err("is no name: letters, digits and . - _ $".into())
    }
}

impl AksProvider {
    fn client(&self) -> Result<HubClient, Unavailable> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let credential = match &self.connection_string_file {
            Some(path) => Credential::ConnectionStringFile(path.clone()),
            None => Credential::from_environment().map_err(|error| Unavailable {
                component: Component::Identity,
                reason: error.to_string(),
                remedy: "mend that variable or its file, or use --connection-string-file"
                    .to_owned(),
            })?,
        };
        let client = || HubClient::new(self.hub.clone(), credential);
        Ok(self.client.get_or_init(client).clone())
    }
}

impl Provider for AksProvider {
    type Log = AksLog;

    async fn connect(&self) -> Result<Vec<AksLog>, Unavailable> {
        let whole = AksLog {
            name: self.hub.to_string(),
            client: self.client()?,
            prefetch_bytes_max: self.prefetch_bytes_max,
            share: None,
        };
        if !self.share_partitions {
            return Ok(vec![whole]);
        }
        let partitions = Partition::all(&whole.client).await?;
        let count = partitions.len();
        let logs = partitions.into_iter().map(|partition| AksLog {
            name: format!("{}/{}", whole.name, partition.id),
            share: Some(Share { partition, count }),
            ..whole.clone()
        });
        Ok(logs.collect())
    }

    fn shared(&self) -> Option<SharedLogs> {
        self.share_partitions.then(|| SharedLogs {
            name: self.hub.to_string(),
            flag: SHARE_PARTITIONS,
            list_interval: LIST_INTERVAL,
        })
    }
}

/// An event hub read by a consumer group, or one partition of it.
#[derive(Debug, Clone)]
pub struct AksLog {
    name: String,
    client: HubClient,
    prefetch_bytes_max: usize,
    /// The partition, if replicas share them.
    share: Option<Share>,
}

/// One partition, and the number of all.
#[derive(Debug, Clone)]
struct Share {
    partition: Partition,
    count: usize,
}

impl ProviderLog for AksLog {
    type Source = EventHub;

    fn name(&self) -> &str {
        &self.name
    }

    fn silence_remedy(&self) -> String {
        format!(
            "look whether each cluster's diagnostic setting still sends kube-audit or \
             kube-audit-admin to {}: az monitor diagnostic-settings list --resource $(az aks show \
             --resource-group GROUP --name CLUSTER --query id --output tsv)",
            self.client.hub().name
        )
    }

    fn beginning(&self, start: Start) -> StoredPositions {
        let share = self.share.iter();
        share
            .map(|share| (share.partition.index, PartitionStart::at(start).to_stored()))
            .collect()
    }

    fn is_further(&self, this: &StoredPosition, other: &StoredPosition) -> bool {
        position::is_further(this, other)
    }

    async fn open(&self, resume: Resume) -> Result<EventHub, Unavailable> {
        let timing = PartitionTiming::default();
        let (client, bytes) = (&self.client, self.prefetch_bytes_max);
        match &self.share {
            None => EventHub::open(client, resume, bytes, timing).await,
            Some(Share { partition, count }) => {
                EventHub::open_partition(client, partition, *count, &resume, bytes, timing)
            }
        }
    }

    async fn check(&self) -> Vec<Finding> {
        let identity = match self.client.identity().await {
            Ok(found) => Finding::ok("identity", found),
            Err(fault) => return vec![Finding::failed("identity", fault.into())],
        };
        let what = format!("source {}", self.name);
        let source = match self.probe_source().await {
            Ok(found) => Finding::ok(what, found),
            Err(unavailable) => Finding::failed(what, unavailable),
        };
        vec![identity, source]
    }
}

impl AksLog {
    fn is_shared_out(&self, fault: &HubError) -> bool {
        self.share.is_some() && fault.kind == HubErrorKind::Stolen
    }

    /// Lists the partitions, attaches to one, and searches the last hour for a message.
    async fn probe_source(&self) -> Result<String, Unavailable> {
        let connection = self.client.connect().await?;
        let looked = async {
            let partitions = connection.properties().await?.partitions;
            let mut newest = None;
            for (index, partition) in partitions.iter().enumerate() {
                let bounds = connection.bounds(partition).await?;
                newest = newest.max(bounds.last_enqueued.filter(|_| bounds.last >= 0));
                if index == 0 {
                    let timing = PartitionTiming::default();
                    let attach = connection.try_receiver(partition, bounds.last, timing.attach);
                    match attach.await {
                        // Another replica reads it, so it can be read.
                        Err(fault) if self.is_shared_out(&fault) => {}
                        attached => attached?,
                    }
                }
            }
            Ok::<_, HubError>((partitions.len(), newest))
        };
        let looked = looked.await;
        connection.close().await;
        let (partitions, newest) = looked?;
        let recent = Timestamp::now().checked_sub(LOOK_BACK);
        match newest {
            Some(newest) if recent.is_ok_and(|recent| newest >= recent) => Ok(format!(
                "can be read{}; partitions: {partitions}, newest message: {newest:.0}",
                match self.client.hub().transport {
                    Transport::AmqpTcp => "",
                    Transport::AmqpWebSockets => " over WebSockets",
                }
            )),
            newest => Err(Unavailable {
                component: Component::Source,
                reason: match newest {
                    Some(newest) => {
                        format!("can be read, and holds no message since {newest:.0}")
                    }
                    None => "can be read, and holds no message".to_owned(),
                },
                remedy: "check the cluster's diagnostic setting: it must send kube-audit or \
                         kube-audit-admin to this event hub (the first messages take some minutes)"
                    .to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
