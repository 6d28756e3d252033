//! A whole run: connect, load the keys if asked, warm up and measure, read everything back if asked, report.
//!
//! The rule: servers, generator and machine are sampled at the same two moments that bound the measurement.
//!
//! Not here: the threads' loop (`worker`), figures (`report`).

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    args::{LoadArgs, TargetKind},
    client::Client,
    ledger::Ledger,
    phase::{Phase, Task},
    popularity::Popularity,
    process::{self, Sample, Servers},
    progress::{Goal, Progress},
    protocol::Commands,
    random::{Random, mix},
    recorder::{Recorder, Tick},
    report::{Parts, Report, Second, Setup},
    route::{self, Routes},
    value::Values,
    worker::{Shared, Target, Worker},
    workload::{Keys, Source, Workload},
};

/// Loading gives up when nothing succeeds for this long.
const STUCK: Duration = Duration::from_secs(30);
/// Success is heard of with the ticks, so this late at most.
const HEARD_AFTER: Duration = Duration::from_millis(500);
/// Loading does not wait for each answer.
pub(crate) const LOAD_DEPTH: usize = 8;

/// Why there is no report.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The options make no sense: nothing was sent.
    Usage(String),
    /// The servers cannot be reached, or do not do what is asked: nothing, or only part of the keys, was written.
    Servers(String),
    /// This machine refuses something: a file, a descriptor.
    Machine(String),
    /// It was told to stop before its end.
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Servers(text) | Self::Machine(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted before its end"),
        }
    }
}

impl std::error::Error for Error {}

/// Runs the load, writes the files that were asked for, and reports; once `stop` is set it ends soon, with
/// [`Error::Interrupted`].
///
/// # Errors
/// When it cannot be run; servers that fail on the way are part of the report.
pub(crate) fn run(args: &LoadArgs, stop: &Arc<AtomicBool>) -> Result<Report, Error> {
    run_telling(args, stop, |_| {})
}

/// The same; `begins` is told the first measured moment, as the warm-up begins.
pub(crate) fn run_telling(
    args: &LoadArgs,
    stop: &Arc<AtomicBool>,
    begins: impl FnOnce(Instant),
) -> Result<Report, Error> {
    args.check().map_err(Error::Usage)?;
    let servers = find_servers(args)?;
    let shared = Arc::new(share(args, Arc::clone(stop))?);
    raise_open_files(args.connections * shared.routes.endpoints.len() as u64)?;
    let mut workers = make_workers(args, &shared)?;
    if args.prepare && args.workload != Workload::Load {
        prepare(args, &shared, &mut workers)?;
    }
    let measured = measure(args, &shared, &mut workers, servers.as_ref(), begins)?;
    let verdict = match &shared.ledger {
        Some(ledger) => {
            check(args, &shared, &mut workers)?;
            Some(ledger.verdict())
        }
        None => None,
    };
    let report = Report::new(Parts {
        setup: setup(args, &shared),
        seconds: measured.seconds,
        recorder: measured.recorder,
        generator_cpu: measured.edges.1.cpu - measured.edges.0.cpu,
        load_average: [measured.edges.0.load_average, measured.edges.1.load_average],
        servers: servers.map(|servers| servers.used(&measured.edges.0.servers, &measured.edges.1.servers)),
        series: measured.series,
        verdict,
        stale_allowed: args.allow_stale,
    });
    let cannot = |path: &std::path::Path, error| Error::Machine(format!("cannot write {}: {error}", path.display()));
    if let Some(path) = &args.report {
        report.write_json(path).map_err(|error| cannot(path, error))?;
    }
    if let Some(path) = &args.hdr {
        report.write_histograms(path).map_err(|error| cannot(path, error))?;
    }
    Ok(report)
}

/// Each client may have a connection to each endpoint.
fn raise_open_files(connections: u64) -> Result<(), Error> {
    // What the process needs besides: epoll, standard streams, files.
    let wanted = connections + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        let maximum = limit.maximum.unwrap_or_default();
        return Err(Error::Machine(format!(
            "{connections} connections are wanted and this process may open {maximum} files: fewer --connections, or ulimit -n"
        )));
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| Error::Machine(format!("cannot open so many files: {error}")))
}

fn find_servers(args: &LoadArgs) -> Result<Option<Servers>, Error> {
    match &args.dir {
        Some(dir) => Servers::in_dir(dir).map(Some).map_err(Error::Usage),
        None => Ok((!args.server_pids.is_empty()).then(|| Servers::by_pids(&args.server_pids))),
    }
}

fn share(args: &LoadArgs, stop: Arc<AtomicBool>) -> Result<Shared, Error> {
    let addresses: Result<Vec<SocketAddr>, String> = args.servers.iter().map(|text| route::resolve(text)).collect();
    let addresses = addresses.map_err(Error::Usage)?;
    if addresses.is_empty() {
        return Err(Error::Usage("--servers names no server".to_owned()));
    }
    let routes = match args.target {
        TargetKind::Resp if args.cluster => Routes::from_slots(&addresses, args.timeout).map_err(Error::Servers)?,
        TargetKind::Native => Routes::from_map(&addresses, args.timeout).map_err(Error::Servers)?,
        TargetKind::Resp | TargetKind::Memcached | TargetKind::Etcd => {
            route::check_reachable(&addresses, args.timeout).map_err(Error::Servers)?;
            Routes::direct(addresses)
        }
    };
    // Another run's values must not pass for this one's; all else repeats with the seed.
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = mix(started.as_nanos() as u64 ^ u64::from(std::process::id()));
    Ok(Shared {
        origin: Instant::now(),
        routes,
        target: args.target(),
        options: args.options(),
        clients: args.connections,
        key_prefix: args.key_prefix.clone().into_bytes(),
        values: Values::new(args.seed, args.value_size.clone()),
        keys: Keys::new(args.keys),
        ledger: args.verify.then(|| Ledger::new(number)),
        stop,
    })
}

fn make_workers(args: &LoadArgs, shared: &Arc<Shared>) -> Result<Vec<Worker>, Error> {
    let shape = args.distribution.unwrap_or_else(|| args.workload.shape());
    let popularity = Popularity::new(shape, args.theta, args.hot_keys, args.hot_requests);
    let mix = args.workload.mix(args.get_percent);
    let endpoints = shared.routes.endpoints.len();
    let worker = |thread: usize| {
        let indexes = (thread as u64..args.connections).step_by(args.threads);
        let client =
            |index| Client::new(index, Source::new(Random::new(args.seed, index), mix, popularity.clone()), endpoints);
        Worker::new(Arc::clone(shared), indexes.map(client).collect())
    };
    let workers: std::io::Result<Vec<Worker>> = (0..args.threads).map(worker).collect();
    workers.map_err(|error| Error::Machine(format!("no epoll: {error}")))
}

fn prepare(args: &LoadArgs, shared: &Shared, workers: &mut [Worker]) -> Result<(), Error> {
    let start = shared.now();
    let depth = args.pipeline.max(LOAD_DEPTH);
    let phase = phase(Task::Load, start, u64::MAX, None, depth);
    let progress = Progress::new("load", args.output.is_quiet(), Goal::Operations(args.keys), start, start);
    let watched = Watched { phase, progress, stuck_after: Some(STUCK), pin: &args.pin };
    let (recorder, _) = watched.run(shared, workers, |_| {})?;
    if recorder.operations() < args.keys {
        let errors: Vec<_> =
            recorder.errors.iter().map(|(class, error)| format!("{class}: {}", error.sample)).collect();
        return Err(Error::Servers(format!("loading made no progress for {STUCK:?}; {}", errors.join("; "))));
    }
    Ok(())
}

/// The measured phase and what was sampled at its two edges.
struct Measured {
    seconds: f64,
    recorder: Recorder,
    series: Vec<Second>,
    edges: (Edge, Edge),
}

/// Everything else at one moment.
struct Edge {
    cpu: Duration,
    load_average: f64,
    servers: Vec<Option<Sample>>,
}

impl Edge {
    fn now(servers: Option<&Servers>) -> Self {
        let servers = servers.map(Servers::sample).unwrap_or_default();
        Self { cpu: process::own_cpu(), load_average: process::load_average(), servers }
    }
}

fn measure(
    args: &LoadArgs,
    shared: &Shared,
    workers: &mut [Worker],
    servers: Option<&Servers>,
    begins: impl FnOnce(Instant),
) -> Result<Measured, Error> {
    let nanos = |duration: Duration| duration.as_nanos() as u64;
    let start = shared.now();
    let measure_from = start + nanos(args.warmup_duration());
    begins(shared.origin + Duration::from_nanos(measure_from));
    let duration = args.measured_duration();
    let end = duration.map_or(u64::MAX, |duration| measure_from + nanos(duration));
    let interval = args.rate.map(|rate| 1e9 * args.threads as f64 / rate);
    let task = Task::of(args.workload);
    let mut phase = phase(task, start, end, interval, args.pipeline);
    phase.measure_from = measure_from;
    phase.left = args.operations.map(|count| AtomicI64::new(i64::try_from(count).unwrap_or(i64::MAX)));
    let goal = match (args.operations, duration) {
        (Some(operations), _) => Goal::Operations(operations),
        (None, Some(duration)) => Goal::Time(args.warmup_duration() + duration),
        (None, None) => Goal::Operations(args.keys),
    };
    let name = format!("{:?}", args.workload).to_lowercase();
    let progress = Progress::new(&name, args.output.is_quiet(), goal, start, measure_from);
    let stuck_after = (task == Task::Load).then_some(STUCK);
    let mut first = None;
    let watched = Watched { phase, progress, stuck_after, pin: &args.pin };
    let (recorder, series) = watched.run(shared, workers, |now| {
        if first.is_none() && now >= measure_from {
            first = Some(Edge::now(servers));
        }
    })?;
    // A run that ended before anyone looked at it has no first edge: then the two are the same moment, in this order.
    let first = first.unwrap_or_else(|| Edge::now(servers));
    let edges = (first, Edge::now(servers));
    // A run that was bounded by time lasted that long, even if nothing was answered towards its end.
    let ended = if shared.now() >= end { end } else { recorder.last };
    let seconds = ended.saturating_sub(measure_from).max(1) as f64 / 1e9;
    Ok(Measured { seconds, recorder, series, edges })
}

/// Reads everything back that was written.
fn check(args: &LoadArgs, shared: &Shared, workers: &mut [Worker]) -> Result<(), Error> {
    let ledger = shared.ledger.as_ref().expect("only a run that verifies reads back");
    let keys = ledger.verdict().keys;
    let start = shared.now();
    let phase = phase(Task::Check, start, u64::MAX, None, args.pipeline.max(LOAD_DEPTH));
    let progress = Progress::new("verify", args.output.is_quiet(), Goal::Operations(keys), start, start);
    let stuck_after = Some(args.verify_wait);
    Watched { phase, progress, stuck_after, pin: &args.pin }.run(shared, workers, |_| {})?;
    Ok(())
}

fn phase(task: Task, start: u64, end: u64, interval: Option<f64>, depth: usize) -> Phase {
    let (left, stop) = (None, AtomicBool::new(false));
    Phase { task, start, measure_from: start, end, interval, depth, left, stop }
}

/// A phase with what is shown of it and when it is given up.
struct Watched<'a> {
    phase: Phase,
    progress: Progress,
    stuck_after: Option<Duration>,
    pin: &'a [usize],
}

impl Watched<'_> {
    /// Runs the phase on all threads and gives the sum of what they measured. `at` is called now and then, with the time.
    fn run(
        self,
        shared: &Shared,
        workers: &mut [Worker],
        mut at: impl FnMut(u64),
    ) -> Result<(Recorder, Vec<Second>), Error> {
        let Self { phase, mut progress, stuck_after, pin } = self;
        let phase = &phase;
        let (sender, ticks) = mpsc::channel();
        let count = workers.len();
        let results: Vec<std::io::Result<Recorder>> = thread::scope(|scope| {
            let start = |(number, worker)| spawn(scope, phase, worker, (number, count), pin, sender.clone());
            let threads: Vec<_> = workers.iter_mut().enumerate().map(start).collect();
            drop(sender);
            watch(shared, phase, &ticks, &mut progress, stuck_after, &mut at);
            threads.into_iter().map(|thread| thread.join().expect("a panic aborts")).collect()
        });
        let mut sum = Recorder::new();
        for result in results {
            sum.add(&result.map_err(|error| Error::Machine(format!("epoll failed: {error}")))?);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok((sum, progress.finish()))
    }
}

fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    phase: &'scope Phase,
    worker: &'scope mut Worker,
    (number, count): (usize, usize),
    pin: &[usize],
    ticks: Sender<Tick>,
) -> thread::ScopedJoinHandle<'scope, std::io::Result<Recorder>> {
    let core = (!pin.is_empty()).then(|| core_affinity::CoreId { id: pin[number % pin.len()] });
    scope.spawn(move || {
        if let Some(core) = core
            && !core_affinity::set_for_current(core)
        {
            return Err(std::io::Error::other(format!("this thread cannot be bound to core {}", core.id)));
        }
        worker.run(phase, number as f64 / count as f64, &ticks)
    })
}

/// Listens until all threads are done.
fn watch(
    shared: &Shared,
    phase: &Phase,
    ticks: &Receiver<Tick>,
    progress: &mut Progress,
    stuck_after: Option<Duration>,
    at: &mut impl FnMut(u64),
) {
    let mut moved = (shared.now(), 0);
    loop {
        match ticks.recv_timeout(Duration::from_millis(20)) {
            Ok(tick) => progress.handle(&tick),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = shared.now();
        at(now);
        if progress.operations() > moved.1 {
            moved = (now, progress.operations());
        }
        let stuck = stuck_after.is_some_and(|after| now - moved.0 > (after + HEARD_AFTER).as_nanos() as u64);
        if stuck || shared.stop.load(Ordering::Relaxed) {
            phase.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn setup(args: &LoadArgs, shared: &Shared) -> Setup {
    let shape = args.distribution.unwrap_or_else(|| args.workload.shape());
    let mut requests = Vec::new();
    requests.extend(args.r.map(|r| format!("R={r}")));
    requests.extend(args.w.map(|w| format!("W={w}")));
    requests.extend(args.durability.map(|durability| format!("{durability:?}").to_lowercase()));
    requests.extend((args.strict || args.sloppy).then(|| if args.strict { "strict" } else { "sloppy" }.to_owned()));
    let requests = if requests.is_empty() { "the servers' defaults".to_owned() } else { requests.join(" ") };
    let target = match args.target() {
        Target::Native(_) => "native",
        Target::Resp(Commands::Plain) => "resp (GET, SET)",
        Target::Resp(Commands::Versioned { .. }) => "resp (KV.GET, KV.PUT)",
        Target::Memcached => "memcached",
        Target::Etcd => "etcd (gRPC)",
    };
    let workload = match args.workload {
        Workload::Mix => format!("{} % gets", args.get_percent),
        Workload::A | Workload::B | Workload::C | Workload::D | Workload::F => format!("YCSB {:?}", args.workload),
        Workload::Get | Workload::Put | Workload::Load => format!("{:?}", args.workload).to_lowercase(),
    };
    Setup {
        target: target.to_owned(),
        servers: shared.routes.endpoints.iter().map(ToString::to_string).collect(),
        workload: format!("{workload}, {}", format!("{shape:?}").to_lowercase()),
        keys: args.keys,
        value_bytes: [args.value_size.start, args.value_size.end - 1],
        connections: args.connections,
        pipeline: args.pipeline,
        threads: args.threads,
        rate: args.rate,
        requests,
        seed: args.seed,
    }
}
