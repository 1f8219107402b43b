//! The checkpoint as a ConfigMap, so that a Deployment needs no volume.
//!
//! Every write names the version that it replaces. If somebody wrote in between, the API server
//! refuses the write and the store reads again. A change that left our document alone (a label) is
//! accepted; another writer's document is a conflict. Overwriting it would lose nothing, since
//! positions only say what was delivered, but two live writers deliver everything twice. So the
//! conflict is reported and the write waits until the other writer has been silent for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_bridge_core::checkpoint::{
    Checkpoint, DOCUMENT, Owner, Store, StoreError, StoreLocation, check_owner,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::time::Instant;

use crate::kubernetes::{
    ApiError, ApiErrorKind, Cluster, ForbiddenReason, bounded, missing_config_map,
};

/// How long one request may take.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often one save reads and writes before it fails: each attempt but the first answers a change
/// made in between.
const ATTEMPTS_MAX: usize = 3;

/// Another writer counts as gone after this time without a write: longer than any bridge's
/// interval, and than a request that is still in flight.
const RIVAL_SILENCE: Duration = Duration::from_secs(30);

/// The annotation that names the process that wrote the document.
const WRITER: &str = "audit-bridge/writer";

/// The annotation that other logs have objects of their own.
const SEVERAL: &str = "audit-bridge/several-logs";

/// Its value for slots. Before slots were introduced it was `true`, and objects were named after
/// logs.
const IN_SLOTS: &str = "slots";

/// The label that names the object's manager.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Whether the API server answered 403.
pub(super) fn is_forbidden(error: &StoreError) -> bool {
    let StoreError::Unavailable {
        source: Some(source),
        ..
    } = error
    else {
        return false;
    };
    let error = source.downcast_ref::<ApiError>();
    error.is_some_and(|error| matches!(error.kind(), ApiErrorKind::Forbidden(_)))
}

/// Whether a Role lacks the right.
fn is_refused_by_role(error: &ApiError) -> bool {
    error.kind() == ApiErrorKind::Forbidden(ForbiddenReason::Role)
}

/// The store of `--checkpoint-store kubernetes`.
pub struct KubernetesStore {
    api: Api<ConfigMap>,
    name: String,
    namespace: String,
    owner: Owner,
    place: StoreLocation,
    /// This process's identity.
    writer: String,
    seen: Seen,
    /// The document that this process last loaded or wrote.
    known: Option<String>,
    rival: Option<Rival>,
    /// Whether the object is a slot, which different logs use one after the other.
    in_slot: bool,
}

/// What is known of the object.
#[derive(Debug)]
enum Seen {
    /// Unknown or uncertain: it has to be read.
    Unknown,
    Absent,
    Present(Box<ConfigMap>),
}

/// Another writer's document.
#[derive(Debug)]
struct Rival {
    text: String,
    since: Instant,
}

impl std::fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesStore")
            .field("place", &self.place.name)
            .finish_non_exhaustive()
    }
}

impl KubernetesStore {
    /// A store in the ConfigMap `name` of the cluster's namespace. `writer` identifies this process
    /// and must differ from earlier ones: a pod's name with a random suffix.
    pub fn new(cluster: &Cluster, name: &str, writer: &str, owner: Owner) -> KubernetesStore {
        let namespace = cluster.namespace();
        KubernetesStore {
            api: Api::namespaced(cluster.client(), namespace),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            owner,
            place: StoreLocation {
                name: format!("in the ConfigMap {namespace}/{name}, key {DOCUMENT},"),
                separate: "give each source a ConfigMap of its own".to_owned(),
                restart: format!(
                    "save a copy and delete it (kubectl -n {namespace} delete configmap {name}) \
                     to begin at --start (`latest` skips what came since the last delivery)"
                ),
            },
            writer: writer.to_owned(),
            seen: Seen::Unknown,
            known: None,
            rival: None,
            in_slot: false,
        }
    }

    /// The ConfigMap's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same store in a slot that belongs to this log now: another log's document in it counts
    /// as none.
    #[must_use]
    pub fn in_slot(self) -> KubernetesStore {
        KubernetesStore {
            in_slot: true,
            ..self
        }
    }

    /// Asks the API server for a dry run of writing the object. A missing object must first be
    /// created and later updated, so both are tested.
    ///
    /// # Errors
    /// Why the write would fail.
    pub async fn probe(&mut self) -> Result<(), StoreError> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.refresh().await?;
        let mut absent = ConfigMap::default();
        absent.metadata.name = Some(self.name.clone());
        let object = match &self.seen {
            Seen::Present(object) => object,
            Seen::Unknown | Seen::Absent => {
                let created = bounded(REQUEST_WAIT_MAX, self.api.create(&params, &absent)).await;
                created.map_err(|error| match is_refused_by_role(&error) {
                    true => self.missing(),
                    false => self.unavailable("cannot be created", error),
                })?;
                &absent
            }
        };
        let call = self.api.replace(&self.name, &params, object);
        match bounded(REQUEST_WAIT_MAX, call).await {
            Ok(_) => Ok(()),
            // A missing right to update is reported before checking whether the object exists, or
            // whether a running bridge has just written it.
            Err(error)
                if matches!(
                    error.kind(),
                    ApiErrorKind::NotFound | ApiErrorKind::Conflict
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.unavailable("cannot be written", error)),
        }
    }

    /// Reads the object.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        self.seen = Seen::Unknown;
        let found = bounded(REQUEST_WAIT_MAX, self.api.get_opt(&self.name)).await;
        self.seen = match found.map_err(|error| self.unavailable("cannot be read", error))? {
            Some(object) => Seen::Present(Box::new(object)),
            None => Seen::Absent,
        };
        Ok(())
    }

    /// Notes on the object, if it exists, that logs have objects of their own: for a process whose
    /// Role allows only this one.
    ///
    /// # Errors
    /// The object cannot be written.
    pub(super) async fn mark_several(&mut self) -> Result<(), StoreError> {
        self.refresh().await?;
        for _ in 0..ATTEMPTS_MAX {
            let Seen::Present(object) = &self.seen else {
                return Ok(());
            };
            if !annotation(object, SEVERAL).is_empty() {
                return Ok(());
            }
            let mut object = object.clone();
            let annotations = object.metadata.annotations.get_or_insert_default();
            annotations.insert(SEVERAL.to_owned(), IN_SLOTS.to_owned());
            let params = PostParams::default();
            let call = self.api.replace(&self.name, &params, &object);
            match bounded(REQUEST_WAIT_MAX, call).await {
                Ok(object) => self.seen = Seen::Present(Box::new(object)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ApiErrorKind::Conflict | ApiErrorKind::NotFound
                    ) =>
                {
                    self.refresh().await?;
                }
                Err(error) => return Err(self.unavailable("cannot be written", error)),
            }
        }
        Err(self.changes_too_fast())
    }

    /// Checks whether a process that may not read `other` can rely on this object alone.
    ///
    /// # Errors
    /// The object does not exist, so no position could be stored; or the position may be in
    /// `other`, or in an object that `other` names. Beginning at the newest record would then skip
    /// records.
    pub(super) fn check_alone(&self, other: &str) -> Result<(), StoreError> {
        let Seen::Present(object) = &self.seen else {
            let (place, namespace) = (self.place.name.clone(), &self.namespace);
            return Err(missing_config_map(place, namespace, &self.name));
        };
        match self.text()? {
            None if !annotation(object, SEVERAL).is_empty() => Err(self.hidden(other)),
            _ => Ok(()),
        }
    }

    /// Checks whether a process can do without `earlier`, which it may not read: the object of one
    /// log among several from before slots were introduced.
    ///
    /// # Errors
    /// The position may be in there.
    pub(super) fn check_no_earlier(&self, earlier: &str) -> Result<(), StoreError> {
        match &self.seen {
            Seen::Present(object) if !["", IN_SLOTS].contains(&annotation(object, SEVERAL)) => {
                Err(self.hidden(earlier))
            }
            _ => Ok(()),
        }
    }

    /// The error that the position may be in an object that this process may not read.
    fn hidden(&self, other: &str) -> StoreError {
        StoreError::Unavailable {
            place: format!("in the ConfigMap {}/{other}", self.namespace),
            problem: "may hold the position, and the pod's Role does not let it read that"
                .to_owned(),
            remedy: format!(
                "add {other} (of a table: and the slot that it names) to the resourceNames of the \
                 Role, or take the annotation {SEVERAL} from {} to begin at --start",
                self.name
            ),
            source: None,
        }
    }

    fn changes_too_fast(&self) -> StoreError {
        StoreError::Unavailable {
            place: self.place.name.clone(),
            problem: "changes faster than it can be written".to_owned(),
            remedy: "find out who else writes this ConfigMap; it is tried again".to_owned(),
            source: None,
        }
    }

    /// The document that was read, if there is one.
    fn text(&self) -> Result<Option<&str>, StoreError> {
        let Seen::Present(object) = &self.seen else {
            return Ok(None);
        };
        if let Some(text) = object.data.as_ref().and_then(|data| data.get(DOCUMENT)) {
            return Ok(Some(text));
        }
        // Somebody who edits the object may turn the document into binary data, which we never
        // write.
        let binary = object.binary_data.as_ref();
        if binary.is_some_and(|data| data.contains_key(DOCUMENT)) {
            return Err(StoreError::Refused {
                place: self.place.name.clone(),
                found: "is under binaryData".to_owned(),
                expected: "a document under data".to_owned(),
                remedy: format!("move it there, or {}", self.place.restart),
            });
        }
        Ok(None)
    }

    /// Parses a document if it is the owner's; in a slot, returns `None` for another log's.
    fn parse(&self, text: &str) -> Result<Option<Checkpoint>, StoreError> {
        let of_other = |it: Checkpoint| !it.is_of(&self.owner);
        if self.in_slot && serde_json::from_str(text).is_ok_and(of_other) {
            return Ok(None);
        }
        Checkpoint::read(text.as_bytes(), &self.owner, &self.place).map(Some)
    }

    /// Checks whether the document that was read may be replaced. Another log's document may be if
    /// it was in the slot when this store loaded; one that comes later is a rival's.
    fn check(&mut self) -> Result<(), StoreError> {
        let Some(text) = self.text()? else {
            self.rival = None;
            return Ok(());
        };
        let checkpoint = self.parse(text)?;
        let writer = match &self.seen {
            Seen::Present(object) => annotation(object, WRITER),
            Seen::Unknown | Seen::Absent => "",
        };
        let known = self.known.as_deref();
        // `known` is `None` only before the first write of a caller that never loaded.
        if writer == self.writer || known.is_none_or(|known| known == text) {
            self.rival = None;
            return Ok(());
        }
        let writer = match writer {
            "" => "somebody".to_owned(),
            writer => writer.to_owned(),
        };
        let since = match &self.rival {
            Some(rival) if rival.text == text => rival.since,
            _ => Instant::now(),
        };
        let text = text.to_owned();
        if since.elapsed() >= RIVAL_SILENCE {
            tracing::warn!(config_map = %self.name, writer, "checkpoint taken over from a silent writer");
            self.rival = None;
            return Ok(());
        }
        self.rival = Some(Rival { text, since });
        let what = match checkpoint {
            Some(checkpoint) => format!(
                "at {}: two bridges read the same source",
                audit_bridge_core::event::time::micros(checkpoint.written)
            ),
            None => "for another log: two replicas use the same slot".to_owned(),
        };
        Err(StoreError::Unavailable {
            place: self.place.name.clone(),
            problem: format!("was changed by {writer} {what}"),
            remedy: "run one replica, or let the Lease choose the one that reads".to_owned(),
            source: None,
        })
    }

    /// Sends the document once, over the version that was read.
    async fn send(&mut self, text: &str) -> Result<Sent, StoreError> {
        let params = PostParams::default();
        // Until the answer arrives, the state of the object is unknown.
        let result = match std::mem::replace(&mut self.seen, Seen::Unknown) {
            Seen::Unknown => return Ok(Sent::Again),
            Seen::Absent => {
                let object = self.object(ConfigMap::default(), text);
                match bounded(REQUEST_WAIT_MAX, self.api.create(&params, &object)).await {
                    Err(error) if is_refused_by_role(&error) => return Err(self.missing()),
                    result => result,
                }
            }
            Seen::Present(object) => {
                let object = self.object(*object, text);
                let call = self.api.replace(&self.name, &params, &object);
                match bounded(REQUEST_WAIT_MAX, call).await {
                    Err(error) if error.kind() == ApiErrorKind::NotFound => {
                        tracing::warn!(config_map = %self.name, "checkpoint object deleted; creating it again");
                        return Ok(Sent::Again);
                    }
                    result => result,
                }
            }
        };
        match result {
            Ok(object) => {
                self.seen = Seen::Present(Box::new(object));
                self.known = Some(text.to_owned());
                Ok(Sent::Done)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ApiErrorKind::Conflict | ApiErrorKind::AlreadyExists
                ) =>
            {
                Ok(Sent::Again)
            }
            Err(error) => Err(self.unavailable("cannot be written", error)),
        }
    }

    /// The object with the document in it; everything else in it stays.
    fn object(&self, mut object: ConfigMap, text: &str) -> ConfigMap {
        let ObjectMeta {
            name,
            labels,
            annotations,
            ..
        } = &mut object.metadata;
        *name = Some(self.name.clone());
        let labels = labels.get_or_insert_with(BTreeMap::new);
        if !labels.contains_key(MANAGED_BY) {
            labels.insert(MANAGED_BY.to_owned(), "audit-bridge".to_owned());
        }
        let annotations = annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(WRITER.to_owned(), self.writer.clone());
        let data = object.data.get_or_insert_with(BTreeMap::new);
        data.insert(DOCUMENT.to_owned(), text.to_owned());
        object
    }

    fn missing(&self) -> StoreError {
        missing_config_map(self.place.name.clone(), &self.namespace, &self.name)
    }

    fn unavailable(&self, problem: &str, error: ApiError) -> StoreError {
        StoreError::Unavailable {
            place: self.place.name.clone(),
            problem: problem.to_owned(),
            remedy: error.remedy("configmaps", &self.namespace),
            source: Some(error.into()),
        }
    }
}

enum Sent {
    Done,
    /// Another writer was faster.
    Again,
}

impl Store for KubernetesStore {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        self.refresh().await?;
        let (text, checkpoint) = match self.text()? {
            Some(text) => (text.to_owned(), self.parse(text)?),
            None => (String::new(), None),
        };
        self.known = Some(text);
        self.rival = None;
        Ok(checkpoint)
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        check_owner(checkpoint, &self.owner, &self.place)?;
        let text = checkpoint.write()?;
        for _ in 0..ATTEMPTS_MAX {
            if matches!(self.seen, Seen::Unknown) {
                self.refresh().await?;
            }
            if let Err(error) = self.check() {
                // The rival's document may be gone at the next attempt.
                self.seen = Seen::Unknown;
                return Err(error);
            }
            if let Sent::Done = self.send(&text).await? {
                self.rival = None;
                return Ok(());
            }
        }
        Err(self.changes_too_fast())
    }
}

fn annotation<'a>(object: &'a ConfigMap, name: &str) -> &'a str {
    let annotations = object.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(name))
        .map_or("", String::as_str)
}
