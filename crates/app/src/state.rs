//! The layout of a process's state, and each log's part of it.

mod config_map;
mod config_map_identities;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_bridge_core::checkpoint::file::StateDir;
use audit_bridge_core::checkpoint::{Checkpoint, DOCUMENT, FileStore, Owner, Store, StoreError};
use audit_bridge_tail::{Identity, IdentityStore};
use tokio::task::spawn_blocking;

pub use self::config_map::KubernetesStore;
use self::config_map_identities::KubernetesIdentities;
use crate::kubernetes::Cluster;
use crate::slots::{SlotStore, SlotTable};

/// What a person does to begin anew, where the checkpoint is a file.
const RESTART: &str =
    "move it away to begin at --start (`latest` skips what came since the last delivery)";

/// The store that `--checkpoint-store` selects.
#[derive(Debug)]
pub enum AnyStore {
    /// `--checkpoint-store file`.
    File(FileStore),
    /// `--checkpoint-store kubernetes`.
    Kubernetes(Box<KubernetesStore>),
}

impl AnyStore {
    /// Tests whether a checkpoint could be written, without writing one.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn probe(&mut self) -> Result<(), StoreError> {
        match self {
            AnyStore::File(store) => store.probe().await,
            AnyStore::Kubernetes(store) => store.probe().await,
        }
    }
}

impl Store for AnyStore {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        match self {
            AnyStore::File(store) => store.load().await,
            AnyStore::Kubernetes(store) => store.load().await,
        }
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        match self {
            AnyStore::File(store) => store.save(checkpoint).await,
            AnyStore::Kubernetes(store) => store.save(checkpoint).await,
        }
    }
}

/// The values of `--checkpoint-store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// A file in the state folder.
    File,
    /// A `ConfigMap`.
    Kubernetes,
}

/// The state of one process: its locked folder, and its cluster if the checkpoints are there.
#[derive(Debug)]
pub struct StateLayout {
    dir: Arc<StateDir>,
    config_maps: Option<ConfigMaps>,
}

#[derive(Debug)]
struct ConfigMaps {
    cluster: Cluster,
    name: String,
    writer: String,
    slots: SlotStore,
}

#[derive(Debug)]
pub struct LogState {
    pub store: AnyStore,
    /// The stored checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The folder for identities of records that were seen.
    pub seen_dir: PathBuf,
    /// Where those identities are stored for the next replica, if the checkpoint is in a ConfigMap.
    pub identities: Option<Arc<dyn IdentityStore>>,
}

impl StateLayout {
    /// Creates and locks the state folder.
    ///
    /// # Errors
    /// As for [`StateDir::lock`].
    pub async fn lock(dir: &Path) -> Result<StateLayout, StoreError> {
        let path = dir.to_owned();
        let dir = on_disk(dir, move || StateDir::lock(&path)).await?;
        Ok(StateLayout {
            dir: Arc::new(dir),
            config_maps: None,
        })
    }

    /// The same with the checkpoints in ConfigMaps whose names begin with `name`. `writer` is this
    /// process's own identity.
    #[must_use]
    pub fn with_config_maps(self, cluster: Cluster, name: &str, writer: &str) -> StateLayout {
        StateLayout {
            config_maps: Some(ConfigMaps {
                slots: SlotStore::new(&cluster, name),
                cluster,
                name: name.to_owned(),
                writer: writer.to_owned(),
            }),
            ..self
        }
    }

    /// Gives a slot to each of several logs that has none, if the checkpoints are in ConfigMaps.
    ///
    /// # Errors
    /// The table cannot be read or written, or there are fewer slots than logs.
    pub async fn assign_slots(&self, logs: &[&str]) -> Result<(), StoreError> {
        let Some(config_maps) = &self.config_maps else {
            return Ok(());
        };
        config_maps.mark_several().await?;
        let table = config_maps.slots.update(|table| {
            for log in logs {
                table.assign(log);
            }
        });
        config_maps.check_slots(&table.await?, logs)
    }

    /// Opens the state of one log. A process that reads one log keeps its checkpoint at the top;
    /// one that reads several keeps each in a folder below, or in its slot. An existing checkpoint
    /// stays where it is, so that a second cluster can be added, and the first be removed, without
    /// losing a position.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is not ours.
    pub async fn open_log(&self, owner: &Owner, several: bool) -> Result<LogState, StoreError> {
        let found = match (&self.config_maps, several) {
            (Some(config_maps), true) => Some(config_maps.find_in_slot(owner).await?),
            (Some(config_maps), false) => Some(config_maps.find_alone(owner).await?),
            (None, _) => None,
        };
        self.log_state(owner, several, found).await
    }

    /// Opens the state of a log in its slot, whose Lease the caller holds; `None` if the slot is
    /// another log's now.
    ///
    /// # Errors
    /// As for [`StateLayout::open_log`].
    pub async fn open_slot(
        &self,
        owner: &Owner,
        lease: &str,
    ) -> Result<Option<LogState>, StoreError> {
        let Some(config_maps) = &self.config_maps else {
            return Ok(None);
        };
        let table = config_maps.slots.read().await?;
        let slot = table.slot(&owner.source);
        let Some(slot) = slot.filter(|&slot| config_maps.slots.object_name(slot) == lease) else {
            return Ok(None);
        };
        let found = config_maps.find(owner, slot).await?;
        self.log_state(owner, true, Some(found)).await.map(Some)
    }

    /// The state of a log whose store in the cluster is known.
    async fn log_state(
        &self,
        owner: &Owner,
        several: bool,
        found: Option<Found>,
    ) -> Result<LogState, StoreError> {
        let (root, file_owner) = (Arc::clone(&self.dir), owner.clone());
        let file_store = on_disk(self.dir.path(), move || {
            let dir = place(root.path(), &file_owner, several);
            let state = match dir == root.path() {
                true => root,
                false => Arc::new(StateDir::lock(&dir)?),
            };
            FileStore::within(state, file_owner, RESTART)
        })
        .await?;
        let seen_dir = file_store.folder().join("seen");
        let (store, checkpoint, identities) = match (&self.config_maps, found) {
            (Some(config_maps), Some((store, checkpoint))) => {
                let identities = KubernetesIdentities::new(&config_maps.cluster, store.name());
                let identities: Arc<dyn IdentityStore> = Arc::new(identities);
                let store = AnyStore::Kubernetes(Box::new(store));
                (store, checkpoint, Some(identities))
            }
            _ => {
                let mut store = file_store;
                let checkpoint = store.load().await?;
                (AnyStore::File(store), checkpoint, None)
            }
        };
        Ok(LogState {
            store,
            checkpoint,
            seen_dir,
            identities,
        })
    }
}

impl StateLayout {
    /// The table of slots, if the checkpoints are in ConfigMaps.
    pub fn slots(&self) -> Option<&SlotStore> {
        self.config_maps.as_ref().map(|it| &it.slots)
    }

    /// Reads the checkpoint of one log among several, if it is in a ConfigMap. Another replica may
    /// be reading that log.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is not ours.
    pub async fn peek(
        &self,
        owner: &Owner,
        table: &SlotTable,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let Some(config_maps) = &self.config_maps else {
            return Ok(None);
        };
        match table.slot(&owner.source) {
            Some(slot) => Ok(config_maps.find(owner, slot).await?.1),
            None => config_maps.earlier(owner).await,
        }
    }

    /// Checks whether each of these logs has a slot, or could get one.
    ///
    /// # Errors
    /// The table cannot be read, or there are fewer slots than logs.
    pub async fn check_slots(&self, logs: &[&str]) -> Result<SlotTable, StoreError> {
        let Some(config_maps) = &self.config_maps else {
            return Ok(SlotTable::default());
        };
        let mut table = config_maps.slots.read().await?;
        for log in logs
            .iter()
            .filter(|log| !table.is_ended(log))
            .collect::<Vec<_>>()
        {
            table.assign(log);
        }
        config_maps.check_slots(&table, logs)?;
        Ok(table)
    }

    /// Tests whether a ConfigMap of this name could be written, without writing it. Without
    /// ConfigMaps, the lock has already shown that the folder is usable.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn probe(&self, name: &str) -> Result<(), StoreError> {
        let Some(config_maps) = &self.config_maps else {
            return Ok(());
        };
        let nobody = Owner {
            provider: String::new(),
            source: String::new(),
        };
        let ConfigMaps {
            cluster, writer, ..
        } = config_maps;
        KubernetesStore::new(cluster, name, writer, nobody)
            .probe()
            .await
    }
}

/// The store of a log, and its stored checkpoint.
type Found = (KubernetesStore, Option<Checkpoint>);

impl ConfigMaps {
    fn store(&self, name: &str, owner: &Owner) -> KubernetesStore {
        KubernetesStore::new(&self.cluster, name, &self.writer, owner.clone())
    }

    fn in_slot(&self, slot: usize, owner: &Owner) -> KubernetesStore {
        self.store(&self.slots.object_name(slot), owner).in_slot()
    }

    /// The name of a log's object before slots were introduced, derived from the log's name.
    fn earlier_name(&self, owner: &Owner) -> String {
        format!("{}-{}", self.name, suffix(owner))
    }

    fn earlier_store(&self, owner: &Owner) -> KubernetesStore {
        self.store(&self.earlier_name(owner), owner)
    }

    /// Notes on the common object that there are others, for a process that may read only that
    /// object.
    async fn mark_several(&self) -> Result<(), StoreError> {
        let nobody = Owner {
            provider: String::new(),
            source: String::new(),
        };
        self.store(&self.name, &nobody).mark_several().await
    }

    fn check_slots(&self, table: &SlotTable, logs: &[&str]) -> Result<(), StoreError> {
        let has_none = |log: &&&str| table.slot(log).is_none() && !table.is_ended(log);
        let mut without = logs.iter().filter(has_none);
        match without.next() {
            Some(log) => Err(self.slots.full(log, without.count())),
            None => Ok(()),
        }
    }

    /// The checkpoint of a log from before slots were introduced. `None` if the Role, which names
    /// the slots, does not allow reading it.
    async fn earlier(&self, owner: &Owner) -> Result<Option<Checkpoint>, StoreError> {
        match self.earlier_store(owner).load().await {
            Err(error) if config_map::is_forbidden(&error) => Ok(None),
            result => result,
        }
    }

    /// The store of a log in its slot. Until the slot has a checkpoint, one from before slots
    /// applies.
    async fn find(&self, owner: &Owner, slot: usize) -> Result<Found, StoreError> {
        let mut own = self.in_slot(slot, owner);
        let checkpoint = match own.load().await? {
            None => self.earlier(owner).await?,
            checkpoint => checkpoint,
        };
        Ok((own, checkpoint))
    }

    /// The store of one log among several that one process reads.
    async fn find_in_slot(&self, owner: &Owner) -> Result<Found, StoreError> {
        let mut table = self.slots.read().await?;
        let Some(slot) = table.assign(&owner.source) else {
            return Err(self.slots.full(&owner.source, 0));
        };
        let (own, checkpoint) = self.find(owner, slot).await?;
        if checkpoint.is_some() {
            return Ok((own, checkpoint));
        }
        // The first of several logs may have been the only one before: its checkpoint stays where
        // it is.
        let mut common = self.store(&self.name, owner);
        match common.load().await {
            Ok(Some(checkpoint)) => Ok((common, Some(checkpoint))),
            Err(error) if error.is_unavailable() => Err(error),
            Ok(None) | Err(_) => {
                let earlier = self.earlier_store(owner).load().await;
                if earlier.is_err_and(|error| config_map::is_forbidden(&error)) {
                    common.check_no_earlier(&self.earlier_name(owner))?;
                }
                Ok((own, None))
            }
        }
    }

    /// The store of a process's only log, which may have been one of several before.
    async fn find_alone(&self, owner: &Owner) -> Result<Found, StoreError> {
        let mut hidden = None;
        match self.slots.read().await {
            Ok(table) => {
                if let Some(slot) = table.slot(&owner.source) {
                    let (own, checkpoint) = self.find(owner, slot).await?;
                    if checkpoint.is_some() {
                        return Ok((own, checkpoint));
                    }
                }
            }
            // The Role is limited to the common object: then this log's checkpoint is in it.
            Err(error) if config_map::is_forbidden(&error) => {
                hidden = Some(self.slots.table_name());
            }
            Err(error) => return Err(error),
        }
        let mut earlier = self.earlier_store(owner);
        match earlier.load().await {
            Ok(None) => {}
            Ok(checkpoint) => return Ok((earlier, checkpoint)),
            Err(error) if config_map::is_forbidden(&error) => {}
            Err(error) => return Err(error),
        }
        let mut common = self.store(&self.name, owner);
        let checkpoint = common.load().await?;
        if let Some(hidden) = hidden {
            common.check_alone(&hidden)?;
        }
        Ok((common, checkpoint))
    }
}

/// Works on a folder on a blocking thread.
async fn on_disk<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::Unavailable {
            place: folder.display().to_string(),
            problem: "was not reached: the task that works on it ended".to_owned(),
            remedy: "it is tried again".to_owned(),
            source: Some(error.into()),
        })
    })
}

/// The folder of a log.
fn place(root: &Path, owner: &Owner, several: bool) -> PathBuf {
    let own = root.join(suffix(owner));
    if own.is_dir() || (several && !is_of(root, owner)) {
        own
    } else {
        root.to_owned()
    }
}

/// Whether the checkpoint in this folder is this owner's.
fn is_of(folder: &Path, owner: &Owner) -> bool {
    let text = std::fs::read(folder.join(DOCUMENT)).unwrap_or_default();
    serde_json::from_slice::<Checkpoint>(&text).is_ok_and(|checkpoint| checkpoint.is_of(owner))
}

/// A name for a log among others that is fit for folders and ConfigMaps: readable, and different
/// for different logs.
fn suffix(owner: &Owner) -> String {
    let mut name = String::new();
    for c in owner.source.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    // Both ASCII, so any place is the end of a character.
    name.truncate(32);
    let hash = Identity::of(&[owner.source.as_bytes()]).to_string();
    format!("{}-{}", name.trim_end_matches('-'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_bridge_core::source::StoredPosition;

    fn owner(source: &str) -> Owner {
        Owner {
            provider: "eks".to_owned(),
            source: source.to_owned(),
        }
    }

    async fn save(log_state: LogState, owner: &Owner, position: u64) {
        let mut store = log_state.store;
        let positions = [(0, StoredPosition::from(position))].into();
        store
            .save(&Checkpoint::new(owner, positions))
            .await
            .unwrap();
    }

    fn position(log_state: &LogState) -> Option<u64> {
        log_state.checkpoint.as_ref()?.position.get(&0)?.as_u64()
    }

    #[tokio::test]
    async fn state_of_clusters_added_and_removed_stays_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (owner("r:/aws/eks/A/cluster"), owner("r:/aws/eks/b/cluster"));
        let open = async || StateLayout::lock(dir.path()).await.unwrap();

        let layout = open().await;
        let log_state = layout.open_log(&a, false).await.unwrap();
        assert_eq!(position(&log_state), None);
        save(log_state, &a, 1).await;
        assert!(dir.path().join(DOCUMENT).is_file(), "one log, at the top");
        drop(layout);

        let layout = open().await;
        let log_state = layout.open_log(&a, true).await.unwrap();
        assert_eq!(position(&log_state), Some(1), "still where it was");
        let other = layout.open_log(&b, true).await.unwrap();
        assert_ne!(log_state.seen_dir, other.seen_dir);
        save(other, &b, 2).await;
        drop((log_state, layout));

        let layout = open().await;
        let alone = layout.open_log(&b, false).await.unwrap();
        assert_eq!(position(&alone), Some(2));
        drop(alone);
        // A third one that is alone finds somebody else's checkpoint, and must not take it.
        let error = layout.open_log(&owner("c"), false).await.unwrap_err();
        assert!(!error.is_unavailable(), "{error}");
    }

    #[test]
    fn log_suffix_fits_config_maps_and_is_unique() {
        let name = suffix(&owner("eu-west-1:/aws/eks/Prod_1/cluster"));
        assert!(
            name.starts_with("eu-west-1-aws-eks-prod-1-cluster-"),
            "{name}"
        );
        assert_ne!(name, suffix(&owner("eu-west-1:/aws/eks/prod-1/cluster")));
        let long = suffix(&owner(&"x/".repeat(300)));
        assert!(long.len() <= 41, "{long}");
    }
}
