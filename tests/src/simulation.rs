//! Running seeds: faults first, then healing, and what must be true in the end.
//!
//! The rule: a seed is one world, and depends on nothing else; a failure names the seed, the command that repeats it, the
//! property, and the last events of the key.
//!
//! Not here: the world, its faults and its checks.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorate_engine::disk::simulated::Random;

use crate::{
    checkers::{Checked, Violation},
    faults::{Class, Hits, Plan},
    history::Status,
    world::{Shape, World},
};

/// A healed cluster is whole and answers within this time, or something hangs.
const HEALING_MAX: Duration = Duration::from_secs(20);

/// Every change of the ring is done within this time.
const SETTLING_MAX: Duration = Duration::from_secs(60);

/// Its replicas are equal within this time.
const CONVERGENCE_MAX: Duration = Duration::from_secs(180);

/// Of so many seeds one is about tombstones that are dropped.
const PATIENT_ONE_IN: u64 = 4;

/// Of 16 seeds these are about answers to earlier lives. No draw decides it, so that all other seeds mean what they did.
const ECHOING: [u64; 2] = [3, 9];
const APART_OF: u64 = 16;

/// And these are about who does not hear of a change.
const DEAF: [u64; 2] = [13, 15];

/// And these about two operators.
const RIVALLED: [u64; 1] = [11];

/// And these about who is alone as soon as it knows what it is to have.
const ALONE: [u64; 1] = [2];

/// There changes of the ring are so many times as far apart, so that each is through before the next.
const RARITY: u32 = 5;

/// Where somebody is away for long faults are so many times as far apart.
const SPARSENESS: u32 = 10;

/// So long a node may be away there.
const ABSENCE_MAX: Duration = Duration::from_secs(4);

/// And so many times as long clients rest and live.
const LEISURE: u32 = 4;

/// So many of the last events of a key are told.
const EVENTS_TOLD: usize = 60;

/// How a seed is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the clients work, in the world's time; drawn per seed up to this.
    pub workload_max: Duration,
    /// Whether there are faults at all.
    pub faults: bool,
    /// Run each seed twice, and compare.
    pub twice: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { workload_max: Duration::from_millis(1_500), faults: true, twice: false }
    }
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// The last events of the key, or of everything.
    pub events: Vec<String>,
    /// Equal in each run of the seed.
    pub trace_hash: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Those that were answered with success.
    pub successes: u64,
    /// How often each class of faults struck.
    pub hits: Hits,
    /// How often a core dropped a tombstone.
    pub dropped: u64,
    /// How often a core shortened a clock.
    pub shortened: u64,
    /// The world's time at the end.
    pub simulated: Duration,
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Those that were answered with success.
    pub successes: u64,
    /// How often each class of faults struck.
    pub hits: Hits,
    /// How often a core dropped a tombstone.
    pub dropped: u64,
    /// How often a core shortened a clock.
    pub shortened: u64,
    /// The worlds' time.
    pub simulated: Duration,
    /// The machine's time.
    pub elapsed: Duration,
    /// The seeds that broke something, by seed.
    pub failures: Vec<Outcome>,
}

thread_local! {
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, options: &Options) -> Outcome {
    name_seed_of_panics();
    RUNNING.set(Some(seed));
    let mut outcome = run_once(seed, options, None);
    if options.twice && outcome.violation.is_none() {
        let again = run_once(seed, options, None);
        if again.trace_hash != outcome.trace_hash {
            let detail = format!("{:x}, then {:x}", outcome.trace_hash, again.trace_hash);
            outcome.violation = Some(Violation { property: "the same seed gives the same run", key: None, detail });
        }
    }
    if let Some(violation) = &outcome.violation {
        // The same once more, in words.
        outcome.events = run_once(seed, options, Some(violation)).events;
    }
    RUNNING.set(None);
    outcome
}

/// Runs seeds from `first` on, on `threads` threads, until `count` of them are done or `limit` is over. `progress` is told
/// each outcome. Stops at the tenth failure.
pub fn run_many(
    first: u64,
    count: u64,
    limit: Option<Duration>,
    threads: usize,
    options: &Options,
    progress: impl Fn(&Outcome) + Sync,
) -> Summary {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    let work = || loop {
        let over = limit.is_some_and(|limit| begin.elapsed() >= limit);
        let failures = summary.lock().unwrap_or_else(PoisonError::into_inner).failures.len();
        let number = next.fetch_add(1, Ordering::Relaxed);
        if over || failures >= 10 || number >= count {
            return;
        }
        let outcome = run_seed(first + number, options);
        progress(&outcome);
        summary.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary.elapsed = begin.elapsed();
    summary
}

fn run_once(seed: u64, options: &Options, explain: Option<&Violation>) -> Outcome {
    let mut random = Random::new(seed);
    let mut shape = Shape::draw(&mut random);
    let mut plan = if options.faults { Plan::draw(&mut random) } else { Plan::none() };
    let mut length = options.workload_max.mul_f64(0.2 + 0.8 * random.unit());
    if plan.about_ring {
        // So that one change is through before the next, and the cores that are left are few enough to be alone at times.
        length *= 2;
        shape.replicas = [2, 3][random.index(2)];
    }
    // About tombstones that are dropped: many deletes, faults that leave room for it, and time after them.
    let patient = seed.is_multiple_of(PATIENT_ONE_IN);
    if patient {
        shape.deletes_one_in = 2;
        match seed / PATIENT_ONE_IN % 4 {
            _ if !options.faults || plan.about_ring => {}
            // Somebody is away while all others agree, and no clients' haste hides it.
            0 => {
                plan.classes = vec![Class::Kill];
                plan.gap *= SPARSENESS;
                plan.absence_max = ABSENCE_MAX;
                shape.cold_keys += 40;
                (shape.leisure, length) = (LEISURE, length.max(options.workload_max / 2) * LEISURE);
            }
            // Nobody is, and what is under way is late.
            2 => plan.classes = vec![Class::Clog, Class::Delay, Class::Duplication, Class::Reordering],
            _ => {}
        }
    }
    if options.faults && ECHOING.contains(&(seed % APART_OF)) {
        // Many clients, since most of them wait for who is dead.
        (plan.classes, plan.about_ring) = (vec![Class::Echo], false);
        (shape.nodes, shape.cores) = (3, 1);
        shape.clients += 24;
        length = length.max(options.workload_max / 2);
    }
    // So few owners that one who does not hear, and one who does, are all that an old quorum and a new one need.
    if options.faults && DEAF.contains(&(seed % APART_OF)) {
        (plan.classes, plan.about_ring) = (vec![Class::Join, Class::Deafness], true);
        (shape.nodes, shape.cores, shape.replicas) = (3, 1, 2);
        shape.leisure = 2;
        plan.ring_changes_max = 2;
        length = options.workload_max;
    }
    if options.faults && RIVALLED.contains(&(seed % APART_OF)) {
        (plan.classes, plan.about_ring) = (vec![Class::Join, Class::Rivalry], true);
        (shape.nodes, shape.cores) = (4, 1);
        plan.ring_changes_max = 2;
        length = options.workload_max / 2;
    }
    // Who gave a partition away, and is to have it back, remembers nothing of what it minted for it.
    if options.faults && ALONE.contains(&(seed % APART_OF)) {
        (plan.classes, plan.about_ring) = (vec![Class::Join, Class::Leave, Class::Solitude], true);
        (shape.nodes, shape.cores, shape.replicas) = (3, 1, 2);
        (shape.hot_keys, shape.clients) = (shape.hot_keys + 12, shape.clients + 8);
        // Each of many who are alone takes what an object may have, and together they must fit a record.
        shape.value_bytes_max = shape.value_bytes_max.min(3_000);
        shape.leisure = LEISURE;
        plan.ring_changes_max = 4;
        plan.gap *= RARITY;
        length = options.workload_max * 2;
    }
    let mut world = World::new(random.next_u64(), &shape, plan);
    if let Some(violation) = explain {
        world.keep_log(violation.key.clone());
    }
    let violation = live(&mut world, length, patient).err();
    let mut hits = world.hits;
    hits.add(&world.network.hits);
    let log = world.log();
    Outcome {
        seed,
        violation,
        events: log[log.len().saturating_sub(EVENTS_TOLD)..].to_vec(),
        trace_hash: world.trace_hash(),
        operations: world.ledger.operations.len() as u64,
        successes: world.ledger.operations.iter().filter(|done| done.status == Status::Ok).count() as u64,
        hits,
        dropped: world.dropped,
        shortened: world.shortened,
        simulated: world.now(),
    }
}

/// A world's whole life: it starts, works under faults, heals until its replicas are equal, forgets what it can when it is
/// patient, restarts, and is audited.
fn live(world: &mut World, length: Duration, patient: bool) -> Checked {
    world.wait_until_whole(HEALING_MAX)?;
    world.begin_workload();
    world.begin_faults();
    world.run_until(world.now() + length)?;
    world.heal()?;
    world.wait_until_settled(SETTLING_MAX)?;
    world.wait_until_whole(HEALING_MAX)?;
    world.wait_until_converged(CONVERGENCE_MAX)?;
    if patient {
        world.run_until(world.now() + 2 * world.settings.forgetting_wait())?;
    }
    world.restart_all();
    world.run_until(world.now() + Duration::from_millis(200))?;
    world.wait_until_whole(HEALING_MAX)?;
    world.wait_until_settled(SETTLING_MAX)?;
    world.wait_until_converged(CONVERGENCE_MAX)?;
    world.audit()
}

fn name_seed_of_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            #[cfg(feature = "planted")]
            if quorate_engine::planted::any_planted() {
                // It is looked for, and told as what was found.
                return;
            }
            if let Some(seed) = RUNNING.get() {
                eprintln!("seed {seed} panics; repeat it with: {}", command(seed));
            }
            before(panic);
        }));
    });
}

fn command(seed: u64) -> String {
    format!("cargo run --release -- sim --seed {seed}")
}

impl Summary {
    /// Adds what came of a seed.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.operations += outcome.operations;
        self.successes += outcome.successes;
        self.hits.add(&outcome.hits);
        self.dropped += outcome.dropped;
        self.shortened += outcome.shortened;
        self.simulated += outcome.simulated;
        if outcome.violation.is_some() {
            self.failures.push(outcome);
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(violation) = &self.violation else {
            return write!(
                f,
                "seed {}: {} of {} operations succeeded, {} faults, trace {:016x}",
                self.seed,
                self.successes,
                self.operations,
                self.hits.total(),
                self.trace_hash
            );
        };
        writeln!(f, "seed {} breaks {violation}", self.seed)?;
        writeln!(f, "repeat it with: {}", command(self.seed))?;
        writeln!(f, "the last events:")?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}
