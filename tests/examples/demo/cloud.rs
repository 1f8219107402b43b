//! Stand-ins of the three clouds' logs on loopback, to which the demo writes.

use std::path::Path;

use audit_bridge_testkit::cloud_logging::CloudLogging;
use audit_bridge_testkit::{CloudWatch, EventHubs, PodEntry};
use audit_bridge_tests::{audit_id, event};
use jiff::Timestamp;
use serde_json::json;

const GROUP: &str = "/aws/eks/demo/cluster";
const HUB: &str = "insights-logs-kube-audit";
const PARTITIONS: usize = 4;
/// Approximate size of an audit event.
const EVENT_BYTES: usize = 1600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Provider {
    /// Amazon EKS: CloudWatch Logs
    Eks,
    /// Google GKE: Cloud Logging
    Gke,
    /// Azure AKS: Event Hubs
    Aks,
}

impl Provider {
    /// The prefix of the bridge's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Provider::Eks => "eks",
            Provider::Gke => "gke",
            Provider::Aks => "aks",
        }
    }
}

/// The flags and variables of a bridge.
pub(crate) struct Reading {
    pub(crate) flags: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// A stand-in that the demo writes to.
pub(crate) enum Cloud {
    CloudWatch(CloudWatch),
    Logging(CloudLogging),
    EventHubs(EventHubs),
}

impl Cloud {
    pub(crate) async fn start(provider: Provider) -> Cloud {
        match provider {
            Provider::Eks => {
                let cloud = CloudWatch::start().await;
                cloud.group(GROUP);
                Cloud::CloudWatch(cloud)
            }
            Provider::Gke => Cloud::Logging(CloudLogging::start().await),
            Provider::Aks => {
                let cloud = EventHubs::start().await;
                cloud.add_hub(HUB, PARTITIONS);
                Cloud::EventHubs(cloud)
            }
        }
    }

    /// The name of the service that it stands for.
    pub(crate) fn about(&self) -> &'static str {
        match self {
            Cloud::CloudWatch(_) => "CloudWatch Logs",
            Cloud::Logging(_) => "Cloud Logging",
            Cloud::EventHubs(_) => "an event hub with four partitions",
        }
    }

    /// Writes the `n`th audit event, as the cloud would.
    pub(crate) fn write(&self, n: usize) {
        let now = Timestamp::now();
        match self {
            Cloud::CloudWatch(cloud) => {
                let text = event(n, EVENT_BYTES);
                cloud.put(GROUP, "kube-apiserver-audit-1", now.as_millisecond(), &text);
            }
            Cloud::Logging(cloud) => {
                let mut entry = PodEntry::new(n, now);
                entry.bytes = EVENT_BYTES / 2;
                cloud.put(entry.text());
            }
            Cloud::EventHubs(cloud) => {
                let record = json!({
                    "time": now.to_string(),
                    "category": "kube-audit",
                    "operationName": "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read",
                    "resourceId": "/SUBSCRIPTIONS/0/RESOURCEGROUPS/RG/PROVIDERS/\
                                   MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/DEMO",
                    "properties": {"log": event(n, EVENT_BYTES) + "\n", "stream": "stdout"},
                });
                let message = json!({ "records": [record] }).to_string();
                cloud.publish(HUB, n % PARTITIONS, message);
            }
        }
    }

    /// The `auditID` of the `n`th event.
    pub(crate) fn audit_id(&self, n: usize) -> String {
        match self {
            Cloud::Logging(_) => PodEntry::audit_id(n),
            _ => audit_id(n),
        }
    }

    /// The flags and variables with which a bridge reads it. Files go into `folder`.
    pub(crate) fn reading(&self, folder: &Path) -> std::io::Result<Reading> {
        Ok(match self {
            Cloud::CloudWatch(cloud) => Reading {
                flags: vec![
                    "--cluster-name=demo".to_owned(),
                    "--poll-interval=500ms".to_owned(),
                    "--requests-per-second=10".to_owned(),
                ],
                variables: vec![
                    ("AWS_ENDPOINT_URL", cloud.url()),
                    ("AWS_REGION", "eu-central-1".to_owned()),
                    ("AWS_ACCESS_KEY_ID", "demo".to_owned()),
                    ("AWS_SECRET_ACCESS_KEY", "demo".to_owned()),
                ],
            },
            Cloud::Logging(cloud) => Reading {
                flags: vec![
                    "--project-id=p".to_owned(),
                    "--cluster-name=c".to_owned(),
                    "--poll-interval=500ms".to_owned(),
                    "--requests-per-minute=600".to_owned(),
                    format!("--logging-endpoint={}", cloud.url()),
                ],
                variables: Vec::new(),
            },
            Cloud::EventHubs(cloud) => {
                let file = folder.join("connection-string");
                std::fs::write(&file, cloud.connection_string(HUB))?;
                Reading {
                    flags: vec![format!("--connection-string-file={}", file.display())],
                    variables: Vec::new(),
                }
            }
        })
    }
}
