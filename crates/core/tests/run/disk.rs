//! The real state folder on a failing disk: a model of what the disk has, and of what a power loss
//! leaves.
//!
//! Data that was not synced may be there, absent, or partly there; a sync may report success
//! falsely. So after a power loss the document is the old or the new one or, if a sync lied, a torn
//! one.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use audit_bridge_core::checkpoint::file::WriteStep;
use audit_bridge_core::checkpoint::{Checkpoint, FileStore, Owner, Store, StoreError};

use super::plan::{Dice, Plan};
use super::world::Shared;

const DOCUMENT: &str = "checkpoint.json";
const BESIDE: &str = "checkpoint.json.tmp";

/// The disk's state, which differs from what the folder shows.
pub(crate) struct Disk {
    plan: Plan,
    dice: Dice,
    folder: PathBuf,
    /// The document after a power loss.
    durable: Option<Vec<u8>>,
    /// A person's copy of the last complete document.
    copy: Option<Vec<u8>>,
    /// The write in progress: its content, its step, and whether a sync lied.
    new: Vec<u8>,
    step: Option<WriteStep>,
    lied: bool,
    /// The process ends after this many steps.
    crash_in: Option<u64>,
}

impl Disk {
    pub(crate) fn new(plan: Plan, folder: &Path) -> Arc<Mutex<Disk>> {
        Arc::new(Mutex::new(Disk {
            plan,
            dice: Dice(plan.seed ^ 0xd15c),
            folder: folder.to_owned(),
            durable: None,
            copy: None,
            new: Vec::new(),
            step: None,
            lied: false,
            crash_in: None,
        }))
    }

    /// Lets the next process end during a write.
    pub(crate) fn crash_in_a_write(&mut self) {
        self.crash_in = Some(self.dice.below(40));
    }

    /// Called before a step; an error ends the write.
    fn before(&mut self, step: WriteStep, world: &Shared) -> io::Result<()> {
        self.step = Some(step);
        match step {
            WriteStep::Create => self.lied = false,
            WriteStep::SyncFile => self.new = std::fs::read(self.folder.join(BESIDE))?,
            WriteStep::Rename => self.lied = self.dice.chance(self.plan.lost_syncs),
            WriteStep::Write | WriteStep::SyncFolder => {}
        }
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crash_in = None;
                world.lock().unwrap().end("crashed in a write");
                return Err(ErrorKind::Other.into());
            }
            *left -= 1;
        }
        let faulty = world.lock().unwrap().faulty;
        match faulty && self.dice.chance(self.plan.store_faults) {
            true => Err(ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn written(&mut self) {
        self.step = None;
        self.copy = Some(self.new.clone());
        // If the sync of the folder lied, the old document stays.
        if !self.dice.chance(self.plan.lost_syncs) {
            self.durable = Some(self.on_disk());
        }
    }

    /// The new document as it is on the disk.
    fn on_disk(&mut self) -> Vec<u8> {
        match self.lied {
            true => self.torn(),
            false => self.new.clone(),
        }
    }

    /// A part of the document, or zeros in place of the rest.
    fn torn(&mut self) -> Vec<u8> {
        let whole = self.new.clone();
        let at = usize::try_from(self.dice.below(whole.len() as u64)).unwrap();
        let mut torn = whole[..at].to_vec();
        if self.dice.chance(30) {
            torn.resize(whole.len(), 0);
        }
        torn
    }

    /// The process ends, in some schedules with a power loss; returns whether it was one.
    pub(crate) fn crash(&mut self, world: &Shared) -> bool {
        self.crash_in = None;
        let step = self.step.take();
        if !self.plan.power_losses || self.dice.chance(40) {
            return false;
        }
        world.lock().unwrap().saw("power lost");
        let begun = matches!(
            step,
            Some(WriteStep::SyncFile | WriteStep::Rename | WriteStep::SyncFolder)
        );
        if step == Some(WriteStep::SyncFolder) && self.dice.chance(50) {
            self.durable = Some(self.on_disk());
        }
        let beside = (begun && self.dice.chance(50)).then(|| self.torn());
        for (name, bytes) in [(DOCUMENT, &self.durable), (BESIDE, &beside)] {
            let path = self.folder.join(name);
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => drop(std::fs::remove_file(path)),
            }
        }
        true
    }

    /// The document was refused: a person restores a copy, or starts anew.
    fn restore(&mut self) {
        let path = self.folder.join(DOCUMENT);
        match &self.copy {
            Some(copy) if self.dice.chance(50) => std::fs::write(path, copy).unwrap(),
            _ => std::fs::remove_file(path).unwrap(),
        }
        self.durable = std::fs::read(self.folder.join(DOCUMENT)).ok();
    }
}

/// The real store on this disk.
pub(crate) struct DiskStore {
    world: Shared,
    disk: Arc<Mutex<Disk>>,
    store: FileStore,
}

impl DiskStore {
    /// Opens the folder like a starting process, with a person's help if needed.
    pub(crate) async fn open(
        world: &Shared,
        disk: &Arc<Mutex<Disk>>,
        owner: &Owner,
    ) -> (DiskStore, Option<Checkpoint>) {
        let folder = disk.lock().unwrap().folder.clone();
        let mut store = FileStore::open(&folder, owner.clone()).unwrap();
        let loaded = match store.load().await {
            Ok(loaded) => loaded,
            Err(error) => {
                assert!(disk.lock().unwrap().plan.lost_syncs > 0, "torn: {error}");
                world.lock().unwrap().saw("torn checkpoint refused");
                check_refused(&error, &folder, &mut store, owner).await;
                disk.lock().unwrap().restore();
                store.load().await.unwrap()
            }
        };
        let (on_disk, told) = (Arc::clone(disk), world.clone());
        store.before_each_step(Box::new(move |step| {
            on_disk.lock().unwrap().before(step, &told)
        }));
        let (world, disk) = (world.clone(), Arc::clone(disk));
        (DiskStore { world, disk, store }, loaded)
    }
}

/// Checks that a damaged document is refused with the remedy, and stays unchanged.
async fn check_refused(error: &StoreError, folder: &Path, store: &mut FileStore, owner: &Owner) {
    let document = folder.join(DOCUMENT);
    let before = std::fs::read(&document).unwrap();
    let save = store.save(&Checkpoint::new(owner, BTreeMap::new())).await;
    for error in [error, &save.unwrap_err()] {
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("restore it, or move it away"), "{text}");
    }
    assert_eq!(std::fs::read(&document).unwrap(), before);
}

pub(crate) fn positions(checkpoint: &Checkpoint) -> BTreeMap<u32, u64> {
    let positions = checkpoint.position.iter();
    positions
        .map(|(&partition, position)| (partition, position.as_u64().unwrap()))
        .collect()
}

impl Store for DiskStore {
    async fn load(&mut self) -> Result<Option<Checkpoint>, StoreError> {
        self.store.load().await
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let positions = positions(checkpoint);
        self.world.lock().unwrap().check_before(&positions);
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Finished at once, so that its time does not depend on another thread.
        let saved = finish(self.store.save(checkpoint));
        if self.world.lock().unwrap().crashed {
            return std::future::pending().await;
        }
        let mut world = self.world.lock().unwrap();
        world.note(|| format!("save {positions:?} {}", saved.is_ok()));
        match &saved {
            Ok(()) => {
                self.disk.lock().unwrap().written();
                world.durable = positions;
            }
            Err(_) => world.saw("write failed"),
        }
        saved
    }
}

/// Blocks this thread until a future completes.
fn finish<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}
