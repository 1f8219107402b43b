//! Numbered slots, in which logs that share a process or are shared among replicas keep their state.
//!
//! The objects of slot 3 are the ConfigMap `NAME-slot-3` (a checkpoint) and, where replicas share, the
//! Lease `NAME-slot-3`. So that a Role can name them all, they may be made beforehand; which log has
//! which slot is in the table, the ConfigMap `NAME-slots`. Any replica writes the table, over the
//! version that it read, and all of them take what is there. The Lease of a slot excludes two readers
//! of it. Whoever has acquired it reads the table once more, as the slot may have been given to another
//! log meanwhile; a document that another log left in the slot counts as none.
//!
//! A log that was read to its end gives its slot back at once: that it has ended is in the table. One
//! that the provider lists no longer does so a while later.

mod keeper;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_core::checkpoint::{Checkpoint, DOCUMENT, StoreError};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;

pub use self::keeper::{Listing, SlotKeeper};
pub use self::table::SlotTable;
use crate::kubernetes::{
    ApiError, ApiErrorKind, Cluster, ForbiddenReason, bounded, missing_config_map,
};

/// How long one request may take.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads and writes of one change before it is given back: each but the first answers a change that
/// another replica made in between.
const ATTEMPTS_MAX: usize = 8;

/// The key of the table in its ConfigMap.
const TABLE: &str = "slots.json";

/// How many slots there are, an annotation of the table; without it, as many as are needed.
const SLOTS_MAX: &str = "audit-bridge/slots";

/// How many member Leases there are, an annotation of the table.
const MEMBERS_MAX: &str = "audit-bridge/members";

/// Who looks after the object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The table in its ConfigMap.
#[derive(Clone)]
pub struct SlotStore {
    api: Api<ConfigMap>,
    name: String,
    namespace: String,
}

/// The table as it was read, and the version that a write replaces.
struct Loaded {
    table: SlotTable,
    object: Option<ConfigMap>,
    /// It was never written.
    is_new: bool,
}

impl std::fmt::Debug for SlotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotStore")
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl SlotStore {
    /// The table of the bridge whose objects begin with this name.
    pub fn new(cluster: &Cluster, name: &str) -> SlotStore {
        SlotStore {
            api: Api::namespaced(cluster.client(), cluster.namespace()),
            name: name.to_owned(),
            namespace: cluster.namespace().to_owned(),
        }
    }

    /// The table's ConfigMap.
    pub(crate) fn table_name(&self) -> String {
        format!("{}-slots", self.name)
    }

    /// The objects of a slot: its ConfigMap and its Lease.
    pub fn object_name(&self, slot: usize) -> String {
        format!("{}-slot-{slot}", self.name)
    }

    fn place(&self) -> String {
        format!(
            "table in the ConfigMap {}/{}",
            self.namespace,
            self.table_name()
        )
    }

    /// The table; an empty one where none was ever written.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is a newer release's.
    pub async fn read(&self) -> Result<SlotTable, StoreError> {
        Ok(self.load().await?.table)
    }

    /// Changes the table, again over what another replica made of it meanwhile. A change that leaves
    /// it as it is writes nothing. Gives back what is there then.
    ///
    /// # Errors
    /// As for [`SlotStore::read`], or it cannot be written; it may have been written all the same.
    pub async fn update(
        &self,
        mut change: impl FnMut(&mut SlotTable),
    ) -> Result<SlotTable, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut loaded = self.load().await?;
            if loaded.is_new {
                self.restore(&mut loaded.table).await?;
            }
            let before = loaded.table.clone();
            change(&mut loaded.table);
            // A restored table must be written in any case.
            let is_known = !loaded.is_new || before.is_empty();
            if loaded.table == before && is_known {
                return Ok(before);
            }
            if self.write(&loaded).await? {
                return Ok(loaded.table);
            }
        }
        Err(self.failed(
            "changes faster than it can be written",
            "it is tried again",
            None,
        ))
    }

    async fn load(&self) -> Result<Loaded, StoreError> {
        let name = self.table_name();
        let found = bounded(REQUEST_WAIT_MAX, self.api.get_opt(&name)).await;
        let object = found.map_err(|error| self.unavailable("cannot be read", error))?;
        let text = object.as_ref().and_then(|it| it.data.as_ref()?.get(TABLE));
        let is_new = text.is_none();
        let table = match text {
            Some(text) => SlotTable::parse(text).map_err(|error| StoreError::Refused {
                place: self.place(),
                found: error.to_string(),
                expected: "a whole table of this release".to_owned(),
                remedy: format!(
                    "run the release that wrote it, restore it, or delete its data (kubectl -n {} \
                     patch configmap {name} --type json -p '[{{\"op\":\"remove\",\"path\":\"/data\"}}]'): \
                     it is made anew from what is in the slots",
                    self.namespace
                ),
            })?,
            None => SlotTable::default(),
        };
        let limit = |key| {
            let annotations = object.as_ref()?.metadata.annotations.as_ref()?;
            annotations.get(key)?.parse().ok()
        };
        Ok(Loaded {
            table: table.with_limits(limit(SLOTS_MAX), limit(MEMBERS_MAX)),
            object,
            is_new,
        })
    }

    /// Rebuilds a table that was never written from the documents in the slots: somebody may have
    /// deleted the table.
    async fn restore(&self, table: &mut SlotTable) -> Result<(), StoreError> {
        let mut found = BTreeMap::<String, (jiff::Timestamp, usize)>::new();
        for slot in 0..table.slots_max().unwrap_or(usize::MAX) {
            let name = self.object_name(slot);
            let object = match bounded(REQUEST_WAIT_MAX, self.api.get_opt(&name)).await {
                Ok(Some(object)) => object,
                Ok(None) if table.slots_max().is_none() => break,
                Ok(None) => continue,
                // The Role names fewer slots; a log that gets this one reports the error.
                Err(error) if matches!(error.kind(), ApiErrorKind::Forbidden(_)) => break,
                Err(error) => return Err(self.unavailable("cannot be made anew", error)),
            };
            let text = object.data.as_ref().and_then(|data| data.get(DOCUMENT));
            let Some(document) = text.and_then(|it| serde_json::from_str::<Checkpoint>(it).ok())
            else {
                continue;
            };
            let newest = found.entry(document.source);
            let this = (document.written, slot);
            let newest = newest.or_insert(this);
            *newest = (*newest).max(this);
        }
        for (log, (_, slot)) in found {
            tracing::warn!(
                log,
                slot,
                "slot table lost: the slot's own document tells its log"
            );
            table.restore(slot, log);
        }
        Ok(())
    }

    /// Writes the table over the version that was read; false: there is another one.
    async fn write(&self, loaded: &Loaded) -> Result<bool, StoreError> {
        let params = PostParams::default();
        let name = self.table_name();
        let mut object = loaded.object.clone().unwrap_or_default();
        object.metadata.name = Some(name.clone());
        let labels = object.metadata.labels.get_or_insert_default();
        labels
            .entry(MANAGED_BY.to_owned())
            .or_insert_with(|| "audit-bridge".to_owned());
        let data = object.data.get_or_insert_default();
        data.insert(TABLE.to_owned(), loaded.table.to_text());
        let written = match loaded.object {
            Some(_) => bounded(REQUEST_WAIT_MAX, self.api.replace(&name, &params, &object)).await,
            None => bounded(REQUEST_WAIT_MAX, self.api.create(&params, &object)).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ApiErrorKind::Conflict | ApiErrorKind::AlreadyExists | ApiErrorKind::NotFound
                ) =>
            {
                Ok(false)
            }
            Err(error)
                if loaded.object.is_none()
                    && error.kind() == ApiErrorKind::Forbidden(ForbiddenReason::Role) =>
            {
                Err(missing_config_map(self.place(), &self.namespace, &name))
            }
            Err(error) => Err(self.unavailable("cannot be written", error)),
        }
    }

    /// The error that a log has no slot.
    pub(crate) fn full(&self, log: &str, others: usize) -> StoreError {
        let table = self.table_name();
        let more = match others {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        self.failed(
            &format!(
                "has no slot for {log}{more}: all are taken, so what has none is read by nobody"
            ),
            &format!(
                "raise checkpoint.slots of the chart (helm upgrade), or the annotation {SLOTS_MAX} \
                 of the ConfigMap {table} with as many ConfigMaps (and Leases, where replicas \
                 share) {}-slot-N; or take logs that are no longer read out of its {TABLE}",
                self.name
            ),
            None,
        )
    }

    fn unavailable(&self, problem: &str, error: ApiError) -> StoreError {
        let remedy = error.remedy("configmaps", &self.namespace);
        self.failed(problem, &remedy, Some(error))
    }

    fn failed(&self, problem: &str, remedy: &str, error: Option<ApiError>) -> StoreError {
        StoreError::Unavailable {
            place: self.place(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
            source: error.map(Into::into),
        }
    }
}
