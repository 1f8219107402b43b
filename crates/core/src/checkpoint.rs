//! How far each partition is done, kept where a restart finds it.
//!
//! A checkpoint says: everything that the source gave up to these positions was delivered or is in
//! the dead letter. So it may lag behind (a restart sends a little again), but never lead, and one
//! that belongs to another source, was written by a newer release or is damaged is never
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
use crate::source::Position;
pub use checkpointer::{Checkpointer, SaveFailure, SaveOutcome};
pub use file::FileStore;

/// The version of the document that this release reads and writes.
pub(crate) const VERSION: u32 = 1;

/// How long the position of a partition stays that no source announces: long enough for a person to
/// find out that a name was mistyped.
pub(crate) const UNANNOUNCED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The name of the document: a file's name, and a key of the ConfigMap.
pub const DOCUMENT: &str = "checkpoint.json";

/// Whose positions they are: a checkpoint of anyone else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `eks`, `gke` or `aks`.
    pub provider: String,
    /// What is read, so that no other source's positions are taken for its own: a log group with
    /// its region, a project with its cluster, an event hub with its consumer group.
    pub source: String,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`VERSION`].
    pub version: u32,
    /// As in [`Owner`].
    pub provider: String,
    /// As in [`Owner`].
    pub source: String,
    /// The position of each partition, by its index.
    pub position: BTreeMap<u32, Position>,
    /// Since when no source has announced a partition whose position is kept, by its index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unannounced: BTreeMap<u32, Timestamp>,
    /// Where replicas share the logs of a whole: which checkpoint of the whole is part of this one
    /// already, by the time that stands in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Timestamp>,
    /// What a restart has to know to go on telling how the log does.
    #[serde(default, skip_serializing_if = "HealthTimes::is_unknown")]
    pub health: HealthTimes,
    /// When it was written, by the wall clock; for people.
    #[serde(with = "written")]
    pub written: Timestamp,
}

/// Times by which a log's lag and its silence are told across a restart. Nothing is read by them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTimes {
    /// Up to when all that the log held is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_to: Option<Timestamp>,
    /// When a record of the audit log last arrived at the head of the log, by this machine's clock;
    /// when reading began, where none ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Timestamp>,
}

impl HealthTimes {
    fn is_unknown(&self) -> bool {
        *self == HealthTimes::default()
    }
}

impl Checkpoint {
    /// A checkpoint of now.
    pub fn new(owner: &Owner, position: BTreeMap<u32, Position>) -> Checkpoint {
        let now = Timestamp::now();
        Checkpoint {
            version: VERSION,
            provider: owner.provider.clone(),
            source: owner.source.clone(),
            position,
            unannounced: BTreeMap::new(),
            merged: None,
            health: HealthTimes::default(),
            // As precise as it is written, so that it is the same when it is read.
            written: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
        }
    }

    /// Reads a document and checks that it is `owner`'s.
    ///
    /// # Errors
    /// It is damaged, of a newer release, or another source's.
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

    /// The document's bytes.
    ///
    /// # Errors
    /// A defect: a document can always be serialised.
    pub fn write(&self) -> Result<String, StoreError> {
        // Maps with integer keys and plain values cannot fail to serialise; the type cannot say so.
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

/// A store's place, in the words of its messages.
#[derive(Debug, Clone)]
pub struct StoreLocation {
    /// The file or the ConfigMap.
    pub name: String,
    /// How two sources are kept apart.
    pub separate: String,
    /// How to begin anew.
    pub restart: String,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is there is not ours to overwrite. It stays as it is until a person acts.
    #[error("the checkpoint {place} {found}; expected {expected}; {remedy}")]
    Refused {
        /// The file or the ConfigMap.
        place: String,
        /// What is wrong with what is there.
        found: String,
        /// What would be right.
        expected: String,
        /// How to go on.
        remedy: String,
    },
    /// The store cannot be used now. Delivery may go on, positions wait; try again for ever.
    #[error("the checkpoint {place} {problem}; {remedy}")]
    Unavailable {
        /// The file or the ConfigMap.
        place: String,
        /// What does not work.
        problem: String,
        /// What to do.
        remedy: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// Another process works with this state.
    #[error(
        "the state folder {place} is in use by {holder}; end that process, or give each bridge a \
         --state-dir (AUDIT_BRIDGE_STATE_DIR) of its own"
    )]
    Locked {
        /// The folder.
        place: String,
        /// The other process, by its own account.
        holder: String,
    },
}

impl StoreError {
    /// Whether trying again may help without anybody's doing.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }

    /// The same, with what to do about it apart.
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

/// A place for one checkpoint.
pub trait Store: Send {
    /// The checkpoint, or `None` where none was ever written.
    ///
    /// # Errors
    /// [`StoreError`] says whether to try again or to ask a person.
    fn load(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, StoreError>> + Send;

    /// Replaces the checkpoint. Once this returns, it survives a loss of power; until then, the
    /// old one or the new one is there, whole.
    ///
    /// # Errors
    /// As for `load`; the checkpoint may have been replaced all the same.
    fn save(
        &mut self,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What a store says to a checkpoint that is not its owner's.
///
/// # Errors
/// Refused, where it is not.
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
