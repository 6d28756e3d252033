//! Who runs the cluster: nodes that join, leave, die for good and are replaced, each change by plan and commit.
//!
//! The rule: only the victim dies for good, since that destroys copies; there are never fewer members than N. What was
//! refused has changed nothing. After healing every change is brought to its end.
//!
//! Not here: what the cores make of it (`quorate_node`).

use std::{rc::Rc, time::Duration};

use quorate_net::{
    id::{Endpoint, NodeId},
    message::{
        ArchivedMessage,
        gossip::{NodeIdentity, Status},
    },
};
use quorate_node::{
    core::Belonging,
    membership::state::{Change, ChangeError, ClusterState, PlanError},
    ring::Ring,
};

use super::{Cause, Event, Fate, Machine, Node, Settings, World};
use crate::{checkers::Checked, faults::Class};

/// What the operator has in mind.
pub(super) struct Operator {
    /// So many changes are still to come.
    changes_left: u32,
    /// Something is not done yet.
    busy: bool,
    /// Who shall take whose places, as soon as it is known.
    replacement: Option<(NodeId, NodeId)>,
    /// Plans that were shown before.
    plans: Vec<u64>,
}

impl Operator {
    pub(super) fn new(changes_left: u32) -> Self {
        Self { changes_left, busy: false, replacement: None, plans: Vec::new() }
    }
}

impl World {
    /// The ring that counts: of the cores that run, the one of the highest term; while none runs, the last such one.
    pub(super) fn ring(&self) -> Rc<Ring> {
        match self.foremost() {
            Some(core) => core.ring().clone(),
            None => self.rings.last().map_or_else(|| self.settings.ring.clone(), |(_, ring)| ring.clone()),
        }
    }

    /// The core of the highest term.
    fn foremost(&self) -> Option<&Machine> {
        let stamp = |core: &&Machine| core.membership().state().stamp();
        self.living_cores().filter(|core| stamp(core).term > 0).max_by_key(stamp)
    }

    /// The nodes that are part of the cluster, or ask to be.
    pub(super) fn belonging(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].fate == Fate::Belongs)
    }

    /// The cores of those that run.
    pub(super) fn living_cores(&self) -> impl Iterator<Item = &Machine> {
        self.belonging().flat_map(|node| &self.shells[self.nodes[node].shells.clone()]).filter_map(|shell| shell.core())
    }

    pub(super) fn any_node(&mut self) -> usize {
        let nodes: Vec<usize> = self.belonging().collect();
        nodes[self.random.index(nodes.len())]
    }

    /// Whether a core knows that the sender does not belong. Gossip is how that learns why.
    pub(super) fn is_stranger(&self, at: usize, from: Endpoint, message: &ArchivedMessage) -> bool {
        let knows_not = |core: &Machine| !core.membership().state().has(from);
        !matches!(message, ArchivedMessage::Gossip(_)) && self.shells[at].core().is_some_and(knows_not)
    }

    /// Remembers by which tables a core goes.
    pub(super) fn look_at_ring(&mut self, at: usize) -> Checked {
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let stamp = core.membership().state().stamp();
        if self.shells[at].stamp == stamp {
            return Ok(());
        }
        let ring = core.ring().clone();
        self.shells[at].stamp = stamp;
        if !self.rings.iter().any(|(known, _)| *known == stamp) {
            self.note(None, || format!("core {at} goes by {stamp:?}"));
            self.rings.push((stamp, ring.clone()));
            return self.check_quorums_meet(at, &ring);
        }
        Ok(())
    }

    /// P10: when a ring comes into force, all cores go by it or by the change to it: else what one of them wrote is not read
    /// by another. Only where the operator makes one change after the other: of two at a time one is given up.
    fn check_quorums_meet(&self, at: usize, ring: &Ring) -> Checked {
        if !self.loses_gossip() || ring.is_changing() {
            return Ok(());
        }
        let meets = |core: &&Machine| {
            let theirs = core.ring();
            let same = |partition: &u16| {
                let owners = ring.primaries(*partition);
                theirs.primaries(*partition) == owners
                    || theirs.is_changing() && theirs.next_primaries(*partition) == owners
            };
            (0..ring.partitions()).all(|partition| same(&partition))
        };
        let knows_any = |core: &&Machine| core.membership().state().stamp().term > 0;
        match self.living_cores().filter(knows_any).find(|core| !meets(core)) {
            None => Ok(()),
            Some(core) => {
                let detail = format!("core {at} goes by a ring that {} knows nothing of", core.settings().me);
                Err(self.fail("P10 membership", detail))
            }
        }
    }

    /// What a node is told of the cluster when it starts for the first time.
    pub(super) fn belief(&self, node: usize) -> Belonging {
        let Node { id, identity, .. } = self.nodes[node];
        if identity == Settings::founding_identity(id) {
            return self.settings.founder(id);
        }
        let others = self.belonging().filter(|&other| other != node);
        let seeds = others.flat_map(|other| &self.shells[self.nodes[other].shells.clone()]).map(|shell| shell.me);
        self.settings.joiner(id, identity, seeds.collect())
    }

    /// Begins a change of the ring, if there may be another one.
    pub(super) fn change_ring(&mut self, class: Class) -> Checked {
        let members = self.foremost().map_or(0, |core| {
            let state = core.membership().state();
            let stays = |node: &&quorate_net::message::gossip::NodeEntry| {
                node.status == Status::Member
                    && !self.nodes.iter().any(|other| other.identity == node.identity && other.goes)
            };
            state.nodes().filter(stays).count()
        });
        let spare = members > usize::from(self.settings.ring.replicas());
        if self.operator.changes_left == 0 || self.operator.replacement.is_some() {
            return Ok(());
        }
        let done = match class {
            Class::Join => {
                self.add_node();
                true
            }
            Class::Leave if spare => {
                let node = self.any_node();
                self.stage(node, &Change::Leave(self.nodes[node].id))?
            }
            Class::Remove if spare => self.lose_for_good(self.victim)?,
            Class::Replace if members > 0 => {
                let old = if self.random.one_in(2) { self.victim } else { self.any_node() };
                self.replace(old)?
            }
            _ => false,
        };
        if done {
            self.hits.count(class);
            self.operator.changes_left -= 1;
            self.be_busy();
        }
        Ok(())
    }

    /// Another node starts, and asks to join. Returns its number.
    pub fn add_node(&mut self) -> usize {
        let node = self.new_node();
        self.be_busy();
        node
    }

    /// The same, and the operator does not look after it yet.
    pub fn new_node(&mut self) -> usize {
        let node = self.nodes.len();
        let id = NodeId(node as u16 + 1);
        let identity = NodeIdentity(u128::from(self.random.next_u64()) + 1);
        let made = Node::new(id, identity, self.nodes[0].shells.len() as u16, &mut self.shells, &mut self.random);
        self.note(None, || format!("node {node} ({id}) is new"));
        self.nodes.push(made);
        let when = self.now;
        self.at(when, Event::Start { node });
        node
    }

    /// The operator says that a node goes. False when it was refused.
    fn stage(&mut self, node: usize, change: &Change) -> Checked<bool> {
        if self.nodes[node].goes || self.nodes[node].fate != Fate::Belongs {
            return Ok(false);
        }
        let Some(via) = self.any_core(Some(node)) else { return Ok(false) };
        let staged = self.order(via, change)?.is_ok();
        self.nodes[node].goes |= staged;
        Ok(staged)
    }

    /// A node dies, and the operator says so.
    ///
    /// # Errors
    /// What is violated.
    pub fn lose_for_good(&mut self, node: usize) -> Checked<bool> {
        if !self.stage(node, &Change::Remove(self.nodes[node].id))? {
            return Ok(false);
        }
        self.nodes[node].fate = Fate::Dead;
        self.nodes[node].stays_down = true;
        self.end_node(node, |disk| disk.crash());
        for at in self.nodes[node].shells.clone() {
            self.spoil(at);
        }
        Ok(true)
    }

    fn replace(&mut self, old: usize) -> Checked<bool> {
        if self.nodes[old].goes || self.nodes[old].fate != Fate::Belongs {
            return Ok(false);
        }
        if old == self.victim && self.random.one_in(2) && !self.lose_for_good(old)? {
            return Ok(false);
        }
        let new = self.add_node();
        self.nodes[old].goes = true;
        self.operator.replacement = Some((self.nodes[old].id, self.nodes[new].id));
        Ok(true)
    }

    pub(super) fn be_busy(&mut self) {
        if !self.operator.busy {
            self.operator.busy = true;
            self.operate_later();
        }
    }

    fn operate_later(&mut self) {
        let when = self.now + Duration::from_millis(self.random.range(5..150));
        self.at(when, Event::Operate);
    }

    /// From now on the operator looks after the ring.
    pub fn look_after_ring(&mut self) {
        self.be_busy();
    }

    /// The operator looks how it stands, and does the next thing.
    pub(super) fn operate(&mut self) -> Checked {
        self.retire();
        let forgotten = self.forgotten_removal();
        if forgotten.is_none()
            && self.ring_is_settled()
            && self.operator.replacement.is_none()
            && self.nothing_is_staged()
        {
            self.operator.busy = false;
            return Ok(());
        }
        self.operate_later();
        let Some(via) = self.any_core(None) else { return Ok(()) };
        if let Some(id) = forgotten {
            return self.order(via, &Change::Remove(id)).map(drop);
        }
        if let Some((old, new)) = self.operator.replacement {
            let staged = self.order(via, &Change::Replace { old, new })?;
            // Until the new one is known there.
            let waits = matches!(staged, Err(ChangeError::Unknown(_) | ChangeError::Concerned(_)));
            if staged.is_ok() || !waits || self.healed.is_some() {
                self.operator.replacement = None;
            }
            return Ok(());
        }
        let healed = self.healed.is_some();
        let change = self.shells[via]
            .core()
            .and_then(|core| core.membership().state().ring_state().change().map(|change| change.is_paused()));
        match change {
            Some(true) if healed || self.random.one_in(3) => self.order(via, &Change::Resume).map(drop),
            // Who does not hear needs the time.
            Some(false) if self.loses_gossip() && !healed => Ok(()),
            Some(false) if !healed && self.random.one_in(12) => self.order(via, &Change::Pause).map(drop),
            Some(_) if !healed && self.random.one_in(15) || self.waits_for_the_dead() => {
                self.order(via, &Change::Abort).map(drop)
            }
            Some(_) => Ok(()),
            None => self.commit(via),
        }
    }

    /// A dead node of whose removal nobody knows any more: the core that was told of it lost its power first.
    fn forgotten_removal(&self) -> Option<NodeId> {
        let state = self.foremost()?.membership().state();
        let forgotten = |node: &&Node| {
            node.fate == Fate::Dead && state.node(node.id).is_some_and(|known| known.status == Status::Member)
        };
        self.nodes.iter().find(forgotten).map(|node| node.id)
    }

    /// Somebody who gains by the change that is under way was given up since.
    fn waits_for_the_dead(&self) -> bool {
        let waits = |core: &Machine| {
            let dead = |of: &Endpoint| self.nodes[self.node_of(self.shell_of(*of))].fate == Fate::Dead;
            core.membership().state().unconfirmed().iter().any(dead)
        };
        self.foremost().is_some_and(waits)
    }

    /// Whether somebody is to miss each change.
    fn loses_gossip(&self) -> bool {
        self.plan.classes.contains(&Class::Deafness)
    }

    /// Commits the plan that is shown, through the same core or another one.
    fn commit(&mut self, via: usize) -> Checked {
        let Some(core) = self.shells[via].core() else { return Ok(()) };
        let Ok(plan) = core.plan() else { return Ok(()) };
        let stale = self.operator.plans.iter().rev().copied().find(|&old| old != plan.id);
        if self.random.one_in(4) {
            let wrong = stale.unwrap_or(plan.id ^ 1);
            if self.order(via, &Change::Commit { plan: wrong })? != Err(ChangeError::Stale { now: plan.id }) {
                let detail = format!("core {via} shows the plan {:x}, and did not refuse {wrong:x}", plan.id);
                return Err(self.fail("P10 membership", detail));
            }
        }
        self.operator.plans.push(plan.id);
        let other = if self.random.one_in(3) { self.any_core(None).unwrap_or(via) } else { via };
        if self.order(other, &Change::Commit { plan: plan.id })?.is_ok() {
            if self.loses_gossip() {
                self.deafen(self.node_of(other));
            } else if self.plan.classes.contains(&Class::Rivalry) && self.healed.is_none() {
                return self.rival(self.node_of(other), plan.id);
            } else if self.plan.classes.contains(&Class::Solitude) && self.healed.is_none() {
                self.leave_alone(self.node_of(other));
            }
        }
        Ok(())
    }

    /// Another operator, who has not heard of what was just committed on a node, has one more leave and commits that.
    fn rival(&mut self, committed_on: usize, plan: u64) -> Checked {
        let (Some(via), leaver) = (self.any_core(Some(committed_on)), self.any_node()) else { return Ok(()) };
        let leaves = Change::Leave(self.nodes[leaver].id);
        if !self.nodes[leaver].goes && self.nodes[leaver].fate == Fate::Belongs {
            self.nodes[leaver].goes |= self.order(via, &leaves)?.is_ok();
        }
        let other = self.shells[via].core().and_then(|core| core.plan().ok()).map(|other| other.id);
        if let Some(other) = other.filter(|&other| other != plan)
            && self.order(via, &Change::Commit { plan: other })?.is_ok()
        {
            self.hits.count(Class::Rivalry);
        }
        Ok(())
    }

    /// Has a core make a change. What it refuses must have changed nothing.
    pub(super) fn order(&mut self, via: usize, change: &Change) -> Checked<Result<(), ChangeError>> {
        let digest = |world: &Self| world.shells[via].core().map(|core| core.membership().state().digest());
        let (before, mut result) = (digest(self), Ok(()));
        self.drive(via, &Cause::None, |core, now, out| result = core.handle_change(now, change.clone(), out))?;
        self.note(None, || format!("core {via} is told to {change:?}: {result:?}"));
        if result.is_err() && digest(self) != before {
            let detail = format!("core {via} refused {change:?}, and changed its state all the same");
            return Err(self.fail("P10 membership", detail));
        }
        Ok(result)
    }

    /// A core that runs and does not stand still, of another node than this one.
    fn any_core(&mut self, but: Option<usize>) -> Option<usize> {
        let runs = |&at: &usize| self.shells[at].core().is_some();
        let awake = |&node: &usize| {
            let Node { paused_until, deaf_until, .. } = self.nodes[node];
            Some(node) != but && paused_until.is_none() && deaf_until <= self.now
        };
        let cores: Vec<usize> =
            self.belonging().filter(awake).flat_map(|node| self.nodes[node].shells.clone()).filter(runs).collect();
        (!cores.is_empty()).then(|| cores[self.random.index(cores.len())])
    }

    /// Nodes that the cluster has let go end, or linger; some that were given up come back with their old disk.
    fn retire(&mut self) {
        // Nothing is built on what a crash may take back.
        let Some(core) = self.foremost().filter(|core| core.is_state_stored()) else { return };
        let entries = core.membership().state().entries();
        for entry in entries.into_iter().filter(|entry| entry.status == Status::Removed) {
            let found = self.nodes.iter().position(|node| node.identity == entry.identity);
            let Some(node) = found else { continue };
            match self.nodes[node].fate {
                Fate::Belongs => {
                    self.nodes[node].fate = Fate::Left;
                    if !self.random.one_in(4) {
                        self.nodes[node].stays_down = true;
                        self.end_node(node, |disk| disk.kill());
                    }
                }
                Fate::Dead => {
                    self.nodes[node].fate = Fate::Removed;
                    if self.random.one_in(2) {
                        self.nodes[node].stays_down = false;
                        self.start_later(node);
                    }
                }
                Fate::Left | Fate::Removed => {}
            }
        }
    }

    /// Whether all cores that belong go by one ring that does not change, for good.
    #[must_use]
    pub fn ring_is_settled(&self) -> bool {
        let stored = |core: &&Machine| core.is_state_stored();
        let state = |at: usize| self.shells[at].core().filter(stored).map(|core| core.membership().state());
        let mut states = self.belonging().flat_map(|node| self.nodes[node].shells.clone()).map(state);
        let Some(Some(first)) = states.next() else { return false };
        let same = |state: Option<&ClusterState>| state.is_some_and(|state| state.digest() == first.digest());
        first.ring_state().change().is_none() && first.stamp().term > 0 && states.all(same)
    }

    fn nothing_is_staged(&self) -> bool {
        self.foremost().is_some_and(|core| core.plan().err() == Some(PlanError::NothingStaged))
    }

    /// P10: waits until all that was committed is done, and looks at the ring that came of it.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or something else is violated.
    pub fn wait_until_settled(&mut self, limit: Duration) -> Checked {
        if !self.run_while(limit, |world| !world.ring_is_settled() || world.operator.busy)? {
            let states: Vec<_> = self.living_cores().map(describe).collect();
            let detail = format!("the ring is not settled after {limit:?} without faults: {states:?}");
            return Err(self.fail("P10 membership", detail));
        }
        // A change that was taken for lost may have been found, and done, since the operator last looked.
        self.retire();
        let Some(core) = self.foremost() else { return Ok(()) };
        let members = core.membership().state().members(|status| status != Status::Joining).len();
        let ring = core.ring();
        let wanted = members.min(usize::from(ring.replicas()));
        for partition in 0..ring.partitions() {
            let mut nodes: Vec<NodeId> = ring.primaries(partition).iter().map(|endpoint| endpoint.node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            if nodes.len() != wanted || ring.primaries(partition).len() != wanted {
                let detail = format!("partition {partition} is kept by {nodes:?}, {wanted} nodes ought to");
                return Err(self.fail("P10 membership", detail));
            }
        }
        Ok(())
    }
}

/// How a core stands in a change.
fn describe(core: &Machine) -> String {
    let state = core.membership().state();
    let behind: Vec<Endpoint> = core.membership().behind_ring();
    format!(
        "{} goes by {:?} {:x}, changes: {:?}, left: {:?}, unconfirmed: {:?}, behind: {behind:?}, hints: {}, {:?}",
        core.settings().me,
        state.stamp(),
        state.digest().hash,
        state.ring_state().change().map(|change| change.pauses),
        core.transfer().progress(),
        state.unconfirmed(),
        core.hint_store().keys(),
        state.nodes().map(|node| (node.id, node.status)).collect::<Vec<_>>(),
    )
}
