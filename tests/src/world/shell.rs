//! One core of a simulated node: its disk, its executor, its machine, and what the glommio shell would do for it.
//!
//! The rule: it does what the shell must, and no more: it performs effects and brings back what came of them.
//!
//! Not here: the network and the time (`world`), what must hold (`observer`).

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use ahash::AHashMap;
use quorate_engine::{
    ScrubPosition, Store, Watermark,
    disk::{
        Disk,
        simulated::{Executor, Outcome, Random, SimulatedDisk, Snapshot, Timing},
    },
};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        exchange::{HashedKey, Whole},
        gossip::RingStamp,
    },
};
use quorate_node::{
    clock::Instant,
    core::{Belonging, Core, Loaded, LogId},
    start::{StartError, Started, fetch, renew, start, store_filled, store_state},
};

use super::{
    Clock, Settings,
    observer::{Cause, Holding},
};

/// A task's group in an executor that holds one core alone.
const GROUP: u64 = 0;

/// A step of a scrub reads about so much.
const SCRUB_BYTES: u64 = 64 << 10;

/// How long to wait before a disk that refused a new incarnation is asked again.
const RENEWAL_RETRY: Duration = Duration::from_millis(50);

/// What came of an effect.
pub(super) enum Completion {
    /// A body was read.
    Loaded { load: u64, loaded: Loaded },
    /// An object was read for an exchange.
    Fetched { job: u64, log: LogId, object: Option<Whole> },
    /// A log's watermark moved.
    Watermark(LogId, Watermark),
    /// A new incarnation is on disk.
    Actor(u64),
    /// Who belongs is on disk, or is not.
    Stored(bool),
    /// A partition was dropped.
    Dropped(u16),
}

/// Whether a core runs.
pub(super) enum Process {
    Down,
    Starting(Outcome<Result<Started<SimulatedDisk>, StartError>>),
    Up(Box<Core<SimulatedDisk>>),
    /// It closes its store.
    Stopping(Outcome<()>),
}

/// One core.
pub(super) struct Shell {
    pub(super) me: Endpoint,
    pub(super) disk: SimulatedDisk,
    pub(super) process: Process,
    executor: Executor,
    inbox: Rc<RefCell<VecDeque<Completion>>>,
    /// States of the cluster to be stored, the one under way first.
    states: Rc<RefCell<VecDeque<Vec<u8>>>>,
    /// What each read under way is for.
    pub(super) loads: AHashMap<u64, Cause>,
    /// The peers that it was told are down.
    pub(super) told_down: BTreeSet<Endpoint>,
    /// The keys of which it coordinated puts in this life.
    pub(super) coordinated: BTreeSet<Key>,
    pub(super) holdings: BTreeMap<(LogId, Key), Holding>,
    /// What was durable may be gone: the disk was exchanged, or bytes on it were.
    pub(super) spoiled: bool,
    /// Its disk was emptied since it last came up.
    pub(super) emptied: bool,
    /// What it had on a disk that was emptied, and has not got back; and the cores who had it on theirs when it came up.
    pub(super) lacking: BTreeMap<Key, (u64, Vec<usize>)>,
    /// When it first came up without it, by its disk's time.
    pub(super) lacking_since: Duration,
    /// Once its disk could not read.
    pub(super) read_failed: bool,
    /// How often it had to do something at the moment when it just did.
    pub(super) restless: u32,
    pub(super) snapshot: Option<Snapshot>,
    /// How much later than others it hears of everything.
    pub(super) lag: Duration,
    /// The tables that it was last seen to go by.
    pub(super) stamp: RingStamp,
    /// When it last began to start, by its disk's time.
    pub(super) started: Duration,
    /// When its machine has to be called next, once that was asked: it changes with the machine alone.
    due: Cell<Option<Option<Instant>>>,
    random: Rc<RefCell<Random>>,
}

impl Shell {
    pub(super) fn new(me: Endpoint, random: &mut Random, timing: Timing) -> Self {
        Self {
            me,
            disk: SimulatedDisk::new(random.next_u64(), timing),
            process: Process::Down,
            executor: Executor::new(),
            inbox: Rc::default(),
            states: Rc::default(),
            loads: AHashMap::new(),
            told_down: BTreeSet::new(),
            coordinated: BTreeSet::new(),
            holdings: BTreeMap::new(),
            spoiled: false,
            emptied: false,
            lacking: BTreeMap::new(),
            lacking_since: Duration::ZERO,
            read_failed: false,
            restless: 0,
            snapshot: None,
            lag: Duration::ZERO,
            stamp: RingStamp::default(),
            started: Duration::ZERO,
            due: Cell::new(None),
            random: Rc::new(RefCell::new(random.fork())),
        }
    }

    pub(super) fn state(&self) -> &'static str {
        match self.process {
            Process::Down => "down",
            Process::Starting(_) => "starting",
            Process::Up(_) => "up",
            Process::Stopping(_) => "stopping",
        }
    }

    pub(super) fn core(&self) -> Option<&Core<SimulatedDisk>> {
        match &self.process {
            Process::Up(core) => Some(core),
            _ => None,
        }
    }

    /// When its machine has to be called next, by its node's clock.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let core = self.core()?;
        let due = self.due.get().unwrap_or_else(|| core.next_timeout());
        self.due.set(Some(due));
        due
    }

    pub(super) fn core_mut(&mut self) -> Option<&mut Core<SimulatedDisk>> {
        self.due.set(None);
        match &mut self.process {
            Process::Up(core) => Some(core),
            _ => None,
        }
    }

    /// Begins to start, on what the disk holds.
    pub(super) fn start(&mut self, settings: &Settings, belonging: Belonging, clock: Clock) {
        self.forget_process();
        self.disk = self.disk.reopen();
        self.started = self.disk.now();
        let random = self.random.borrow_mut().next_u64();
        let (disk, me, settings) = (self.disk.clone(), self.me, settings.clone());
        let starting = async move {
            let (store, hints) = (settings.store(me), settings.hint_store(me));
            let (layout, core) = (settings.layout(me), settings.core(me));
            let sealer = settings.sealer.clone();
            let now = || clock.now(disk.now());
            start(disk.clone(), store, hints, layout, core, belonging, sealer, random, now).await
        };
        self.process = Process::Starting(self.executor.spawn_for_result(GROUP, starting));
    }

    /// Begins to end in order.
    pub(super) fn stop(&mut self) {
        let Process::Up(core) = &self.process else { return };
        let (store, hints) = (core.store().clone(), core.hint_store().clone());
        let closing = async move {
            store.close().await;
            hints.close().await;
        };
        self.process = Process::Stopping(self.executor.spawn_for_result(GROUP, closing));
    }

    /// The process is no more. What the disk makes of it is for the caller.
    pub(super) fn forget_process(&mut self) {
        self.process = Process::Down;
        self.executor = Executor::new();
        self.inbox = Rc::default();
        self.states = Rc::default();
        self.loads.clear();
        self.told_down.clear();
        self.coordinated.clear();
        self.stamp = RingStamp::default();
    }

    /// The machine is ready: its store's tasks and the watch over its watermark begin.
    pub(super) fn begin(&mut self, started: Started<SimulatedDisk>) {
        for task in started.tasks {
            self.executor.spawn(GROUP, Box::pin(task));
        }
        self.watch(started.core.store().clone(), LogId::Objects);
        self.watch(started.core.hint_store().clone(), LogId::Hints);
        self.process = Process::Up(Box::new(started.core));
        self.due.set(None);
    }

    fn watch<D: Disk>(&mut self, store: Store<D>, log: LogId) {
        let inbox = self.inbox.clone();
        let watch = async move {
            let tell = |watermark| inbox.borrow_mut().push_back(Completion::Watermark(log, watermark));
            let mut seen = match store.durable() {
                Watermark::Durable(sequence) => sequence,
                Watermark::Failed => return tell(Watermark::Failed),
            };
            loop {
                let watermark = store.advanced(seen).await;
                tell(watermark);
                match watermark {
                    Watermark::Durable(sequence) => seen = sequence,
                    Watermark::Failed => return,
                }
            }
        };
        self.executor.spawn(GROUP, Box::pin(watch));
    }

    /// Lets woken tasks run until all wait. False when none was woken.
    pub(super) fn run(&self) -> bool {
        self.executor.run_until_stalled() > 0
    }

    pub(super) fn completion(&self) -> Option<Completion> {
        self.inbox.borrow_mut().pop_front()
    }

    /// Reads a body for the machine.
    pub(super) fn load(&mut self, load: u64, log: LogId, partition: u16, key: &Key, cause: Cause) {
        let Some(core) = self.core() else { return };
        let (objects, hints) = (core.store().clone(), core.hint_store().clone());
        self.loads.insert(load, cause);
        match log {
            LogId::Objects => self.load_from(objects, load, partition, key),
            LogId::Hints => self.load_from(hints, load, partition, key),
        }
    }

    fn load_from<D: Disk>(&mut self, store: Store<D>, load: u64, partition: u16, key: &Key) {
        let (inbox, wanted) = (self.inbox.clone(), key.clone());
        let reading = async move {
            let loaded = store.read(partition, wanted.encoded()).await;
            inbox.borrow_mut().push_back(Completion::Loaded { load, loaded });
        };
        self.executor.spawn(GROUP, Box::pin(reading));
    }

    /// Reads an object for an exchange.
    pub(super) fn fetch(&mut self, job: u64, log: LogId, partition: u16, key: HashedKey) {
        let Some(core) = self.core() else { return };
        let (objects, hints, inbox) = (core.store().clone(), core.hint_store().clone(), self.inbox.clone());
        let fetching = async move {
            let object = match log {
                LogId::Objects => fetch(&objects, partition, key).await,
                LogId::Hints => fetch(&hints, partition, key).await,
            };
            inbox.borrow_mut().push_back(Completion::Fetched { job, log, object });
        };
        self.executor.spawn(GROUP, Box::pin(fetching));
    }

    /// Stores who belongs, one after the other.
    pub(super) fn store_state(&mut self, state: Vec<u8>) {
        let Some(core) = self.core() else { return };
        self.states.borrow_mut().push_back(state);
        if self.states.borrow().len() > 1 {
            return;
        }
        let (store, inbox, states) = (core.store().clone(), self.inbox.clone(), self.states.clone());
        let storing = async move {
            while let Some(state) = { states.borrow().front().cloned() } {
                let stored = store_state(&store, &state).await;
                states.borrow_mut().pop_front();
                inbox.borrow_mut().push_back(Completion::Stored(stored.is_ok()));
            }
        };
        self.executor.spawn(GROUP, Box::pin(storing));
    }

    /// Stores that the store was filled once.
    pub(super) fn store_filled(&mut self) {
        let Some(store) = self.core().map(|core| core.store().clone()) else { return };
        self.executor.spawn(GROUP, Box::pin(store_filled(store)));
    }

    /// Drops a partition.
    pub(super) fn drop_partition(&mut self, partition: u16) {
        let Some(core) = self.core() else { return };
        let (store, inbox) = (core.store().clone(), self.inbox.clone());
        let dropping = async move {
            // What could not be dropped is looked at again.
            let _ = store.drop_partition(partition).await;
            inbox.borrow_mut().push_back(Completion::Dropped(partition));
        };
        self.executor.spawn(GROUP, Box::pin(dropping));
    }

    /// Reads all that is held from the disk. Says when that is done.
    pub(super) fn scrub(&mut self) -> Rc<Cell<bool>> {
        let done = Rc::new(Cell::new(false));
        if let Some(core) = self.core() {
            let (store, done) = (core.store().clone(), done.clone());
            let scrubbing = async move {
                let mut from = Some(ScrubPosition::default());
                while let Some(at) = from {
                    from = store.scrub_step(at, SCRUB_BYTES).await;
                }
                done.set(true);
            };
            self.executor.spawn(GROUP, Box::pin(scrubbing));
            self.run();
        }
        done
    }

    /// Stores a new incarnation for the machine, however often it takes.
    pub(super) fn renew_actor(&mut self, clock: Clock) {
        let Some(core) = self.core() else { return };
        let (store, inbox, random, disk) =
            (core.store().clone(), self.inbox.clone(), self.random.clone(), self.disk.clone());
        let renewing = async move {
            loop {
                let drawn = random.borrow_mut().next_u64();
                if let Ok(incarnation) = renew(&store, clock.now(disk.now()), drawn).await {
                    return inbox.borrow_mut().push_back(Completion::Actor(incarnation));
                }
                disk.sleep(RENEWAL_RETRY).await;
            }
        };
        self.executor.spawn(GROUP, Box::pin(renewing));
    }
}
