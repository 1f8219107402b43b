//! The part of Google Cloud's metadata server that a bridge uses.

use axum::http::StatusCode;
use serde_json::json;

/// The metadata server's values; none by default.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// `project/project-id`
    pub project_id: Option<String>,
    /// `instance/attributes/cluster-name`
    pub cluster_name: Option<String>,
    /// `instance/attributes/cluster-location`
    pub cluster_location: Option<String>,
    /// Prefix of the access tokens; a number follows. `None`: the machine has no service account.
    pub token: Option<String>,
    /// `instance/service-accounts/default/email`: the account of the tokens. On GKE the service
    /// account that the pod impersonates, else the workload identity pool (`P.svc.id.goog`);
    /// without GKE's metadata server the node's account.
    pub email: String,
    /// Validity of a token, in seconds.
    pub token_seconds: u64,
    /// Requests for a token are never answered.
    pub hangs: bool,
}

impl Metadata {
    /// A node of this cluster, whose tokens are valid for an hour.
    pub fn of(project: &str, cluster: &str, location: &str) -> Metadata {
        Metadata {
            project_id: Some(project.to_owned()),
            cluster_name: Some(cluster.to_owned()),
            cluster_location: Some(location.to_owned()),
            token: Some("metadata-token".to_owned()),
            email: "bridge@example.iam.gserviceaccount.com".to_owned(),
            token_seconds: 3600,
            hangs: false,
        }
    }

    /// Status and body for a path below `/computeMetadata/v1/`; `number` makes the token unique.
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
