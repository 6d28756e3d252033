//! Reading everything back from a healed cluster.
//!
//! The rule: what was acknowledged must be known to the replicas together; what is known must be shown or replaced.
//!
//! Before that, the replicas must become equal by themselves: nobody reads, and nobody writes any more (P7).

use std::{rc::Rc, time::Duration};

use quorate_engine::{disk::simulated::SimulatedDisk, index::Listed, versions::Summary};
use quorate_net::{
    frame,
    id::Endpoint,
    key::Key,
    message::{Consistency, Durability, Message, Request},
};

use quorate_node::core::HintStore;

use super::{Event, World};
use crate::{
    causality::Events,
    checkers::Checked,
    history::{Action, Operation, Status},
};

/// A healed cluster answers within this time.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How often convergence is looked for.
const CONVERGENCE_STEP: Duration = Duration::from_millis(50);

impl World {
    /// Waits until every core is up and knows that every other one is.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or something else is violated.
    pub fn wait_until_whole(&mut self, limit: Duration) -> Checked {
        if self.run_while(limit, |world| !world.is_whole())? {
            return Ok(());
        }
        let states: Vec<_> = self
            .belonging()
            .flat_map(|node| &self.shells[self.nodes[node].shells.clone()])
            .map(|shell| (shell.me, shell.state(), &shell.told_down, shell.core().map_or(0, |core| core.peers_down())))
            .collect();
        let detail = format!("the cluster is not whole after {limit:?} without faults: {states:?}");
        Err(self.fail("liveness", detail))
    }

    /// P7: waits until all replicas of every partition hold the same, and looks whether their trees tell the truth.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or something else is violated.
    pub fn wait_until_converged(&mut self, limit: Duration) -> Checked {
        let until = self.now + limit;
        while let Some(partition) = self
            .first_divergent()
            .or_else(|| self.first_hinted())
            .or_else(|| Some(self.first_surplus()?.1))
            .or_else(|| self.living_cores().find_map(|core| core.unhealed().partitions().next()))
        {
            if self.now >= until {
                // What a store cannot read any more stands in its index all the same: nobody repairs that yet.
                if self.living_cores().any(|core| core.store().statistics().damaged > 0) {
                    return Ok(());
                }
                let roots: Vec<_> = self.roots(partition).collect();
                let hints: u64 = self.living_cores().map(|core| core.hint_store().keys()).sum();
                let surplus = self.first_surplus();
                let unhealed: usize = self.living_cores().map(|core| core.unhealed().partitions().count()).sum();
                let detail = format!(
                    "partition {partition} has the roots {roots:?}, {hints} hints are held, and {surplus:?} is \
                     held there and not kept, {unhealed} copies are not healed, after {limit:?} without faults"
                );
                return Err(self.fail("P7 convergence", detail));
            }
            self.run_until(self.now + CONVERGENCE_STEP)?;
        }
        (0..self.shells.len()).try_for_each(|at| self.check_undamaged(at))?;
        self.check_trees()
    }

    /// P7: the sums of all trees are those of what is held.
    pub(super) fn check_trees(&self) -> Checked {
        for core in self.living_cores() {
            let is_sound =
                |partition| core.store().root_is_sound(partition) && core.hint_store().root_is_sound(partition);
            let unsound = (0..core.ring().partitions()).find(|&partition| !is_sound(partition));
            if let Some(partition) = unsound {
                let me = core.settings().me;
                let detail = format!("the tree of partition {partition} on {me} is not what it holds");
                return Err(self.fail("P7 convergence", detail));
            }
        }
        Ok(())
    }

    fn first_divergent(&self) -> Option<u16> {
        (0..self.settings.ring.partitions()).find(|&partition| {
            let mut roots = self.roots(partition).map(|(_, root)| root);
            let first = roots.next();
            roots.any(|root| Some(root) != first)
        })
    }

    /// A partition of which somebody holds a hint.
    fn first_hinted(&self) -> Option<u16> {
        // A hint that cannot be read any more is given up.
        let is_held = |listed: Listed| listed.entry.summary != Summary::LOST;
        let hinted = |store: &HintStore<SimulatedDisk>| {
            let holds = |partition: &u16| store.index(|index| index.entries(*partition, 0, 0).any(is_held));
            (0..self.settings.ring.partitions()).find(holds)
        };
        self.living_cores().find_map(|core| hinted(core.hint_store()))
    }

    /// A partition of which somebody holds what it does not keep.
    fn first_surplus(&self) -> Option<(Endpoint, u16)> {
        self.living_cores().find_map(|core| {
            let (ring, me) = (core.ring(), core.settings().me);
            let keeps = |partition: u16| ring.keepers(partition).any(|keeper| keeper == me);
            let holds = |partition: u16| core.store().index(|index| index.partition_len(partition)) > 0;
            let surplus = (0..ring.partitions()).find(|&partition| holds(partition) && !keeps(partition));
            surplus.map(|partition| (me, partition))
        })
    }

    /// What each primary holds of a partition; `None` of one that is down.
    fn roots(&self, partition: u16) -> impl Iterator<Item = (Endpoint, Option<u64>)> + '_ {
        let primaries = self.ring().primaries(partition).to_vec();
        primaries.into_iter().map(move |primary| {
            let core = self.shells[self.shell_of(primary)].core();
            (primary, core.map(|core| core.store().index(|index| index.root(partition))))
        })
    }

    /// Reads all keys from all replicas, and checks that nothing is lost (P1 to P4).
    ///
    /// # Errors
    /// What is violated.
    pub fn audit(&mut self) -> Checked {
        for key in self.ledger.keys() {
            let begin = self.now;
            let covered = self.read_all(&key)?;
            self.note(Some(&key), || format!("all replicas together know {covered:?}"));
            let destroyed = self.ledger.destroyed();
            self.ledger.check_kept(&key, &covered, |put| {
                let copies = match put.action {
                    Action::Put { durability: Durability::Durable, quorum, .. } => quorum,
                    Action::Put { durability: Durability::One, .. } => 1,
                    // A crash may take what was only in memory.
                    _ => 0,
                };
                let destroyed = u8::from(destroyed.is_some_and(|destroyed| destroyed >= put.start));
                // A client may still be at its last retry.
                copies > destroyed && put.end.is_some_and(|end| end < begin)
            })?;
        }
        Ok(())
    }

    /// All that the replicas of a key know together.
    fn read_all(&mut self, key: &Key) -> Checked<Events> {
        let ring = self.ring();
        let owners = ring.primaries(ring.partition(key.name()));
        // Fewer than N when rivals have let too many go.
        let replicas = owners.len() as u8;
        for &owner in owners {
            if let Some(covered) = self.read_from(key, owner, replicas)? {
                return Ok(covered);
            }
        }
        let destroyed = self.shells.iter().any(|shell| shell.spoiled);
        if !destroyed {
            let detail = format!("no coordinator reads all {replicas} replicas of a healed cluster");
            return Err(crate::checkers::violation("liveness", key, detail));
        }
        // A damaged copy is not read: the others say what they know, to each of them.
        let mut all = Events::default();
        for &owner in owners {
            for quorum in (1..ring.replicas()).rev() {
                if let Some(covered) = self.read_from(key, owner, quorum)? {
                    all.extend(&covered);
                    break;
                }
            }
        }
        Ok(all)
    }

    /// One get by an auditor; what it covers, if it succeeds.
    fn read_from(&mut self, key: &Key, owner: Endpoint, quorum: u8) -> Checked<Option<Events>> {
        let auditor = self.clients.len() - 1;
        let number = self.ledger.begin(Operation {
            client: auditor,
            key: key.clone(),
            action: Action::Get { quorum },
            consistency: Consistency::Sloppy,
            start: self.now,
            end: None,
            status: Status::Unknown,
            sloppy: false,
            sends: 0,
            writes: Events::default(),
        });
        self.clients[auditor].begin(number);
        let (id, _) = self.clients[auditor].send(&self.settings);
        let operation = self.workload.message(&self.ledger.operations[number]);
        let request = Request { id, timeout_us: ANSWER_MAX.as_micros() as u32 / 2, hops: 0, operation };
        let mut bytes = Vec::new();
        frame::encode(&Message::Request(request), &mut bytes).expect("a get is within its bounds");
        let frame: Rc<[u8]> = bytes.into();
        self.at(self.now, Event::Ask { client: auditor, to: owner, frame });
        self.run_while(ANSWER_MAX, |world| world.clients[auditor].operation().is_some())?;
        self.clients[auditor].abandon();
        Ok(self.clients[auditor].last_seen(key, number, &self.ledger))
    }
}
