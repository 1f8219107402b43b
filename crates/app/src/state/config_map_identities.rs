//! Stores the identities that a tail keeps for the next replica in a ring of ConfigMaps beside the
//! checkpoint's. They are optional: if one cannot be read or written, some records are delivered
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_core::chain::chain;
use audit_bridge_tail::{IdentityStore, IdentityStoreError};
use futures_util::future::{BoxFuture, join_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::Mutex;

use crate::kubernetes::{ApiError, ApiErrorKind, Cluster, bounded};

/// How long one request may take.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);

/// The number of ConfigMaps in the ring. The chart creates as many.
pub(crate) const IDENTITY_CHUNKS: usize = 8;

/// A ConfigMap holds 1 MiB at most, names and labels included ("ConfigMaps", Kubernetes
/// documentation).
const CHUNK_BYTES_MAX: usize = 900 << 10;

/// The key in the ConfigMap.
const KEY: &str = "identities";

/// How often one save reads and writes: each attempt but the first answers a change made in
/// between.
const ATTEMPTS_MAX: usize = 3;

/// The ring of one log.
pub(super) struct KubernetesIdentities {
    api: Api<ConfigMap>,
    name: String,
    namespace: String,
    /// The objects as last read or written, so that a write needs no read.
    known: Mutex<BTreeMap<usize, ConfigMap>>,
}

impl std::fmt::Debug for KubernetesIdentities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesIdentities")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl KubernetesIdentities {
    /// The ring beside the checkpoint in the ConfigMap `name`.
    pub(super) fn new(cluster: &Cluster, name: &str) -> KubernetesIdentities {
        KubernetesIdentities {
            api: Api::namespaced(cluster.client(), cluster.namespace()),
            name: name.to_owned(),
            namespace: cluster.namespace().to_owned(),
            known: Mutex::default(),
        }
    }

    fn object_name(&self, slot: usize) -> String {
        format!("{}-seen-{slot}", self.name)
    }

    async fn get(&self, slot: usize) -> Result<Option<ConfigMap>, ApiError> {
        let name = self.object_name(slot);
        bounded(REQUEST_WAIT_MAX, self.api.get_opt(&name)).await
    }

    fn failed(&self, slot: usize, problem: &str, error: &ApiError) -> IdentityStoreError {
        format!(
            "the ConfigMap {}/{} {problem}: {}; {}",
            self.namespace,
            self.object_name(slot),
            chain(error),
            error.remedy("configmaps", &self.namespace)
        )
        .into()
    }

    async fn write(&self, slot: usize, chunk: Vec<u8>) -> Result<(), IdentityStoreError> {
        // One write at a time: the tail never asks for more.
        let mut known = self.known.lock().await;
        let params = PostParams::default();
        let chunk = ByteString(chunk);
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let found = match known.remove(&slot) {
                Some(object) => Some(object),
                None => self
                    .get(slot)
                    .await
                    .map_err(|error| self.failed(slot, "cannot be read", &error))?,
            };
            let exists = found.is_some();
            let mut object = found.unwrap_or_default();
            let name = self.object_name(slot);
            object.metadata.name = Some(name.clone());
            object.binary_data = Some(BTreeMap::from([(KEY.to_owned(), chunk.clone())]));
            let sent = match exists {
                true => bounded(REQUEST_WAIT_MAX, self.api.replace(&name, &params, &object)).await,
                false => bounded(REQUEST_WAIT_MAX, self.api.create(&params, &object)).await,
            };
            match sent {
                Ok(mut object) => {
                    // The content is not needed again.
                    object.binary_data = None;
                    known.insert(slot, object);
                    return Ok(());
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ApiErrorKind::Conflict
                            | ApiErrorKind::AlreadyExists
                            | ApiErrorKind::NotFound
                    ) =>
                {
                    last = Some(error);
                }
                Err(error) => return Err(self.failed(slot, "cannot be written", &error)),
            }
        }
        Err(match last {
            Some(error) => self.failed(slot, "changes faster than it can be written", &error),
            None => "no attempt was made".into(),
        })
    }
}

impl IdentityStore for KubernetesIdentities {
    fn chunks(&self) -> usize {
        IDENTITY_CHUNKS
    }

    fn chunk_bytes_max(&self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, IdentityStoreError>> {
        Box::pin(async {
            let mut known = self.known.lock().await;
            let found = join_all((0..IDENTITY_CHUNKS).map(|slot| self.get(slot))).await;
            let mut chunks = Vec::new();
            for (slot, found) in found.into_iter().enumerate() {
                let found = found.map_err(|error| self.failed(slot, "cannot be read", &error))?;
                let Some(mut object) = found else { continue };
                let data = object
                    .binary_data
                    .take()
                    .and_then(|mut data| data.remove(KEY));
                chunks.extend(data.map(|data| data.0));
                known.insert(slot, object);
            }
            Ok(chunks)
        })
    }

    fn save(&self, slot: usize, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), IdentityStoreError>> {
        Box::pin(self.write(slot, chunk))
    }
}
