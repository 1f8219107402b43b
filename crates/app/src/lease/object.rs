//! A Lease as the API server keeps it: what we use of it, and the rest unchanged.
//!
//! Times are text here. Whoever may write Leases chooses them, and the API server accepts times that
//! libraries cannot parse (`9999-12-31T23:59:59.999999Z`): one of them must not make a Lease unreadable.

use k8s_openapi::api::coordination::v1;
use kube::core::Request;
use kube::core::params::{GetParams, PostParams};
use kube::{Client, Error, Resource as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The label that names the object's manager.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A Lease of `coordination.k8s.io/v1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Lease {
    /// `None`: it was created beforehand and never held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spec: Option<LeaseSpec>,
    /// Kind and metadata.
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Who holds the Lease, and until when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeaseSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder_identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease_duration_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) acquire_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renew_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease_transitions: Option<i32>,
    /// What later releases add.
    #[serde(flatten)]
    pub(super) other: Map<String, Value>,
}

impl Lease {
    /// A Lease of this name that does not exist yet.
    pub(super) fn new(name: &str, spec: LeaseSpec) -> Lease {
        let mut other = Map::new();
        other.insert("apiVersion".to_owned(), json!("coordination.k8s.io/v1"));
        other.insert("kind".to_owned(), json!("Lease"));
        let metadata = json!({"name": name, "labels": {MANAGED_BY: "audit-bridge"}});
        other.insert("metadata".to_owned(), metadata);
        Lease {
            spec: Some(spec),
            other,
        }
    }
}

/// The Leases of a namespace.
#[derive(Clone)]
pub(super) struct Leases {
    client: Client,
    request: Request,
}

impl Leases {
    pub(super) fn new(client: Client, namespace: &str) -> Leases {
        Leases {
            client,
            request: Request::new(v1::Lease::url_path(&(), Some(namespace))),
        }
    }

    /// `None`: there is no Lease of this name.
    pub(super) async fn get(&self, name: &str) -> kube::Result<Option<Lease>> {
        let request = self.request.get(name, &GetParams::default());
        match self
            .client
            .request(request.map_err(Error::BuildRequest)?)
            .await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create(&self, params: &PostParams, lease: &Lease) -> kube::Result<Lease> {
        let body = serde_json::to_vec(lease).map_err(Error::SerdeError)?;
        let request = self.request.create(params, body);
        self.client
            .request(request.map_err(Error::BuildRequest)?)
            .await
    }

    /// Writes over the version that `lease` has.
    pub(super) async fn replace(
        &self,
        name: &str,
        params: &PostParams,
        lease: &Lease,
    ) -> kube::Result<Lease> {
        let body = serde_json::to_vec(lease).map_err(Error::SerdeError)?;
        let request = self.request.replace(name, params, body);
        self.client
            .request(request.map_err(Error::BuildRequest)?)
            .await
    }
}
