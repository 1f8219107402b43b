//! Asks the metadata server where this process runs: the project, and on GKE the cluster.

use std::time::Duration;

use audit_bridge_core::chain::chain;
use reqwest::StatusCode;

/// Its default host.
const HOST: &str = "metadata.google.internal";
/// Short, as the server is on this machine or does not exist.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the metadata server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    /// It does not exist or cannot be reached.
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("it answered {status} for {path}")]
    Status { status: StatusCode, path: String },
}

/// Where this process runs; `None` for what is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InstanceMetadata {
    pub(crate) project: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) location: Option<String>,
}

/// Whether the environment names the server's host.
pub(crate) fn host_is_named() -> bool {
    host().is_some()
}

fn host() -> Option<String> {
    let host = std::env::var("GCE_METADATA_HOST").ok()?;
    Some(host.trim().to_owned()).filter(|host| !host.is_empty())
}

/// Asks where this process runs.
///
/// # Errors
/// The server cannot be reached: this is no machine of Google's, or one that has just started.
pub(crate) async fn place() -> Result<InstanceMetadata, MetadataError> {
    let server = MetadataServer::new()?;
    Ok(InstanceMetadata {
        project: server.get("project/project-id").await?,
        cluster: server.get("instance/attributes/cluster-name").await?,
        location: server.get("instance/attributes/cluster-location").await?,
    })
}

/// Asks whose tokens it issues: the service account's e-mail address, or the workload identity pool
/// of a pod that impersonates none. `None`: it issues none.
///
/// # Errors
/// As [`place`].
pub(crate) async fn service_account_email() -> Result<Option<String>, MetadataError> {
    let server = MetadataServer::new()?;
    server.get("instance/service-accounts/default/email").await
}

struct MetadataServer {
    host: String,
    http: reqwest::Client,
}

impl MetadataServer {
    fn new() -> Result<MetadataServer, MetadataError> {
        let http = reqwest::Client::builder()
            .user_agent(super::USER_AGENT)
            .timeout(WAIT_MAX)
            .connect_timeout(WAIT_MAX)
            .no_proxy()
            .build()?;
        let host = host().unwrap_or_else(|| HOST.to_owned());
        Ok(MetadataServer { host, http })
    }

    /// The value at a path; `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<String>, MetadataError> {
        let url = format!("http://{}/computeMetadata/v1/{path}", self.host);
        let request = self.http.get(url).header("Metadata-Flavor", "Google");
        let answer = request.send().await?;
        match (answer.status(), answer.text().await?) {
            (StatusCode::OK, text) => Ok(Some(text.trim().to_owned()).filter(|it| !it.is_empty())),
            // A machine outside a cluster lacks the attributes of one.
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(MetadataError::Status {
                status,
                path: path.to_owned(),
            }),
        }
    }
}
