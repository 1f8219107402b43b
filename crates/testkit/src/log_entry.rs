//! Entries of a GKE cluster's audit log, in Cloud Logging's form.

use jiff::Timestamp;

/// Builds an entry for the creation of a pod. Entries with the same number are the same event.
#[derive(Debug, Clone)]
pub struct PodEntry {
    /// Determines `auditID` and `insertId`.
    pub number: usize,
    /// `timestamp`
    pub time: Timestamp,
    /// The project of both log and cluster.
    pub project: String,
    /// `resource.labels.cluster_name`
    pub cluster: String,
    /// `resource.labels.location`
    pub location: String,
    /// `activity` or `data_access`
    pub log: String,
    /// Approximate size of the pod.
    pub bytes: usize,
}

impl PodEntry {
    /// An entry of the cluster `c` in the location `l` of the project `p`.
    pub fn new(number: usize, time: Timestamp) -> PodEntry {
        PodEntry {
            number,
            time,
            project: "p".to_owned(),
            cluster: "c".to_owned(),
            location: "l".to_owned(),
            log: "activity".to_owned(),
            bytes: 0,
        }
    }

    /// The `auditID` of the entry's event.
    pub fn audit_id(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012}")
    }

    /// The entry as JSON.
    pub fn text(&self) -> String {
        let PodEntry {
            number,
            time,
            project,
            cluster,
            location,
            log,
            bytes,
        } = self;
        let id = PodEntry::audit_id(*number);
        let filling = "x".repeat(*bytes);
        format!(
            r#"{{"insertId":"{id}","labels":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}},"logName":"projects/{project}/logs/cloudaudit.googleapis.com%2F{log}","operation":{{"first":true,"id":"{id}","last":true,"producer":"k8s.io"}},"protoPayload":{{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","authenticationInfo":{{"principalEmail":"system:serviceaccount:kube-system:replicaset-controller"}},"methodName":"io.k8s.core.v1.pods.create","request":{{"@type":"core.k8s.io/v1.Pod","apiVersion":"v1","kind":"Pod","metadata":{{"name":"p{number}","annotations":{{"filling":"{filling}"}}}}}},"requestMetadata":{{"callerIp":"10.0.0.3","callerSuppliedUserAgent":"kube-controller-manager/v1.33"}},"resourceName":"core/v1/namespaces/default/pods/p{number}","serviceName":"k8s.io","status":{{}}}},"receiveTimestamp":"{time}","resource":{{"labels":{{"cluster_name":"{cluster}","location":"{location}","project_id":"{project}"}},"type":"k8s_cluster"}},"timestamp":"{time}"}}"#
        )
    }
}
