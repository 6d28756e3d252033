//! A store on a simulated disk, beside a model of what it must hold.
//!
//! The model knows every version that was ever appended and which of them the watermark has covered. After a crash a key
//! must have a version that is no older than its last covered one, and that was appended at all.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use quorate_engine::{
    Append, AppendError, Commit, Config, OpenError, ReadError, RecoveryReport, Sequence, Store, Watermark,
    disk::{
        Disk,
        prefixed::Prefixed,
        simulated::{Executor, Random, SimulatedDisk, Timing},
    },
    versions::{Summary, Versions},
};
use std::{collections::BTreeMap, rc::Rc, time::Duration};

pub const PARTITIONS: u16 = 8;
const STORE_TASKS: u64 = 1;

/// A body is: version, tombstone flag, key, filling. The flag is the lowest bit of the summary.
pub struct Numbered;

impl Versions for Numbered {
    fn summarise(&self, body: &[u8]) -> Option<Summary> {
        let version = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
        Some(Summary(version << 1 | u64::from(*body.get(8)? == 1)))
    }

    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }

    fn is_tombstone(&self, summary: Summary) -> bool {
        summary.0 & 1 == 1
    }

    fn save(&self) -> Vec<u8> {
        b"numbered".to_vec()
    }

    fn restore(&self, saved: &[u8]) -> bool {
        saved == b"numbered"
    }
}

/// Small segments, so that everything happens within a few hundred operations of the disk.
pub fn config() -> Config {
    let mut config = Config::new(0x1234_5678_9abc_def0, PARTITIONS, 7);
    config.segment_bytes = 256 << 10;
    config.segments_max = 12;
    config.frame_bytes_max = 64 << 10;
    config.body_bytes_max = 80 << 10;
    config.queue_bytes_max = 256 << 10;
    config.cache_bytes = 32 << 10;
    config.checkpoint_log_bytes = 300 << 10;
    config
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    pub number: u64,
    pub sequence: Sequence,
    pub length: usize,
    pub tombstone: bool,
    /// The key was forgotten: nothing is there. Its sequence is [`UNKNOWN`] while nobody has said which it is.
    pub forgotten: bool,
}

/// Never covered by the watermark.
const UNKNOWN: Sequence = Sequence(u64::MAX);

impl Version {
    pub fn body(&self, key: u64) -> Vec<u8> {
        let mut body = vec![(self.number ^ key) as u8; self.length];
        body[..8].copy_from_slice(&self.number.to_le_bytes());
        body[8] = u8::from(self.tombstone);
        body[9..17].copy_from_slice(&key.to_le_bytes());
        body
    }
}

#[derive(Default, Clone, Debug)]
pub struct History {
    /// The last version that the watermark covered, and all later ones.
    pub versions: Vec<Version>,
    /// The first of them is covered.
    pub covered: bool,
    /// Its record was destroyed on purpose: it may read as corrupt.
    pub rotten: bool,
}

/// `SEEDS=1000` tries more than the usual ones, `SEED=5` that one alone.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let from = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match from("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from("SEEDS").unwrap_or(usual),
    }
}

/// `D` is what the store sees of the disk.
pub struct World<D: Disk = SimulatedDisk> {
    pub seed: u64,
    pub disk: SimulatedDisk,
    view: fn(SimulatedDisk) -> D,
    store_tasks: u64,
    pub executor: Executor,
    pub config: Config,
    pub store: Option<Store<D>>,
    pub report: RecoveryReport,
    pub keys: BTreeMap<u64, History>,
    pub random: Random,
    next_version: u64,
    highest_sequence: Sequence,
}

impl World {
    /// Odd seeds commit by the other means than `config` says.
    pub fn new(seed: u64, mut config: Config) -> Self {
        if seed % 2 == 1 {
            config.commit = match config.commit {
                Commit::Dsync => Commit::Fdatasync,
                Commit::Fdatasync => Commit::Dsync,
            };
        }
        let disk = SimulatedDisk::new(seed, Timing::default());
        Self {
            seed,
            disk,
            view: |disk| disk,
            store_tasks: STORE_TASKS,
            executor: Executor::new(),
            config,
            store: None,
            report: RecoveryReport::default(),
            keys: BTreeMap::new(),
            random: Random::new(seed ^ 0x5eed),
            next_version: 1,
            highest_sequence: Sequence(0),
        }
    }

    /// Another store in the same directory, run by the same executor.
    pub fn beside(&self, config: Config) -> World<Prefixed<SimulatedDisk>> {
        World {
            seed: self.seed,
            disk: self.disk.clone(),
            view: |disk| Prefixed::new(disk, "hints"),
            store_tasks: STORE_TASKS + 1,
            executor: self.executor.clone(),
            config,
            store: None,
            report: RecoveryReport::default(),
            keys: BTreeMap::new(),
            random: Random::new(self.seed ^ 0xbe51de),
            next_version: 1,
            highest_sequence: Sequence(0),
        }
    }

    pub fn key(key: u64) -> (u16, Vec<u8>) {
        ((key % u64::from(PARTITIONS)) as u16, format!("key-{key}").into_bytes())
    }
}

impl<D: Disk> World<D> {
    pub fn store(&self) -> &Store<D> {
        self.store.as_ref().expect("the store is open")
    }

    /// `None`: the disk stopped meanwhile.
    pub fn try_open(&mut self) -> Option<Result<(), OpenError>> {
        let opening = Store::open((self.view)(self.disk.clone()), self.config.clone(), Rc::new(Numbered));
        match self.disk.run(&self.executor, opening)? {
            Ok(opened) => {
                for task in opened.tasks {
                    self.executor.spawn(self.store_tasks, Box::pin(task));
                }
                self.store = Some(opened.store);
                self.report = opened.report;
                Some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    pub fn open(&mut self) {
        self.try_open().expect("the disk stopped while the store was opened").expect("the store opens");
    }

    /// The power goes off.
    pub fn crash(&mut self) {
        self.disk.crash();
        self.forget();
    }

    /// The process is killed, the machine goes on.
    pub fn kill(&mut self) {
        self.disk.kill();
        self.forget();
    }

    /// What the process knew is gone.
    pub fn forget(&mut self) {
        self.store = None;
        // What never reached the disk left no trace: its sequence may be given out again.
        self.highest_sequence = Sequence(0);
        self.executor.drop_group(self.store_tasks);
        self.executor.drop_group(u64::MAX);
        self.executor.run_until_stalled();
        self.disk = self.disk.reopen();
    }

    pub fn close(&mut self) -> Option<Watermark> {
        let store = self.store().clone();
        let watermark = self.disk.run(&self.executor, async move { store.close().await })?;
        self.observe();
        self.forget();
        Some(watermark)
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.disk.run_until(&self.executor, self.disk.now() + duration);
        self.observe();
    }

    /// Runs until the watermark covers all that was appended.
    pub fn make_durable(&mut self) {
        let highest = self.highest_sequence;
        let store = self.store().clone();
        let done = self.disk.run(&self.executor, async move {
            let mut seen = Sequence(0);
            while seen < highest {
                match store.advanced(seen).await {
                    Watermark::Durable(upto) => seen = upto,
                    Watermark::Failed => return false,
                }
            }
            true
        });
        assert!(done == Some(true) || self.disk.is_halted(), "seed {}: the log failed", self.seed);
        self.observe();
    }

    /// Notes what the watermark covers now.
    pub fn observe(&mut self) {
        let Some(store) = &self.store else { return };
        let Watermark::Durable(upto) = store.durable() else { return };
        for history in self.keys.values_mut() {
            let covered = history.versions.iter().rposition(|version| version.sequence <= upto);
            if let Some(covered) = covered {
                history.versions.drain(..covered);
                history.covered = true;
            }
        }
    }

    pub fn append(&mut self, key: u64, length: usize, tombstone: bool) -> Result<Sequence, AppendError> {
        let mut version = Version {
            number: self.next_version,
            sequence: Sequence(0),
            length: length.max(17),
            tombstone,
            forgotten: false,
        };
        let body = version.body(key);
        let (partition, name) = World::key(key);
        let summary = Numbered.summarise(&body).expect("it is long enough");
        let (first, second) = body.split_at(9);
        let sequence = self.store().append(Append { partition, key: &name, body: &[first, second], summary })?;
        assert!(sequence > self.highest_sequence, "seed {}: {sequence:?} was given out before", self.seed);
        let on_disk = self.keys.values().filter_map(|history| history.versions.last()).map(|last| last.sequence);
        assert!(
            Some(sequence) > on_disk.filter(|sequence| *sequence != UNKNOWN).max(),
            "seed {}: {sequence:?} is on the disk already",
            self.seed
        );
        self.highest_sequence = sequence;
        self.next_version += 1;
        version.sequence = sequence;
        let history = self.keys.entry(key).or_default();
        history.versions.push(version);
        history.rotten = false;
        Ok(sequence)
    }

    /// Forgets a key. False when there was nothing to forget.
    pub fn forget_key(&mut self, key: u64) -> Result<bool, AppendError> {
        let (partition, name) = World::key(key);
        let Some(found) = self.store().lookup(partition, &name) else { return Ok(false) };
        let other = Summary(found.summary.0 + 2);
        assert_eq!(self.store().forget(partition, &name, other), Ok(None), "seed {}: another version", self.seed);
        let Some(sequence) = self.store().forget(partition, &name, found.summary)? else {
            panic!("seed {}: key {key} was there and is not forgotten", self.seed);
        };
        assert!(sequence > self.highest_sequence, "seed {}: {sequence:?} was given out before", self.seed);
        self.highest_sequence = sequence;
        self.note_forgotten(key, sequence);
        assert_eq!(self.store().lookup(partition, &name), None);
        Ok(true)
    }

    fn note_forgotten(&mut self, key: u64, sequence: Sequence) {
        let version = Version { number: 0, sequence, length: 17, tombstone: false, forgotten: true };
        let history = self.keys.entry(key).or_default();
        history.versions.push(version);
        history.rotten = false;
    }

    /// Drops a partition. When the disk stops meanwhile, each of its keys may be there or not.
    pub fn drop_partition(&mut self, partition: u16) -> Result<(), AppendError> {
        let there: Vec<_> = self
            .keys
            .keys()
            .copied()
            .filter(|key| {
                let (of, name) = World::key(*key);
                of == partition && self.store().lookup(of, &name).is_some()
            })
            .collect();
        for key in &there {
            self.note_forgotten(*key, UNKNOWN);
        }
        let store = self.store().clone();
        let outcome = self.disk.run(&self.executor, async move { store.drop_partition(partition).await });
        let sequence = match outcome {
            Some(Ok(sequence)) => {
                assert_eq!(self.store().index(|index| index.partition_len(partition)), 0, "seed {}", self.seed);
                self.highest_sequence = self.highest_sequence.max(sequence);
                sequence
            }
            // Of those that are gone it is not known when.
            Some(Err(_)) | None => UNKNOWN,
        };
        for key in there {
            let (of, name) = World::key(key);
            let still_there = self.store().lookup(of, &name).is_some();
            let history = self.keys.get_mut(&key).expect("it was there");
            if still_there && outcome.is_some() {
                history.versions.pop();
            } else if let Some(last) = history.versions.last_mut() {
                last.sequence = sequence;
            }
        }
        self.observe();
        outcome.unwrap_or(Ok(sequence)).map(|_| ())
    }

    /// Every sum in the index equals one computed from its entries.
    pub fn check_sums(&self) {
        for partition in 0..PARTITIONS {
            assert!(self.store().root_is_sound(partition), "seed {}: partition {partition}", self.seed);
        }
    }

    pub fn read(&self, key: u64) -> Option<Result<Option<Vec<u8>>, ReadError>> {
        let store = self.store().clone();
        let (partition, name) = World::key(key);
        let read = async move { store.read(partition, &name).await };
        let outcome = self.disk.run(&self.executor, read)?;
        Some(outcome.map(|body| body.map(|body| body.to_vec())))
    }

    /// While the store runs, a read gives the last version.
    pub fn check_read(&self, key: u64) {
        let Some(outcome) = self.read(key) else { return };
        let last = self.keys.get(&key).and_then(|history| history.versions.last());
        let last = last.filter(|version| !version.forgotten);
        let body = outcome.unwrap_or_else(|error| panic!("seed {}: key {key}: {error}", self.seed));
        assert_eq!(body, last.map(|version| version.body(key)), "seed {}: key {key} reads wrong", self.seed);
    }

    /// After a crash: each key has its last covered version or a later one. What it has is the truth from now on.
    pub fn check_recovered(&mut self, keys: std::ops::Range<u64>) {
        for key in keys {
            let body = match self.read(key).expect("the disk runs") {
                Ok(body) => body,
                Err(ReadError::Corrupt { .. }) if self.keys[&key].rotten => continue,
                Err(error) => panic!("seed {}: key {key}: {error}", self.seed),
            };
            let Some(body) = body else {
                let covered = self.keys.get(&key).is_some_and(|history| {
                    history.covered && !history.rotten && !history.versions.iter().any(|version| version.forgotten)
                });
                assert!(!covered, "seed {}: key {key} is gone: {:?}", self.seed, self.keys[&key]);
                self.keys.remove(&key);
                continue;
            };
            let history = self.keys.get_mut(&key);
            let history = history.unwrap_or_else(|| panic!("seed {}: key {key} was never written", self.seed));
            let found = history.versions.iter().position(|version| !version.forgotten && version.body(key) == body);
            let found = found.unwrap_or_else(|| {
                let number = u64::from_le_bytes(body[..8].try_into().unwrap());
                panic!("seed {}: key {key} has version {number}, not one of {:?}", self.seed, history.versions)
            });
            history.versions = vec![history.versions[found]];
            // What was read after a recovery is on the disk.
            history.covered = true;
        }
        self.check_accounting();
    }

    /// What the store counts as live is what its index points at.
    pub fn check_accounting(&self) {
        let store = self.store();
        let pointed: u64 = store.index(|index| {
            (0..index.partitions())
                .flat_map(|partition| index.entries(partition, 0, 0))
                .map(|listed| u64::from(listed.entry.place.length()))
                .sum()
        });
        assert_eq!(store.statistics().live_bytes, pointed, "seed {}", self.seed);
        let last =
            |history: &History| history.versions.last().is_some_and(|version| !version.tombstone && !version.forgotten);
        let live = self.keys.values().filter(|history| last(history)).count();
        assert_eq!(store.live_keys(), live as u64, "seed {}", self.seed);
        self.check_sums();
    }

    /// Appends or forgets; pauses when that is refused for now.
    fn change(&mut self, change: impl FnOnce(&mut Self) -> Result<(), AppendError>) {
        match change(self) {
            Ok(()) => {}
            Err(AppendError::Busy | AppendError::Full) => self.run_for(Duration::from_millis(2)),
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// One random step of a workload over `keys`.
    pub fn step(&mut self, keys: u64) {
        match self.random.index(24) {
            0..10 => {
                let key = self.random.range(0..keys);
                let length = match self.random.index(10) {
                    0 => self.random.index(80 << 10),
                    1..4 => self.random.index(12 << 10),
                    _ => self.random.index(600),
                };
                let tombstone = self.random.one_in(10);
                let length = if tombstone { 17 } else { length };
                self.change(|world| world.append(key, length, tombstone).map(|_| ()));
            }
            10..13 => {
                let key = self.random.range(0..keys);
                self.check_read(key);
            }
            13..=18 => {
                let pause = self.random.range(1..400);
                self.run_for(Duration::from_micros(pause));
            }
            19..=21 => {
                let key = self.random.range(0..keys);
                self.change(|world| world.forget_key(key).map(|_| ()));
            }
            22 if self.random.one_in(4) => {
                let partition = self.random.index(PARTITIONS.into()) as u16;
                self.change(|world| world.drop_partition(partition));
            }
            _ => {
                let pause = self.random.range(1..20);
                self.run_for(Duration::from_millis(pause));
            }
        }
    }
}
