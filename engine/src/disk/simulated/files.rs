//! What a simulated disk holds: bytes and names, each in a visible and a durable state, and what a crash makes of them.
//!
//! The rule: a crash keeps what was durable; each 512 B sector of what was written since is what it was before, what any
//! unsynced write made it, or zeros; each unsynced change of a name or a length has happened or not.
//!
//! Not here: time, faults, errors (`super`).

use super::random::Random;
use crate::disk::BLOCK;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// A disk writes this many bytes or none of them.
pub(super) const SECTOR: usize = 512;

/// The bytes of one block; `None` is all zeros, which keeps zero-filled segments cheap.
type Block = Option<Rc<[u8]>>;

pub(super) type FileId = u64;

const BLANK: &[u8] = &[0; BLOCK];

/// Names a write between its start and its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WriteId(u64);

#[derive(Clone, Debug, Default)]
struct Content {
    length: u64,
    /// By block number; a missing block is zeros.
    blocks: BTreeMap<u64, Rc<[u8]>>,
}

impl Content {
    fn block(&self, number: u64) -> Block {
        self.blocks.get(&number).cloned()
    }

    fn set_block(&mut self, number: u64, block: Block) {
        match block {
            Some(bytes) => drop(self.blocks.insert(number, bytes)),
            None => drop(self.blocks.remove(&number)),
        }
    }

    fn read(&self, position: u64, length: usize) -> Vec<u8> {
        let end = (position + length as u64).min(self.length).max(position);
        let mut bytes = vec![0; (end - position) as usize];
        for (number, block) in self.blocks.range(position / BLOCK as u64..end.div_ceil(BLOCK as u64)) {
            let start = number * BLOCK as u64;
            let (from, to) = (position.max(start), end.min(start + BLOCK as u64));
            bytes[(from - position) as usize..(to - position) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        bytes
    }

    fn truncate(&mut self, length: u64) {
        self.length = length;
        let kept = length.div_ceil(BLOCK as u64);
        drop(self.blocks.split_off(&kept));
        let used = (length % BLOCK as u64) as usize;
        if used != 0
            && let Some(block) = self.blocks.get_mut(&(kept - 1))
        {
            let mut bytes = block.to_vec();
            bytes[used..].fill(0);
            *block = bytes.into();
        }
    }
}

/// One unsynced write of one block.
#[derive(Clone, Debug)]
struct Unsynced {
    write: WriteId,
    block: Block,
    /// The moment when the write returned, if it has: only then does a sync that starts later cover it.
    completed: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    visible: Content,
    durable: Content,
    /// By block number, oldest first.
    unsynced: BTreeMap<u64, Vec<Unsynced>>,
    /// Lengths since the durable one.
    unsynced_lengths: Vec<u64>,
    /// Held by each handle: without a name and a handle, the file is gone.
    open: Rc<()>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create { name: String, file: FileId },
    Rename { from: String, to: String, file: FileId },
    Remove { name: String },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Create { name, file } => drop(names.insert(name.clone(), *file)),
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { name } => drop(names.remove(name)),
        }
    }
}

/// All files of one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    inodes: BTreeMap<FileId, Inode>,
    visible_names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    unsynced_names: Vec<NameChange>,
    /// Changes of names that have become durable.
    synced_names: u64,
    next_file: FileId,
    next_write: u64,
    /// Orders the ends of writes and the starts of syncs.
    moment: u64,
}

impl Files {
    pub(super) fn names(&self) -> Vec<(String, u64)> {
        self.visible_names.iter().map(|(name, file)| (name.clone(), self.length(*file))).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<FileId> {
        self.visible_names.get(name).copied()
    }

    pub(super) fn open(&mut self, name: &str) -> FileId {
        if let Some(file) = self.find(name) {
            return file;
        }
        let file = self.next_file;
        self.next_file += 1;
        self.inodes.insert(file, Inode::default());
        self.change_names(NameChange::Create { name: name.to_owned(), file });
        file
    }

    /// False when there is no such name.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(file) = self.find(from) else { return false };
        self.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
        true
    }

    /// False when there is no such name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let exists = self.find(name).is_some();
        if exists {
            self.change_names(NameChange::Remove { name: name.to_owned() });
        }
        exists
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.visible_names);
        self.unsynced_names.push(change);
    }

    /// The number of name changes so far, which a directory sync that starts now will cover.
    pub(super) fn name_changes(&self) -> u64 {
        self.synced_names + self.unsynced_names.len() as u64
    }

    /// The directory sync that started at that number of changes has ended.
    pub(super) fn sync_names(&mut self, changes: u64) {
        // Another sync may have covered some of them meanwhile.
        let count = changes.saturating_sub(self.synced_names);
        self.synced_names += count;
        for change in self.unsynced_names.drain(..count as usize) {
            change.apply(&mut self.durable_names);
        }
        self.drop_unreachable();
    }

    /// Keeps the file for as long as the token lives, even without a name.
    pub(super) fn hold(&self, file: FileId) -> Rc<()> {
        self.inodes[&file].open.clone()
    }

    pub(super) fn length(&self, file: FileId) -> u64 {
        self.inodes[&file].visible.length
    }

    /// Bytes that files with a name take.
    pub(super) fn used_bytes(&self) -> u64 {
        self.visible_names.values().map(|file| self.length(*file)).sum()
    }

    pub(super) fn read(&self, file: FileId, position: u64, length: usize) -> Vec<u8> {
        self.inodes[&file].visible.read(position, length)
    }

    pub(super) fn set_length(&mut self, file: FileId, length: u64) {
        self.moment += 1;
        let (moment, write) = (self.moment, self.new_write());
        let inode = self.inode(file);
        let shrinks = length < inode.visible.length;
        inode.visible.truncate(length);
        inode.unsynced_lengths.push(length);
        if shrinks {
            // The bytes behind the cut become zeros like by a write: after a crash they may be there or not.
            let cut = length / BLOCK as u64;
            let durable = inode.durable.blocks.range(cut..).map(|(number, _)| *number);
            let cut = durable.chain(inode.unsynced.range(cut..).map(|(number, _)| *number)).collect::<BTreeSet<_>>();
            for number in cut {
                let block = inode.visible.block(number);
                inode.unsynced.entry(number).or_default().push(Unsynced { write, block, completed: Some(moment) });
            }
        }
    }

    fn new_write(&mut self) -> WriteId {
        self.next_write += 1;
        WriteId(self.next_write)
    }

    /// A write has started: from now on a crash may find any part of it on the disk.
    pub(super) fn start_write(&mut self, file: FileId, position: u64, bytes: &[u8]) -> WriteId {
        let write = self.new_write();
        let first = position / BLOCK as u64;
        let inode = self.inode(file);
        for (number, bytes) in (first..).zip(bytes.chunks_exact(BLOCK)) {
            let block = (bytes != BLANK).then(|| bytes.into());
            inode.unsynced.entry(number).or_default().push(Unsynced { write, block, completed: None });
        }
        write
    }

    /// The write has ended: its bytes are read from now on. With `durable` they survive a crash, too.
    pub(super) fn end_write(&mut self, file: FileId, write: WriteId, position: u64, length: u64, durable: bool) {
        self.moment += 1;
        let moment = self.moment;
        let inode = self.inode(file);
        let end = position + length;
        for number in position / BLOCK as u64..end / BLOCK as u64 {
            let Some(versions) = inode.unsynced.get_mut(&number) else { continue };
            let Some(at) = versions.iter().position(|unsynced| unsynced.write == write) else { continue };
            let block = versions[at].block.clone();
            if durable {
                inode.durable.set_block(number, block.clone());
                versions.drain(..=at);
                if versions.is_empty() {
                    inode.unsynced.remove(&number);
                }
            } else {
                versions[at].completed = Some(moment);
            }
            inode.visible.set_block(number, block);
        }
        if end > inode.visible.length {
            inode.visible.length = end;
            inode.unsynced_lengths.push(end);
        }
        if durable {
            // A new length that the write needs is made durable with it.
            if end > inode.durable.length || inode.unsynced_lengths.last() == Some(&end) {
                inode.durable.length = inode.visible.length;
                inode.unsynced_lengths.clear();
            }
            inode.unsynced_lengths.retain(|length| *length >= end);
        }
    }

    /// The write has failed: each sector is old or new, now and after a crash. The file is as long as before.
    pub(super) fn fail_write(&mut self, file: FileId, write: WriteId, position: u64, length: u64, random: &mut Random) {
        let inode = self.inode(file);
        let end = (position + length).min(inode.visible.length);
        for number in position / BLOCK as u64..end / BLOCK as u64 {
            let versions = inode.unsynced.get_mut(&number).map_or(&mut [][..], Vec::as_mut_slice);
            let Some(new) = versions.iter_mut().find(|unsynced| unsynced.write == write) else { continue };
            let torn = tear(&[inode.visible.block(number), new.block.clone()], random);
            new.block.clone_from(&torn);
            inode.visible.set_block(number, torn);
        }
    }

    /// The write has not happened at all.
    pub(super) fn forget_write(&mut self, file: FileId, write: WriteId, position: u64, length: u64) {
        let blocks = position / BLOCK as u64..(position + length) / BLOCK as u64;
        for (_, versions) in self.inode(file).unsynced.range_mut(blocks) {
            versions.retain(|version| version.write != write);
        }
    }

    /// The moment at which a sync starts.
    pub(super) fn start_sync(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// The sync that started at `moment` has ended: writes that had ended by then are durable.
    pub(super) fn end_sync(&mut self, file: FileId, moment: u64) {
        let inode = self.inode(file);
        let durable = &mut inode.durable;
        inode.unsynced.retain(|number, versions| {
            let covered = versions.iter().rposition(|version| version.completed.is_some_and(|at| at < moment));
            if let Some(last) = covered {
                durable.set_block(*number, versions[last].block.clone());
                versions.drain(..=last);
            }
            !versions.is_empty()
        });
        durable.length = inode.visible.length;
        let kept = durable.length.div_ceil(BLOCK as u64);
        drop(durable.blocks.split_off(&kept));
        inode.unsynced_lengths.clear();
    }

    /// The sync that started at `moment` has failed: what it should have covered is as if never synced, and no later sync
    /// covers it, since the kernel holds it for clean.
    pub(super) fn fail_sync(&mut self, file: FileId, moment: u64) {
        let versions = self.inode(file).unsynced.values_mut().flatten();
        for version in versions.filter(|version| version.completed.is_some_and(|at| at < moment)) {
            version.completed = None;
        }
    }

    /// The power is cut.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let mut names = std::mem::take(&mut self.durable_names);
        let changes = std::mem::take(&mut self.unsynced_names);
        // A journal keeps the order of changes; without one any of them may be missing.
        let kept = if random.one_in(2) { Some(random.index(changes.len() + 1)) } else { None };
        for (i, change) in changes.iter().enumerate() {
            if kept.map_or_else(|| random.one_in(2), |kept| i < kept) {
                change.apply(&mut names);
            }
        }
        self.visible_names = names.clone();
        self.durable_names = names;
        self.inodes.values_mut().for_each(|inode| inode.open = Rc::default());
        self.drop_unreachable();
        self.inodes.values_mut().for_each(|inode| inode.crash(random));
    }

    /// The process is killed while the machine goes on: of each write under way the first blocks were done, or none, or
    /// all of them. A failed write or sync is forgotten with the process: these files are not cached by the kernel, so what
    /// the next process reads is what the device holds, and a sync of it counts.
    pub(super) fn kill(&mut self, under_way: &[(FileId, WriteId, u64, u64)], random: &mut Random) {
        for (file, write, position, length) in under_way {
            let done = random.range(0..length / BLOCK as u64 + 1) * BLOCK as u64;
            let done = [0, done, *length][random.index(3)];
            if done > 0 {
                self.end_write(*file, *write, *position, done, false);
            }
            self.forget_write(*file, *write, position + done, length - done);
        }
        self.moment += 1;
        for version in self.inodes.values_mut().flat_map(|inode| inode.unsynced.values_mut()).flatten() {
            version.completed.get_or_insert(self.moment);
        }
        self.inodes.values_mut().for_each(|inode| inode.open = Rc::default());
        self.drop_unreachable();
    }

    /// Changes bytes behind everyone's back, durably. False when the file has no such bytes.
    pub(super) fn alter(&mut self, name: &str, position: u64, alter: impl Fn(usize, u8) -> u8, length: usize) -> bool {
        let Some(file) = self.find(name) else { return false };
        let inode = self.inode(file);
        if position + length as u64 > inode.visible.length {
            return false;
        }
        for content in [&mut inode.visible, &mut inode.durable] {
            for at in 0..length {
                let (number, offset) = ((position + at as u64) / BLOCK as u64, (position + at as u64) % BLOCK as u64);
                let mut bytes = content.block(number).map_or_else(|| vec![0; BLOCK], |block| block.to_vec());
                bytes[offset as usize] = alter(at, bytes[offset as usize]);
                content.set_block(number, Some(bytes.into()));
            }
        }
        true
    }

    /// What somebody copies who reads all files now: everything in the copy is durable.
    pub(super) fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.unsynced_names.clear();
        copy.durable_names.clone_from(&copy.visible_names);
        for inode in copy.inodes.values_mut() {
            inode.open = Rc::default();
            inode.durable = inode.visible.clone();
            inode.unsynced.clear();
            inode.unsynced_lengths.clear();
        }
        copy.drop_unreachable();
        copy
    }

    /// Frees the files that no handle holds and that no name leads to, even after a crash.
    fn drop_unreachable(&mut self) {
        let unsynced = self.unsynced_names.iter().filter_map(|change| match change {
            NameChange::Create { file, .. } | NameChange::Rename { file, .. } => Some(file),
            NameChange::Remove { .. } => None,
        });
        let names = self.visible_names.values().chain(self.durable_names.values());
        let named = names.chain(unsynced).copied().collect::<BTreeSet<_>>();
        self.inodes.retain(|file, inode| named.contains(file) || Rc::strong_count(&inode.open) > 1);
    }

    fn inode(&mut self, file: FileId) -> &mut Inode {
        self.inodes.get_mut(&file).expect("an open file exists until a crash")
    }
}

impl Inode {
    fn crash(&mut self, random: &mut Random) {
        let lengths = self.unsynced_lengths.len();
        let length = match random.index(lengths + 1) {
            0 => self.durable.length,
            at => self.unsynced_lengths[at - 1],
        };
        for (number, versions) in std::mem::take(&mut self.unsynced) {
            let mut choices = vec![self.durable.block(number)];
            choices.extend(versions.into_iter().map(|version| version.block));
            let torn = tear(&choices, random);
            self.durable.set_block(number, torn);
        }
        self.durable.truncate(length);
        self.unsynced_lengths.clear();
        self.visible = self.durable.clone();
    }
}

/// Each sector is that of any of the blocks (the first is the old one), or sometimes zeros.
fn tear(choices: &[Block], random: &mut Random) -> Block {
    // Many crashes leave a block whole: all old or all new.
    if random.one_in(4) {
        return choices[random.index(choices.len())].clone();
    }
    let mut torn = vec![0; BLOCK];
    for at in (0..BLOCK).step_by(SECTOR) {
        if random.one_in(8) {
            continue;
        }
        if let Some(block) = &choices[random.index(choices.len())] {
            torn[at..at + SECTOR].copy_from_slice(&block[at..at + SECTOR]);
        }
    }
    torn.iter().any(|byte| *byte != 0).then(|| torn.into())
}
