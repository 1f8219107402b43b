//! The metadata server of a Google Cloud machine, as far as a bridge asks it.

use axum::http::StatusCode;
use serde_json::json;

/// What the metadata server says; nothing at all unless it is given.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// `project/project-id`
    pub project_id: Option<String>,
    /// `instance/attributes/cluster-name`
    pub cluster_name: Option<String>,
    /// `instance/attributes/cluster-location`
    pub cluster_location: Option<String>,
    /// What the access tokens begin with; each has a number behind it. `None`: the machine has no
    /// service account.
    pub token: Option<String>,
    /// `instance/service-accounts/default/email`: whose tokens they are. On GKE the service account
    /// that the pod impersonates, or the workload identity pool (`P.svc.id.goog`) where it
    /// impersonates none; without GKE's metadata server that of the node.
    pub email: String,
    /// How long a token is good, in seconds.
    pub token_seconds: u64,
}

impl Metadata {
    /// A node of this cluster, with tokens that are good for an hour.
    pub fn of(project: &str, cluster: &str, location: &str) -> Metadata {
        Metadata {
            project_id: Some(project.to_owned()),
            cluster_name: Some(cluster.to_owned()),
            cluster_location: Some(location.to_owned()),
            token: Some("metadata-token".to_owned()),
            email: "bridge@example.iam.gserviceaccount.com".to_owned(),
            token_seconds: 3600,
        }
    }

    /// Status and body for a path below `/computeMetadata/v1/`; `number` tells a token from those
    /// before it.
    pub(super) fn answer(&self, path: &str, number: usize) -> (StatusCode, String) {
        let found = match path {
            "project/project-id" => self.project_id.clone(),
            "instance/attributes/cluster-name" => self.cluster_name.clone(),
            "instance/attributes/cluster-location" => self.cluster_location.clone(),
            "universe/universe-domain" => Some("googleapis.com".to_owned()),
            "instance/service-accounts/default/email" => {
                Some(self.email.clone()).filter(|_| self.token.is_some())
            }
            "instance/service-accounts/default/token" => self.token.as_ref().map(|token| {
                json!({
                    "access_token": format!("{token}-{number}"),
                    "expires_in": self.token_seconds,
                    "token_type": "Bearer",
                })
                .to_string()
            }),
            _ => None,
        };
        match found {
            Some(body) => (StatusCode::OK, body),
            None => (StatusCode::NOT_FOUND, "not found".to_owned()),
        }
    }
}
