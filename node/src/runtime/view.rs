//! What commands about the node itself are answered from: the core, its connections, the process.

mod changes;
mod figures;
mod inquiry;
mod tail;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use glommio::{channels::local_channel, spawn_local, timer::Timer};
use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::{ClusterMap, Operation, Outcome, Reply},
    transport::{ConnectionId, Transport},
};
use serde_json::{Value, json};

use super::{
    clients::{WeakResp, request_for},
    executor::Signals,
    questions::Question,
    shell::Shell,
};
use crate::{
    config::Config,
    core::Core,
    gateway::{Counters, GatewayLimits, Inquiry, NodeView},
    membership::state::Change,
    metrics::{self, CoreFigures, NodeFigures},
    ring::Ring,
};

/// A change that is not on disk by then is told as one that cannot be stored.
const STORED_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(1);

/// One core's view of itself and of its node.
pub(super) struct View {
    shell: Rc<Shell>,
    transport: Transport,
    signals: Arc<Signals>,
    /// What clients are told of the ring, and of which.
    map: RefCell<(Rc<Ring>, Rc<ClusterMap>)>,
    cluster: u64,
    replicas: u8,
    connections_max: u64,
    started: Instant,
    /// The same, since 1970.
    started_unix: Duration,
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
            connections_max: config.limits.connections.into(),
            started: Instant::now(),
            started_unix: unix(),
            sessions: RefCell::default(),
            commands: Cell::new(0),
        })
    }

    pub(super) fn gateway_limits(&self) -> GatewayLimits {
        GatewayLimits::for_values(self.shell.look(|core| core.settings().value_bytes_max))
    }

    pub(super) fn next_client(&self) -> u64 {
        self.signals.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn since(&self) -> Duration {
        unix()
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

    /// Has the machine make a change, and waits until it is on disk: else a crash could undo what an operator relies on.
    pub(super) async fn change(&self, change: Change) -> Result<Value, String> {
        if let Some(refusal) = self.shell.look(|core| core.membership().refusal()) {
            return Err(format!("REFUSED {refusal}"));
        }
        let mut changed = Ok(());
        self.shell.drive("a change of the ring", |core, now, out| changed = core.handle_change(now, change, out));
        changed.map_err(|error| format!("{} {error}", changes::code(&error)))?;
        let until = Instant::now() + STORED_WITHIN;
        while !self.shell.look(Core::is_state_stored) {
            if Instant::now() > until {
                return Err(format!(
                    "NOTSTORED core {} cannot store the change on its disk: no other core is told of it before it can, and it is \
                     forgotten if the node ends before; its log says what is wrong with the disk, `quorate cluster status` \
                     whether the change is made",
                    self.shell.me()
                ));
            }
            Timer::new(LOOK).await;
        }
        Ok(self.shell.look(changes::state))
    }

    /// Asks a coordinator, as a client that waits as long as the node's default says, and is heard of only now.
    pub(super) async fn ask(&self, operation: Operation) -> Outcome {
        let (sender, receiver) = local_channel::new_bounded(1);
        // Who asked may be gone by then.
        let answered = move |reply: Reply| drop(sender.try_send(reply.outcome));
        self.shell.request(self.shell.arrived_at_the_earliest(), request_for(operation), Box::new(answered));
        receiver.recv().await.expect("a request is answered, in time or when its time is over")
    }

    /// Where the nodes of the cluster serve HTTP.
    pub(super) fn http_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let entries = self.shell.look(|core| core.membership().state().entries());
        entries.into_iter().map(|entry| SocketAddr::new(entry.address, entry.http_port))
    }

    /// What keeps the node from serving all that it should, as of about a second ago, core by core.
    pub(super) fn lacking(&self) -> Vec<String> {
        let lacks = |(core, figures): (usize, Option<CoreFigures>)| {
            let Some(figures) = figures else { return Some(format!("core {core} has not told of itself yet")) };
            let (_, lacking) = figures.figures.iter().find(|(name, _)| *name == "partitions_without_quorum")?;
            (*lacking > 0).then(|| format!("core {core}: {lacking} of its partitions lack a quorum"))
        };
        self.core_figures().enumerate().filter_map(lacks).collect()
    }

    /// The figures of the whole node for Prometheus, each core's as of about a second ago.
    pub(super) fn metrics(&self) -> String {
        let (cpu_user, cpu_system) = cpu_time();
        let node = NodeFigures {
            ready: self.lacking().is_empty(),
            clock: unix(),
            started: self.started_unix,
            cpu: cpu_user + cpu_system,
            memory_bytes: resident_bytes(),
            service_level: self.shell.look(|core| core.settings().service_level),
            disks: self.signals.disks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        metrics::text(&node, &self.core_figures().collect::<Vec<_>>())
    }

    /// What this core tells whoever asks for the figures of its node.
    pub(super) fn told(&self) -> CoreFigures {
        let mut told = figures::told(&self.shell);
        let transport = self.transport.statistics();
        told.figures.extend([
            ("commands", self.commands.get()),
            ("connections", self.sessions.borrow().len() as u64),
            ("connections_opened", transport.opened),
            ("connections_closed", transport.closed),
            ("connections_refused", transport.refused),
            ("network_read_bytes", transport.bytes_read),
            ("network_written_bytes", transport.bytes_written),
        ]);
        told
    }

    /// Asks the other cores, in order.
    pub(super) fn ask_others(&self, inquiry: Inquiry) -> Vec<Question> {
        self.signals.questions.ask_others(self.shell.me().core, inquiry)
    }

    /// Answers what other cores asked this one.
    pub(super) fn answer_questions(&self) {
        self.signals.questions.answer(self.shell.me().core, |inquiry| self.inquire(inquiry));
    }

    fn core_figures(&self) -> impl Iterator<Item = Option<CoreFigures>> {
        self.signals.figures.iter().map(|figures| figures.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn repair(&self, partition: Option<u16>) -> Value {
        let shell = self.shell.clone();
        spawn_local(async move {
            // Not within the command: what the machine does may be to answer the very connection that it came from.
            Timer::new(Duration::from_micros(1)).await;
            shell.drive("a repair", |core, now, out| core.handle_repair(now, partition, out));
        })
        .detach();
        self.shell.look(|core| {
            let owned = inquiry::owned(core);
            let asked = owned.iter().filter(|&&own| partition.is_none_or(|partition| partition == own)).count();
            inquiry::from_here(core, json!({"partitions": asked}))
        })
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

    fn is_away(&self, peer: Endpoint) -> bool {
        self.shell.look(|core| core.is_away(peer))
    }

    fn now_unix(&self) -> Duration {
        unix()
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
        figures::of_shell(&self.shell)
    }

    fn inquire(&self, inquiry: Inquiry) -> Result<Value, String> {
        Ok(match inquiry {
            Inquiry::Roots => self.shell.look(inquiry::roots),
            Inquiry::Hints => self.shell.look(inquiry::hints),
            Inquiry::Exchanges => self.shell.look(inquiry::exchanges),
            Inquiry::Members => {
                let now = self.shell.instant();
                self.shell.look(|core| inquiry::members(core, now))
            }
            Inquiry::Cluster => changes::cluster(&self.shell),
            Inquiry::Plan => return self.shell.look(changes::plan),
            Inquiry::Repair(partition) => self.repair(partition),
            Inquiry::Tail => tail::tail(&self.shell),
            Inquiry::Latencies => self.shell.look(tail::latencies),
            Inquiry::Ring => self.shell.look(inquiry::ring),
            Inquiry::Figures => self.shell.look(|core| inquiry::figures(core, &self.figures())),
            Inquiry::Keys => self.shell.look(tail::keys),
            Inquiry::Tasks => self.shell.look(tail::tasks),
            Inquiry::Metrics => json!(self.metrics()),
        })
    }

    fn other_clients(&self) -> Vec<String> {
        let sessions: Vec<_> = self.sessions.borrow().values().filter_map(WeakResp::upgrade).collect();
        sessions.iter().filter_map(|session| session.describe(self)).collect()
    }
}

/// Time since 1970, by the wall clock.
fn unix() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
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
