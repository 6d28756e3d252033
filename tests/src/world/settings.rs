//! What a simulated cluster is configured to.
//!
//! Not here: faults (`faults`), what clients ask for (`workload`).

use std::{net::Ipv4Addr, rc::Rc, time::Duration};

use quorate_engine::{Commit, Config as StoreConfig, disk::simulated::Random};
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::gossip::NodeIdentity,
};
use quorate_node::{
    anti_entropy,
    context::Sealer,
    core::{AWAY, Belonging, Settings as CoreSettings},
    hinted_handoff,
    membership::{
        GossipConfig,
        state::{Change, ClusterState, Description, founding_identity},
    },
    reaper,
    ring::Ring,
    start::Layout,
};

/// The cluster's name.
const CLUSTER: &str = "simulated";

/// So long a message is under way at most: for 500 ms in a clogged path, then with a delay of 12 times 20 ms, and as long
/// as 400 ms more when it is a double, and to a core that is 80 ms slow. What sends an older version is a request, or a
/// repair before its deadline; so after this and that deadline none is under way.
const UNDER_WAY_MAX: Duration = Duration::from_millis(1_220);

/// How large a world is, and what its clients do.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes.
    pub nodes: u16,
    /// Cores of each.
    pub cores: u16,
    /// N.
    pub replicas: u8,
    /// Clients.
    pub clients: usize,
    /// Keys that everybody writes.
    pub hot_keys: u64,
    /// Keys that are rarely met.
    pub cold_keys: u64,
    /// The most bytes in a value.
    pub value_bytes_max: u64,
    /// Of 1000 operations so many are gets.
    pub gets_permille: u32,
    /// Of so many puts one deletes.
    pub deletes_one_in: u64,
    /// Clients rest so many times as long.
    pub leisure: u32,
}

/// What is configured.
#[derive(Clone)]
pub struct Settings {
    /// The ring that the cluster begins with. Who owns what later is for the cores to say: only what never changes is
    /// taken from here.
    pub ring: Rc<Ring>,
    /// Seals contexts; the checkers open them with it.
    pub sealer: Sealer,
    /// How long a request waits at most.
    pub timeout: Duration,
    patience: Duration,
    cluster: u64,
    cores: u16,
    store: StoreConfig,
    operations_max: usize,
    service_level: Duration,
    siblings_max: usize,
    founded: ClusterState,
    gossip: GossipConfig,
    exchanges: anti_entropy::Settings,
    hints: hinted_handoff::Settings,
    reaper: reaper::Settings,
}

impl Shape {
    /// Draws a shape.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        let nodes = [3, 3, 3, 4, 5][random.index(5)];
        Self {
            nodes,
            cores: if random.one_in(3) { 2 } else { 1 },
            replicas: if random.one_in(8) { 2 } else { 3 },
            clients: random.range(2..9) as usize,
            hot_keys: random.range(1..6),
            cold_keys: random.range(0..40),
            value_bytes_max: [24, 200, 3_000, 40_000][random.index(4)],
            gets_permille: random.range(100..700) as u32,
            deletes_one_in: 6,
            leisure: 1,
        }
    }
}

impl Settings {
    pub(super) fn new(shape: &Shape, random: &mut Random) -> Self {
        let partitions = 64;
        let description = |node| description(NodeId(node), founding_identity(CLUSTER, NodeId(node)), shape.cores);
        let nodes = (1..=shape.nodes).map(description).collect();
        let founded = ClusterState::founded(partitions, shape.replicas, nodes).expect("a plain ring");
        let ring = founded.ring().expect("it has one");
        let mut store = StoreConfig::new(0, partitions, random.next_u64());
        store.segment_bytes = 1 << 20;
        store.segments_max = random.range(12..24) as u32;
        store.segments_ready = random.range(1..3) as usize;
        store.commit = if random.one_in(3) { Commit::Fdatasync } else { Commit::Dsync };
        store.commits_in_flight = random.range(1..5) as usize;
        store.frame_bytes_max = 64 << 10;
        // Replicas take what concurrent writers, each within the limit, make together.
        store.body_bytes_max = 320 << 10;
        store.queue_bytes_max = 1 << 20;
        if shape.value_bytes_max <= 200 {
            // Segments that are soon full, so that they are recycled and compacted while faults strike.
            (store.segment_bytes, store.body_bytes_max) = (256 << 10, 80 << 10);
        }
        // Often too small for anything, so that reads meet the disk.
        store.cache_bytes = if random.one_in(2) { 1 << 20 } else { 1 << 10 };
        store.checkpoint_log_bytes = random.range(32..1024) << 10;
        store.background_pause = Duration::from_micros(random.range(10..1_000));
        store.full_retry = Duration::from_millis(50);
        store.scrub_bytes_per_second = [0, 1 << 20, 1 << 24][random.index(3)];
        store.scrub_pass_min = Duration::ZERO;
        let timeout = Duration::from_millis(random.range(50..400));
        Self {
            ring: Rc::new(ring),
            sealer: Sealer::new("the secret of a simulated cluster"),
            timeout,
            patience: Duration::from_millis(random.range(2..150)),
            cluster: 1,
            cores: shape.cores,
            store,
            operations_max: if random.one_in(8) { random.range(4..12) as usize } else { 1024 },
            service_level: Duration::from_millis(random.range(1..100)),
            siblings_max: if random.one_in(4) { random.range(2..6) as usize } else { 64 },
            founded,
            gossip: if random.one_in(3) { GossipConfig::default() } else { fast_gossip(random.range(20..100)) },
            exchanges: anti_entropy::Settings {
                interval: Duration::from_millis(random.range(500..5_000)),
                gap: Duration::from_micros(random.range(100..3_000)),
                confirm: Duration::from_millis(random.range(20..300)),
                timeout: Duration::from_millis(random.range(50..400)),
                tries_max: random.range(1..4) as u8,
                retry: Duration::from_millis(random.range(50..1_000)),
                exchanges_max: random.range(1..64) as usize,
                exchanges_per_peer_max: random.range(1..32) as usize,
                bytes_max: random.range(1 << 10..1 << 20),
                bytes_per_second: random.range(1 << 17..1 << 25),
                jobs_max: random.range(1..64) as usize,
                ..anti_entropy::Settings::typical(Endpoint::new(NodeId(0), CoreId(0)))
            },
            hints: hinted_handoff::Settings {
                hints_max: random.range(1..64) as usize,
                hints_per_primary_max: random.range(1..32) as usize,
                bytes_max: random.range(1 << 10..1 << 20),
                bytes_per_second: random.range(1 << 17..1 << 25),
                gap: Duration::from_micros(random.range(0..3_000)),
                timeout: Duration::from_millis(random.range(50..400)),
                retry: Duration::from_millis(random.range(50..400)),
                acknowledged_max: random.range(1..100) as usize,
            },
            reaper: reaper::Settings {
                wait: UNDER_WAY_MAX + timeout,
                timeout: Duration::from_millis(random.range(50..400)),
                // Where much is deleted, so soon that what was just replaced is still under way.
                interval: Duration::from_millis(random.range(300..2_000))
                    / if shape.deletes_one_in < 6 { 10 } else { 1 },
                gap: Duration::from_micros(random.range(100..3_000)),
                batches_max: random.range(1..64) as usize,
                ..reaper::Settings::typical(Endpoint::new(NodeId(0), CoreId(0)))
            },
        }
    }

    /// No core compares anything with another: what reads and writes repair shows by itself.
    pub fn stop_exchanges(&mut self) {
        self.exchanges.exchanges_max = 0;
    }

    /// Whatever happens, the others soon know of it.
    pub(super) fn gossip_fast(&mut self) {
        self.gossip = fast_gossip(20);
    }

    /// No request meets a limit of how many there may be.
    pub(super) fn loosen_limits(&mut self) {
        (self.operations_max, self.siblings_max) = (1024, 64);
    }

    /// Who is away is waited for so long by a copy that is healed.
    #[must_use]
    pub fn away(&self) -> Duration {
        AWAY * self.patience
    }

    /// Between the two times that all must agree before anything is forgotten.
    #[must_use]
    pub fn forgetting_wait(&self) -> Duration {
        self.reaper.wait
    }

    /// The most requests under way that a core takes.
    #[must_use]
    pub fn operations_max(&self) -> usize {
        self.operations_max
    }

    /// Whether a commit ends with a sync; else each write is durable by itself.
    #[must_use]
    pub fn commits_by_sync(&self) -> bool {
        self.store.commit == Commit::Fdatasync
    }

    pub(super) fn store(&self, me: Endpoint) -> StoreConfig {
        let mut store = self.store.clone();
        store.store = u64::from(me.node.0) << 16 | u64::from(me.core.0);
        store
    }

    pub(super) fn hint_store(&self, me: Endpoint) -> StoreConfig {
        let mut hints = self.store(me);
        hints.store |= 1 << 32;
        hints.segments_ready = 1;
        hints
    }

    pub(super) fn layout(&self, me: Endpoint) -> Layout {
        Layout { cluster: self.cluster, me, cores: self.cores }
    }

    pub(super) fn core(&self, me: Endpoint) -> CoreSettings {
        CoreSettings {
            me,
            read_quorum: 2,
            write_quorum: 2,
            timeout: self.timeout,
            patience: self.patience,
            value_bytes_max: 64 << 10,
            object_bytes_max: 100 << 10,
            siblings_max: self.siblings_max,
            operations_max: self.operations_max,
            service_level: self.service_level,
            admission: true,
            partitions: self.ring.partitions(),
            replicas: self.ring.replicas(),
            gossip: self.gossip,
            exchanges: anti_entropy::Settings { me, ..self.exchanges.clone() },
            hints: self.hints.clone(),
            reaper: reaper::Settings { me, ..self.reaper.clone() },
        }
    }

    /// What a node of the first hour knows of the cluster.
    pub(super) fn founder(&self, node: NodeId) -> Belonging {
        let seeds = self.founded.endpoints().filter(|endpoint| endpoint.node != node).collect();
        Belonging { identity: founding_identity(CLUSTER, node), state: self.founded.clone(), seeds }
    }

    /// What a node knows that joins later.
    pub(super) fn joiner(&self, node: NodeId, identity: NodeIdentity, seeds: Vec<Endpoint>) -> Belonging {
        let mut state = ClusterState::default();
        state.change(Change::Join(description(node, identity, self.cores))).expect("nobody else is known");
        Belonging { identity, state, seeds }
    }

    /// Who a node of the first hour is.
    pub(super) fn founding_identity(node: NodeId) -> NodeIdentity {
        founding_identity(CLUSTER, node)
    }
}

fn description(id: NodeId, identity: NodeIdentity, cores: u16) -> Description {
    Description {
        identity,
        id,
        address: Ipv4Addr::new(10, 0, 0, id.0 as u8).into(),
        cores,
        port: 7400,
        core_port: 7401,
        peer_port: 7500,
        http_port: 7600,
        rack: String::new(),
        weight_thousandths: 1000,
    }
}

/// So that a change of the ring gets somewhere in the short life of a world.
fn fast_gossip(probe_timeout_ms: u64) -> GossipConfig {
    let probe_timeout = Duration::from_millis(probe_timeout_ms);
    GossipConfig { probe_interval: probe_timeout * 3, probe_timeout, ..GossipConfig::default() }
}
