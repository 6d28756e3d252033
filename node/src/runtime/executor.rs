//! One core's executor: what it opens, the tasks that it runs, and how it ends.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_lite::future;
use glommio::{Task, spawn_local, timer::Timer};
use quorate_engine::{
    Config as StoreConfig, Sequence, Store, Watermark,
    disk::{Disk, dma::DmaDisk},
};
use quorate_net::{
    frame,
    id::{CoreId, Endpoint},
    message::gossip::NodeIdentity,
    transport::{
        BindError, Connection, Limits, Link, Listener, ListenerOptions, MeshReceiver, MeshSeat, Sharing, Transport,
    },
};

use super::{
    clients,
    peers::{self, Identity},
    server::ServeError,
    shell::{Shell, now_since, random_u64},
    view::View,
};
use crate::{
    config::{Cluster, Config},
    context::Sealer,
    core::LogId,
    start::{Layout, StartError, Started, start},
};

/// Deadlines are looked at this often, and an executor that has parked by mistake is woken.
const TICK: Duration = Duration::from_millis(10);

/// Nor more often than this.
const TICK_MIN: Duration = Duration::from_millis(1);

/// Incomplete requests and unwritten answers of one core, in bytes.
const BUFFERED_BYTES_MAX: usize = 512 << 20;

/// A node has at most 256 cores; connections may overlap for a moment when they are made anew.
const PEER_CONNECTIONS_MAX: usize = 4096;

/// A core with no connection to another node for so long asks whether it still belongs.
const ALONE_AFTER: Duration = Duration::from_secs(2);

/// Between two looks whether there is one.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// A client that connects and says nothing is not kept for longer.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What one core is given to start with.
pub(super) struct CorePlan {
    pub me: Endpoint,
    pub config: Arc<Config>,
    pub store: StoreConfig,
    pub hints: StoreConfig,
    pub data: PathBuf,
    pub cluster: u64,
    pub machine: NodeIdentity,
    pub seat: MeshSeat<Vec<u8>>,
    pub signals: Arc<Signals>,
}

/// What the cores of a node and its main thread tell each other.
#[derive(Default)]
pub(super) struct Signals {
    /// Everything shall stop.
    pub stop: AtomicBool,
    /// Cores that serve.
    pub ready: AtomicU64,
    /// Each core's ticks: one that does not move has stopped.
    pub ticks: Vec<AtomicU64>,
    /// Each core's count of keys.
    pub keys: Vec<AtomicU64>,
    /// Counts the node's client connections, so that each has a number of its own.
    pub clients: AtomicU64,
}

/// Runs one core until it shall stop.
pub(super) async fn run(plan: CorePlan) -> Result<(), ServeError> {
    let signals = plan.signals.clone();
    let result = serve(plan).await;
    if result.is_err() {
        signals.stop.store(true, Ordering::SeqCst);
    }
    result
}

async fn serve(plan: CorePlan) -> Result<(), ServeError> {
    let CorePlan { me, config, store, hints, data, cluster, machine, seat, signals } = plan;
    let _heartbeat = heartbeat();
    let transport = Transport::new(BUFFERED_BYTES_MAX);
    // The ports first: a node that is already running is told apart before its files are touched.
    let ports = Ports::bind(&config, me.core).map_err(ServeError::Bind)?;
    let epoch = Instant::now();
    let started = open(&config, me, (store, hints), data, (cluster, machine), epoch).await?;
    // Before anything is waited for: a store that is closed needs them, also when another core did not start.
    for task in started.tasks {
        spawn_local(task).detach();
    }
    let Some((mesh, receivers)) = future::or(async { Some(seat.join().await) }, stopped(&signals)).await else {
        started.core.store().close().await;
        started.core.hint_store().close().await;
        return Ok(());
    };
    let shell = Shell::new(started.core, epoch, mesh);
    let (objects, hints) = shell.look(|core| (core.store().clone(), core.hint_store().clone()));
    spawn_local(watch_log(shell.clone(), objects, LogId::Objects)).detach();
    spawn_local(watch_log(shell.clone(), hints, LogId::Hints)).detach();
    for receiver in receivers {
        spawn_local(receive(shell.clone(), receiver)).detach();
    }
    let Cluster { partitions, replicas, .. } = config.cluster;
    let identity = Identity { cluster, me, partitions, replicas, machine };
    let links = Links::new(&shell, &transport, &config, identity);
    links.follow_members();
    shell.on_members_changed({
        let links = links.clone();
        move || links.follow_members()
    });
    let _lookout = spawn_local(links.clone().ask_when_alone());
    let serving = ports.serve(&shell, &transport, &config, &signals, identity);
    signals.ready.fetch_add(1, Ordering::SeqCst);
    tick(&shell, &signals).await;

    shell.drive(|core, now, out| core.handle_stop(now, out));
    for task in serving {
        task.cancel().await;
    }
    links.close();
    for connection in transport.connections() {
        connection.close();
    }
    let (store, hints) = shell.look(|core| (core.store().clone(), core.hint_store().clone()));
    store.close().await;
    hints.close().await;
    Ok(())
}

/// What one core listens on.
struct Ports {
    /// Clients that chose this core.
    own: Listener,
    /// Clients that did not choose.
    shared: Listener,
    /// Other nodes' cores.
    peers: Listener,
}

impl Ports {
    fn bind(config: &Config, core: CoreId) -> Result<Self, BindError> {
        let member = config.member();
        let listen = |port: u16, sharing| Listener::bind(SocketAddr::new(member.address, port), sharing);
        // The exclusive ones first: the shared one would be given to a second node too.
        let own = listen(member.core_port + core.0, Sharing::Exclusive)?;
        let peers = listen(member.peer_port + core.0, Sharing::Exclusive)?;
        let shared = listen(member.port, Sharing::Cores)?;
        Ok(Self { own, shared, peers })
    }

    fn serve(
        self,
        shell: &Rc<Shell>,
        transport: &Transport,
        config: &Config,
        signals: &Arc<Signals>,
        identity: Identity,
    ) -> Vec<Task<()>> {
        let options = |limits, connections_max, refusal| ListenerOptions {
            limits,
            connections_max,
            connections_per_address_max: connections_max,
            refusal,
        };
        let accept = shell.clone();
        let for_peers = options(peers::limits(), PEER_CONNECTIONS_MAX, b"".as_slice());
        let mut tasks = vec![spawn_local(
            self.peers.serve(transport.clone(), for_peers, move |_| peers::accepted(&accept, identity)),
        )];
        let client_limits = Limits { first_request_timeout: Some(FIRST_REQUEST_TIMEOUT), ..Limits::default() };
        let view = View::new(shell, transport, config, signals);
        let refusal = b"-ERR max number of clients reached\r\n";
        let for_clients = options(client_limits, config.limits.connections as usize, refusal.as_slice());
        for listener in [self.own, self.shared] {
            let accept = shell.clone();
            let (view, local) = (view.clone(), listener.address());
            let accepted = move |_: &Connection| clients::accepted(&accept, &view, local);
            let serve = listener.serve(transport.clone(), for_clients, accepted);
            tasks.push(spawn_local(serve));
        }
        tasks
    }
}

async fn open(
    config: &Config,
    me: Endpoint,
    (store, hints): (StoreConfig, StoreConfig),
    data: PathBuf,
    (cluster, machine): (u64, NodeIdentity),
    epoch: Instant,
) -> Result<Started<DmaDisk>, ServeError> {
    let failed = |error| ServeError::Start { data: data.clone(), error };
    let disk = DmaDisk::open(&data).await.map_err(|error| failed(StartError::Io(error)))?;
    let layout = Layout { cluster, me, cores: config.member().cores };
    let sealer = Sealer::new(config.cluster.secret.expose());
    let now = || now_since(epoch);
    start(disk, store, hints, layout, config.settings(me), config.belonging(machine), sealer, random_u64(), now)
        .await
        .map_err(failed)
}

/// The connections to the cores that wait for this one to make them: those that come after it.
struct Links {
    shell: Rc<Shell>,
    transport: Transport,
    identity: Identity,
    /// Where the configuration says that nodes listen. They need not belong; one that does says so itself.
    seeds: BTreeMap<Endpoint, SocketAddr>,
    /// Nobody has been connected with this core for a while.
    alone: Cell<bool>,
    open: RefCell<BTreeMap<Endpoint, (SocketAddr, Link)>>,
}

impl Links {
    fn new(shell: &Rc<Shell>, transport: &Transport, config: &Config, identity: Identity) -> Rc<Self> {
        let mut seeds = BTreeMap::new();
        for member in config.cluster.members.iter().filter(|member| member.id != identity.me.node) {
            for core in 0..member.cores {
                let at = SocketAddr::new(member.address, member.peer_port + core);
                seeds.insert(Endpoint::new(member.id, CoreId(core)), at);
            }
        }
        let (shell, transport) = (shell.clone(), transport.clone());
        Rc::new(Self { shell, transport, identity, seeds, alone: Cell::new(false), open: RefCell::default() })
    }

    /// Who is connected with nobody for a while connects to those, too, who should connect to it. It may not belong any
    /// more: then nobody else would tell it.
    async fn ask_when_alone(self: Rc<Self>) {
        let mut last_met = Instant::now();
        loop {
            Timer::new(LOOK_AROUND).await;
            if self.shell.has_peers() {
                last_met = Instant::now();
            }
            let alone = last_met.elapsed() > ALONE_AFTER;
            if alone != self.alone.replace(alone) {
                self.follow_members();
            }
        }
    }

    /// Connects to whom it is not connected to and should be, and the other way round.
    fn follow_members(&self) {
        let me = self.identity.me;
        let mut wanted = self.shell.look(|core| {
            let state = core.membership().state();
            let at = |endpoint: Endpoint| {
                let node = state.node(endpoint.node)?;
                Some((endpoint, SocketAddr::new(node.address, node.peer_port.checked_add(endpoint.core.0)?)))
            };
            state.endpoints().filter_map(at).collect::<BTreeMap<_, _>>()
        });
        // Who does not belong yet asks those that it was told of, whatever their number; so do those who know nobody else.
        let belongs = wanted.contains_key(&me) && wanted.keys().any(|endpoint| endpoint.node != me.node);
        if !belongs {
            wanted.extend(self.seeds.iter().map(|(&seed, &at)| (seed, at)));
        }
        wanted.retain(|endpoint, _| endpoint.node != me.node && (*endpoint > me || !belongs || self.alone.get()));
        let mut open = self.open.borrow_mut();
        open.retain(|endpoint, (at, link)| {
            let keep = wanted.get(endpoint) == Some(at);
            if !keep {
                link.close();
            }
            keep
        });
        drop(open);
        // Nobody can be reached until a connection stands, whoever makes it.
        let all: Vec<Endpoint> = self.shell.look(|core| core.membership().state().endpoints().collect());
        all.into_iter().filter(|peer| peer.node != me.node).for_each(|peer| self.shell.expect_peer(peer));
        let mut open = self.open.borrow_mut();
        for (peer, at) in wanted {
            let asks = belongs && peer < me;
            open.entry(peer)
                .or_insert_with(|| (at, peers::connect(&self.shell, &self.transport, self.identity, peer, at, asks)));
        }
    }

    fn close(&self) {
        self.open.borrow().values().for_each(|(_, link)| link.close());
    }
}

/// Tells the machine what became durable.
async fn watch_log<D: Disk>(shell: Rc<Shell>, store: Store<D>, log: LogId) {
    let mut seen = match store.durable() {
        Watermark::Durable(upto) => upto,
        Watermark::Failed => Sequence::default(),
    };
    loop {
        let watermark = store.advanced(seen).await;
        shell.drive(|core, now, out| core.handle_log(now, log, watermark, out));
        match watermark {
            Watermark::Durable(upto) => seen = upto,
            Watermark::Failed => {
                let reason = store.failure().unwrap_or_else(|| "unknown".into());
                let what = match log {
                    LogId::Objects => "the store",
                    LogId::Hints => "the store of hints",
                };
                say!("core {}: {what} failed and is read-only until the next start: {reason}", shell.me());
                return;
            }
        }
    }
}

/// Takes what another core of this node sends.
async fn receive(shell: Rc<Shell>, receiver: MeshReceiver<Vec<u8>>) {
    let from = Endpoint::new(shell.me().node, receiver.from());
    let mut batch = Vec::new();
    while receiver.receive(&mut batch).await {
        for bytes in batch.drain(..) {
            let frame = frame::decode(&bytes, usize::MAX).ok().flatten().expect("cores of one node send whole frames");
            shell.message(from, frame.access().expect("cores of one node send sound messages"));
        }
    }
}

/// Wakes an executor that has parked by mistake, from before its store is opened until after it is closed. Runs until it is
/// dropped.
pub(super) fn heartbeat() -> Task<()> {
    spawn_local(async {
        loop {
            Timer::new(TICK).await;
        }
    })
}

/// Looks at deadlines until everything shall stop.
async fn tick(shell: &Rc<Shell>, signals: &Signals) {
    let core = usize::from(shell.me().core.0);
    let (mine, keys) = (&signals.ticks[core], &signals.keys[core]);
    while !signals.stop.load(Ordering::Relaxed) {
        Timer::new(shell.until_next_timeout().clamp(TICK_MIN, TICK)).await;
        mine.fetch_add(1, Ordering::Relaxed);
        keys.store(shell.look(|core| core.store().live_keys()), Ordering::Relaxed);
        shell.drive(|core, now, out| core.handle_timeout(now, out));
    }
}

async fn stopped<T>(signals: &Signals) -> Option<T> {
    while !signals.stop.load(Ordering::Relaxed) {
        Timer::new(TICK).await;
    }
    None
}
