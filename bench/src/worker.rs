//! One thread's loop: takes up operations when they are due, sends them, and judges what comes back. It sleeps in epoll
//! and nowhere else; many clients share it.
//!
//! The rule: an operation's latency counts from the moment it was meant to be sent, however late the generator or the
//! server were. Every operation that is taken up ends once: completed, or failed under one class.
//!
//! Not here: bytes (`connection`, `protocol`), what is asked for (`client`), sums and tables (`report`).

mod answers;

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::Instant,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventFlags},
    },
};

use crate::{
    client::{Client, Operation},
    connection::{Broken, Connection, Lost, READ_BYTES},
    ledger::Ledger,
    phase::{Phase, Task},
    protocol::{Commands, Etcd, Failed, Memcached, Native, Protocol, RequestOptions, Resp, Step},
    recorder::{Recorder, Tick},
    route::Routes,
    value::{Recipe, Stamp, Values},
    workload::{Keys, Kind},
};

const EVENTS_MAX: usize = 256;
const MILLISECOND: u64 = 1_000_000;
/// A server that refused is asked again after this, doubled for each time that it refuses again.
const BACKOFF_NS: u64 = 50 * MILLISECOND;
const BACKOFF_MAX_NS: u64 = 2_000 * MILLISECOND;
/// A server that did not answer in time is left alone at least for this.
const BACKOFF_TIMEOUT_NS: u64 = 500 * MILLISECOND;
/// Phases that try again wait this long first.
const RETRY_NS: u64 = 100 * MILLISECOND;

/// What all threads share, the same for the whole run.
pub(crate) struct Shared {
    pub(crate) origin: Instant,
    pub(crate) routes: Routes,
    pub(crate) target: Target,
    pub(crate) options: RequestOptions,
    pub(crate) clients: u64,
    pub(crate) key_prefix: Vec<u8>,
    pub(crate) values: Values,
    pub(crate) keys: Keys,
    pub(crate) ledger: Option<Ledger>,
    /// Set from outside to end the run before its time.
    pub(crate) stop: Arc<AtomicBool>,
}

/// How the servers are spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Resp(Commands),
    Native(Native),
    Memcached,
    Etcd,
}

impl Shared {
    /// Nanoseconds of the run.
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn timeout_ns(&self) -> u64 {
        self.options.timeout.as_nanos() as u64
    }

    fn protocol(&self) -> Protocol {
        match &self.target {
            Target::Resp(commands) => Protocol::Resp(Resp::new(commands.clone())),
            Target::Native(native) => Protocol::Native(native.clone()),
            Target::Memcached => Protocol::Memcached(Memcached),
            Target::Etcd => Protocol::Etcd(Box::new(Etcd::new())),
        }
    }
}

/// What this thread knows of one endpoint.
#[derive(Clone, Copy, Default, Debug)]
struct Health {
    /// Since its last answer.
    failures: u32,
    down_until: u64,
    /// One client tries it; the others leave it alone until it has answered, or this long.
    tried_until: u64,
}

impl Health {
    /// Whether a request may go there now.
    fn permits(&self, now: u64) -> bool {
        self.failures == 0 || now >= self.down_until.max(self.tried_until)
    }
}

/// An operation that waits for an endpoint to come back, or for its next try.
struct Waiting {
    client: usize,
    operation: Operation,
    not_before: u64,
}

/// One thread's clients and all that they need.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    clients: Vec<Client>,
    health: Vec<Health>,
    /// Clients that may begin an operation, once for each that they may begin.
    free: VecDeque<usize>,
    waiting: VecDeque<Waiting>,
    /// Connections with something to send.
    unsent: Vec<(usize, usize)>,
    /// Operations whose next request goes out after the answers at hand were read.
    next_steps: Vec<(usize, Operation)>,
    /// Operations that were taken up and have not ended.
    begun: usize,
    /// The moment of the next operation in an open loop.
    due: f64,
    ended: bool,
    opened: u64,
    scratch: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    recorder: Recorder,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, clients: Vec<Client>) -> std::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            health: vec![Health::default(); shared.routes.endpoints.len()],
            shared,
            clients,
            free: VecDeque::new(),
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            next_steps: Vec::new(),
            begun: 0,
            due: 0.0,
            ended: false,
            opened: 0,
            scratch: vec![0; READ_BYTES],
            key: Vec::new(),
            value: Vec::new(),
            recorder: Recorder::new(),
        })
    }

    /// Does one phase. `offset` staggers the threads of an open loop: 0..1 of an interval.
    ///
    /// # Errors
    /// When epoll fails, which nothing outside the machine can cause.
    pub(crate) fn run(&mut self, phase: &Phase, offset: f64, ticks: &Sender<Tick>) -> std::io::Result<Recorder> {
        // Timers are late by 50 µs otherwise.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        self.free = (0..phase.depth).flat_map(|_| 0..self.clients.len()).collect();
        self.clients.iter_mut().for_each(Client::rewind);
        self.due = phase.start as f64 + phase.interval.unwrap_or(0.0) * offset;
        self.ended = false;
        let sweep_every = (self.shared.timeout_ns() / 20).clamp(MILLISECOND, 20 * MILLISECOND);
        let mut next_sweep = phase.start;
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now = self.shared.now();
            if now >= next_sweep {
                self.sweep(phase, now);
                next_sweep = now + sweep_every;
            }
            self.begin_due(phase, now);
            self.send(phase, now);
            if self.ended && self.begun == 0 {
                break;
            }
            self.recorder.tick(now, ticks);
            let wake = self.next_due(phase).map_or(next_sweep, |due| due.min(next_sweep));
            let sleep_ns = wake.saturating_sub(self.shared.now());
            let sleep =
                Timespec { tv_sec: (sleep_ns / 1_000_000_000) as i64, tv_nsec: (sleep_ns % 1_000_000_000) as i64 };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&sleep)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                self.handle_event(phase, data.u64(), flags);
            }
        }
        self.recorder.missed += self.missed(phase);
        self.note_unvisited(phase);
        Ok(std::mem::replace(&mut self.recorder, Recorder::new()))
    }

    /// When the next operation is due, if a client is free for it.
    fn next_due(&self, phase: &Phase) -> Option<u64> {
        (phase.interval.is_some() && !self.ended && !self.free.is_empty()).then_some(self.due as u64)
    }

    /// Operations of an open loop that were due and that no client was free for until the end.
    fn missed(&self, phase: &Phase) -> u64 {
        let bounded = phase.left.is_some() || phase.task != Task::Draw;
        match phase.interval {
            Some(interval) if !bounded => ((phase.end as f64 - self.due) / interval).max(0.0) as u64,
            _ => 0,
        }
    }

    /// The last pass was stopped: what it did not come to is unread.
    fn note_unvisited(&mut self, phase: &Phase) {
        if phase.task == Task::Check && phase.stop.load(Ordering::Relaxed) {
            for client in 0..self.clients.len() {
                while let Some((_, key)) = self.next_operation(phase, client) {
                    self.shared.ledger.as_ref().expect("a check has one").note_unread(key);
                }
            }
        }
    }

    /// Takes up all that is due, as far as clients are free.
    fn begin_due(&mut self, phase: &Phase, now: u64) {
        while !self.ended {
            let intended = match phase.interval {
                None => now,
                Some(_) if self.due > now as f64 => break,
                Some(_) => self.due as u64,
            };
            let Some(&client) = self.free.front() else {
                // In phases that visit keys, clients that are done leave. A loop whose clients are all busy still ends.
                self.ended = phase.task != Task::Draw && self.begun == 0;
                self.ended |= phase.is_over(now);
                break;
            };
            if !phase.permits(intended) {
                self.ended = true;
                break;
            }
            self.free.pop_front();
            let Some((kind, key)) = self.next_operation(phase, client) else { continue };
            self.due += phase.interval.unwrap_or(0.0);
            self.begin(phase, client, kind, key, intended, now);
        }
    }

    /// What `client` does next; `None`: nothing more in this phase.
    fn next_operation(&mut self, phase: &Phase, client: usize) -> Option<(Kind, u64)> {
        let Self { shared, clients, .. } = self;
        let client = &mut clients[client];
        match phase.task {
            Task::Draw => Some(client.draw(&shared.keys, shared.ledger.as_ref().map(|_| shared.clients))),
            Task::Load => client.visit(shared.keys.count(), shared.clients).map(|key| (Kind::Insert, key)),
            Task::Check => {
                let ledger = shared.ledger.as_ref().expect("only a run that verifies reads back");
                let mut own = std::iter::from_fn(|| client.visit(ledger.keys_end(), shared.clients));
                own.find(|&key| ledger.is_touched(key)).map(|key| (Kind::Read, key))
            }
        }
    }

    fn begin(&mut self, phase: &Phase, client: usize, kind: Kind, key: u64, intended: u64, now: u64) {
        let writes = kind != Kind::Read;
        let recipe =
            if writes { self.shared.values.draw(&mut self.clients[client].source.random) } else { Recipe::default() };
        let step = if matches!(kind, Kind::Read | Kind::ReadModifyWrite) { Step::Get } else { Step::Put };
        if writes {
            self.clients[client].start_writing(key);
        }
        if self.is_measured(phase, intended) {
            self.recorder.late.saturating_record(now.saturating_sub(intended));
        }
        self.begun += 1;
        let operation = Operation {
            kind,
            step,
            key,
            recipe,
            intended,
            begun: now,
            floor: 0,
            sent_before: 0,
            sequence: 0,
            blind: false,
            stale: false,
            context: None,
        };
        self.dispatch(phase, client, operation, now);
    }

    fn is_measured(&self, phase: &Phase, intended: u64) -> bool {
        intended >= phase.measure_from
    }

    /// Puts the operation's next request on the best connection there is, or lets it wait for one.
    fn dispatch(&mut self, phase: &Phase, client: usize, operation: Operation, now: u64) {
        self.name_key(operation.key);
        match self.find_endpoint(client, now) {
            Some(endpoint) => self.put_on(client, endpoint, operation, now),
            None if now < operation.begun + self.shared.timeout_ns() => {
                self.waiting.push_back(Waiting { client, operation, not_before: now });
            }
            None => {
                let failed = Failed {
                    class: "unreachable".to_owned(),
                    text: "no server could be reached in time".to_owned(),
                    nothing_written: true,
                };
                self.fail(phase, client, operation, &failed, now);
            }
        }
    }

    fn name_key(&mut self, key: u64) {
        self.key.clear();
        self.key.extend_from_slice(&self.shared.key_prefix);
        let mut digits = [b'0'; 12];
        let mut left = key;
        for digit in digits.iter_mut().rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        self.key.extend_from_slice(&digits);
    }

    /// The first endpoint in the key's order that may be asked and that this client has a connection to, or can open one.
    fn find_endpoint(&mut self, client: usize, now: u64) -> Option<usize> {
        let shared = Arc::clone(&self.shared);
        for endpoint in shared.routes.order(self.clients[client].index, &self.key) {
            let health = &mut self.health[endpoint];
            if !health.permits(now) {
                continue;
            }
            health.tried_until = now + shared.timeout_ns();
            if self.clients[client].connections[endpoint].is_some() {
                return Some(endpoint);
            }
            self.opened += 1;
            let token = self.opened << 32 | (client * shared.routes.endpoints.len() + endpoint) as u64;
            let address = shared.routes.endpoints[endpoint];
            match Connection::open(address, shared.protocol(), self.epoll.as_fd(), token) {
                Ok(connection) => {
                    self.clients[client].connections[endpoint] = Some(connection);
                    return Some(endpoint);
                }
                Err(error) => {
                    let broken = Broken::connect(&error);
                    self.recorder.error(&broken.class, &broken.text, None, now, true);
                    self.mark_down(endpoint, now, BACKOFF_NS);
                }
            }
        }
        None
    }

    /// Puts the next request of the operation, whose key is named, on a connection.
    fn put_on(&mut self, client: usize, endpoint: usize, mut operation: Operation, now: u64) {
        let Self { shared, clients, key, value, .. } = self;
        let client_state = &mut clients[client];
        let number = operation.key;
        let mut connection = client_state.connections[endpoint].take().expect("just found or opened");
        match operation.step {
            Step::Get => {
                if let Some(ledger) = &shared.ledger {
                    operation.floor = ledger.floor(number);
                    operation.sent_before = ledger.sent(number);
                }
                connection.get(key, now, operation);
            }
            Step::Put => {
                let Some(ledger) = &shared.ledger else {
                    let context = operation.context.take();
                    let value = shared.values.plain(operation.recipe);
                    connection.put(key, value, context.as_deref(), now, operation);
                    client_state.connections[endpoint] = Some(connection);
                    self.unsent.push((client, endpoint));
                    return;
                };
                if operation.sequence == 0 {
                    operation.sequence = ledger.send(number);
                }
                let writer = client_state.index as u32;
                let stamp = Stamp { run: ledger.run(), key: number, sequence: operation.sequence, writer };
                shared.values.stamped(operation.recipe, stamp, value);
                // Without contexts there are none to remember.
                let context = client_state.context(number);
                operation.blind = context.is_none();
                connection.put(key, value, context, now, operation);
            }
        }
        client_state.connections[endpoint] = Some(connection);
        self.unsent.push((client, endpoint));
    }

    /// Sends what was put on connections.
    fn send(&mut self, phase: &Phase, now: u64) {
        while let Some((client, endpoint)) = self.unsent.pop() {
            let Self { clients, epoll, .. } = self;
            let Some(connection) = clients[client].connections[endpoint].as_mut() else { continue };
            if let Err(broken) = connection.send(epoll.as_fd()) {
                self.drop_connection(phase, client, endpoint, &broken, now);
            }
        }
    }

    fn handle_event(&mut self, phase: &Phase, token: u64, flags: EventFlags) {
        let place = (token & u64::from(u32::MAX)) as usize;
        let endpoints = self.shared.routes.endpoints.len();
        let (client, endpoint) = (place / endpoints, place % endpoints);
        let slot = &mut self.clients[client].connections[endpoint];
        // An event of a connection that was replaced since.
        let Some(mut connection) = slot.take_if(|connection| connection.token() == token) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let now = self.shared.now();
        let mut result = connection.handle_event(flags);
        let readable = EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        if result.is_ok() && !connection.is_opening() && flags.intersects(readable) {
            result = connection.receive(&mut scratch, |request, outcome| {
                self.handle_answer(phase, client, endpoint, request.operation, outcome, now);
            });
        }
        self.scratch = scratch;
        self.clients[client].connections[endpoint] = Some(connection);
        match result {
            Ok(()) => self.unsent.push((client, endpoint)),
            Err(broken) => self.drop_connection(phase, client, endpoint, &broken, now),
        }
        while let Some((client, operation)) = self.next_steps.pop() {
            self.dispatch(phase, client, operation, now);
        }
        self.begin_due(phase, now);
        self.send(phase, now);
    }

    /// Closes a connection and decides what becomes of its requests.
    fn drop_connection(&mut self, phase: &Phase, client: usize, endpoint: usize, broken: &Broken, now: u64) {
        let Some(connection) = self.clients[client].connections[endpoint].take() else { return };
        let (under_way, lost) = connection.close(self.epoll.as_fd());
        self.mark_down(endpoint, now, if lost == Lost::Unsent { BACKOFF_NS } else { 0 });
        if lost == Lost::Unsent {
            // Counted, but no operation fails by it: they go elsewhere.
            self.recorder.error(&broken.class, &broken.text, None, now, now >= phase.measure_from);
        }
        for request in under_way {
            match lost {
                Lost::Unsent => self.dispatch(phase, client, request.operation, now),
                Lost::Unknown => {
                    let failed =
                        Failed { class: broken.class.clone(), text: broken.text.clone(), nothing_written: false };
                    self.fail(phase, client, request.operation, &failed, now);
                }
            }
        }
    }

    fn mark_down(&mut self, endpoint: usize, now: u64, at_least_ns: u64) {
        let health = &mut self.health[endpoint];
        // All connections to it fail at once: that is one failure. After the very first one it is tried again at once.
        if now >= health.down_until {
            let doubled = BACKOFF_NS << health.failures.min(6) >> 1;
            let backoff = if health.failures == 0 { 0 } else { doubled };
            health.down_until = now + backoff.max(at_least_ns).min(BACKOFF_MAX_NS);
            health.failures += 1;
        }
        health.tried_until = now;
    }

    /// Gives up requests that waited too long, and lets those try again that wait for it.
    fn sweep(&mut self, phase: &Phase, now: u64) {
        let timeout_ns = self.shared.timeout_ns();
        for client in 0..self.clients.len() {
            for endpoint in 0..self.health.len() {
                let Some(connection) = &self.clients[client].connections[endpoint] else { continue };
                if connection.oldest_since().is_some_and(|since| now >= since + timeout_ns) {
                    self.mark_down(endpoint, now, BACKOFF_TIMEOUT_NS);
                    let text = format!("no answer within {:?}", self.shared.options.timeout);
                    let broken = Broken { class: "timeout".to_owned(), text };
                    self.drop_connection(phase, client, endpoint, &broken, now);
                }
            }
        }
        for _ in 0..self.waiting.len() {
            let waiting = self.waiting.pop_front().expect("counted");
            if now >= waiting.not_before {
                self.dispatch(phase, waiting.client, waiting.operation, now);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }
}
