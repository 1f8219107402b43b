//! The position of each partition, stored so that a restart can resume.
//!
//! A checkpoint states that everything up to these positions was delivered or is in the dead
//! letter. So it may lag behind (a restart delivers some events again) but never run ahead. A
//! checkpoint that is damaged, belongs to another source or was written by a newer release is never
//! overwritten: a person has to decide.

mod checkpointer;
pub mod file;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::chain;
use crate::event::time;
use crate::readiness::Component;
use crate::readiness::Unavailable;
use crate::source::StoredPositions;
pub use checkpointer::{Checkpointer, SaveFailure, SaveOutcome};
pub use file::FileStore;

/// The document version that this release reads and writes.
pub(crate) const VERSION: u32 = 1;

/// How long the position of a partition that no source announces is kept: long enough for a person
/// to notice a mistyped name.
pub(crate) const UNANNOUNCED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The document's name: of a file, and of a key in the ConfigMap.
pub const DOCUMENT: &str = "checkpoint.json";

/// The owner of the positions: a checkpoint of any other owner is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `eks`, `gke` or `aks`.
    pub provider: String,
    /// The source that is read, so that its positions are not confused with another's: a log group
    /// with its region, a project with its cluster, an event hub with its consumer group.
    pub source: String,
}

/// The stored document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`VERSION`].
    pub version: u32,
    /// As in [`Owner`].
    pub provider: String,
    /// As in [`Owner`].
    pub source: String,
    /// The position of each partition, by its index.
    pub position: StoredPositions,
    /// Since when no source has announced a partition whose position is kept, by its index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unannounced: BTreeMap<u32, Timestamp>,
    /// Where replicas share logs: the write time of the common checkpoint that is already merged
    /// into this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Timestamp>,
    /// Lets a restart continue the lag and the silence.
    #[serde(default, skip_serializing_if = "HealthTimes::is_unknown")]
    pub health: HealthTimes,
    /// When it was written, by the wall clock.
    #[serde(with = "written")]
    pub written: Timestamp,
}

/// The times from which a log's lag and silence continue after a restart. They do not affect what
/// is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTimes {
    /// Up to when everything that the log held is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_to: Option<Timestamp>,
    /// When a record of the audit log last arrived at the head of the log, by this machine's clock,
    /// or when reading began if none ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Timestamp>,
}

impl HealthTimes {
    fn is_unknown(&self) -> bool {
        *self == HealthTimes::default()
    }
}

impl Checkpoint {
    /// A checkpoint written now.
    pub fn new(owner: &Owner, position: StoredPositions) -> Checkpoint {
        let now = Timestamp::now();
        Checkpoint {
            version: VERSION,
            provider: owner.provider.clone(),
            source: owner.source.clone(),
            position,
            unannounced: BTreeMap::new(),
            merged: None,
            health: HealthTimes::default(),
            // Rounded to the written precision, so that it compares equal after it is read.
            written: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
        }
    }

    /// Parses a document and checks that it is `owner`'s.
    ///
    /// # Errors
    /// The document is damaged, of a newer release, or another source's.
    pub fn read(bytes: &[u8], owner: &Owner, place: &StoreLocation) -> Result<Self, StoreError> {
        let damaged = |found: String| StoreError::Refused {
            place: place.name.clone(),
            found,
            expected: format!("a whole document of version {VERSION}"),
            remedy: format!("restore it, or {}", place.restart),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(damaged("is empty".to_owned()));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| damaged(format!("is not whole JSON ({error})")))?;
        match value.get("version").map(Value::as_u64) {
            Some(Some(version)) if version == u64::from(VERSION) => {}
            Some(Some(version)) if version > u64::from(VERSION) => {
                return Err(StoreError::Refused {
                    place: place.name.clone(),
                    found: format!("is of version {version}, which a newer release wrote"),
                    expected: format!("version {VERSION}"),
                    remedy: format!("run that release again, or {}", place.restart),
                });
            }
            Some(_) => return Err(damaged("has a version that never was".to_owned())),
            None => return Err(damaged("has no version".to_owned())),
        }
        if let (Some(provider), Some(source)) = (
            value.get("provider").and_then(Value::as_str),
            value.get("source").and_then(Value::as_str),
        ) && (provider != owner.provider || source != owner.source)
        {
            return Err(StoreError::Refused {
                place: place.name.clone(),
                found: format!("is of provider {provider}, source {source}"),
                expected: format!("provider {}, source {}", owner.provider, owner.source),
                remedy: format!("{}, or {}", place.separate, place.restart),
            });
        }
        serde_json::from_value(value)
            .map_err(|error| damaged(format!("has a member of a wrong kind ({error})")))
    }

    /// Serialises the document.
    ///
    /// # Errors
    /// None in practice: a document can always be serialised.
    pub fn write(&self) -> Result<String, StoreError> {
        // Maps with integer keys and plain values cannot fail to serialise, but the type cannot
        // express that.
        serde_json::to_string(self).map_err(|error| StoreError::Unavailable {
            place: DOCUMENT.to_owned(),
            problem: "could not be serialised".to_owned(),
            remedy: "this is a defect, please report it".to_owned(),
            source: Some(error.into()),
        })
    }

    /// Whether these positions are this owner's.
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.provider == owner.provider && self.source == owner.source
    }
}

/// How messages describe a store's location.
#[derive(Debug, Clone)]
pub struct StoreLocation {
    /// The file or the ConfigMap.
    pub name: String,
    /// What to do to keep two sources apart.
    pub separate: String,
    /// What to do to begin anew.
    pub restart: String,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is stored is not ours to overwrite. It stays as it is until a person acts.
    #[error("the checkpoint {place} {found}; expected {expected}; {remedy}")]
    Refused {
        /// The file or the ConfigMap.
        place: String,
        /// What is wrong with the stored document.
        found: String,
        expected: String,
        /// What a person has to do.
        remedy: String,
    },
    /// The store is unavailable now. Delivery may go on while positions wait; try again for ever.
    #[error("the checkpoint {place} {problem}; {remedy}")]
    Unavailable {
        /// The file or the ConfigMap.
        place: String,
        /// What failed.
        problem: String,
        remedy: String,
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// Another process uses the state folder.
    #[error(
        "the state folder {place} is in use by {holder}; end that process, or give each bridge a \
         --state-dir (AUDIT_BRIDGE_STATE_DIR) of its own"
    )]
    Locked {
        /// The folder.
        place: String,
        /// The other process, as it describes itself.
        holder: String,
    },
}

impl StoreError {
    /// Whether a retry may help without a person's action.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }

    /// The same error, with its remedy apart.
    pub fn to_unavailable(&self) -> Unavailable {
        let text = chain(self);
        let remedy = match self {
            StoreError::Refused { remedy, .. } | StoreError::Unavailable { remedy, .. } => remedy,
            StoreError::Locked { .. } => "end that process first",
        };
        Unavailable {
            component: Component::Checkpoint,
            reason: text.replace(&format!("; {remedy}"), ""),
            remedy: remedy.to_owned(),
        }
    }
}

/// Stores one checkpoint.
pub trait Store: Send {
    /// Reads the checkpoint; `None` if none was ever written.
    ///
    /// # Errors
    /// [`StoreError`] says whether to retry or to ask a person.
    fn load(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, StoreError>> + Send;

    /// Replaces the checkpoint. Once this returns, the new one survives a loss of power; until
    /// then, either the old one or the new one is there, whole.
    ///
    /// # Errors
    /// As for `load`; the checkpoint may have been replaced all the same.
    fn save(
        &mut self,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Checks that a stored checkpoint is its owner's.
///
/// # Errors
/// [`StoreError::Refused`] if it is another owner's.
pub fn check_owner(
    checkpoint: &Checkpoint,
    owner: &Owner,
    place: &StoreLocation,
) -> Result<(), StoreError> {
    if checkpoint.is_of(owner) {
        return Ok(());
    }
    Err(StoreError::Refused {
        place: place.name.clone(),
        found: format!(
            "was to take positions of provider {}, source {}",
            checkpoint.provider, checkpoint.source
        ),
        expected: format!("provider {}, source {}", owner.provider, owner.source),
        remedy: place.separate.clone(),
    })
}

/// RFC 3339 with six digits, UTC.
mod written {
    use serde::{Deserializer, Serializer, de::Error};

    use super::{Deserialize, Timestamp, time};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time::micros(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        time::parse(&text).ok_or_else(|| D::Error::custom("written is not an RFC 3339 time"))
    }
}
