//! What commands about the node itself are answered from: the core, its connections, the process.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use quorate_net::{
    id::{CoreId, NodeId},
    message::ClusterMap,
    transport::{ConnectionId, Transport},
};

use super::{clients::WeakResp, executor::Signals, shell::Shell};
use crate::{
    config::Config,
    gateway::{Counters, GatewayLimits, NodeView},
    ring::Ring,
};

/// One core's view of itself and of its node.
pub(super) struct View {
    shell: Rc<Shell>,
    transport: Transport,
    signals: Arc<Signals>,
    /// What clients are told of the ring, and of which.
    map: RefCell<(Rc<Ring>, Rc<ClusterMap>)>,
    cluster: u64,
    replicas: u8,
    value_bytes_max: usize,
    connections_max: u64,
    started: Instant,
    sessions: RefCell<BTreeMap<ConnectionId, WeakResp>>,
    commands: Cell<u64>,
}

impl View {
    pub(super) fn new(shell: &Rc<Shell>, transport: &Transport, config: &Config, signals: &Arc<Signals>) -> Rc<Self> {
        Rc::new(Self {
            shell: shell.clone(),
            transport: transport.clone(),
            signals: signals.clone(),
            map: RefCell::new(shell.look(|core| (core.ring().clone(), Rc::new(core.ring().cluster_map())))),
            cluster: config.cluster_hash(),
            replicas: config.cluster.replicas,
            value_bytes_max: config.limits.value as usize,
            connections_max: config.limits.connections.into(),
            started: Instant::now(),
            sessions: RefCell::default(),
            commands: Cell::new(0),
        })
    }

    pub(super) fn gateway_limits(&self) -> GatewayLimits {
        GatewayLimits::for_values(self.value_bytes_max)
    }

    pub(super) fn next_client(&self) -> u64 {
        self.signals.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn since(&self) -> Duration {
        self.now_unix()
    }

    pub(super) fn remember(&self, connection: ConnectionId, session: WeakResp) {
        self.sessions.borrow_mut().insert(connection, session);
    }

    pub(super) fn forget(&self, connection: ConnectionId) {
        self.sessions.borrow_mut().remove(&connection);
    }

    pub(super) fn count_commands(&self, more: u64) {
        self.commands.set(self.commands.get() + more);
    }
}

impl NodeView for View {
    fn endpoint(&self) -> (NodeId, CoreId) {
        (self.shell.me().node, self.shell.me().core)
    }

    fn cluster_id(&self) -> u64 {
        self.cluster
    }

    fn map(&self) -> Rc<ClusterMap> {
        let ring = self.shell.look(|core| core.ring().clone());
        let (of, map) = &mut *self.map.borrow_mut();
        if !Rc::ptr_eq(of, &ring) {
            (*of, *map) = (ring.clone(), Rc::new(ring.cluster_map()));
        }
        map.clone()
    }

    fn now_unix(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn keys(&self) -> u64 {
        let here: u64 = self.signals.keys.iter().map(|keys| keys.load(Ordering::Relaxed)).sum();
        let nodes = self.map().nodes.len().max(1) as u64;
        here * nodes / u64::from(self.replicas).min(nodes)
    }

    fn counters(&self) -> Counters {
        let statistics = self.transport.statistics();
        let (cpu_user, cpu_system) = cpu_time();
        Counters {
            process_id: std::process::id(),
            uptime: self.started.elapsed(),
            connections: self.sessions.borrow().len() as u64,
            connections_max: self.connections_max,
            connections_accepted: statistics.opened,
            connections_refused: statistics.refused,
            commands: self.commands.get(),
            bytes_read: statistics.bytes_read,
            bytes_written: statistics.bytes_written,
            memory_bytes: resident_bytes(),
            cpu_user,
            cpu_system,
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let (core, queue, peers_down, store) = self
            .shell
            .look(|core| (core.statistics(), core.queue_length(), core.peers_down(), core.store().statistics()));
        vec![
            ("gets", core.gets),
            ("puts", core.puts),
            ("forwarded", core.forwarded),
            ("replicated", core.replicated),
            ("probed", core.probed),
            ("put_loads", core.put_loads),
            ("get_loads", core.get_loads),
            ("divergent_gets", core.divergent),
            ("read_repairs", core.repairs),
            ("failures", core.failures),
            ("overloads", core.overloads),
            ("actor_renewals", core.actor_renewals),
            ("malformed", core.malformed),
            ("queue_length", queue as u64),
            ("peers_down", peers_down as u64),
            ("messages_unsent", self.shell.unsent()),
            ("store_keys", store.keys),
            ("store_index_bytes", store.index_bytes),
            ("store_cache_bytes", store.cache_bytes),
            ("store_live_bytes", store.live_bytes),
            ("store_records", store.records),
            ("store_record_bytes", store.record_bytes),
            ("store_commits", store.commits),
            ("store_log_bytes", store.log_bytes),
            ("store_compaction_bytes", store.compaction_bytes),
            ("store_checkpoint_bytes", store.checkpoint_bytes),
            ("store_prepared_bytes", store.prepared_bytes),
            ("store_disk_reads", store.disk_reads),
            ("store_cache_hits", store.cache_hits),
            ("store_pending_hits", store.pending_hits),
            ("store_segments", store.segments),
            ("store_segments_free", store.segments_free),
            ("store_segment_bytes", store.segment_bytes),
            ("store_queued_bytes", store.queued_bytes),
            ("store_full", store.full),
            ("store_damaged", store.damaged),
        ]
    }

    fn other_clients(&self) -> Vec<String> {
        let sessions: Vec<_> = self.sessions.borrow().values().filter_map(WeakResp::upgrade).collect();
        sessions.iter().filter_map(|session| session.describe(self)).collect()
    }
}

/// The process's memory, as the kernel counts it; 0 when it does not say.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0u64) * 4096
}

/// The process's CPU time in user mode and in the kernel.
fn cpu_time() -> (Duration, Duration) {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The process's name, in parentheses, may hold blanks.
    let mut fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
    // Clock ticks are hundredths of a second on every Linux that runs this.
    let mut next = || fields.next().and_then(|ticks| ticks.parse().ok()).map(|t: u64| Duration::from_millis(t * 10));
    (next().unwrap_or_default(), next().unwrap_or_default())
}
