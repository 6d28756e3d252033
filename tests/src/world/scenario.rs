//! Driving a world by hand: one request, one fault at a time.
//!
//! The rule: whatever a scenario does, all checks run along; what it asserts itself is only what is special to it.
//!
//! Not here: scenarios (`tests/integration`).

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use quorate_engine::{Store, disk::simulated::SimulatedDisk};
use quorate_net::{
    frame,
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Message, Outcome, Request},
};

use super::{Event, Settings, Shape, World};
use crate::{
    checkers::Checked,
    faults::Plan,
    history::{Action, Operation, Status},
};

/// How long a scripted request waits.
const TIMEOUT: Duration = Duration::from_millis(500);

impl World {
    /// `nodes` nodes of one core, each of them a primary of every key when there are three; up, without clients and faults.
    ///
    /// # Panics
    /// When the cluster does not come up.
    #[must_use]
    pub fn scripted(seed: u64, nodes: u16) -> Self {
        Self::scripted_with(seed, nodes, |_| {})
    }

    /// The same, configured by `configure`.
    ///
    /// # Panics
    /// When the cluster does not come up.
    #[must_use]
    pub fn scripted_with(seed: u64, nodes: u16, configure: impl FnOnce(&mut Settings)) -> Self {
        let shape = Shape {
            nodes,
            cores: 1,
            replicas: 3,
            clients: 0,
            hot_keys: 1,
            cold_keys: 0,
            value_bytes_max: 0,
            gets_permille: 0,
        };
        let mut world = Self::new(seed, &shape, Plan::none());
        configure(&mut world.settings);
        world.outcomes = Some(Default::default());
        world.settle_down();
        world
    }

    /// A blind durable put of `value` with W.
    #[must_use]
    pub fn put(value: &str, quorum: u8) -> Action {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        Action::Put { value, quorum, durability: Durability::Durable, token: None, context: None }
    }

    /// A key of the default bucket.
    ///
    /// # Panics
    /// When the name is empty or too long.
    #[must_use]
    pub fn key(name: &str) -> Key {
        Key::new(DEFAULT_BUCKET, name.as_bytes()).expect("a short name")
    }

    /// A client begins an operation, and sends it to nobody yet. Returns its number.
    pub fn intend(&mut self, key: &Key, action: Action) -> usize {
        let client = self.clients.len() - 1;
        self.ledger.begin(Operation {
            client,
            key: key.clone(),
            action,
            consistency: Consistency::Strict,
            start: self.now,
            end: None,
            status: Status::Unknown,
            sloppy: false,
            writes: Default::default(),
        })
    }

    /// The operation is sent to a node, and reaches it now.
    pub fn send_to(&mut self, node: usize, operation: usize) {
        let client = self.clients.len() - 1;
        self.clients[client].begin(operation);
        let (id, _) = self.clients[client].send(&self.settings);
        let operation = self.workload.message(&self.ledger.operations[operation]);
        let request = Request { id, timeout_us: TIMEOUT.as_micros() as u32, hops: 0, operation };
        let mut bytes = Vec::new();
        frame::encode(&Message::Request(request), &mut bytes).expect("a request within its bounds");
        let (frame, to): (Rc<[u8]>, _) = (bytes.into(), self.shells[self.nodes[node].shells.start].me);
        self.at(self.now, Event::Ask { client, to, frame });
    }

    /// The operation is carried out through a node; its answer, or `None` when there was none in time.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn ask(&mut self, node: usize, key: &Key, action: Action) -> Option<Outcome> {
        let operation = self.intend(key, action);
        self.send_to(node, operation);
        self.answer(operation)
    }

    /// Waits for the answer to an operation.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn answer(&mut self, operation: usize) -> Option<Outcome> {
        let answered = |world: &Self| world.outcomes.as_ref().is_some_and(|outcomes| outcomes.contains_key(&operation));
        let waited = self.run_while(TIMEOUT * 2, |world| !answered(world));
        self.expect(waited);
        self.outcomes.as_mut()?.remove(&operation)
    }

    /// The values and the context that a get with R through a node gives.
    ///
    /// # Panics
    /// When it fails, or a property is violated.
    pub fn values(&mut self, node: usize, key: &Key, quorum: u8) -> (Vec<String>, Bytes) {
        match self.ask(node, key, Action::Get { quorum }) {
            Some(Outcome::Values { context, values, .. }) => {
                let mut values: Vec<_> =
                    values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
                values.sort();
                (values, context)
            }
            other => panic!("a get of {key:?} through node {node} gave {other:?}"),
        }
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn pass(&mut self, duration: Duration) {
        let passed = self.run_until(self.now + duration);
        self.expect(passed);
    }

    /// Waits until all cores are up and know each other.
    ///
    /// # Panics
    /// When that does not come to be, or a property is violated.
    pub fn settle_down(&mut self) {
        let whole = self.wait_until_whole(Duration::from_secs(5));
        self.expect(whole);
    }

    /// All faults end, all is read back.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn heal_and_audit(&mut self) {
        let healed = self.heal();
        self.expect(healed);
        self.settle_down();
        let audited = self.audit();
        self.expect(audited);
    }

    /// The disk of a node's first core.
    #[must_use]
    pub fn disk(&self, node: usize) -> &SimulatedDisk {
        &self.shells[self.nodes[node].shells.start].disk
    }

    /// The store of a node's first core, when it is up.
    #[must_use]
    pub fn store(&self, node: usize) -> Option<Store<SimulatedDisk>> {
        self.shells[self.nodes[node].shells.start].core().map(|core| core.store().clone())
    }

    /// From now on the node's copies may be destroyed; nothing is promised of them.
    pub fn give_up_copies(&mut self, node: usize) {
        self.victim = node;
        self.spoil_for_good(self.nodes[node].shells.start);
    }

    /// The wall clock of a node is set forward or back.
    pub fn step_wall_clock(&mut self, node: usize, by_ms: i64) {
        self.nodes[node].clock.step(by_ms);
    }

    /// Nothing passes from one node to another, nor back.
    pub fn cut_off(&mut self, a: usize, b: usize) {
        let (a, b) = (self.nodes[a].id, self.nodes[b].id);
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    fn expect<T>(&self, checked: Checked<T>) -> T {
        checked.unwrap_or_else(|violation| panic!("{violation}\n{}", self.log().join("\n")))
    }
}
