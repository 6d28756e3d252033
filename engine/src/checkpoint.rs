//! Images of the index, so that a start does not read the whole log.
//!
//! A checkpoint is a file `checkpoint-NNNNNNNNNN` of sections:
//!
//! ```text
//!  0  kind       u16   1 begin, 2 partition, 3 versions, 4 end
//!  2  partition  u16
//!  4  length     u32   of the payload
//!  8  sequence   u64   of a partition: the image reflects every append up to it
//! 16  crc        u32   of the 16 bytes before and the payload, seeded with store, number and the section's position
//! 20  reserved   u32   0
//! 24  payload
//! ```
//!
//! It is fuzzy: each partition is copied in one step, the store goes on between. The log positions in its first section are
//! noted before the first image, so whatever an image misses is found by replaying the logs from there.
//!
//! The last section lists which segments hold records that forget, as far as some checkpoint before this one may need them
//! (`forget` says why): slot u32, generation u64, highest sequence u64 of each.
//!
//! The rule: the file gets its name only when it is durable and so is every append that it reflects. The two newest are
//! kept; one that does not validate is passed over.
//!
//! Not here: what of the log an image already reflects (`replay`).

use crate::{
    chore::Chore,
    config::Config,
    disk::{BACKGROUND_CHUNK, BLOCK, Disk, File},
    index::Index,
    planted::{Bug, planted},
    record::number,
    segment::START,
    shared::{Position, Shared},
    statistics::count,
    versions::Versions,
};
use std::{io, rc::Rc};

/// In 1 the last section had no list.
const VERSION: u32 = 2;
const HEADER: usize = 24;
const READ_CHUNK: usize = 1 << 20;
const TEMPORARY: &str = "checkpoint.tmp";
/// How many are kept: if one rots the other serves, with more of the log.
pub(crate) const KEPT: usize = 2;

const BEGIN: u16 = 1;
const PARTITION: u16 = 2;
const VERSIONS: u16 = 3;
const END: u16 = 4;

fn name(number: u64) -> String {
    format!("checkpoint-{number:010}")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("checkpoint-")?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn checksum(header: &[u8], payload: &[u8], store: u64, number: u64, position: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&store.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.update(&header[..16]);
    hasher.update(payload);
    hasher.finalize()
}

/// What a checkpoint says beside the images.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Begin {
    pub(crate) hot: Position,
    pub(crate) survivors: Position,
}

/// What is only known when the last image is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct End {
    /// The store was closed: nothing was appended after this, unless there is a segment of this generation or a later one.
    pub(crate) clean: bool,
    pub(crate) next_generation: u64,
    pub(crate) last_sequence: u64,
    /// Segment files that there were.
    pub(crate) slots: u32,
    /// Every checkpoint that there was when this one was written reflects all that was forgotten up to this.
    pub(crate) forgotten_upto: u64,
    /// Segments with younger records that forget: slot, generation, highest sequence.
    pub(crate) forgets: Vec<(u32, u64, u64)>,
}

fn write_position(to: &mut Vec<u8>, position: Position) {
    to.extend(position.generation.to_le_bytes());
    to.extend(position.number.to_le_bytes());
    to.extend(position.offset.to_le_bytes());
}

fn read_position(bytes: &[u8]) -> Position {
    Position { generation: number::<8>(bytes, 0), number: number::<8>(bytes, 8), offset: number::<4>(bytes, 16) as u32 }
}

const POSITION: usize = 20;
/// Bytes of the last section before its list, in version 1.
const END_MIN: usize = 24;
const FORGET: usize = 20;

impl Begin {
    fn write(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        write_position(&mut bytes, self.hot);
        write_position(&mut bytes, self.survivors);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let known = bytes.len() == 4 + 2 * POSITION && (1..=u64::from(VERSION)).contains(&number::<4>(bytes, 0));
        known.then(|| Self { hot: read_position(&bytes[4..]), survivors: read_position(&bytes[4 + POSITION..]) })
    }
}

impl End {
    fn write(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.clean), 0, 0, 0];
        bytes.extend(self.slots.to_le_bytes());
        bytes.extend(self.next_generation.to_le_bytes());
        bytes.extend(self.last_sequence.to_le_bytes());
        bytes.extend(self.forgotten_upto.to_le_bytes());
        for (slot, generation, upto) in &self.forgets {
            bytes.extend(slot.to_le_bytes());
            bytes.extend(generation.to_le_bytes());
            bytes.extend(upto.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let list = bytes.get(END_MIN + 8..).unwrap_or_default().chunks_exact(FORGET);
        let whole = bytes.len() == END_MIN || (bytes.len() >= END_MIN + 8 && list.remainder().is_empty());
        whole.then(|| Self {
            clean: bytes[0] == 1,
            slots: number::<4>(bytes, 4) as u32,
            next_generation: number::<8>(bytes, 8),
            last_sequence: number::<8>(bytes, 16),
            forgotten_upto: if bytes.len() == END_MIN { 0 } else { number::<8>(bytes, END_MIN) },
            forgets: list
                .map(|entry| (number::<4>(entry, 0) as u32, number::<8>(entry, 4), number::<8>(entry, 12)))
                .collect(),
        })
    }
}

/// Writes sections through one aligned buffer.
struct Writer<'a, D: Disk> {
    shared: &'a Shared<D>,
    file: D::File,
    number: u64,
    pending: Vec<u8>,
    /// Bytes of the file before `pending`.
    flushed: u64,
}

impl<D: Disk> Writer<'_, D> {
    async fn section(&mut self, kind: u16, partition: u16, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&kind.to_le_bytes());
        header[2..4].copy_from_slice(&partition.to_le_bytes());
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        let position = self.flushed + self.pending.len() as u64;
        let checksum = checksum(&header, payload, self.shared.store, self.number, position);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        self.pending.extend_from_slice(&header);
        self.pending.extend_from_slice(payload);
        let mut done = 0;
        while self.pending.len() - done >= BACKGROUND_CHUNK {
            self.write(done, BACKGROUND_CHUNK).await?;
            done += BACKGROUND_CHUNK;
        }
        self.pending.drain(..done);
        Ok(())
    }

    async fn write(&mut self, from: usize, length: usize) -> io::Result<()> {
        let mut buffer = self.shared.disk.buffer(length.next_multiple_of(BLOCK));
        buffer[..length].copy_from_slice(&self.pending[from..from + length]);
        count(&self.shared.counters.checkpoint_bytes, buffer.len() as u64);
        self.file.write(Rc::new(buffer), self.flushed).await?;
        self.flushed += length as u64;
        if !self.shared.closing.get() {
            self.shared.disk.sleep(self.shared.chores.pause(Chore::Checkpoint)).await;
        }
        Ok(())
    }

    async fn finish(mut self) -> io::Result<()> {
        let rest = self.pending.len();
        if rest > 0 {
            self.write(0, rest).await?;
        }
        self.file.truncate(self.flushed.next_multiple_of(BLOCK as u64)).await?;
        self.file.sync().await
    }
}

/// Writes a checkpoint each time that the log has grown enough, that segments are short and wait for one, or that one has
/// rotted. While none has to be written it reads those that are there when the scrub has come round.
pub(crate) async fn run<D: Disk>(shared: Rc<Shared<D>>) {
    let mut last = shared.state.borrow().space.clock;
    let mut rotten = false;
    // Rolling a segment wakes this task, so the log grows by a segment more at most.
    let grown = |last| shared.state.borrow().space.clock - last;
    let pressed = || {
        let space = &shared.state.borrow().space;
        space.waiting > 0 && space.free_count() < shared.config.free_wanted()
    };
    while !shared.is_over() {
        let seen = shared.segments.count();
        let has_grown = || grown(last) >= shared.config.checkpoint_log_bytes;
        if !has_grown() && !pressed() && !std::mem::take(&mut rotten) {
            if shared.checkpoints_unread.get() {
                let go_on = || !has_grown() && !pressed() && !shared.is_over();
                rotten = has_rotted(&shared, go_on).await;
                // Who was interrupted begins anew.
                shared.checkpoints_unread.set(!go_on());
            } else {
                shared.segments.after(seen).await;
            }
            continue;
        }
        let (grown, pressed) = (grown(last), pressed());
        last += grown;
        write(&shared, false).await;
        if pressed {
            // Two free what waits. A full disk may have no room for them until something else goes.
            shared.disk.sleep(shared.config.full_retry).await;
        }
    }
}

/// Writes a checkpoint. What goes wrong costs a longer start, no more: it is counted.
pub(crate) async fn write<D: Disk>(shared: &Shared<D>, clean: bool) {
    let outcome = try_write(shared, clean).await;
    match outcome {
        Ok(true) => count(&shared.counters.checkpoints, 1),
        Ok(false) | Err(_) => {
            count(&shared.counters.checkpoints_failed, u64::from(outcome.is_err()));
            // On a full disk a half-written file must not stay; if it cannot be removed, the next one replaces it.
            let _ = shared.disk.remove(TEMPORARY).await;
        }
    }
}

/// False when the store is being closed, or has failed.
async fn try_write<D: Disk>(shared: &Shared<D>, clean: bool) -> io::Result<bool> {
    let stop = || shared.has_failed() || (shared.closing.get() && !clean);
    let begin = {
        let state = shared.state.borrow();
        Begin { hot: state.log.position(), survivors: state.survivors }
    };
    let number = newest(&shared.disk).await? + 1;
    let file = shared.disk.open(TEMPORARY, false).await?;
    let mut writer = Writer { shared, file, number, pending: Vec::new(), flushed: 0 };
    writer.section(BEGIN, 0, 0, &begin.write()).await?;
    let mut image = Vec::new();
    // Later images reflect more.
    let reflected = shared.state.borrow().last_sequence;
    let underway = shared.chores.begin(Chore::Checkpoint, shared.config.partitions.into());
    for partition in 0..shared.config.partitions {
        if stop() {
            return Ok(false);
        }
        underway.reached(partition.into());
        image.clear();
        let sequence = {
            let state = shared.state.borrow();
            state.index.image(partition, &mut image);
            if planted(Bug::CheckpointAhead) { state.last_sequence + 32 } else { state.last_sequence }
        };
        writer.section(PARTITION, partition, sequence, &image).await?;
    }
    let end = {
        let state = shared.state.borrow();
        End {
            clean,
            next_generation: state.space.next_generation,
            last_sequence: state.last_sequence,
            slots: state.space.slots.len() as u32,
            forgotten_upto: state.space.forgotten_upto(),
            forgets: state.space.forgets(),
        }
    };
    // Last: it must know every version that an image refers to.
    let versions = shared.versions.save();
    writer.section(VERSIONS, 0, 0, &versions).await?;
    writer.section(END, 0, 0, &end.write()).await?;
    writer.finish().await?;
    loop {
        let seen = shared.progress.count();
        if stop() {
            return Ok(false);
        }
        if shared.state.borrow().log.durable_sequence() >= end.last_sequence {
            break;
        }
        shared.progress.after(seen).await;
    }
    shared.disk.rename(TEMPORARY, &name(number)).await?;
    shared.disk.sync_directory().await?;
    remove_old(&shared.disk).await?;
    shared.state.borrow_mut().space.checkpointed(reflected);
    shared.settle();
    Ok(true)
}

/// The numbers of the checkpoints in the directory, oldest first.
async fn numbers<D: Disk>(disk: &D) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<_> = disk.list().await?.iter().filter_map(|(name, _)| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

async fn newest<D: Disk>(disk: &D) -> io::Result<u64> {
    Ok(numbers(disk).await?.last().copied().unwrap_or(0))
}

async fn remove_old<D: Disk>(disk: &D) -> io::Result<()> {
    let numbers = numbers(disk).await?;
    for number in numbers.iter().rev().skip(KEPT) {
        disk.remove(&name(*number)).await?;
    }
    // What only an old one needed may be given back now: it must not come back.
    if numbers.len() > KEPT { disk.sync_directory().await } else { Ok(()) }
}

/// What a checkpoint gave.
pub(crate) struct Loaded {
    pub(crate) number: u64,
    pub(crate) index: Index,
    /// For each partition: the sequence up to which its image reflects the log.
    pub(crate) reflected: Vec<u64>,
    pub(crate) begin: Begin,
    pub(crate) end: End,
    pub(crate) bytes: u64,
}

/// The newest checkpoint that validates, and how many did not.
pub(crate) async fn load<D: Disk>(
    disk: &D,
    config: &Config,
    versions: &dyn Versions,
) -> io::Result<(Option<Loaded>, u64)> {
    let mut bad = 0;
    for number in numbers(disk).await?.into_iter().rev() {
        if let Ok(Some(loaded)) = read(disk, config, versions, number).await {
            return Ok((Some(loaded), bad));
        }
        bad += 1;
    }
    Ok((None, bad))
}

/// Reads a checkpoint from its start to its end.
struct Reader<F: File> {
    file: F,
    number: u64,
    length: u64,
    /// How much is read at once.
    chunk: usize,
    bytes: Vec<u8>,
    /// Where `bytes` begins in the file.
    start: u64,
    /// How much of `bytes` was used.
    used: usize,
}

/// One section that validates.
struct Section<'a> {
    kind: u16,
    partition: u16,
    sequence: u64,
    payload: &'a [u8],
}

impl<F: File> Reader<F> {
    async fn open<D: Disk<File = F>>(disk: &D, number: u64, chunk: usize) -> io::Result<Self> {
        let file = disk.open(&name(number), false).await?;
        let length = file.length().await? / BLOCK as u64 * BLOCK as u64;
        Ok(Self { file, number, length, chunk, bytes: Vec::new(), start: 0, used: 0 })
    }

    /// The next section. `None` when it does not validate.
    async fn section(&mut self, store: u64) -> io::Result<Option<Section<'_>>> {
        let of = self.number;
        let Some((position, header)) = self.take(HEADER).await? else { return Ok(None) };
        let header: [u8; HEADER] = header.try_into().expect("its length was asked for");
        let Some((_, payload)) = self.take(number::<4>(&header, 4) as usize).await? else { return Ok(None) };
        let expected = checksum(&header, payload, store, of, position);
        if number::<4>(&header, 16) != u64::from(expected) || number::<4>(&header, 20) != 0 {
            return Ok(None);
        }
        let (kind, partition) = (number::<2>(&header, 0) as u16, number::<2>(&header, 2) as u16);
        Ok(Some(Section { kind, partition, sequence: number::<8>(&header, 8), payload }))
    }

    /// The next `length` bytes, and where they begin.
    async fn take(&mut self, length: usize) -> io::Result<Option<(u64, &[u8])>> {
        let position = self.start + self.used as u64;
        if position + length as u64 > self.length {
            return Ok(None);
        }
        if self.bytes.len() - self.used < length {
            self.bytes.drain(..self.used);
            self.start = position;
            self.used = 0;
            while self.bytes.len() < length {
                let at = self.start + self.bytes.len() as u64;
                let chunk = (self.chunk as u64).min(self.length - at) as usize;
                let read = self.file.read(at, chunk).await?;
                if read.len() != chunk {
                    return Ok(None);
                }
                self.bytes.extend_from_slice(&read);
            }
        }
        let bytes = &self.bytes[self.used..self.used + length];
        self.used += length;
        Ok(Some((position, bytes)))
    }
}

/// Reads a checkpoint. `None` when anything of it does not validate.
async fn read<D: Disk>(disk: &D, config: &Config, versions: &dyn Versions, number: u64) -> io::Result<Option<Loaded>> {
    let mut reader = Reader::open(disk, number, READ_CHUNK).await?;
    let mut loaded = Loaded {
        number,
        index: Index::new(config.partitions, config.seed),
        reflected: Vec::new(),
        begin: Begin::default(),
        end: End::default(),
        bytes: reader.length,
    };
    let mut wanted = BEGIN;
    loop {
        let Some(Section { kind, partition, sequence, payload }) = reader.section(config.store).await? else {
            return Ok(None);
        };
        if kind != wanted {
            return Ok(None);
        }
        match kind {
            BEGIN => {
                let Some(begin) = Begin::read(payload) else { return Ok(None) };
                loaded.begin = begin;
                wanted = PARTITION;
            }
            PARTITION => {
                if partition as usize != loaded.reflected.len() || loaded.index.restore(partition, payload).is_err() {
                    return Ok(None);
                }
                loaded.reflected.push(sequence);
                if loaded.reflected.len() == config.partitions as usize {
                    wanted = VERSIONS;
                }
            }
            VERSIONS => {
                if !versions.restore(payload) {
                    return Ok(None);
                }
                wanted = END;
            }
            _ => {
                let Some(end) = End::read(payload) else { return Ok(None) };
                loaded.end = end;
                return Ok(sane(&loaded, config).then_some(loaded));
            }
        }
    }
}

/// The scrub has come round: the checkpoints are to be read too. [`run`] does that itself, so that none is removed while it
/// is being opened.
pub(crate) fn scrub<D: Disk>(shared: &Shared<D>) {
    shared.checkpoints_unread.set(true);
    shared.segments.notify();
}

/// Reads the checkpoints, as long as `go_on` says so. True when one has rotted; that is counted.
async fn has_rotted<D: Disk>(shared: &Shared<D>, go_on: impl Fn() -> bool) -> bool {
    let mut rotten = false;
    for number in numbers(&shared.disk).await.unwrap_or_default() {
        let sound = is_sound(shared, number, &go_on).await.unwrap_or(false);
        if !go_on() {
            break;
        }
        count(&shared.counters.checkpoints_bad, u64::from(!sound));
        rotten |= !sound;
    }
    rotten
}

async fn is_sound<D: Disk>(shared: &Shared<D>, number: u64, go_on: impl Fn() -> bool) -> io::Result<bool> {
    let mut reader = Reader::open(&shared.disk, number, BACKGROUND_CHUNK).await?;
    while let Some(Section { kind, payload, .. }) = reader.section(shared.store).await? {
        count(&shared.counters.scrub_read_bytes, (HEADER + payload.len()) as u64);
        if kind == END {
            return Ok(true);
        }
        if !go_on() {
            break;
        }
        shared.disk.sleep(shared.chores.pause(Chore::Scrub)).await;
    }
    Ok(false)
}

fn sane(loaded: &Loaded, config: &Config) -> bool {
    let fits = |position: Position| {
        let inside = (START..config.segment_bytes).contains(&position.offset);
        inside && (position.offset as usize).is_multiple_of(BLOCK) && position.number > 0
    };
    fits(loaded.begin.hot) && fits(loaded.begin.survivors)
}
