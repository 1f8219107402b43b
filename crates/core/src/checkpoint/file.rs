//! The checkpoint as a file in the state folder, and that folder's lock.
//!
//! A write goes to a temporary file, which is synced and renamed over the old one; then the folder
//! is synced. So whenever the process or the machine stops, the old or the new document is there,
//! whole. The lock is advisory and belongs to the open file, so the kernel releases it however the
//! process ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::{Checkpoint, DOCUMENT, Owner, Store, StoreError, StoreLocation, check_owner};

/// The temporary name of a document that is being written.
const BESIDE: &str = "checkpoint.json.tmp";

/// The file whose lock protects the folder.
const LOCK: &str = "lock";

/// A checkpoint has a few kilobytes; a larger file is something else.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// The length of the holder's description that a message quotes.
const HOLDER_BYTES_MAX: u64 = 200;

/// The state folder, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Open for its lock.
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child process that is just being started.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// Creates the folder if its parent exists, and locks it. Blocks for a disk access.
    ///
    /// # Errors
    /// `Locked` names the other process; `Unavailable` says why the folder cannot be used.
    pub fn lock(path: &Path) -> Result<StateDir, StoreError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // A read-only volume may be mounted there: then the lock reports the error.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(unavailable(path, "cannot be made", error)),
        }
        let name = path.join(LOCK);
        refuse_link(&name)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(|error| unavailable(&name, "cannot be opened", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked {
                    place: path.display().to_string(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(unavailable(&name, "cannot be locked", error));
            }
        }
        // The holder's description is only for people: a full disk must not keep the bridge from
        // starting.
        let account = format!("pid {} on host {}\n", std::process::id(), hostname());
        if let Err(error) = file
            .set_len(0)
            .and_then(|()| file.write_all(account.as_bytes()))
        {
            tracing::warn!(file = %name.display(), %error, "lock file could not be written: it does not name its holder");
        }
        Ok(StateDir {
            path: path.to_owned(),
            lock: file,
        })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The store of `--checkpoint-store file`.
pub struct FileStore {
    owner: Owner,
    files: Arc<Files>,
    /// How many writes have begun.
    begun: u64,
}

struct Files {
    /// An abandoned write still holds the lock.
    state: Arc<StateDir>,
    place: StoreLocation,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    before_step: Option<BeforeWriteStep>,
    /// The stored document was read, or this process wrote it.
    known: bool,
    /// The newest finished write: an older one that finishes later does nothing.
    written: u64,
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore")
            .field("place", &self.files.place.name)
            .finish_non_exhaustive()
    }
}

impl FileStore {
    /// Locks the folder and removes the temporary file that a crash left.
    ///
    /// # Errors
    /// As for [`StateDir::lock`].
    pub fn open(path: &Path, owner: Owner) -> Result<FileStore, StoreError> {
        let restart = "move it away to begin anew";
        FileStore::within(Arc::new(StateDir::lock(path)?), owner, restart)
    }

    /// The same, in a folder that is already locked. `restart`: what a person does to begin anew.
    ///
    /// # Errors
    /// `Unavailable`: the temporary file cannot be removed.
    pub fn within(
        state: Arc<StateDir>,
        owner: Owner,
        restart: &str,
    ) -> Result<FileStore, StoreError> {
        remove_beside(&state.path)
            .map_err(|error| unavailable(&state.path.join(BESIDE), "cannot be removed", error))?;
        let place = StoreLocation {
            name: state.path.join(DOCUMENT).display().to_string(),
            separate: "give each source a --state-dir (AUDIT_BRIDGE_STATE_DIR) of its own"
                .to_owned(),
            restart: restart.to_owned(),
        };
        Ok(FileStore {
            owner,
            files: Arc::new(Files {
                state,
                place,
                progress: Mutex::default(),
            }),
            begun: 0,
        })
    }
}

impl FileStore {
    pub fn folder(&self) -> &Path {
        &self.files.state.path
    }

    /// Sets the function that is called before each step of a write.
    pub fn before_each_step(&mut self, call: BeforeWriteStep) {
        let mut progress = self.files.lock_progress();
        progress.before_step = Some(call);
    }

    /// Checks that a checkpoint could be written: creates a temporary file and removes it.
    ///
    /// # Errors
    /// `Unavailable`: a checkpoint could not be written either.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let folder = self.files.state.path.clone();
        let beside = folder.join(BESIDE);
        let probed = spawn_blocking(move || {
            remove_beside(&folder)?;
            let mut file = create_beside(&folder)?;
            file.write_all(b"{}")?;
            file.sync_all()?;
            remove_beside(&folder)
        });
        let probed = probed.await.unwrap_or_else(|error| Err(error.into()));
        probed.map_err(|error| unavailable(&beside, "cannot be written", error))
    }
}

impl Store for FileStore {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        let (files, owner) = (Arc::clone(&self.files), self.owner.clone());
        match spawn_blocking(move || files.load(&owner)).await {
            Ok(result) => result,
            Err(error) => Err(self.files.stopped(error)),
        }
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        check_owner(checkpoint, &self.owner, &self.files.place)?;
        let text = checkpoint.write()?;
        self.begun += 1;
        let (files, owner, number) = (Arc::clone(&self.files), self.owner.clone(), self.begun);
        match spawn_blocking(move || files.save(number, text.as_bytes(), &owner)).await {
            Ok(result) => result,
            Err(error) => Err(self.files.stopped(error)),
        }
    }
}

impl Files {
    fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn document(&self) -> PathBuf {
        self.state.path.join(DOCUMENT)
    }

    fn load(&self, owner: &Owner) -> Result<Option<Checkpoint>, StoreError> {
        let mut progress = self.lock_progress();
        let path = self.document();
        refuse_link(&path)?;
        let mut bytes = Vec::new();
        let read = File::open(&path)
            .and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes));
        let checkpoint = match read {
            Ok(_) if bytes.len() as u64 > DOCUMENT_BYTES_MAX => {
                return Err(StoreError::Refused {
                    place: self.place.name.clone(),
                    found: "is far too large".to_owned(),
                    expected: format!("at most {DOCUMENT_BYTES_MAX} bytes"),
                    remedy: self.place.restart.clone(),
                });
            }
            Ok(_) => Some(Checkpoint::read(&bytes, owner, &self.place)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unavailable(&path, "cannot be read", error)),
        };
        progress.known = true;
        Ok(checkpoint)
    }

    fn save(&self, number: u64, bytes: &[u8], owner: &Owner) -> Result<(), StoreError> {
        // A save without a load must not overwrite a document that was never read.
        let known = self.progress.lock().is_ok_and(|progress| progress.known);
        if !known {
            self.load(owner)?;
        }
        let mut progress = self.lock_progress();
        if number <= progress.written {
            return Ok(());
        }
        let mut before = |step| match &mut progress.before_step {
            Some(call) => call(step),
            None => Ok(()),
        };
        if let Err(error) = replace(&self.state.path, bytes, &mut before) {
            // A partly written file would take space on a disk that may be full.
            let _ = remove_beside(&self.state.path);
            return Err(unavailable(&self.document(), "cannot be written", error));
        }
        progress.written = number;
        Ok(())
    }

    fn stopped(&self, error: tokio::task::JoinError) -> StoreError {
        StoreError::Unavailable {
            place: self.place.name.clone(),
            problem: "was not reached: the task that works on it ended".to_owned(),
            remedy: "it is tried again".to_owned(),
            source: Some(error.into()),
        }
    }
}

/// The steps of a write, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStep {
    /// Creates the temporary file.
    Create,
    /// Writes the document to it.
    Write,
    /// Syncs the file.
    SyncFile,
    /// Renames the file to the document's name.
    Rename,
    /// Syncs the folder.
    SyncFolder,
}

/// Called before each step of a write; if it fails, the step does. Tests use it to simulate a full
/// disk or a crash.
pub type BeforeWriteStep = Box<dyn FnMut(WriteStep) -> io::Result<()> + Send>;

fn replace(
    folder: &Path,
    bytes: &[u8],
    before: &mut dyn FnMut(WriteStep) -> io::Result<()>,
) -> io::Result<()> {
    let beside = folder.join(BESIDE);
    remove_beside(folder)?;
    before(WriteStep::Create)?;
    let mut file = create_beside(folder)?;
    before(WriteStep::Write)?;
    file.write_all(bytes)?;
    before(WriteStep::SyncFile)?;
    file.sync_all()?;
    drop(file);
    before(WriteStep::Rename)?;
    fs::rename(&beside, folder.join(DOCUMENT))?;
    before(WriteStep::SyncFolder)?;
    File::open(folder)?.sync_all()
}

/// Always creates a new file: after a failed sync an earlier file's content is unknown, and a new
/// file cannot be a link that somebody put there.
fn create_beside(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(BESIDE))
}

/// Refuses a link: whoever could create one in the folder would choose what is read and written.
fn refuse_link(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(StoreError::Unavailable {
            place: path.display().to_string(),
            problem: "is a symbolic link".to_owned(),
            remedy: "put the file itself there, or remove the link; it is tried again".to_owned(),
            source: None,
        }),
        _ => Ok(()),
    }
}

fn remove_beside(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(BESIDE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file system error, with its remedy.
fn unavailable(path: &Path, problem: &str, error: io::Error) -> StoreError {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: make room on the volume of --state-dir; it is tried again"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "mount a writable volume at --state-dir (AUDIT_BRIDGE_STATE_DIR)"
        }
        ErrorKind::PermissionDenied => {
            "let the user of this process write to --state-dir (in a pod: \
             securityContext.fsGroup; else chown)"
        }
        ErrorKind::NotFound => {
            "make the folder, or mount a volume at --state-dir (AUDIT_BRIDGE_STATE_DIR)"
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "set --state-dir (AUDIT_BRIDGE_STATE_DIR) to a folder of its own"
        }
        _ => "check the volume of --state-dir; it is tried again",
    };
    StoreError::Unavailable {
        place: path.display().to_string(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
        source: Some(error.into()),
    }
}

/// The holder of the lock, as it describes itself.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim().replace(char::is_control, " ");
    match text.is_empty() {
        true => "another process".to_owned(),
        false => text,
    }
}

fn hostname() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok());
    match name.as_deref().map(str::trim) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
