//! The start of a core: from a directory to a machine that may coordinate.
//!
//! The rule: every start takes a new incarnation, drawn at random and on disk before the first dot is minted with it,
//! whether the end before was clean or not: a directory that was copied back from a backup looks clean too. A directory
//! that was laid out for another cluster, node or number of cores is refused.
//!
//! Shared by the runtime and the simulator. Not here: where the directory is, who runs the tasks.

use std::{fmt, io, rc::Rc};

use quorate_engine::{
    Config as StoreConfig, OpenError, Opened, RecoveryReport, Store, Task,
    disk::{Disk, prefixed::Prefixed},
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::exchange::{HashedKey, Whole},
};

use crate::{
    clock::Now,
    context::Sealer,
    core::{Belonging, Core, HINT_PREFIX, Settings, key_hash},
    membership::state::{ClusterState, StateError},
    summary::ActorTable,
    version::incarnation,
};

/// The blob that says what the directory was laid out for.
const LAYOUT: &str = "layout";

/// The blob that holds who belongs to the cluster and who keeps what.
pub const STATE: &str = "members";

/// The blob that says that the store was filled once: it holds all that was ever written to it, or that its owners had.
pub const FILLED: &str = "filled";

/// The blob that holds the newest incarnation.
const ACTOR: &str = "actor";

/// A core that is ready for events.
pub struct Started<D: Disk> {
    /// The machine.
    pub core: Core<D>,
    /// The stores' tasks, to be run beside it.
    pub tasks: Vec<Task>,
    /// What opening the store of objects found.
    pub report: RecoveryReport,
    /// What opening the store of hints found.
    pub hint_report: RecoveryReport,
    /// The stored incarnation could not be read. It is not needed: each start takes a new one.
    pub actor_bad: bool,
}

/// What a core's directory holds, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The hash of the cluster's name and secret.
    pub cluster: u64,
    /// The core.
    pub me: Endpoint,
    /// How many cores the node has: which partitions lie here follows from it.
    pub cores: u16,
}

/// Why a core did not start. Its directory is as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The store could not be opened.
    Store(OpenError),
    /// The directory could not be read or written.
    Io(io::Error),
    /// The directory belongs to another cluster.
    OtherCluster,
    /// The directory belongs to another node or core.
    OtherOwner(Endpoint),
    /// The directory was laid out for another number of cores.
    OtherCores {
        /// How many.
        stored: u16,
    },
    /// What is stored of the cluster's state cannot be used.
    State(StateError),
    /// Moving the data to another number of cores was begun and not finished.
    Moving,
}

/// Opens the stores in `disk` and makes the core's machine. `random` must be drawn at random for this start; `now` is asked
/// when the machine is made.
///
/// # Errors
/// See [`StartError`].
#[expect(clippy::too_many_arguments, reason = "all that a core is made of")]
pub async fn start<D: Disk>(
    disk: D,
    objects: StoreConfig,
    hints: StoreConfig,
    layout: Layout,
    settings: Settings,
    belonging: Belonging,
    sealer: Sealer,
    random: u64,
    now: impl Fn() -> Now,
) -> Result<Started<D>, StartError> {
    let opened = open(disk.clone(), objects).await?;
    check_layout(&opened.store, layout).await?;
    let hinted = open(Prefixed::new(disk, HINT_PREFIX), hints).await?;
    let actor_bad = opened.store.load_blob(ACTOR).await.is_err();
    let incarnation = renew(&opened.store, now(), random).await.map_err(StartError::Io)?;
    let belonging = match opened.store.load_blob(STATE).await.map_err(StartError::Io)? {
        Some(stored) => Belonging { state: ClusterState::decode(&stored).map_err(StartError::State)?, ..belonging },
        None => belonging,
    };
    let filled = opened.store.load_blob(FILLED).await.map_err(StartError::Io)?.is_some();
    let (objects, hints) = ((opened.store, opened.actors), (hinted.store, hinted.actors));
    let mut core = Core::new(settings, belonging, objects, hints, sealer, incarnation, now().instant);
    if !filled && !planted(Bug::EmptyTrusted) {
        core.handle_unfilled(now());
    }
    let tasks = opened.tasks.into_iter().chain(hinted.tasks).collect();
    Ok(Started { core, tasks, report: opened.report, hint_report: hinted.report, actor_bad })
}

struct OpenedLog<D: Disk> {
    store: Store<D>,
    actors: Rc<ActorTable>,
    tasks: Vec<Task>,
    report: RecoveryReport,
}

async fn open<D: Disk>(disk: D, config: StoreConfig) -> Result<OpenedLog<D>, StartError> {
    let actors = Rc::new(ActorTable::default());
    let Opened { store, tasks, report } = Store::open(disk, config, actors.clone()).await.map_err(StartError::Store)?;
    Ok(OpenedLog { store, actors, tasks, report })
}

/// A new incarnation of a core, that is on disk: before its first dot.
///
/// # Errors
/// When the disk refused.
pub async fn renew<D: Disk>(store: &Store<D>, now: Now, random: u64) -> io::Result<u64> {
    let incarnation = if planted(Bug::IncarnationCounted) {
        let stored = store.load_blob(ACTOR).await.ok().flatten().unwrap_or_default();
        stored.try_into().map_or(1, |stored| u64::from_le_bytes(stored) + 1)
    } else {
        incarnation(now.wall_ms, random)
    };
    store.store_blob(ACTOR, &incarnation.to_le_bytes()).await?;
    Ok(incarnation)
}

/// Stores durably that the store was filled once. Should the disk refuse, it is filled once more after the next start.
pub async fn store_filled<D: Disk>(store: Store<D>) {
    let _ = store.store_blob(FILLED, b"1").await;
}

/// Stores who belongs to the cluster durably. States are stored one after the other.
///
/// # Errors
/// When the disk refused.
pub async fn store_state<D: Disk>(store: &Store<D>, state: &[u8]) -> io::Result<()> {
    store.store_blob(STATE, state).await
}

/// The object that a store's index lists under this key. `None` when there is none, or it cannot be read.
pub async fn fetch<D: Disk>(store: &Store<D>, partition: u16, key: HashedKey) -> Option<Whole> {
    let listed = store.find(partition, &key_hash(key)?)?;
    let record = store.read_listed(partition, &listed).await.ok()??;
    Some(Whole { key: Key::from_encoded(&record.key).ok()?, body: record.body })
}

async fn check_layout<D: Disk>(store: &Store<D>, layout: Layout) -> Result<(), StartError> {
    let Some(stored) = stored_layout(store).await.map_err(StartError::Io)? else {
        return store_layout(store, layout).await.map_err(StartError::Io);
    };
    if stored.cluster != layout.cluster {
        Err(StartError::OtherCluster)
    } else if stored.me != layout.me {
        Err(StartError::OtherOwner(stored.me))
    } else if stored.cores != layout.cores {
        Err(StartError::OtherCores { stored: stored.cores })
    } else {
        Ok(())
    }
}

/// Says for good what the store's directory is laid out for.
///
/// # Errors
/// When the disk refused.
pub async fn store_layout<D: Disk>(store: &Store<D>, layout: Layout) -> io::Result<()> {
    store.store_blob(LAYOUT, &layout.encode()).await
}

/// What the store's directory was laid out for; `None` for a new one.
///
/// # Errors
/// When it cannot be read.
pub async fn stored_layout<D: Disk>(store: &Store<D>) -> io::Result<Option<Layout>> {
    let Some(bytes) = store.load_blob(LAYOUT).await? else { return Ok(None) };
    Layout::decode(&bytes).map(Some).ok_or_else(|| io::Error::other("the layout file is of another format"))
}

impl Layout {
    fn encode(self) -> [u8; 14] {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.me.node.0.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.me.core.0.to_le_bytes());
        bytes[12..].copy_from_slice(&self.cores.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 14] = bytes.try_into().ok()?;
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            cluster: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            me: Endpoint::new(quorate_net::id::NodeId(number(8)), quorate_net::id::CoreId(number(10))),
            cores: number(12),
        })
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "{error}"),
            Self::Io(error) => write!(f, "cannot use the core's directory: {error}"),
            Self::OtherCluster => {
                f.write_str("the directory belongs to a cluster of another name or secret: check `data` in the config")
            }
            Self::OtherOwner(owner) => {
                write!(
                    f,
                    "the directory belongs to node {}, core {}: check `data` in the config",
                    owner.node, owner.core
                )
            }
            Self::State(error) => write!(f, "{error}"),
            Self::Moving => f.write_str("moving the data was not finished; run `quorate rehome --config FILE` again"),
            Self::OtherCores { stored } => {
                write!(f, "the data was laid out for {stored} cores; run `quorate rehome --config FILE` to move it")
            }
        }
    }
}

impl std::error::Error for StartError {}
