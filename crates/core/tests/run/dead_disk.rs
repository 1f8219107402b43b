//! The real dead letter on a failing disk: a model of what the disk has of each file, and of what a
//! power loss leaves.
//!
//! A failed sync drops what it should have written, and the next one reports no error. A lying sync
//! reports success; its data reaches the disk with the next honest sync, or is lost with the power.
//! Nobody can know that lines written only by a lying sync are lost, so these are the only lines
//! that may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use audit_bridge_core::dead_letter::{DeadLetter, DeadLetterLimits, FileStep, WhenFull};

use super::plan::{Dice, Plan};
use super::world::Shared;

/// Files are packed at an eighth of this. No schedule fills it.
const BYTES_MAX: u64 = 128 << 10;

type Ids = BTreeSet<String>;

/// Identifies a file whatever its name is.
type Inode = u64;

/// The disk's state, which differs from what the folder shows.
pub(crate) struct DeadDisk {
    plan: Plan,
    dice: Dice,
    path: PathBuf,
    /// The content of each file after a power loss.
    durable: HashMap<Inode, Vec<u8>>,
    /// Bytes of each file that the kernel believes are on the disk.
    clean: HashMap<Inode, u64>,
    /// The file names after a power loss.
    names: BTreeMap<String, Inode>,
    /// Whether the names were written by a lying sync.
    names_lied: bool,
    /// Lines that a sync reported as written.
    synced: Ids,
    /// Those of them that no honest sync has written.
    lied: Ids,
    /// The process ends after this many steps.
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

    /// Opens the dead letter like a starting process.
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
            // The start syncs its changes, and nothing fails then.
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

    /// Lets the next process end during its work on the dead letter.
    pub(crate) fn crash_in_a_write(&mut self) {
        self.crash_in = Some(self.dice.below(12));
    }

    /// Called before a step; an error ends the write.
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

    /// Applies what a failing step leaves behind.
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

    /// Applies a successful step. Returns true if a file is packed.
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

    /// A sync has written all lines of a file, or lies about it.
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

    /// The dead letter's files and inodes.
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

    /// The process ends with a power loss: reduces the files to what is left. Returns the lines
    /// that a lying sync lost.
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

    /// Data that was not synced may be there, absent, or partly there.
    fn part(&mut self, bytes: &[u8]) -> Vec<u8> {
        let at = usize::try_from(self.dice.below(bytes.len() as u64 + 1)).unwrap();
        let mut part = bytes[..at].to_vec();
        if self.dice.chance(30) {
            part.resize(bytes.len(), 0);
        }
        part
    }

    /// The process has ended.
    pub(crate) fn crash(&mut self) {
        self.crash_in = None;
    }
}

fn inode(path: &Path) -> Option<Inode> {
    fs::symlink_metadata(path).ok().map(|it| it.ino())
}

/// The files of a dead letter: the current one, and full ones.
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

/// The audit IDs in all files of the dead letter.
pub(crate) fn kept(path: &Path) -> Ids {
    let files = files(path).into_iter();
    files.flat_map(|file| ids(&read(&file))).collect()
}

/// The lines in all files of the dead letter.
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

/// The readable part of a packed file.
fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(fs::File::open(path).unwrap());
    // A truncated file is no error here.
    let _ = decoder.and_then(|mut decoder| decoder.read_to_end(&mut bytes));
    bytes
}

/// The audit IDs of complete lines, without a line that a crash cut off.
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
