//! Opening and closing a store.
//!
//! The rule: nothing is appended to a segment of an earlier opening; each opening begins a new one. A directory holds one
//! store, whose number, partitions, seed and segment length are in the blob `store` before anything else is written.
//!
//! Not here: what the log says (`replay`).

use crate::{
    blob,
    cache::Cache,
    checkpoint,
    chore::Chores,
    commit, compactor,
    config::{Config, OpenError},
    disk::{BLOCK, Disk, File},
    frame,
    index::{Index, Listed},
    log::Log,
    preparer,
    record::{Salt, number},
    replay::{Dropped, Replay},
    scrub,
    segment::{self, Commit, Found, Segment, Stream},
    shared::{Damage, DamageKind, Position, Running, Shared, State},
    signal::Signal,
    space::{self, Space},
    statistics::Counters,
    store::{Opened, RecoveryReport, Store, Task},
    versions::{Summary, Versions},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    rc::Rc,
};

const IDENTITY: &str = "store";
const IDENTITY_BYTES: usize = 24;

/// What never changes of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    store: u64,
    seed: u64,
    segment_bytes: u32,
    partitions: u16,
}

impl Identity {
    fn write(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(IDENTITY_BYTES);
        bytes.extend(self.store.to_le_bytes());
        bytes.extend(self.seed.to_le_bytes());
        bytes.extend(self.segment_bytes.to_le_bytes());
        bytes.extend(u32::from(self.partitions).to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == IDENTITY_BYTES).then(|| Self {
            store: number::<8>(bytes, 0),
            seed: number::<8>(bytes, 8),
            segment_bytes: number::<4>(bytes, 16) as u32,
            partitions: number::<4>(bytes, 20) as u16,
        })
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.into();
    move |error| OpenError::Io { what, error }
}

/// Takes the store's identity from its directory, or gives it one.
async fn identify<D: Disk>(disk: &D, config: &mut Config, files: &[(String, u64)]) -> Result<bool, OpenError> {
    let stored = blob::load(disk, IDENTITY).await.map_err(failed("reading store.blob"))?;
    let Some(stored) = stored else {
        if files.iter().any(|(name, _)| segment::slot(name).is_some()) {
            return Err(OpenError::Unidentified);
        }
        let identity = Identity {
            store: config.store,
            seed: config.seed,
            segment_bytes: config.segment_bytes,
            partitions: config.partitions,
        };
        blob::store(disk, IDENTITY, &identity.write()).await.map_err(failed("writing store.blob"))?;
        return Ok(true);
    };
    let stored = Identity::read(&stored).ok_or(OpenError::Unidentified)?;
    // What is allowed is reckoned in segments, and the largest object must fit one.
    for (what, stored, wanted) in [
        ("partitions", stored.partitions.into(), config.partitions.into()),
        ("hash seed", stored.seed, config.seed),
        ("a segment size in bytes of", stored.segment_bytes.into(), config.segment_bytes.into()),
    ] {
        if stored != wanted {
            return Err(OpenError::Mismatch { what, stored, wanted });
        }
    }
    config.store = stored.store;
    Ok(false)
}

/// The segments that were found on the disk.
struct Segments<D: Disk> {
    space: Space<D>,
    damage: Vec<Damage>,
}

async fn find_segments<D: Disk>(
    disk: &D,
    config: &Config,
    files: &[(String, u64)],
    slots_known: u32,
) -> Result<Segments<D>, OpenError> {
    let mut space = Space::new(config.segments_max as usize);
    let mut damage = Vec::new();
    let lengths: HashMap<u32, u64> =
        files.iter().filter_map(|(name, length)| Some((segment::slot(name)?, *length))).collect();
    let count = lengths.keys().map(|slot| slot + 1).max().unwrap_or(0).max(slots_known);
    for slot in 0..count {
        let name = segment::name(slot);
        // The last one may be short because the crash came while it was being made. Any other was whole once.
        let length = lengths.get(&slot).copied();
        if length.is_none_or(|length| length < config.segment_bytes.into()) {
            if slot + 1 < count {
                damage.push(lost_segment(slot, config.segment_bytes));
            }
            if length.is_none() {
                preparer::create_at_once(disk, slot, config.segment_bytes).await.map_err(failed(&*name))?;
            } else {
                let file = disk.open(&name, false).await.map_err(failed(&*name))?;
                file.allocate(config.segment_bytes.into()).await.map_err(failed(&*name))?;
                file.sync().await.map_err(failed(&*name))?;
            }
        }
        let durable = config.commit == Commit::Dsync;
        let file = Rc::new(disk.open(&name, durable).await.map_err(failed(&*name))?);
        space.add_slot(file.clone(), space::State::Free);
        let Some((stream, generation)) = read_header(&*file, config, slot, &mut damage).await? else {
            // Never used. If its making was interrupted its length may not be durable yet.
            file.sync().await.map_err(failed(&*name))?;
            continue;
        };
        let salt = Salt::new(config.store, generation);
        space.slot_mut(slot).segment = Some(Rc::new(Segment { slot, stream, generation, salt, file }));
        space.next_generation = space.next_generation.max(generation + 1);
    }
    Ok(Segments { space, damage })
}

fn lost_segment(slot: u32, length: u32) -> Damage {
    Damage { partition: None, kind: DamageKind::Segment, segment: slot, offset: 0, length }
}

/// Stream and generation of a segment: from its header, or else from its first frame that validates.
async fn read_header<F: File>(
    file: &F,
    config: &Config,
    slot: u32,
    damage: &mut Vec<Damage>,
) -> Result<Option<(Stream, u64)>, OpenError> {
    let name = segment::name(slot);
    let block = file.read(0, BLOCK).await;
    let found = block.as_ref().map_or(Found::Rotten, |bytes| segment::Header::read(bytes));
    match found {
        Found::Sound(header) if header.store != config.store || header.length != config.segment_bytes => {
            Err(OpenError::Foreign { file: name })
        }
        Found::Sound(header) => Ok(Some((header.stream, header.generation))),
        Found::Version(version) => Err(OpenError::Version { file: name, version }),
        // Made but never used, or the crash came while it was to be used again: what was in it is needed no more. Only a
        // first frame in its place says that there was a header, and that it was lost.
        Found::Blank => find_frame(file, config, 2 * BLOCK).await,
        Found::Rotten => {
            damage.push(Damage { length: BLOCK as u32, ..lost_segment(slot, 0) });
            find_frame(file, config, config.segment_bytes as usize).await
        }
    }
}

/// Stream and generation of the first frame that validates before `end`.
async fn find_frame<F: File>(file: &F, config: &Config, end: usize) -> Result<Option<(Stream, u64)>, OpenError> {
    let mut position = BLOCK;
    while position < end {
        let length = (1 << 20).min(end - position);
        // What cannot be read has no frame that could be taken for anything.
        let Ok(bytes) = file.read(position as u64, length).await else { break };
        for at in (0..bytes.len()).step_by(BLOCK) {
            let header = frame::Header::read_any(&bytes[at..], config.store, (position + at) as u32);
            if let Some(header) = header {
                return Ok(Some((header.stream, header.generation)));
            }
        }
        position += length;
    }
    Ok(None)
}

/// See `Store::open`.
pub(crate) async fn open<D: Disk>(
    disk: D,
    mut config: Config,
    versions: Rc<dyn Versions>,
) -> Result<Opened<D>, OpenError> {
    config.check()?;
    // Names that a killed process left may not be durable yet.
    disk.sync_directory().await.map_err(failed("syncing the directory"))?;
    let files = disk.list().await.map_err(failed("listing the directory"))?;
    let new = identify(&disk, &mut config, &files).await?;
    let (loaded, checkpoints_bad) =
        checkpoint::load(&disk, &config, &*versions).await.map_err(failed("reading checkpoints"))?;
    if loaded.is_none() && checkpoints_bad >= checkpoint::KEPT as u64 {
        return Err(OpenError::Checkpoints);
    }
    let slots = loaded.as_ref().map_or(0, |loaded| loaded.end.slots);
    let Segments { mut space, damage } = find_segments(&disk, &config, &files, slots).await?;
    let mut report = RecoveryReport { store: config.store, new, checkpoints_bad, ..RecoveryReport::default() };
    let mut begin = checkpoint::Begin::default();
    let mut index = Index::new(config.partitions, config.seed);
    let mut reflected = vec![0; config.partitions.into()];
    let mut last_sequence = 0;
    if let Some(loaded) = loaded {
        report.checkpoint = Some(loaded.number);
        report.bytes_read = loaded.bytes;
        // A later generation was begun after the store was closed.
        report.clean = loaded.end.clean && space.next_generation <= loaded.end.next_generation;
        space.next_generation = space.next_generation.max(loaded.end.next_generation);
        let reflected_by_all = loaded.reflected.iter().copied().min().unwrap_or(0);
        space.restore(reflected_by_all, loaded.end.forgotten_upto, &loaded.end.forgets);
        (begin, index, reflected, last_sequence) =
            (loaded.begin, loaded.index, loaded.reflected, loaded.end.last_sequence);
    }
    let mut replay = Replay {
        disk: &disk,
        config: &config,
        versions: &*versions,
        index,
        reflected,
        newest: HashMap::default(),
        dropped: Dropped::default(),
        forgets: Vec::new(),
        damage,
        last_sequence,
        last_number: 0,
        report,
    };
    let hot_number = replay_stream(&mut replay, &space, Stream::Hot, begin.hot).await?;
    let survivors_number = replay_stream(&mut replay, &space, Stream::Survivors, begin.survivors).await?;
    let Replay { mut index, mut damage, last_sequence, mut report, forgets, .. } = replay;
    for (slot, sequence) in forgets {
        space.forget(slot, sequence);
    }
    lose_segments(&space, &mut index, &*versions, &mut damage);
    let (tombstones, lost) = account(&mut space, &index, &*versions);
    report.keys = index.len();
    report.damaged = damage.len() as u64;

    let segment = first_segment(&disk, &config, &mut space).await?;
    let log =
        Log::new(disk.clone(), config.frame_bytes_max, config.segment_bytes, segment, hot_number + 1, last_sequence);
    let survivors =
        Position { generation: space.next_generation, offset: segment::START, number: survivors_number + 1 };
    let counters = Counters::default();
    counters.damaged.set(report.damaged);
    counters.checkpoints_bad.set(report.checkpoints_bad);
    let cache = Cache::new(config.cache_bytes);
    let state = State {
        index,
        cache,
        log,
        space,
        last_sequence,
        last_forget: 0,
        tombstones,
        lost,
        survivors,
        damage: VecDeque::from(damage),
    };
    let shared = Rc::new(Shared {
        disk,
        store: config.store,
        chores: Chores::new(config.background_pause),
        scrub_rate: Cell::new(config.scrub_bytes_per_second),
        scrub_rate_changed: Signal::default(),
        config,
        versions,
        state: RefCell::new(state),
        failed: RefCell::new(None),
        closing: Cell::new(false),
        work: Signal::default(),
        progress: Signal::default(),
        segments: Signal::default(),
        over: Signal::default(),
        checkpoints_unread: Cell::default(),
        idle: Cell::default(),
        background: Rc::default(),
        counters,
        scrub: RefCell::default(),
    });
    let tasks = tasks(&shared);
    Ok(Opened { store: Store { shared }, tasks, report })
}

/// Replays one stream, unless the store was closed in order, and gives the number of its last frame.
async fn replay_stream<D: Disk>(
    replay: &mut Replay<'_, D>,
    space: &Space<D>,
    stream: Stream,
    from: Position,
) -> Result<u64, OpenError> {
    if replay.report.clean {
        // Its last frame, at this position, ended it.
        return Ok(from.number);
    }
    replay.stream(&segments_from(space, stream, from.generation), from).await?;
    Ok(replay.last_number)
}

fn tasks<D: Disk>(shared: &Rc<Shared<D>>) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..shared.config.commits_in_flight {
        tasks.push(Task::new("commit", commit::lane(shared.clone())));
    }
    tasks.push(Task::new("seal", commit::idle_sealer(shared.clone())));
    tasks.push(Task::new("idle watch", compactor::watch_idle(shared.clone())));
    fn background(name: &'static str, running: Running, task: impl Future<Output = ()> + 'static) -> Task {
        Task::new(name, async move {
            task.await;
            drop(running);
        })
    }
    let enter = || shared.background.enter();
    tasks.push(background("zeroing", enter(), preparer::run(shared.clone())));
    tasks.push(background("compaction", enter(), compactor::run(shared.clone())));
    tasks.push(background("checkpoint", enter(), checkpoint::run(shared.clone())));
    tasks.push(background("scrub", enter(), scrub::run(shared.clone())));
    tasks
}

/// The segments of a stream from a generation on, in order.
fn segments_from<D: Disk>(space: &Space<D>, stream: Stream, generation: u64) -> Vec<Rc<Segment<D>>> {
    let mut segments: Vec<_> = space
        .slots
        .iter()
        .filter_map(|slot| slot.segment.clone())
        .filter(|segment| segment.stream == stream && segment.generation >= generation)
        .collect();
    segments.sort_unstable_by_key(|segment| segment.generation);
    segments
}

/// Counts what the index points at; a segment that it does not point into is free. Gives the numbers of
/// tombstones and of lost keys.
fn account<D: Disk>(space: &mut Space<D>, index: &Index, versions: &dyn Versions) -> (u64, u64) {
    let (mut tombstones, mut lost) = (0, 0);
    for slot in &mut space.slots {
        slot.state = space::State::Sealed;
        // Not known any more: as if it were full.
        slot.written = u64::MAX;
    }
    for partition in 0..index.partitions() {
        for listed in index.entries(partition, 0, 0) {
            space.gain(listed.entry.place);
            let is_lost = listed.entry.summary == Summary::LOST;
            lost += u64::from(is_lost);
            tombstones += u64::from(!is_lost && versions.is_tombstone(listed.entry.summary));
        }
    }
    for slot in 0..space.slots.len() as u32 {
        if space.slot(slot).live == 0 {
            space.is_empty(slot);
        }
    }
    (tombstones, lost)
}

/// The index points into segments of which nothing is left: these keys are lost. Reports each segment for each of the
/// partitions. The scrub or the compaction writes it down later.
fn lose_segments<D: Disk>(space: &Space<D>, index: &mut Index, versions: &dyn Versions, damage: &mut Vec<Damage>) {
    let gone: Vec<bool> = space.slots.iter().map(|slot| slot.segment.is_none()).collect();
    for partition in 0..index.partitions() {
        let is_gone = |listed: &Listed| {
            let slot = listed.entry.place.segment() as usize;
            gone.get(slot) == Some(&true) && listed.entry.summary != Summary::LOST
        };
        let listed: Vec<_> = index.entries(partition, 0, 0).filter(is_gone).collect();
        let slots: BTreeSet<u32> = listed.iter().map(|listed| listed.entry.place.segment()).collect();
        for slot in slots {
            damage.push(Damage { partition: Some(partition), ..lost_segment(slot, 0) });
        }
        for Listed { hash, entry } in listed {
            index.insert(partition, &hash, entry.place, Summary::LOST, versions);
        }
    }
}

/// Where this opening's log begins.
async fn first_segment<D: Disk>(disk: &D, config: &Config, space: &mut Space<D>) -> Result<Rc<Segment<D>>, OpenError> {
    let slot = match space.free.pop_front() {
        Some(slot) => slot,
        None => {
            let slot = space.slots.len() as u32;
            let name = segment::name(slot);
            preparer::create_at_once(disk, slot, config.segment_bytes).await.map_err(failed(&*name))?;
            let file = disk.open(&name, config.commit == Commit::Dsync).await.map_err(failed(&*name))?;
            space.add_slot(Rc::new(file), space::State::Free)
        }
    };
    let generation = space.next_generation;
    space.next_generation += 1;
    let file = space.slot(slot).file.clone();
    let (store, length) = (config.store, config.segment_bytes);
    preparer::write_header(disk, &*file, config.commit, store, generation, Stream::Hot, length)
        .await
        .map_err(failed(segment::name(slot)))?;
    let salt = Salt::new(store, generation);
    let segment = Rc::new(Segment { slot, stream: Stream::Hot, generation, salt, file });
    let entry = space.slot_mut(slot);
    entry.segment = Some(segment.clone());
    entry.state = space::State::Active;
    Ok(segment)
}

/// See `Store::close`.
pub(crate) async fn close<D: Disk>(shared: &Rc<Shared<D>>) {
    if shared.closing.replace(true) {
        return;
    }
    {
        let state = &mut *shared.state.borrow_mut();
        state.log.end(state.last_sequence);
    }
    shared.wake_all();
    commit::drain(shared).await;
    shared.background.finished().await;
    if !shared.has_failed() {
        checkpoint::write(shared, true).await;
    }
}
