//! A whole cluster in one thread: nodes, their cores and disks, the network and the clients, under virtual time.
//!
//! The rule: all that happens follows from the seed. Events take place in the order of their moments, and of their
//! making where moments are equal; nothing reads a clock or iterates a hash map.
//!
//! Not here: one core's shell (`shell`), what the faults do (`injection`), what must hold (`observer`, `checkers`), what
//! clients ask for (`workload`).

mod audit;
mod injection;
mod observer;
mod operator;
mod scenario;
mod settings;
mod shell;

use std::{collections::BTreeMap, ops::Range, rc::Rc, time::Duration};

use ahash::AHashMap;
use quorate_engine::disk::simulated::{Random, Timing};
use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    key::Key,
    message::{
        ArchivedMessage, Message, Operation as Asked, Outcome, Put, Reply, Request,
        gossip::{NodeIdentity, RingStamp},
    },
};
use quorate_node::{clock::Now, core::Core, effect::Effect, ring::Ring};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use settings::{Settings, Shape};

use crate::{
    checkers::{Checked, Ledger, Violation},
    clock::Clock,
    faults::{Class, Hits, Plan},
    history::Action,
    network::{Network, Path},
    workload::{Client, Workload},
};
use observer::Cause;
use operator::Operator;
use shell::{Completion, Process, Shell};

/// A core that so often has something more to do at the same moment never rests.
const RESTLESS_MAX: u32 = 10_000;

/// Longer lines of the log are cut.
const LINE_MAX: usize = 400;

type Machine = Core<quorate_engine::disk::simulated::SimulatedDisk>;

/// A whole cluster and its clients.
pub struct World {
    /// What is configured.
    pub settings: Settings,
    /// All that was done, and what must be true of it.
    pub ledger: Ledger,
    /// The paths between the nodes.
    pub network: Network,
    /// How often faults struck, the network's aside.
    pub hits: Hits,
    now: Duration,
    agenda: BTreeMap<(Duration, u64), Event>,
    made: u64,
    nodes: Vec<Node>,
    shells: Vec<Shell>,
    clients: Vec<Client>,
    workload: Workload,
    plan: Plan,
    random: Random,
    /// The only node whose copies are ever destroyed.
    victim: usize,
    /// All rings that any core went by.
    rings: Vec<(RingStamp, Rc<Ring>)>,
    operator: Operator,
    upgrading: bool,
    trace_hash: u64,
    /// How often a core dropped a tombstone.
    pub dropped: u64,
    /// How often a core shortened a clock.
    pub shortened: u64,
    /// For which operation each forwarded request is.
    forwarded: AHashMap<(Endpoint, u64), usize>,
    /// What happened to one key, in words, when it is asked for.
    log: Option<(Option<Key>, Vec<String>)>,
    /// Since when there are no faults.
    healed: Option<Duration>,
    /// The answers to operations, when a scenario asks for them.
    outcomes: Option<BTreeMap<usize, Outcome>>,
}

struct Node {
    id: NodeId,
    shells: Range<usize>,
    clock: Clock,
    paused_until: Option<Duration>,
    /// No gossip reaches it before this moment.
    deaf_until: Duration,
    /// Which machine.
    identity: NodeIdentity,
    fate: Fate,
    /// Its operator said that it shall go, one way or the other.
    goes: bool,
    /// It does not start any more.
    stays_down: bool,
}

/// What has become of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It is part of the cluster, or asks to be.
    Belongs,
    /// It will never speak again, its operator says.
    Dead,
    /// The cluster has let it go, after it handed over what it had.
    Left,
    /// The cluster has let it go without that.
    Removed,
}

/// What happens at a moment.
#[derive(Clone)]
enum Event {
    /// A frame reaches a core.
    Deliver { from: Endpoint, to: Endpoint, frame: Rc<[u8]> },
    /// A client's frame reaches a core.
    Ask { client: usize, to: Endpoint, frame: Rc<[u8]> },
    /// An answer reaches a client.
    Answer { client: usize, frame: Rc<[u8]> },
    /// A core notices whether a peer can be reached.
    Look { observer: usize, peer: usize },
    /// A connection ends, and begins again later.
    Reset { observer: usize, peer: usize },
    /// A client does something.
    Turn { client: usize },
    /// A client has waited long enough.
    GiveUp { client: usize, request: u64 },
    /// The next fault strikes.
    Fault,
    /// A node starts.
    Start { node: usize },
    /// The next node is restarted.
    Upgrade { node: usize },
    /// The operator looks at how the ring stands.
    Operate,
    /// Something ends that a fault began.
    End(injection::Ending),
}

impl World {
    /// A cluster that was never started.
    #[must_use]
    pub fn new(seed: u64, shape: &Shape, plan: Plan) -> Self {
        let mut random = Random::new(seed);
        let mut settings = Settings::new(shape, &mut random);
        if plan.about_ring && !plan.classes.contains(&Class::Deafness) {
            settings.gossip_fast();
        }
        let (mut nodes, mut shells) = (Vec::new(), Vec::new());
        for member in settings.ring.members() {
            let identity = Settings::founding_identity(member.node.id);
            nodes.push(Node::new(member.node.id, identity, member.node.cores, &mut shells, &mut random));
        }
        // The last one is the auditor.
        let clients: Vec<Client> = (0..=shape.clients).map(|_| Client::new(random.fork())).collect();
        let victim = random.index(nodes.len());
        let mut world = Self {
            ledger: Ledger::new(settings.ring.replicas(), settings.sealer.clone()),
            network: Network::new(random.fork()),
            hits: Hits::default(),
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            made: 0,
            workload: Workload::new(shape, settings.ring.replicas(), &mut random),
            settings,
            nodes,
            shells,
            clients,
            random,
            victim,
            rings: Vec::new(),
            operator: Operator::new(plan.ring_changes_max),
            plan,
            upgrading: false,
            trace_hash: seed,
            dropped: 0,
            shortened: 0,
            forwarded: AHashMap::new(),
            log: None,
            healed: None,
            outcomes: None,
        };
        for node in 0..world.nodes.len() {
            world.at(Duration::ZERO, Event::Start { node });
        }
        world
    }

    /// The world's time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Equal in two runs of one seed: every event, every frame, every operation of a disk.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.shells
            .iter()
            .fold(self.trace_hash, |hash, shell| xxh3_64_with_seed(&shell.disk.trace_hash().to_le_bytes(), hash))
    }

    /// Writes down what happens to the key, or to all keys.
    pub fn keep_log(&mut self, key: Option<Key>) {
        self.log = Some((key, Vec::new()));
    }

    /// What was written down.
    #[must_use]
    pub fn log(&self) -> &[String] {
        self.log.as_ref().map_or(&[], |(_, lines)| lines)
    }

    /// Lets the clients begin.
    pub fn begin_workload(&mut self) {
        for client in 0..self.clients.len() - 1 {
            let when = self.now + Duration::from_micros(self.random.range(0..5_000));
            self.at(when, Event::Turn { client });
        }
    }

    /// Lets the faults begin.
    pub fn begin_faults(&mut self) {
        self.draw_weather();
        let when = self.next_fault();
        self.at(when, Event::Fault);
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_until(&mut self, until: Duration) -> Checked {
        while let Some(next) = self.next_moment().filter(|next| *next <= until) {
            self.step(next)?;
        }
        self.now = until.max(self.now);
        Ok(())
    }

    /// Lets time pass while `going` says so, up to `limit` from now. False at the limit.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_while(&mut self, limit: Duration, going: impl Fn(&Self) -> bool) -> Checked<bool> {
        let until = self.now + limit;
        while going(self) {
            match self.next_moment().filter(|next| *next <= until) {
                Some(next) => self.step(next)?,
                None => return Ok(!going(self)),
            }
        }
        Ok(true)
    }

    fn next_moment(&self) -> Option<Duration> {
        let agenda = self.agenda.first_key_value().map(|((when, _), _)| *when);
        let disks = self.shells.iter().filter_map(|shell| shell.disk.next_due()).min();
        let deadlines = self.nodes.iter().filter(|node| node.paused_until.is_none()).flat_map(|node| {
            let deadline = |shell: &Shell| Some(node.clock.world_at(shell.next_timeout()?) + shell.lag);
            self.shells[node.shells.clone()].iter().filter_map(deadline)
        });
        let next = [agenda, disks, deadlines.min()].into_iter().flatten().min();
        next.map(|next| next.max(self.now))
    }

    /// All that happens at one moment.
    fn step(&mut self, now: Duration) -> Checked {
        self.now = now;
        for at in 0..self.shells.len() {
            if self.shells[at].disk.next_due().is_some_and(|due| due <= now) {
                self.shells[at].disk.advance(now);
                self.run_shell(at)?;
            }
        }
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            let event = entry.remove();
            self.happen(event)?;
        }
        for node in 0..self.nodes.len() {
            for at in self.nodes[node].shells.clone() {
                // Who is slow looks at its clock late, too.
                let instant = self.nodes[node].clock.now(now.saturating_sub(self.shells[at].lag)).instant;
                let due = |world: &Self| world.shells[at].next_timeout().is_some_and(|t| t <= instant);
                if self.nodes[node].paused_until.is_none() && due(self) {
                    self.drive(at, &Cause::None, |core, now, out| core.handle_timeout(now, out))?;
                    self.shells[at].restless = if due(self) { self.shells[at].restless + 1 } else { 0 };
                    if self.shells[at].restless > RESTLESS_MAX {
                        return Err(self.fail("liveness", format!("core {at} is never done at {instant:?}")));
                    }
                }
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Deliver { from, to, ref frame } => {
                let at = self.shell_of(to);
                if self.is_held_up(at, &event) {
                    return Ok(());
                }
                self.trace(&[1, from.node.0.into(), to.node.0.into(), xxh3_64_with_seed(frame, 0)]);
                self.deliver(at, from, frame)
            }
            Event::Ask { client, to, ref frame } => {
                let at = self.shell_of(to);
                if self.is_held_up(at, &event) {
                    return Ok(());
                }
                self.trace(&[2, client as u64, to.node.0.into(), xxh3_64_with_seed(frame, 0)]);
                self.asked(at, client, frame)
            }
            Event::Answer { client, ref frame } => {
                self.trace(&[3, client as u64, xxh3_64_with_seed(frame, 0)]);
                self.answered(client, frame);
                Ok(())
            }
            Event::Look { observer, peer } => {
                if self.is_held_up(observer, &event) {
                    return Ok(());
                }
                let up = self.reaches(observer, peer);
                self.tell_peer(observer, peer, up)
            }
            Event::Reset { observer, peer } => {
                if self.is_held_up(observer, &event) {
                    return Ok(());
                }
                self.tell_peer(observer, peer, false)?;
                let when = self.now + Duration::from_micros(self.random.range(100..20_000));
                self.at(when, Event::Look { observer, peer });
                Ok(())
            }
            Event::Turn { client } => {
                self.turn(client);
                Ok(())
            }
            Event::GiveUp { client, request } => {
                self.give_up(client, request);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Start { node } => {
                self.start(node);
                Ok(())
            }
            Event::Upgrade { node } => self.upgrade(node),
            Event::Operate => self.operate(),
            Event::End(ending) => self.end(ending),
        }
    }

    /// Puts an event off when the node stands still; true also when the core is down, so that nothing happens.
    fn is_held_up(&mut self, at: usize, event: &Event) -> bool {
        let node = self.node_of(at);
        if let Some(until) = self.nodes[node].paused_until {
            self.at(until, event.clone());
            return true;
        }
        self.shells[at].core().is_none()
    }

    fn deliver(&mut self, at: usize, from: Endpoint, bytes: &Rc<[u8]>) -> Checked {
        let frame = frame::decode(bytes, usize::MAX).expect("a frame from a node is whole").expect("and complete");
        let message = frame.access().expect("and holds a message");
        let asked = match message {
            ArchivedMessage::Request(request) => self.forwarded.get(&(from, request.id.to_native())).copied(),
            _ => None,
        };
        let cause = self.cause_of(message, asked);
        let strangers = |world: &Self| world.shells[at].core().map(|core| core.statistics().strangers);
        let (stranger, before) = (self.is_stranger(at, from, message), strangers(self));
        self.drive(at, &cause, |core, now, out| core.handle_message(now, now.instant, from, message, out))?;
        if stranger && strangers(self) == before {
            let detail = format!("core {at} hears {from}, which it knows does not belong");
            return Err(self.fail("P10 membership", detail));
        }
        Ok(())
    }

    fn asked(&mut self, at: usize, client: usize, bytes: &Rc<[u8]>) -> Checked {
        let frame = frame::decode(bytes, usize::MAX).expect("a client's frame is whole").expect("and complete");
        let Message::Request(request) = frame.message().expect("and holds a message") else {
            unreachable!("clients ask")
        };
        let asked = self.clients[client].operation_of(request.id);
        let cause = self.cause_of(frame.access().expect("it holds a message"), asked);
        self.drive(at, &cause, |core, now, out| core.handle_request(now, now.instant, client as u64, request, out))
    }

    fn tell_peer(&mut self, observer: usize, peer: usize, up: bool) -> Checked {
        let endpoint = self.shells[peer].me;
        let told = &mut self.shells[observer].told_down;
        let changed = if up { told.remove(&endpoint) } else { told.insert(endpoint) };
        if !changed || self.shells[observer].core().is_none() {
            return Ok(());
        }
        self.note(None, || format!("{} is told that {endpoint} is {}", observer, if up { "up" } else { "down" }));
        self.drive(observer, &Cause::None, |core, now, out| core.handle_peer(now, endpoint, up, out))
    }

    /// Hands an event to a machine, looks at what it did, and does what it asks; then lets its tasks run.
    fn drive(&mut self, at: usize, cause: &Cause, event: impl FnOnce(&mut Machine, Now, &mut Vec<Effect>)) -> Checked {
        self.shells[at].disk.advance(self.now);
        self.handle(at, cause, event)?;
        self.run_shell(at)
    }

    fn handle(&mut self, at: usize, cause: &Cause, event: impl FnOnce(&mut Machine, Now, &mut Vec<Effect>)) -> Checked {
        let now = self.nodes[self.node_of(at)].clock.now(self.now);
        let before = self.held(at, cause);
        let Some(core) = self.shells[at].core_mut() else { return Ok(()) };
        let mut effects = Vec::new();
        let puts = core.statistics().puts;
        event(core, now, &mut effects);
        let puts = core.statistics().puts - puts;
        self.observe(at, cause, &before, puts, &effects)?;
        self.look_at_ring(at)?;
        for effect in effects {
            self.perform(at, cause, effect)?;
        }
        Ok(())
    }

    /// Lets a core's tasks run, and hands what they bring to its machine, until all wait.
    fn run_shell(&mut self, at: usize) -> Checked {
        let node = self.node_of(at);
        if self.nodes[node].paused_until.is_some() {
            return Ok(());
        }
        loop {
            let ran = self.shells[at].run();
            self.change_process(at)?;
            let Some(completion) = self.shells[at].completion() else {
                if ran {
                    continue;
                }
                return Ok(());
            };
            match completion {
                Completion::Loaded { load, loaded } => {
                    let cause = self.shells[at].loads.remove(&load).unwrap_or(Cause::None);
                    self.handle(at, &cause, |core, now, out| core.handle_loaded(now, load, &loaded, out))?;
                }
                Completion::Fetched { job, log, object } => {
                    let look = object.as_ref().map(|object| Cause::Look { key: object.key.clone() });
                    self.handle(at, &look.unwrap_or(Cause::None), |core, now, out| {
                        core.handle_fetched(now, job, log, object, out);
                    })?;
                }
                Completion::Watermark(log, watermark) => {
                    self.settle_upto(at, log, watermark);
                    self.handle(at, &Cause::None, |core, now, out| core.handle_log(now, log, watermark, out))?;
                }
                Completion::Stored(stored) => {
                    self.handle(at, &Cause::None, |core, now, out| core.handle_state_stored(now, stored, out))?;
                }
                Completion::Dropped(partition) => {
                    self.handle(at, &Cause::None, |core, now, out| core.handle_dropped(now, partition, out))?;
                }
                Completion::Actor(incarnation) => {
                    let keys = self.shells[at].coordinated.iter().cloned().collect();
                    self.handle(at, &Cause::Keys(keys), |core, now, out| core.handle_actor(now, incarnation, out))?;
                }
            }
        }
    }

    /// A start or an end that is through.
    fn change_process(&mut self, at: usize) -> Checked {
        match &self.shells[at].process {
            Process::Starting(outcome) => match outcome.take() {
                Some(Ok(started)) => {
                    self.shells[at].begin(started);
                    self.look_at_ring(at)?;
                    self.note(None, || format!("core {at} is up"));
                    self.check_recovered(at)?;
                    self.meet_peers(at)?;
                }
                Some(Err(error)) => {
                    self.note(None, || format!("core {at} does not start: {error}"));
                    self.start_failed(at, &error)?;
                }
                None => {}
            },
            Process::Stopping(outcome) => {
                if outcome.take().is_some() {
                    self.lose_process(at);
                    self.shells[at].disk.kill();
                }
            }
            Process::Down | Process::Up(_) => {}
        }
        Ok(())
    }

    /// Whom a core has come to know it has no connection to at first.
    fn meet_members(&mut self, at: usize) {
        for peer in 0..self.shells.len() {
            if self.node_of(peer) != self.node_of(at) && !self.reaches(at, peer) {
                // Should it know the peer only now, it was not told yet.
                let endpoint = self.shells[peer].me;
                self.shells[at].told_down.remove(&endpoint);
                self.look_soon(at, peer);
            }
        }
    }

    /// A core that came up knows nobody, then learns who is there; the others learn that it is.
    fn meet_peers(&mut self, at: usize) -> Checked {
        for peer in 0..self.shells.len() {
            if self.node_of(peer) != self.node_of(at) {
                self.tell_peer(at, peer, false)?;
                self.look_soon(at, peer);
                self.look_soon(peer, at);
            }
        }
        Ok(())
    }

    fn perform(&mut self, at: usize, cause: &Cause, effect: Effect) -> Checked {
        match effect {
            Effect::Send { to, message } => {
                let from = self.shells[at].me;
                let deaf = from.node != to.node && self.now < self.nodes[self.node_of(self.shell_of(to))].deaf_until;
                if deaf && matches!(message, Message::Gossip(_)) {
                    self.hits.count(Class::Deafness);
                    return Ok(());
                }
                self.note_message(from, to, &message);
                if let (Message::Request(request), Cause::Put { asked: Some(asked), .. }) = (&message, cause) {
                    self.forwarded.insert((from, request.id), *asked);
                }
                if let Message::Request(request) = &message
                    && let Asked::Put(Put { context: Some(context), .. }) = &request.operation
                    && let Some(&asked) = self.forwarded.get(&(from, request.id))
                {
                    self.ledger.sent_on(asked, context)?;
                }
                let mut bytes = Vec::new();
                frame::encode(&message, &mut bytes).expect("what a core sends is within its bounds");
                let frame: Rc<[u8]> = bytes.into();
                let lag = self.shells[self.shell_of(to)].lag;
                for when in self.network.arrivals(Path::Nodes(from.node, to.node), self.now) {
                    self.at(when + lag, Event::Deliver { from, to, frame: frame.clone() });
                }
            }
            Effect::Answer { client, reply } => {
                if matches!(self.nodes[self.node_of(at)].fate, Fate::Dead | Fate::Removed) {
                    // One that its operator has given up may say what nobody else knows, and know nothing of the others.
                    self.ledger.copy_destroyed(self.now);
                }
                self.check_answer(client as usize, &reply)?;
                let mut bytes = Vec::new();
                frame::encode(&Message::Reply(reply), &mut bytes).expect("an answer is within its bounds");
                let frame: Rc<[u8]> = bytes.into();
                for when in self.network.arrivals(Path::Client, self.now) {
                    self.at(when, Event::Answer { client: client as usize, frame: frame.clone() });
                }
            }
            Effect::Load { load, log, partition, key } => {
                self.shells[at].load(load, log, partition, &key, cause.clone());
            }
            Effect::Fetch { job, log, partition, key } => self.shells[at].fetch(job, log, partition, key),
            Effect::StoreState(state) => self.shells[at].store_state(state),
            Effect::StoreFilled => self.shells[at].store_filled(),
            Effect::Drop { partition } => {
                self.check_drop(at, partition)?;
                self.shells[at].drop_partition(partition);
            }
            Effect::MembersChanged => self.meet_members(at),
            Effect::Damaged { log, damage } => {
                self.note(None, || format!("core {at}: {} is damaged: {damage}", log.name()));
            }
            Effect::Unfit { .. } => {}
            Effect::Refused(_) if self.nodes[self.node_of(at)].goes => {
                self.note(None, || format!("core {at} is refused"));
            }
            Effect::Refused(refusal) => {
                let detail = format!("core {at} is refused: {refusal}");
                return Err(self.fail("P10 membership", detail));
            }
            Effect::RenewActor => {
                let clock = self.nodes[self.node_of(at)].clock;
                self.shells[at].renew_actor(clock);
            }
        }
        Ok(())
    }

    /// A client does the next thing.
    fn turn(&mut self, client: usize) {
        let Some(operation) = self.workload.next(&mut self.clients[client], client, &self.ledger, self.now) else {
            return;
        };
        self.note(Some(&operation.key), || format!("client {client} begins {:?}", operation.action));
        let number = self.ledger.begin(operation);
        self.clients[client].begin(number);
        self.send_request(client);
    }

    /// A client sends its operation to some core.
    fn send_request(&mut self, client: usize) {
        let Some(operation) = self.clients[client].operation() else { return };
        self.ledger.operations[operation].sends += 1;
        let asked = &self.ledger.operations[operation];
        let ring = self.ring();
        let owners = ring.primaries(ring.partition(asked.key.name()));
        let random = &mut self.clients[client].random;
        // Most know the owners; some ask anybody.
        let to = if random.permille(800) {
            owners[random.index(owners.len())]
        } else {
            self.shells[random.index(self.shells.len())].me
        };
        let (request, timeout) = self.clients[client].send(&self.settings);
        let message = Message::Request(Request {
            id: request,
            timeout_us: timeout.as_micros() as u32,
            hops: 0,
            operation: self.workload.message(asked),
        });
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("a client's request is within its bounds");
        let frame: Rc<[u8]> = bytes.into();
        let lag = self.shells[self.shell_of(to)].lag;
        let mut arrivals = self.network.arrivals(Path::Client, self.now);
        // A double stands for a client's retry. One that says neither what it has seen nor that it asks again asks for a second
        // write, and gets one.
        if matches!(self.ledger.operations[operation].action, Action::Put { context: None, token: None, .. }) {
            arrivals.truncate(1);
        }
        for when in arrivals {
            self.at(when + lag, Event::Ask { client, to, frame: frame.clone() });
        }
        self.at(self.now + timeout + timeout / 2, Event::GiveUp { client, request });
    }

    fn answered(&mut self, client: usize, frame: &Rc<[u8]>) {
        let frame = frame::decode(frame, usize::MAX).expect("an answer is whole").expect("and complete");
        let Message::Reply(reply) = frame.message().expect("and holds a message") else { unreachable!("nodes reply") };
        let again = self.clients[client].answered(&mut self.ledger, &reply);
        self.go_on(client, again);
    }

    fn give_up(&mut self, client: usize, request: u64) {
        let again = self.clients[client].gave_up(&self.ledger, request);
        self.go_on(client, again);
    }

    /// `again`: to send the same operation once more; `None` when the client still waits.
    fn go_on(&mut self, client: usize, again: Option<bool>) {
        match again {
            Some(true) => self.send_request(client),
            Some(false) => {
                let when = self.now + self.clients[client].pause(self.workload.think);
                self.at(when, Event::Turn { client });
            }
            None => {}
        }
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.made += 1;
        self.agenda.insert((when, self.made), event);
    }

    fn look_soon(&mut self, observer: usize, peer: usize) {
        let when = self.now + Duration::from_micros(self.random.range(50..30_000));
        self.at(when, Event::Look { observer, peer });
    }

    /// Whether a connection from one core to another could stand.
    fn reaches(&self, observer: usize, peer: usize) -> bool {
        let (here, there) = (self.shells[observer].me.node, self.shells[peer].me.node);
        self.shells[peer].core().is_some() && self.network.is_open(here, there)
    }

    fn shell_of(&self, endpoint: Endpoint) -> usize {
        self.shells.iter().position(|shell| shell.me == endpoint).expect("every endpoint is a member's")
    }

    fn node_of(&self, at: usize) -> usize {
        self.nodes.iter().position(|node| node.shells.contains(&at)).expect("every core is a node's")
    }

    fn trace(&mut self, numbers: &[u64]) {
        let mut hash = xxh3_64_with_seed(&(self.now.as_nanos() as u64).to_le_bytes(), self.trace_hash);
        for number in numbers {
            hash = xxh3_64_with_seed(&number.to_le_bytes(), hash);
        }
        self.trace_hash = hash;
    }

    fn note(&mut self, key: Option<&Key>, line: impl FnOnce() -> String) {
        if let Some((wanted, lines)) = &mut self.log
            && (key.is_none() || wanted.is_none() || key == wanted.as_ref())
        {
            let mut line = format!("{:>12.3} ms  {}", self.now.as_secs_f64() * 1e3, line());
            line.truncate(line.floor_char_boundary(LINE_MAX));
            lines.push(line);
        }
    }

    fn note_message(&mut self, from: Endpoint, to: Endpoint, message: &Message) {
        let key = match message {
            Message::Replicate(replicate) => Some(replicate.key.clone()),
            Message::Probe(probe) => Some(probe.key.clone()),
            Message::Request(request) => asked_key(&request.operation).cloned(),
            _ => None,
        };
        if key.is_some() {
            self.note(key.as_ref(), || format!("{from} to {to}: {message:?}"));
        }
    }

    /// For what the client of this request waits.
    fn operation_of(&self, client: usize, reply: &Reply) -> Option<usize> {
        self.clients[client].operation_of(reply.id)
    }

    fn fail(&self, property: &'static str, detail: String) -> Violation {
        Violation { property, key: None, detail }
    }
}

impl Node {
    fn new(id: NodeId, identity: NodeIdentity, cores: u16, shells: &mut Vec<Shell>, random: &mut Random) -> Self {
        let first = shells.len();
        for core in 0..cores {
            shells.push(Shell::new(Endpoint::new(id, CoreId(core)), random, Timing::default()));
        }
        Self {
            id,
            shells: first..shells.len(),
            clock: Clock::new(random.range(0..1 << 50), random.range(0..2_000) as i64 - 1_000),
            paused_until: None,
            deaf_until: Duration::ZERO,
            identity,
            fate: Fate::Belongs,
            goes: false,
            stays_down: false,
        }
    }
}

/// The key of a request.
fn asked_key(asked: &Asked) -> Option<&Key> {
    match asked {
        Asked::Get(get) => Some(&get.key),
        Asked::Put(put) => Some(&put.key),
        Asked::ClusterMap => None,
    }
}
