//! One core's executor: what it opens, the tasks that it runs, and how it ends.

use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
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
    transport::{Connection, Limits, Listener, ListenerOptions, MeshReceiver, MeshSeat, Sharing, Transport},
};

use super::{
    clients,
    http::Http,
    links::Links,
    peers::{self, Identity},
    questions::Questions,
    server::ServeError,
    shares::Shares,
    shell::{Shell, now_since, random_u64},
    stalls::Stalls,
    view::View,
};
use crate::{
    config::{Cluster, Config},
    context::Sealer,
    core::LogId,
    metrics::{CoreFigures, DiskSpace},
    start::{Layout, StartError, Started, start},
};

/// Deadlines are looked at this often, and an executor that has parked by mistake is woken.
const TICK: Duration = Duration::from_millis(10);

/// Nor more often than this.
const TICK_MIN: Duration = Duration::from_millis(1);

/// So many ticks lie between two counts of the keys.
const KEYS_EVERY: u64 = 8;

/// The figures that any core may be asked for are as old as this.
const FIGURES_EVERY: Duration = Duration::from_secs(1);

/// Incomplete requests and unwritten answers of one core, in bytes.
const BUFFERED_BYTES_MAX: usize = 512 << 20;

/// A node has at most 256 cores; connections may overlap for a moment when they are made anew.
const PEER_CONNECTIONS_MAX: usize = 4096;

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
    /// What each core told about itself last.
    pub figures: Vec<Mutex<Option<CoreFigures>>>,
    /// The file systems of the cores' stores.
    pub disks: Mutex<Vec<DiskSpace>>,
    /// For each core, the configuration that holds from now on, until the core has seen it.
    pub changed: Vec<Mutex<Option<Arc<Config>>>>,
    /// Counts the node's client connections, so that each has a number of its own.
    pub clients: AtomicU64,
    /// What cores ask each other for operators.
    pub questions: Questions,
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
    let opening = heartbeat();
    let transport = Transport::new(BUFFERED_BYTES_MAX);
    // The peers' port first: a node that is already running is told apart before its files are touched.
    let peers = listen(&config, config.member().peer_port + me.core.0, Sharing::Exclusive)?;
    let epoch = Instant::now();
    let started = open(&config, me, (store, hints), data, (cluster, machine), epoch).await?;
    // Before anything is waited for: a store that is closed needs them, also when another core did not start.
    let stalls: Rc<Stalls> = Rc::default();
    for task in started.tasks {
        spawn_local(stalls.watched(task.name(), task)).detach();
    }
    let (store, hints) = (started.core.store().clone(), started.core.hint_store().clone());
    let Some((mesh, receivers)) = future::or(async { Some(seat.join().await) }, stopped(&signals)).await else {
        close(&store, &hints).await;
        return Ok(());
    };
    // The clients' ports last: who could connect while the store is read would wait for that, and not go elsewhere.
    let ports = match Ports::bind(&config, me.core, peers) {
        Ok(ports) => ports,
        Err(error) => {
            close(&store, &hints).await;
            return Err(error);
        }
    };
    let shares = Shares::new(config.cores[usize::from(me.core.0)].shares);
    let shell = Shell::new(started.core, epoch, mesh, stalls, shares);
    spawn_local(watch_log(shell.clone(), store.clone(), LogId::Objects)).detach();
    spawn_local(watch_log(shell.clone(), hints.clone(), LogId::Hints)).detach();
    for receiver in receivers {
        spawn_local(receive(shell.clone(), receiver)).detach();
    }
    let Cluster { partitions, replicas, .. } = config.cluster;
    let identity = Identity { cluster, me, partitions, replicas, machine };
    let links = Links::new(&shell, &transport, &config, identity);
    links.follow();
    shell.on_peers_changed({
        let links = links.clone();
        move |connected| match connected {
            Some(peer) => links.connected(peer),
            None => links.follow(),
        }
    });
    let _lookout = spawn_local(links.clone().look_around());
    let view = View::new(&shell, &transport, &config, &signals);
    let http = Http::new(&view);
    let serving = ports.serve(&shell, &transport, &config, &view, identity, &http);
    signals.ready.fetch_add(1, Ordering::SeqCst);
    drop(opening);
    tick(&shell, &signals, &view).await;

    let _closing = heartbeat();
    shell.drive("stopping", |core, now, out| core.handle_stop(now, out));
    for task in serving {
        task.cancel().await;
    }
    http.stop().await;
    links.close();
    for connection in transport.connections() {
        connection.close();
    }
    close(&store, &hints).await;
    Ok(())
}

async fn close(objects: &Store<impl Disk>, hints: &Store<impl Disk>) {
    objects.close().await;
    hints.close().await;
}

fn listen(config: &Config, port: u16, sharing: Sharing) -> Result<Listener, ServeError> {
    Listener::bind(SocketAddr::new(config.member().address, port), sharing).map_err(ServeError::Bind)
}

/// What one core listens on.
struct Ports {
    /// Clients that chose this core.
    own: Listener,
    /// Clients that did not choose.
    shared: Listener,
    /// Other nodes' cores.
    peers: Listener,
    /// For the whole node, on its first core.
    http: Option<Listener>,
}

impl Ports {
    fn bind(config: &Config, core: CoreId, peers: Listener) -> Result<Self, ServeError> {
        let member = config.member();
        // The exclusive ones first: the shared one would be given to a second node too.
        let own = listen(config, member.core_port + core.0, Sharing::Exclusive)?;
        let http = (core.0 == 0).then(|| listen(config, member.http_port, Sharing::Exclusive)).transpose()?;
        let shared = listen(config, member.port, Sharing::Cores)?;
        Ok(Self { own, shared, peers, http })
    }

    fn serve(
        self,
        shell: &Rc<Shell>,
        transport: &Transport,
        config: &Config,
        view: &Rc<View>,
        identity: Identity,
        http: &Rc<Http>,
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
        let refusal = b"-ERR max number of clients reached\r\n";
        let for_clients = options(client_limits, config.limits.connections as usize, refusal.as_slice());
        for listener in [self.own, self.shared] {
            let accept = shell.clone();
            let (view, local) = (view.clone(), listener.address());
            let accepted = move |_: &Connection| clients::accepted(&accept, &view, local);
            let serve = listener.serve(transport.clone(), for_clients, accepted);
            tasks.push(spawn_local(serve));
        }
        tasks.extend(self.http.map(|listener| spawn_local(http.clone().serve(listener))));
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
    let (settings, belonging) = (config.settings(me), config.belonging(machine));
    let started =
        start(disk, store, hints, layout, settings, belonging, sealer, random_u64(), now).await.map_err(failed)?;
    for (log, report) in [(LogId::Objects, &started.report), (LogId::Hints, &started.hint_report)] {
        if report.checkpoints_bad > 0 {
            let (name, bad) = (log.name(), report.checkpoints_bad);
            say!("core {me}: {bad} checkpoints of {name} are damaged and were passed over");
        }
    }
    if started.actor_bad {
        say!("core {me}: the stored actor is damaged; a new one took its place, as at each start");
    }
    Ok(started)
}

/// Tells the machine what became durable.
async fn watch_log<D: Disk>(shell: Rc<Shell>, store: Store<D>, log: LogId) {
    let mut seen = match store.durable() {
        Watermark::Durable(upto) => upto,
        Watermark::Failed => Sequence::default(),
    };
    loop {
        let watermark = store.advanced(seen).await;
        shell.drive("a commit", |core, now, out| core.handle_log(now, log, watermark, out));
        match watermark {
            Watermark::Durable(upto) => seen = upto,
            Watermark::Failed => {
                let reason = store.failure().unwrap_or_else(|| "unknown".into());
                let what = log.name();
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
        let arrived = shell.instant();
        for bytes in batch.drain(..) {
            let frame = frame::decode(&bytes, usize::MAX).ok().flatten().expect("cores of one node send whole frames");
            shell.message(arrived, from, frame.access().expect("cores of one node send sound messages"));
        }
    }
}

/// Wakes an executor that has parked by mistake, while nothing else does so often: its store is opened or closed. Runs until it
/// is dropped.
pub(super) fn heartbeat() -> Task<()> {
    spawn_local(async {
        loop {
            wait(TICK).await;
        }
    })
}

/// Waits for `delay`. An executor may park by mistake although that is over: then the second timer wakes it. Otherwise that
/// one never fires, and costs no waking up.
async fn wait(delay: Duration) {
    let timer = async |delay| {
        Timer::new(delay).await;
    };
    future::or(timer(delay), timer(delay + TICK)).await;
}

/// Looks at deadlines until everything shall stop.
async fn tick(shell: &Rc<Shell>, signals: &Signals, view: &View) {
    let core = usize::from(shell.me().core.0);
    let (mine, keys) = (&signals.ticks[core], &signals.keys[core]);
    let mut told = None;
    while !signals.stop.load(Ordering::Relaxed) {
        let (begun, delay) = (shell.instant(), shell.until_next_timeout().clamp(TICK_MIN, TICK));
        wait(delay).await;
        shell.stalls().late(shell.instant().since(begun).saturating_sub(delay));
        // Keys are counted by looking at all partitions, and who asks for their number does not need that of this moment.
        if mine.fetch_add(1, Ordering::Relaxed).is_multiple_of(KEYS_EVERY) {
            keys.store(shell.look(|core| core.store().live_keys()), Ordering::Relaxed);
        }
        shell.drive("a deadline", |core, now, out| core.handle_timeout(now, out));
        view.answer_questions();
        let changed = signals.changed[core].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(config) = changed {
            take_over(shell, &config);
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= FIGURES_EVERY) {
            told = Some(Instant::now());
            *signals.figures[core].lock().unwrap_or_else(PoisonError::into_inner) = Some(view.told());
        }
    }
}

/// What may change while the node runs is from now on as `config` says.
fn take_over(shell: &Rc<Shell>, config: &Config) {
    let (settings, scrub) = (config.settings(shell.me()), config.cores[usize::from(shell.me().core.0)].store.scrub);
    shell.drive("new settings", |core, _, _| core.handle_settings(&settings));
    let (store, hints) = shell.look(|core| (core.store().clone(), core.hint_store().clone()));
    store.set_scrub_rate(scrub);
    hints.set_scrub_rate(scrub);
}

async fn stopped<T>(signals: &Signals) -> Option<T> {
    while !signals.stop.load(Ordering::Relaxed) {
        Timer::new(TICK).await;
    }
    None
}
