//! What a core answers to exchanges that others began.
//!
//! The rule: nothing is kept but a lease for each partition and the reads and takes under way, which are bounded; what
//! does not fit is dropped, since the asker asks again.
//!
//! Not here: the one who asks (`exchange`).

use std::collections::BTreeMap;

use quorate_net::{
    id::Endpoint,
    message::{
        self,
        exchange::{Branch, ENTRIES_MAX, HashedKey, HeldKey, Step},
    },
};

use super::{Action, Desk, Job, Tree, bytes_of};
use crate::clock::Instant;

#[derive(Debug, Default)]
pub(super) struct Responder {
    /// By partition.
    leases: BTreeMap<u16, Lease>,
    /// Partitions whose copy here is being healed, with the last exchange that each peer began about it, and when.
    pub(super) healing: BTreeMap<u16, BTreeMap<Endpoint, (u64, Instant)>>,
    /// Reads and takes under way for others.
    pub(super) jobs: usize,
}

/// The exchange that a partition is in.
#[derive(Debug)]
struct Lease {
    peer: Endpoint,
    number: u64,
    until: Instant,
}

impl Responder {
    /// Whether the partition is in an exchange that another core began.
    pub(super) fn leases(&self, now: Instant, partition: u16) -> bool {
        self.leases.get(&partition).is_some_and(|lease| now < lease.until)
    }

    /// The peer is down.
    pub(super) fn forget(&mut self, peer: Endpoint) {
        self.leases.retain(|_, lease| lease.peer != peer);
    }

    /// Answers an ask. `held`: the partition is in an exchange that this core began.
    pub(super) fn answer<T: Tree>(
        &mut self,
        desk: &mut Desk<'_, T>,
        from: Endpoint,
        message: message::Exchange,
        held: bool,
    ) {
        let message::Exchange { number, round, partition, step } = message;
        let tree = desk.tree;
        let free = match step {
            Step::Root => true,
            Step::Close { .. } => return self.close(from, number, partition),
            _ => !held && self.lease(desk, from, number, partition),
        };
        let answer = match step {
            _ if !free => Step::Busy,
            Step::Root => {
                let heals = self.healing.contains_key(&partition);
                if let Some(healing) = self.healing.get_mut(&partition) {
                    healing.insert(from, (number, desk.now));
                }
                Step::RootIs { sum: tree.root(partition), level: tree.level(partition), heals }
            }
            Step::Branches { level, deeper, branches } => branches_are(tree, partition, level, deeper, &branches),
            Step::List { level, leaves, after } => list_is(tree, partition, level, &leaves, after),
            Step::Compare { keys } => {
                let version = |&key: &HashedKey| tree.find(partition, key).map_or(0, |held| held.version);
                Step::CompareIs { versions: keys.iter().map(version).collect() }
            }
            Step::Fetch { key, known } => match tree.find(partition, key) {
                Some(held) if held.version != known => {
                    if let Some(job) = self.job(desk, Job::Other { to: from, number, round, partition, key }) {
                        desk.out.push(Action::Load { job, partition, key });
                    }
                    return;
                }
                _ => Step::Fetched { key, object: None },
            },
            Step::Give { key, object } => {
                if let Some(job) = self.job(desk, Job::Other { to: from, number, round, partition, key }) {
                    desk.shared.statistics.bytes_received += bytes_of(&object);
                    desk.out.push(Action::Take { job, from, partition, object });
                }
                return;
            }
            _ => return,
        };
        desk.out.push(Action::Send { to: from, message: message::Exchange { number, round, partition, step: answer } });
    }

    fn close(&mut self, from: Endpoint, number: u64, partition: u16) {
        if self.leases.get(&partition).is_some_and(|lease| (lease.peer, lease.number) == (from, number)) {
            self.leases.remove(&partition);
        }
    }

    /// Whether the partition is this exchange's, now or already.
    fn lease<T>(&mut self, desk: &Desk<'_, T>, peer: Endpoint, number: u64, partition: u16) -> bool {
        let others = |lease: &Lease| (lease.peer, lease.number) != (peer, number);
        // A peer has one exchange about a partition at a time: a new one follows one that it gave up.
        let stands = |lease: &Lease| desk.now < lease.until && (lease.peer != peer || number < lease.number);
        if self.leases.get(&partition).is_some_and(|lease| others(lease) && stands(lease)) {
            return false;
        }
        // As long as the asker may pause before its next ask, and then have to make it twice.
        let until = desk.now + desk.settings.confirm + 2 * desk.settings.timeout;
        self.leases.insert(partition, Lease { peer, number, until });
        true
    }

    fn job<T>(&mut self, desk: &mut Desk<'_, T>, job: Job) -> Option<u64> {
        (self.jobs < desk.settings.jobs_max).then(|| {
            self.jobs += 1;
            desk.shared.job(job)
        })
    }
}

fn branches_are(tree: &impl Tree, partition: u16, level: u8, deeper: u8, branches: &[Branch]) -> Step {
    let mut sums = Vec::new();
    let differ = branches.iter().map(|branch| {
        let from = sums.len();
        sums.extend(parts(level, deeper, branch.index).map(|part| tree.leaf(partition, level + deeper, part)));
        let differs = sums[from..].iter().fold(0, |sum: u64, &part| sum.wrapping_add(part)) != branch.sum;
        if !differs {
            sums.truncate(from);
        }
        differs
    });
    Step::BranchesAre { differ: differ.collect(), sums }
}

/// The parts of a branch that are `deeper` levels below it, in the order of the answer.
pub(super) fn parts(level: u8, deeper: u8, index: u64) -> impl Iterator<Item = u64> {
    (0..1u64 << deeper).map(move |part| part << level | index)
}

fn list_is(tree: &impl Tree, partition: u16, level: u8, leaves: &[Branch], after: Option<HashedKey>) -> Step {
    let (mut held, mut more) = (Vec::new(), false);
    let mut differ = Vec::with_capacity(leaves.len());
    for (at, leaf) in leaves.iter().enumerate() {
        let differs = tree.leaf(partition, level, leaf.index) != leaf.sum;
        differ.push(differs);
        if differs && !more {
            let after = after.filter(|_| at == 0);
            held.extend(sorted(tree, partition, level, leaf.index, after));
            more = held.len() > ENTRIES_MAX;
        }
    }
    held.truncate(ENTRIES_MAX);
    Step::ListIs { differ, held, more }
}

/// The entries of a leaf after this key, by key.
pub(super) fn sorted(
    tree: &impl Tree,
    partition: u16,
    level: u8,
    index: u64,
    after: Option<HashedKey>,
) -> Vec<HeldKey> {
    let mut held = tree.held(partition, level, index);
    held.retain(|held| after.is_none_or(|after| held.key > after));
    held.sort_unstable_by_key(|held| held.key);
    held
}
