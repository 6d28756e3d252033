//! One node: its cores' executors, each on a thread of its own, from the start to the end.
//!
//! The rule: either all cores serve or none; a core that does not start stops the others, and the node says why.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement};
use quorate_engine::Config as StoreConfig;
use quorate_net::{
    bounds::OBJECT_BYTES_MAX,
    id::{CoreId, Endpoint},
    message::gossip::NodeIdentity,
    transport::{BindError, MeshSeat},
};

use super::{
    executor::{self, CorePlan, Signals},
    questions::Questions,
    rehome::is_unfinished,
    shell::random_u64,
};
use crate::{
    anti_entropy,
    config::{self, Cluster, Config},
    core::{Belonging, Settings},
    hinted_handoff,
    membership::{
        GossipConfig,
        state::{Change, ClusterState, Description, founding_identity},
    },
    metrics::DiskSpace,
    reaper,
    ring::{self, Ring, RingError},
    start::StartError,
};

/// Messages between two cores of the node that may wait.
const MESH_CAPACITY: usize = 1024;

/// Shorter ones can make an executor park for good.
const PREEMPT_TIMER: Duration = Duration::from_millis(10);

/// Replicas that have not answered for so long are stood in for. Far more than an answer takes, far less than a client waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// Hints are read once, in turn.
const HINT_CACHE_BYTES: usize = 1 << 20;

/// The main thread looks at the cores, and at the wish to stop, this often; more often as long as they start.
const WATCH: Duration = Duration::from_millis(50);
const WATCH_START: Duration = Duration::from_millis(10);

/// A core whose tick stands still for so long is reported.
const STALL: Duration = Duration::from_secs(2);

/// How full the disks are is looked at this often.
const DISKS_EVERY: Duration = Duration::from_secs(5);

/// Why a node did not serve, or stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A port could not be opened.
    Bind(BindError),
    /// A core's store could not be opened.
    Start {
        /// The core's directory.
        data: PathBuf,
        /// What is wrong.
        error: StartError,
    },
    /// The members make no ring.
    Ring(RingError),
    /// An executor could not be made: usually a limit on locked memory or on io_uring.
    Executor(String),
}

/// How far a node is, as [`run`] tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// All cores serve.
    Serves,
    /// They shall end.
    Stops,
}

/// Runs a node until `stop` is set; `tell` is told how far it is. `changed` is asked again and again for a configuration that
/// holds from now on; only what [`Config::with_live_keys_of`] takes over may differ in it.
///
/// # Errors
/// When a core did not start; nothing serves then.
pub fn run(
    config: Config,
    stop: &AtomicBool,
    mut tell: impl FnMut(Stage),
    changed: impl FnMut() -> Option<Config>,
) -> Result<(), ServeError> {
    config.ring().map_err(ServeError::Ring)?;
    if is_unfinished(&config) {
        return Err(ServeError::Start { data: config.data, error: StartError::Moving });
    }
    let machine = config.machine().map_err(|error| ServeError::Start { data: config.data.clone(), error })?;
    let config = Arc::new(config);
    let cores = config.member().cores;
    let counters = || (0..cores).map(|_| AtomicU64::new(0)).collect();
    let signals = Arc::new(Signals {
        ticks: counters(),
        keys: counters(),
        figures: (0..cores).map(|_| Mutex::default()).collect(),
        questions: Questions::new(cores),
        changed: (0..cores).map(|_| Mutex::default()).collect(),
        ..Signals::default()
    });
    let mut threads = Vec::new();
    for seat in MeshSeat::all(cores, MESH_CAPACITY) {
        let core = &config.cores[usize::from(seat.core().0)];
        let plan = CorePlan {
            me: Endpoint::new(config.node, seat.core()),
            config: config.clone(),
            store: config.store(seat.core()),
            hints: config.hints(seat.core()),
            data: core.data.clone(),
            cluster: config.cluster_hash(),
            machine,
            seat,
            signals: signals.clone(),
        };
        let executor = LocalExecutorBuilder::new(core.cpu.map_or(Placement::Unbound, Placement::Fixed))
            .name(&format!("core-{}", plan.me.core))
            .io_memory(core.memory)
            .preempt_timer(PREEMPT_TIMER)
            .spin_before_park(core.spin_before_park)
            .spawn(move || executor::run(plan));
        match executor {
            Ok(handle) => threads.push(handle),
            Err(error) => {
                signals.stop.store(true, Ordering::SeqCst);
                return Err(ServeError::Executor(error.to_string()));
            }
        }
    }
    watch(&signals, stop, &config, || tell(Stage::Serves), changed);
    tell(Stage::Stops);
    let mut result = Ok(());
    for handle in threads {
        let ended = match handle.join() {
            Ok(ended) => ended,
            Err(error) => Err(ServeError::Executor(error.to_string())),
        };
        // The first is the cause; the others stopped because of it.
        result = result.and(ended);
    }
    result
}

/// Passes on the wish to stop and what has changed, says when all cores serve, looks at the disks, and reports a core that stands
/// still.
fn watch(
    signals: &Signals,
    stop: &AtomicBool,
    config: &Config,
    ready: impl FnOnce(),
    mut changed: impl FnMut() -> Option<Config>,
) {
    let mut ready = Some(ready);
    let mut disks_seen = None;
    let mut seen: Vec<(u64, Instant)> = signals.ticks.iter().map(|_| (0, Instant::now())).collect();
    while !signals.stop.load(Ordering::SeqCst) {
        if stop.load(Ordering::SeqCst) {
            signals.stop.store(true, Ordering::SeqCst);
        }
        if signals.ready.load(Ordering::SeqCst) == u64::from(config.member().cores)
            && let Some(ready) = ready.take()
        {
            ready();
        }
        if ready.is_none()
            && let Some(config) = changed().map(Arc::new)
        {
            for slot in &signals.changed {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.clone());
            }
        }
        if ready.is_none() && disks_seen.is_none_or(|at: Instant| at.elapsed() >= DISKS_EVERY) {
            disks_seen = Some(Instant::now());
            if let Ok(seen) = disks(config) {
                *signals.disks.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            }
        }
        for (core, (tick, (last, since))) in signals.ticks.iter().zip(&mut seen).enumerate() {
            let now = tick.load(Ordering::Relaxed);
            if now != *last {
                (*last, *since) = (now, Instant::now());
            } else if ready.is_none() && since.elapsed() > STALL {
                say!("core {core} has not moved for {:?}", since.elapsed());
                *since = Instant::now();
            }
        }
        thread::sleep(if ready.is_some() { WATCH_START } else { WATCH });
    }
}

/// The file system that each core's store is in.
fn disks(config: &Config) -> rustix::io::Result<Vec<DiskSpace>> {
    let space = |core: &config::Core| {
        let told = rustix::fs::statvfs(&core.data)?;
        Ok(DiskSpace { bytes: told.f_blocks * told.f_frsize, free_bytes: told.f_bavail * told.f_frsize })
    };
    config.cores.iter().map(space).collect()
}

impl Config {
    /// The ring of the configured members.
    ///
    /// # Errors
    /// When they make none.
    pub fn ring(&self) -> Result<Ring, RingError> {
        let member = |member: &config::Member| ring::Member {
            node: quorate_net::message::MappedNode {
                id: member.id,
                address: member.address.to_string(),
                cores: member.cores,
                port: member.port,
                core_port: member.core_port,
            },
            rack: member.rack.clone(),
            weight: member.weight,
        };
        let members = self.cluster.members.iter().map(member).collect();
        Ring::new(self.cluster.partitions, self.cluster.replicas, members)
    }

    /// What a core of this node has to know.
    #[must_use]
    pub fn settings(&self, me: Endpoint) -> Settings {
        Settings {
            me,
            read_quorum: self.cluster.read_quorum,
            write_quorum: self.cluster.write_quorum,
            timeout: self.limits.timeout,
            patience: PATIENCE,
            value_bytes_max: self.limits.value as usize,
            object_bytes_max: self.limits.object as usize,
            siblings_max: self.limits.siblings.into(),
            operations_max: self.limits.operations as usize,
            service_level: self.service_level.p999,
            admission: self.service_level.admission,
            partitions: self.cluster.partitions,
            replicas: self.cluster.replicas,
            gossip: GossipConfig::default(),
            exchanges: anti_entropy::Settings::typical(me),
            hints: hinted_handoff::Settings::typical(),
            reaper: reaper::Settings::typical(me),
        }
    }

    /// What this node knows of its cluster from its configuration.
    #[must_use]
    pub fn belonging(&self, machine: NodeIdentity) -> Belonging {
        let identity = |id| if id == self.node { machine } else { founding_identity(&self.cluster.name, id) };
        let description = |member: &config::Member| member.description(identity(member.id));
        let Cluster { partitions, replicas, ref members, .. } = self.cluster;
        let state = if self.join {
            // It asks to join; who belongs it learns from those that it is told of.
            let mut alone = ClusterState::default();
            alone.change(Change::Join(self.description(machine))).expect("nobody else is known");
            alone
        } else {
            let state = ClusterState::founded(partitions, replicas, members.iter().map(description).collect());
            state.expect("the ring was made before")
        };
        let others = members.iter().filter(|member| member.id != self.node);
        let cores = |member: &config::Member| {
            let id = member.id;
            (0..member.cores).map(move |core| Endpoint::new(id, CoreId(core)))
        };
        Belonging { identity: machine, state, seeds: others.flat_map(cores).collect() }
    }

    /// What this node is.
    pub(super) fn description(&self, machine: NodeIdentity) -> Description {
        self.member().description(machine)
    }

    /// Which machine this is. A founder's follows from the cluster's name; one that joins later draws it once, and keeps it
    /// with its data.
    fn machine(&self) -> Result<NodeIdentity, StartError> {
        if !self.join {
            return Ok(founding_identity(&self.cluster.name, self.node));
        }
        identity_in(&self.data).map_err(StartError::Io)
    }

    /// Tells clusters apart: equal on nodes with the same name and secret.
    #[must_use]
    pub fn cluster_hash(&self) -> u64 {
        let secret = self.cluster.secret.expose();
        let key = blake3::derive_key("quorate 2026 identity of clusters", secret.as_bytes());
        let hash = blake3::keyed_hash(&key, self.cluster.name.as_bytes());
        u64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
    }

    pub(super) fn store(&self, core: CoreId) -> StoreConfig {
        let store = &self.cores[usize::from(core.0)].store;
        // Keys hash alike on all nodes of a cluster, and not as an outsider could foresee.
        let mut config = StoreConfig::new(random_u64(), self.cluster.partitions, self.cluster_hash());
        config.segment_bytes = store.segment;
        if let Some(capacity) = store.capacity {
            config.segments_max = u32::try_from(capacity / u64::from(store.segment)).unwrap_or(u32::MAX);
        }
        config.commit = match store.commit {
            config::Commit::Dsync => quorate_engine::Commit::Dsync,
            config::Commit::Fdatasync => quorate_engine::Commit::Fdatasync,
        };
        config.commits_in_flight = store.commits_in_flight.into();
        // What writers on several nodes make together may be larger than what each of them was allowed: replicas take what
        // there is room for.
        config.body_bytes_max = (store.segment / 3).min(OBJECT_BYTES_MAX as u32) as usize;
        config.queue_bytes_max = store.queue as usize;
        config.cache_bytes = store.cache as usize;
        config.checkpoint_log_bytes = store.checkpoint_every;
        config.scrub_bytes_per_second = store.scrub;
        config
    }

    /// The store of hints: as the other, but most of the time it is empty.
    pub(super) fn hints(&self, core: CoreId) -> StoreConfig {
        let mut config = self.store(core);
        config.segments_ready = 1;
        config.cache_bytes = HINT_CACHE_BYTES;
        config
    }
}

impl config::Member {
    fn description(&self, identity: NodeIdentity) -> Description {
        Description {
            identity,
            id: self.id,
            address: self.address,
            cores: self.cores,
            port: self.port,
            core_port: self.core_port,
            peer_port: self.peer_port,
            http_port: self.http_port,
            rack: self.rack.clone(),
            weight_thousandths: (self.weight * 1000.0).round() as u32,
        }
    }
}

/// The identity that is kept in a node's directory, drawn and stored durably if there is none.
fn identity_in(data: &Path) -> io::Result<NodeIdentity> {
    let path = data.join("identity");
    match fs::read_to_string(&path) {
        Ok(text) => {
            u128::from_str_radix(text.trim(), 16).ok().filter(|&number| number != 0).map(NodeIdentity).ok_or_else(
                || io::Error::other(format!("{} holds no identity: empty the directory to join anew", path.display())),
            )
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let drawn = NodeIdentity((u128::from(random_u64()) << 64 | u128::from(random_u64())).max(1));
            fs::create_dir_all(data)?;
            let temporary = data.join("identity.tmp");
            let mut file = fs::File::create(&temporary)?;
            writeln!(file, "{drawn}")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(data)?.sync_all()?;
            Ok(drawn)
        }
        Err(error) => Err(error),
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => write!(f, "{error}"),
            Self::Start { data, error } => write!(f, "{}: {error}", data.display()),
            Self::Ring(error) => write!(f, "the members make no ring: {error:?}"),
            Self::Executor(error) => write!(f, "a core's executor did not start: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}
