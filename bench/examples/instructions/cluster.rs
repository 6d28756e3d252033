//! Three cores in one process: the machines and the engine that ship, on one simulated disk, with frames between them.
//!
//! The rule: time moves only to the next thing that the disk has ready. Once the cluster is up no timeout is given to the
//! machines, so that nothing runs in the background of what is counted.
//!
//! Not here: sockets and glommio. What this has besides the machines (the disk's simulation, its executor) is counted too.

use std::{cell::RefCell, collections::VecDeque, net::Ipv4Addr, rc::Rc, time::Duration};

use quorate_engine::{
    Config, Sequence, Store, Watermark,
    disk::{
        Disk,
        prefixed::Prefixed,
        simulated::{Executor, SimulatedDisk, Timing},
    },
};
use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Get, Operation, Outcome, Put, Reply, Request},
};
use quorate_node::{
    anti_entropy,
    clock::{Instant, Now},
    context::Sealer,
    core::{Belonging, Core, LogId, Settings},
    effect::Effect,
    hinted_handoff,
    membership::{
        GossipConfig,
        state::{ClusterState, Description, founding_identity},
    },
    reaper,
    start::{Layout, Started, fetch, renew, start, store_filled, store_state},
};

const NODES: u16 = 3;
const PARTITIONS: u16 = 64;
const CLUSTER: &str = "counted";
/// Long enough for the cores to find each other.
const START: Duration = Duration::from_secs(5);

type Machine = Core<Prefixed<SimulatedDisk>>;
/// What came of an effect, for the machine that asked.
type Completion = Box<dyn FnOnce(&mut Machine, Now, &mut Vec<Effect>)>;
type Inbox = Rc<RefCell<VecDeque<(usize, Completion)>>>;

pub(crate) struct Cluster {
    disk: SimulatedDisk,
    executor: Executor,
    machines: Vec<Machine>,
    inbox: Inbox,
    /// Sender, receiver, frame.
    frames: VecDeque<(usize, usize, Vec<u8>)>,
    answer: Option<Reply>,
    /// Taken by whoever needs it.
    effects: Vec<Effect>,
    /// How often the machines allocated.
    #[cfg(test)]
    pub(crate) allocations: u64,
}

fn key(number: u64) -> Key {
    Key::new(DEFAULT_BUCKET, format!("key:{number:012}").as_bytes()).expect("a sound key")
}

fn request(operation: Operation) -> Request {
    Request { id: 7, timeout_us: 1_000_000, hops: 0, operation }
}

/// By two of three.
pub(crate) fn get(number: u64) -> Request {
    request(Operation::Get(Get { key: key(number), quorum: 2, consistency: Consistency::Sloppy, wants_context: true }))
}

/// Of 1 KiB, on the disks of two of three.
pub(crate) fn put(number: u64, version: u64) -> Request {
    let mut value = vec![0x5a; 1024];
    value[..8].copy_from_slice(&version.to_le_bytes());
    request(Operation::Put(Put {
        key: key(number),
        value: Some(value.into()),
        context: None,
        quorum: 2,
        durability: Durability::Durable,
        consistency: Consistency::Sloppy,
        token: None,
        wants_context: true,
    }))
}

fn endpoint(index: usize) -> Endpoint {
    Endpoint::new(NodeId(index as u16 + 1), CoreId(0))
}

fn index(endpoint: Endpoint) -> usize {
    usize::from(endpoint.node.0) - 1
}

fn now(disk: &SimulatedDisk) -> Now {
    let since = disk.now();
    Now { instant: Instant(since.as_nanos() as u64), wall_ms: 1_700_000_000_000 + since.as_millis() as u64 }
}

/// As a node has them by default, but for what runs in the background.
fn settings(me: Endpoint) -> Settings {
    Settings {
        me,
        read_quorum: 2,
        write_quorum: 2,
        timeout: Duration::from_secs(1),
        patience: Duration::from_millis(100),
        value_bytes_max: 1 << 20,
        object_bytes_max: 4 << 20,
        siblings_max: 64,
        operations_max: 1024,
        service_level: Duration::from_millis(10),
        admission: true,
        partitions: PARTITIONS,
        replicas: 3,
        gossip: GossipConfig::default(),
        exchanges: anti_entropy::Settings::typical(me),
        hints: hinted_handoff::Settings::typical(),
        reaper: reaper::Settings::typical(me),
    }
}

fn store(number: u64) -> Config {
    let segment_bytes = 16 << 20;
    let body_bytes_max = 5 << 20;
    Config { segment_bytes, body_bytes_max, checkpoint_log_bytes: u64::MAX, ..Config::new(number, PARTITIONS, 1) }
}

impl Cluster {
    /// A cluster that is up: every core knows the others, and that nobody has anything.
    pub(crate) fn new() -> Self {
        let mut cluster = Self {
            disk: SimulatedDisk::new(1, Timing::default()),
            executor: Executor::new(),
            machines: Vec::new(),
            inbox: Inbox::default(),
            frames: VecDeque::new(),
            answer: None,
            effects: Vec::new(),
            #[cfg(test)]
            allocations: 0,
        };
        let description = |node: u16| Description {
            identity: founding_identity(CLUSTER, NodeId(node)),
            id: NodeId(node),
            address: Ipv4Addr::new(10, 0, 0, node as u8).into(),
            cores: 1,
            port: 7400,
            core_port: 7401,
            peer_port: 7500,
            http_port: 7600,
            rack: String::new(),
            weight_thousandths: 1000,
        };
        let state = ClusterState::founded(PARTITIONS, 3, (1..=NODES).map(description).collect()).expect("a plain ring");
        for number in 0..usize::from(NODES) {
            cluster.start(number, &state);
        }
        for (one, other) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            cluster.drive(one, |machine, now, out| machine.handle_peer(now, endpoint(other), true, out));
        }
        cluster.come_up();
        cluster
    }

    fn start(&mut self, number: usize, state: &ClusterState) {
        let (me, disk) = (endpoint(number), self.disk.clone());
        let belonging = Belonging {
            identity: founding_identity(CLUSTER, me.node),
            state: state.clone(),
            seeds: state.endpoints().filter(|&seed| seed != me).collect(),
        };
        let starting = async move {
            let own = Prefixed::new(disk.clone(), &format!("core-{number}"));
            let (objects, hints) = (store(number as u64), store(1 << 32 | number as u64));
            let layout = Layout { cluster: 1, me, cores: 1 };
            let sealer = Sealer::new("the secret of three counted cores");
            let random = number as u64 + 1;
            start(own, objects, hints, layout, settings(me), belonging, sealer, random, || now(&disk)).await
        };
        let started = self.disk.run(&self.executor, starting).expect("the disk runs");
        let Started { core, tasks, .. } = started.unwrap_or_else(|error| panic!("{error}"));
        tasks.into_iter().for_each(|task| self.executor.spawn(0, Box::pin(task)));
        self.watch(number, core.store().clone(), LogId::Objects);
        self.watch(number, core.hint_store().clone(), LogId::Hints);
        self.machines.push(core);
    }

    fn watch<D: Disk>(&self, number: usize, store: Store<D>, log: LogId) {
        let inbox = self.inbox.clone();
        self.spawn(async move {
            let mut seen = Sequence(0);
            while let Watermark::Durable(upto) = store.advanced(seen).await {
                seen = upto;
                let watermark = Watermark::Durable(upto);
                tell(&inbox, number, move |machine, now, out| machine.handle_log(now, log, watermark, out));
            }
            panic!("{log:?} failed: {:?}", store.failure());
        });
    }

    /// Gossip, and comparisons of what is new, until nothing is left of them.
    fn come_up(&mut self) {
        while self.disk.now() < START {
            self.settle();
            let due = self.machines.iter().filter_map(Machine::next_timeout).map(|at| Duration::from_nanos(at.0));
            let next = due.chain(self.disk.next_due()).min().expect("gossip never ends");
            self.disk.advance(next.max(self.disk.now()));
            for number in 0..self.machines.len() {
                if self.machines[number].next_timeout().is_some_and(|at| at <= now(&self.disk).instant) {
                    self.drive(number, Machine::handle_timeout);
                }
            }
        }
        for machine in &self.machines {
            assert!(
                machine.unhealed().is_empty() && machine.peers_down() == 0,
                "{:?} is not up",
                machine.settings().me
            );
        }
    }

    /// Asks the first core, and waits for its answer.
    pub(crate) fn ask(&mut self, request: Request) {
        self.drive(0, |machine, now, out| machine.handle_request(now, now.instant, 1, request, out));
        self.settle();
        while self.answer.is_none() {
            self.disk.advance(self.disk.next_due().expect("an answer is under way"));
            self.settle();
        }
        let outcome = self.answer.take().expect("it is there").outcome;
        let sound = match &outcome {
            Outcome::Values { values, .. } => values.len() == 1,
            Outcome::Written { .. } => true,
            _ => false,
        };
        assert!(sound, "{outcome:?}");
    }

    /// Until all wait for the disk.
    fn settle(&mut self) {
        loop {
            let ran = self.executor.run_until_stalled() > 0;
            let completed = { self.inbox.borrow_mut().pop_front() };
            let moved = if let Some((number, completion)) = completed {
                self.drive(number, completion);
                true
            } else if let Some((from, to, bytes)) = self.frames.pop_front() {
                let frame = frame::decode(&bytes, usize::MAX).expect("sound").expect("whole");
                let message = frame.access().expect("a message");
                self.drive(to, |machine, now, out| {
                    machine.handle_message(now, now.instant, endpoint(from), message, out);
                });
                true
            } else {
                false
            };
            if !ran && !moved {
                return;
            }
        }
    }

    fn drive(&mut self, number: usize, event: impl FnOnce(&mut Machine, Now, &mut Vec<Effect>)) {
        let mut effects = std::mem::take(&mut self.effects);
        let (machine, now) = (&mut self.machines[number], now(&self.disk));
        let work = || event(machine, now, &mut effects);
        #[cfg(not(test))]
        work();
        #[cfg(test)]
        {
            self.allocations += allocation_counter::measure(work).count_total;
        }
        effects.drain(..).for_each(|effect| self.perform(number, effect));
        self.effects = effects;
    }

    fn perform(&mut self, number: usize, effect: Effect) {
        let machine = &self.machines[number];
        let (objects, hints, inbox) = (machine.store().clone(), machine.hint_store().clone(), self.inbox.clone());
        match effect {
            Effect::Send { to, message } => {
                let mut bytes = Vec::new();
                frame::encode(&message, &mut bytes).expect("within the bounds");
                self.frames.push_back((number, index(to), bytes));
            }
            Effect::Answer { reply, .. } => self.answer = Some(reply),
            Effect::Load { load, log: LogId::Objects, partition, key } => self.spawn(async move {
                let loaded = objects.read(partition, key.encoded()).await;
                tell(&inbox, number, move |machine, now, out| machine.handle_loaded(now, load, &loaded, out));
            }),
            Effect::Load { load, log: LogId::Hints, partition, key } => self.spawn(async move {
                let loaded = hints.read(partition, key.encoded()).await;
                tell(&inbox, number, move |machine, now, out| machine.handle_loaded(now, load, &loaded, out));
            }),
            Effect::Fetch { job, log, partition, key } => self.spawn(async move {
                let object = match log {
                    LogId::Objects => fetch(&objects, partition, key).await,
                    LogId::Hints => fetch(&hints, partition, key).await,
                };
                tell(&inbox, number, move |machine, now, out| machine.handle_fetched(now, job, log, object, out));
            }),
            Effect::StoreState(state) => self.spawn(async move {
                let stored = store_state(&objects, &state).await.is_ok();
                tell(&inbox, number, move |machine, now, out| machine.handle_state_stored(now, stored, out));
            }),
            Effect::StoreFilled => self.spawn(store_filled(objects)),
            Effect::RenewActor => {
                let disk = self.disk.clone();
                self.spawn(async move {
                    let incarnation = renew(&objects, now(&disk), 1).await.expect("the disk works");
                    tell(&inbox, number, move |machine, now, out| machine.handle_actor(now, incarnation, out));
                });
            }
            Effect::MembersChanged => {}
            other => panic!("{other:?} of a sound cluster"),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(0, Box::pin(task));
    }
}

fn tell(inbox: &Inbox, number: usize, completion: impl FnOnce(&mut Machine, Now, &mut Vec<Effect>) + 'static) {
    inbox.borrow_mut().push_back((number, Box::new(completion)));
}
