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
    id::{Endpoint, NodeId},
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Message, Outcome, Request},
};

use quorate_node::{
    core::{Core, LogId},
    membership::state::Change,
};

use super::{Event, Fate, Settings, Shape, World, injection::Ending};
use crate::{
    checkers::Checked,
    faults::Plan,
    history::{Action, Operation, Status},
};

/// How long a scripted request waits.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Every change of the ring is done within this time.
const SETTLING_MAX: Duration = Duration::from_secs(60);

/// Replicas are equal within this time.
const CONVERGENCE_MAX: Duration = Duration::from_secs(180);

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
            // So that there is room for large ones.
            value_bytes_max: 60_000,
            gets_permille: 0,
            deletes_one_in: 6,
            leisure: 1,
        };
        let mut world = Self::new(seed, &shape, Plan::none());
        world.settings.loosen_limits();
        // The one client does what the scenario says, and nothing by itself.
        world.workload.close();
        configure(&mut world.settings);
        world.outcomes = Some(Default::default());
        world.settle_down();
        world.wait_until_healed();
        // Nothing is left to be stored, either.
        world.pass(Duration::from_millis(20));
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

    /// A blind durable delete with W.
    #[must_use]
    pub fn delete(quorum: u8) -> Action {
        Action::Put { value: None, quorum, durability: Durability::Durable, token: None, context: None }
    }

    /// A client begins an operation, and sends it to nobody yet. Returns its number.
    pub fn intend(&mut self, key: &Key, action: Action) -> usize {
        self.intend_with(key, action, Consistency::Strict)
    }

    /// The same, and fallbacks may stand in.
    pub fn intend_sloppily(&mut self, key: &Key, action: Action) -> usize {
        self.intend_with(key, action, Consistency::Sloppy)
    }

    fn intend_with(&mut self, key: &Key, action: Action, consistency: Consistency) -> usize {
        let client = self.clients.len() - 1;
        self.ledger.begin(Operation {
            client,
            key: key.clone(),
            action,
            consistency,
            start: self.now,
            sends: 1,
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

    /// The same, and fallbacks may stand in.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn ask_sloppily(&mut self, node: usize, key: &Key, action: Action) -> Option<Outcome> {
        let operation = self.intend_sloppily(key, action);
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

    /// Waits until no core's copy may lack anything.
    ///
    /// # Panics
    /// When that does not come to be, or a property is violated.
    pub fn wait_until_healed(&mut self) {
        self.wait_for("all copies are whole", |world| world.living_cores().all(|core| core.unhealed().is_empty()));
    }

    /// All faults end, all is read back.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn heal_and_audit(&mut self) {
        let healed = self.heal();
        self.expect(healed);
        self.settle_down();
        self.wait_until_healed();
        let audited = self.audit();
        self.expect(audited);
    }

    /// Waits until no change of the ring is under way, and all cores go by the same one.
    ///
    /// # Panics
    /// When that does not come to be, or a property is violated.
    pub fn settle_ring(&mut self) {
        let settled = self.wait_until_settled(SETTLING_MAX);
        self.expect(settled);
    }

    /// Waits until all replicas hold the same, and nobody holds a hint.
    ///
    /// # Panics
    /// When that does not come to be, or a property is violated.
    pub fn converge(&mut self) {
        let converged = self.wait_until_converged(CONVERGENCE_MAX);
        self.expect(converged);
    }

    /// Lets time pass until `there`.
    ///
    /// # Panics
    /// When that does not come to be, or a property is violated.
    pub fn wait_for(&mut self, what: &str, there: impl Fn(&Self) -> bool) {
        let waited = self.run_while(SETTLING_MAX, |world| !there(world));
        assert!(self.expect(waited), "it does not come to be that {what}");
    }

    /// The machine of a node's first core, when it is up.
    #[must_use]
    pub fn core(&self, node: usize) -> Option<&Core<SimulatedDisk>> {
        self.shells[self.nodes[node].shells.start].core()
    }

    /// The nodes of a key's preference list, the primaries first.
    #[must_use]
    pub fn preference(&self, key: &Key) -> Vec<usize> {
        let ring = self.ring();
        let node = |endpoint: &Endpoint| self.node_of(self.shell_of(*endpoint));
        ring.preference(ring.partition(key.name())).iter().map(node).collect()
    }

    /// Whether a node keeps a key, by the ring that it goes by.
    #[must_use]
    pub fn keeps(&self, node: usize, key: &Key) -> bool {
        let keeps = |core: &Core<SimulatedDisk>| {
            core.ring().keepers(core.ring().partition(key.name())).any(|keeper| keeper == core.settings().me)
        };
        self.core(node).is_some_and(keeps)
    }

    /// Whether a node holds something of a key.
    #[must_use]
    pub fn holds(&self, node: usize, key: &Key) -> bool {
        self.core(node).is_some_and(|core| !core.local_version(LogId::Objects, key).is_absent())
    }

    /// Whether all cores that run know the same of who belongs.
    #[must_use]
    pub fn all_agree(&self) -> bool {
        let mut digests = self.living_cores().map(|core| core.membership().state().digest());
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    /// How many hints a node holds.
    #[must_use]
    pub fn hints(&self, node: usize) -> u64 {
        self.core(node).map_or(0, |core| core.hint_store().keys())
    }

    /// The operator makes a change through a node.
    ///
    /// # Panics
    /// When it is refused, or a property is violated.
    pub fn change(&mut self, node: usize, change: &Change) {
        if let Change::Leave(id) | Change::Remove(id) = change {
            let goes = self.nodes.iter_mut().find(|node| node.id == *id);
            goes.expect("the operator knows whom it names").goes = true;
        }
        let ordered = self.order(self.nodes[node].shells.start, change);
        assert_eq!(self.expect(ordered), Ok(()), "{change:?}");
    }

    /// The operator commits what a node shows as the plan.
    ///
    /// # Panics
    /// When there is none, or a property is violated.
    pub fn commit_plan(&mut self, node: usize) {
        let plan = self.core(node).expect("it is up").plan().expect("something is staged").id;
        self.change(node, &Change::Commit { plan });
    }

    /// The operator gives a node up, which may live on. From now on the operator looks after the ring.
    ///
    /// # Panics
    /// When it is refused, or a property is violated.
    pub fn give_up_node(&mut self, node: usize, via: usize) {
        self.change(via, &Change::Remove(self.nodes[node].id));
        self.nodes[node].fate = Fate::Dead;
        self.be_busy();
    }

    /// The id of a node.
    #[must_use]
    pub fn id(&self, node: usize) -> NodeId {
        self.nodes[node].id
    }

    /// A node that was given up starts on the disk that it had.
    pub fn bring_back(&mut self, node: usize) {
        self.nodes[node].stays_down = false;
        self.at(self.now, Event::Start { node });
    }

    /// A node stands still for a while.
    pub fn freeze(&mut self, node: usize, length: Duration) {
        let at = self.now + length;
        self.nodes[node].paused_until = Some(at);
        self.at(at, Event::End(Ending::Resume { node, at }));
    }

    /// Reads all that a node's first core holds from its disk, as a scrub does.
    ///
    /// # Panics
    /// When a property is violated.
    pub fn scrub(&mut self, node: usize) {
        let at = self.nodes[node].shells.start;
        let done = self.shells[at].scrub();
        self.wait_for("the scrub is through", |_| done.get());
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

    /// Nothing passes between a node and the others.
    pub fn isolate(&mut self, node: usize) {
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.cut_off(node, other));
    }

    /// Takes back that two nodes were cut off from each other.
    pub fn join_up(&mut self, a: usize, b: usize) {
        let (here, there) = (self.nodes[a].id, self.nodes[b].id);
        self.network.join(here, there);
        self.network.join(there, here);
        self.look_soon(self.nodes[a].shells.start, self.nodes[b].shells.start);
        self.look_soon(self.nodes[b].shells.start, self.nodes[a].shells.start);
    }

    /// Takes back that a node was isolated.
    pub fn readmit(&mut self, node: usize) {
        (0..self.nodes.len()).filter(|&other| other != node).for_each(|other| self.join_up(node, other));
    }

    /// What is sent from one node to another waits for a while.
    pub fn clog(&mut self, from: usize, to: usize, length: Duration) {
        self.network.clog(self.nodes[from].id, self.nodes[to].id, self.now + length);
    }

    fn expect<T>(&self, checked: Checked<T>) -> T {
        checked.unwrap_or_else(|violation| panic!("{violation}\n{}", self.log().join("\n")))
    }
}
