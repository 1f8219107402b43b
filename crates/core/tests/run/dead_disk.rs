//! The dead letter on a disk that fails: the real one, a model of what the disk holds of each of its
//! files, and what a loss of power leaves of them.
//!
//! A sync that fails drops what it was to bring to the disk, and the next one knows of no error. A sync
//! that lies says that it was done; what it was to bring is there with the next sync that holds, or gone
//! with the power. Of lines that only such a sync brought nobody can know that they are lost: they are
//! the only ones that may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use audit_bridge_core::dead_letter::{DeadLetter, DeadLetterLimits, FileStep, WhenFull};

use super::plan::{Dice, Plan};
use super::world::Shared;

/// Files are packed at an eighth of it. No schedule fills it.
const BYTES_MAX: u64 = 128 << 10;

type Ids = BTreeSet<String>;

/// A file, whatever its name is.
type Inode = u64;

/// What the disk holds, beside what the folder shows.
pub(crate) struct DeadDisk {
    plan: Plan,
    dice: Dice,
    path: PathBuf,
    /// The content of each file after a loss of power.
    durable: HashMap<Inode, Vec<u8>>,
    /// Bytes of each file that are on the disk as far as the kernel knows.
    clean: HashMap<Inode, u64>,
    /// The names after a loss of power.
    names: BTreeMap<String, Inode>,
    /// The names were brought to the disk by a sync that lied.
    names_lied: bool,
    /// Lines that a sync brought to the disk, as it said.
    synced: Ids,
    /// Those of which no sync held.
    lied: Ids,
    /// In so many steps the process ends.
    crash_in: Option<u64>,
}

impl DeadDisk {
    pub(crate) fn new(plan: Plan, path: &Path) -> Arc<Mutex<DeadDisk>> {
        Arc::new(Mutex::new(DeadDisk {
            plan,
            dice: Dice(plan.seed ^ 0xdead),
            path: path.to_owned(),
            durable: HashMap::new(),
            clean: HashMap::new(),
            names: BTreeMap::new(),
            names_lied: false,
            synced: Ids::new(),
            lied: Ids::new(),
            crash_in: None,
        }))
    }

    /// Opens the dead letter, as a process does that begins.
    pub(crate) fn open(world: &Shared, disk: &Arc<Mutex<DeadDisk>>) -> DeadLetter {
        let path = disk.lock().unwrap().path.clone();
        let limits = DeadLetterLimits {
            bytes_max: Some(BYTES_MAX),
            when_full: WhenFull::Hold,
            ..DeadLetterLimits::default()
        };
        let dead_letter = DeadLetter::open_within(&path, "eks", limits).unwrap();
        {
            let mut disk = disk.lock().unwrap();
            // What the start does is synced, and nothing fails then.
            for (_, inode) in disk.listing() {
                let content = disk.content(inode);
                disk.clean.entry(inode).or_insert(content.len() as u64);
                disk.durable.entry(inode).or_insert(content);
            }
            disk.keep_names();
        }
        let (on_disk, told) = (Arc::clone(disk), world.clone());
        dead_letter.before_each_step(Box::new(move |step| {
            on_disk.lock().unwrap().before(step, &told)
        }));
        dead_letter
    }

    /// The next process ends in the middle of its work on the dead letter.
    pub(crate) fn crash_in_a_write(&mut self) {
        self.crash_in = Some(self.dice.below(12));
    }

    /// Before a step; an error ends the write.
    fn before(&mut self, step: FileStep, world: &Shared) -> io::Result<()> {
        if world.lock().unwrap().crashed {
            return Err(ErrorKind::Other.into());
        }
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crash_in = None;
                world.lock().unwrap().end("crashed in the dead letter");
                return Err(ErrorKind::Other.into());
            }
            *left -= 1;
        }
        let faulty = world.lock().unwrap().faulty;
        if faulty && self.dice.chance(self.plan.store_faults) {
            let saw = self.fail(step);
            world.lock().unwrap().saw(saw);
            return Err(ErrorKind::StorageFull.into());
        }
        if self.pass(step) {
            world.lock().unwrap().saw("dead letter packed");
        }
        Ok(())
    }

    /// What a step that fails leaves.
    fn fail(&mut self, step: FileStep) -> &'static str {
        match step {
            FileStep::Write => {
                let mut file = OpenOptions::new().append(true).open(&self.path).unwrap();
                file.write_all(b"{\"time\":\"2026-11-21T10:0").unwrap();
                "dead letter write failed in the middle"
            }
            FileStep::Sync => {
                // The kernel drops what it could not write.
                if let Some(inode) = inode(&self.path)
                    && self.dice.chance(70)
                {
                    let clean = self.clean.get(&inode).copied().unwrap_or(0);
                    let file = OpenOptions::new().write(true).open(&self.path).unwrap();
                    let len = file.metadata().unwrap().len();
                    file.set_len(len.min(clean)).unwrap();
                }
                "dead letter sync failed"
            }
            _ => "dead letter rotation failed",
        }
    }

    /// What a step that is done leaves. True when a file is packed.
    fn pass(&mut self, step: FileStep) -> bool {
        let lies = self.dice.chance(self.plan.lost_syncs);
        match step {
            FileStep::Sync => {
                if let Some(inode) = inode(&self.path) {
                    let lines = ids(&fs::read(&self.path).unwrap());
                    self.brought(inode, &lines, lies);
                }
            }
            FileStep::SyncFolder => self.brought_names(lies),
            FileStep::RenamePacked => {
                let beside = self.path.with_file_name(".dead.jsonl.tmp");
                let lines = ids(&unpacked(&beside));
                self.brought(inode(&beside).unwrap(), &lines, lies);
            }
            FileStep::RemovePlain => {
                self.brought_names(lies);
                return true;
            }
            FileStep::Write | FileStep::Rename | FileStep::Create | FileStep::Pack => {}
        }
        false
    }

    /// A sync brought all lines of a file to the disk, or lies.
    fn brought(&mut self, inode: Inode, lines: &Ids, lies: bool) {
        self.synced.extend(lines.iter().cloned());
        let content = self.content(inode);
        self.clean.insert(inode, content.len() as u64);
        if lies {
            let durable = self.durable.entry(inode).or_default();
            let held = ids(durable);
            self.lied.extend(lines.difference(&held).cloned());
            return;
        }
        self.lied.retain(|id| !lines.contains(id));
        self.durable.insert(inode, content);
    }

    fn brought_names(&mut self, lies: bool) {
        match lies {
            true => self.names_lied = true,
            false => self.keep_names(),
        }
    }

    fn keep_names(&mut self) {
        self.names = self.listing().into_iter().collect();
        self.names_lied = false;
        let alive: BTreeSet<Inode> = self.names.values().copied().collect();
        self.durable.retain(|inode, _| alive.contains(inode));
        self.clean.retain(|inode, _| alive.contains(inode));
    }

    /// The files of the dead letter.
    fn listing(&self) -> Vec<(String, Inode)> {
        files(&self.path)
            .into_iter()
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some((name, inode(&path)?))
            })
            .collect()
    }

    fn content(&self, inode: Inode) -> Vec<u8> {
        let folder = self.path.parent().unwrap();
        let mut all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let found = all.find(|entry| entry.metadata().unwrap().ino() == inode);
        found.map_or_else(Vec::new, |entry| fs::read(entry.path()).unwrap())
    }

    /// The process is gone, and the power with it: what is left of the files. Gives the lines that are
    /// lost because a sync lied.
    pub(crate) fn lose_power(&mut self) -> Ids {
        let before = kept(&self.path);
        let shown: HashMap<Inode, Vec<u8>> = self
            .listing()
            .into_iter()
            .map(|(_, inode)| (inode, self.content(inode)))
            .collect();
        for path in files(&self.path) {
            fs::remove_file(path).unwrap();
        }
        let names = std::mem::take(&mut self.names);
        let (mut durable, mut clean) = (HashMap::new(), HashMap::new());
        for (name, old) in names {
            let mut content = self.durable.remove(&old).unwrap_or_default();
            let packed = is_packed(Path::new(&name));
            if let Some(shown) = shown.get(&old).filter(|_| !packed)
                && let Some(rest) = shown.strip_prefix(content.as_slice())
            {
                content.extend(self.part(rest));
            }
            let path = self.path.with_file_name(&name);
            fs::write(&path, &content).unwrap();
            let inode = inode(&path).unwrap();
            clean.insert(inode, content.len() as u64);
            durable.insert(inode, content);
            self.names.insert(name, inode);
        }
        (self.durable, self.clean) = (durable, clean);
        let left = kept(&self.path);
        let may_be = match self.names_lied {
            true => &self.synced,
            false => &self.lied,
        };
        let lost = before
            .difference(&left)
            .filter(|id| may_be.contains(*id))
            .cloned()
            .collect();
        self.names_lied = false;
        self.lied.clear();
        self.synced = left;
        lost
    }

    /// What was not synced may be there, may be gone, or may be there in part.
    fn part(&mut self, bytes: &[u8]) -> Vec<u8> {
        let at = usize::try_from(self.dice.below(bytes.len() as u64 + 1)).unwrap();
        let mut part = bytes[..at].to_vec();
        if self.dice.chance(30) {
            part.resize(bytes.len(), 0);
        }
        part
    }

    /// The process is gone.
    pub(crate) fn crash(&mut self) {
        self.crash_in = None;
    }
}

fn inode(path: &Path) -> Option<Inode> {
    fs::symlink_metadata(path).ok().map(|it| it.ino())
}

/// The files of a dead letter: the one that is written, and those that are full.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let all = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut found: Vec<PathBuf> = all
        .map(|entry| entry.unwrap().path())
        .filter(|it| it.file_name().unwrap().to_str().unwrap().starts_with(name))
        .collect();
    found.sort();
    found
}

/// The audit IDs that the dead letter holds, in whichever file.
pub(crate) fn kept(path: &Path) -> Ids {
    let files = files(path).into_iter();
    files.flat_map(|file| ids(&read(&file))).collect()
}

/// The lines of the dead letter, in whichever file.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let files = files(path).into_iter();
    let texts = files.map(|file| String::from_utf8_lossy(&read(&file)).into_owned());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.collect()
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "zst")
}

fn read(path: &Path) -> Vec<u8> {
    match is_packed(path) {
        true => unpacked(path),
        false => fs::read(path).unwrap(),
    }
}

/// What can be read of a packed file.
fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(fs::File::open(path).unwrap());
    // A part of it is no error here.
    let _ = decoder.and_then(|mut decoder| decoder.read_to_end(&mut bytes));
    bytes
}

/// The audit IDs of whole lines. A line that a crash cut off is none.
fn ids(content: &[u8]) -> Ids {
    let text = String::from_utf8_lossy(content);
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole
        .lines()
        .filter(|line| line.ends_with('}') && line.starts_with('{'))
        .filter_map(|line| line.split("\"auditID\":\"").nth(1)?.split('"').next())
        .map(str::to_owned)
        .collect()
}
