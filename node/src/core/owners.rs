//! Who owns, who is asked and who may stand in, as this core sees it.
//!
//! Not here: the tables (`ring`), how votes are counted (`quorum`), who coordinates (`forwards`).

use quorate_engine::disk::Disk;
use quorate_net::{
    id::Endpoint,
    message::{
        Consistency, Failure,
        gossip::{NodeEntry, Status},
    },
};

use super::{Core, LogId};
use crate::quorum::{Few, Tally, Voter};

impl<D: Disk> Core<D> {
    /// In which log this core keeps objects of a partition.
    pub(super) fn log_of(&self, partition: u16) -> LogId {
        if self.keeps(partition) { LogId::Objects } else { LogId::Hints }
    }

    /// Whether this core is a primary, by the ring that serves or by the one that is to come.
    pub(super) fn keeps(&self, partition: u16) -> bool {
        self.owns(partition) || self.ring.gaining(partition).any(|owner| owner == self.settings.me)
    }

    /// Those of the voters that are not asked. Who is only late is asked all the same when there are too few without it.
    pub(super) fn unreachable(&self, voters: &[Voter], fallbacks: &[Endpoint], needed: u8) -> Few<Endpoint> {
        let down = |voter: &&Voter| self.down.contains(&voter.endpoint);
        let up = Tally::of(voters.iter().filter(|voter| !down(voter)));
        let fallbacks_up = fallbacks.iter().filter(|fallback| !self.down.contains(fallback)).count();
        let enough = up.lacks(needed, self.ring.is_changing()) <= fallbacks_up;
        let out = |endpoint: &Endpoint| enough || self.disconnected.contains(endpoint);
        voters.iter().filter(down).map(|voter| voter.endpoint).filter(out).collect()
    }

    /// Those who may stand in for owners that cannot be reached, in order. Who is only late comes last: it is asked all the
    /// same when there is nobody else.
    pub(super) fn fallbacks(&self, partition: u16, consistency: Consistency) -> Few<Endpoint> {
        if consistency == Consistency::Strict {
            return Few::new();
        }
        let gains = |endpoint| self.ring.gaining(partition).any(|owner| owner == endpoint);
        let may = |&endpoint: &Endpoint| {
            endpoint != self.settings.me
                && !self.disconnected.contains(&endpoint)
                && !gains(endpoint)
                && !self.leaves(endpoint)
        };
        let mut fallbacks: Few<Endpoint> = self.ring.fallbacks(partition).iter().copied().filter(may).collect();
        fallbacks.sort_by_key(|fallback| self.down.contains(fallback));
        fallbacks
    }

    /// Whether a core is to leave by the change that is under way: it takes no more hints, nor coordinates what it would have to
    /// keep as one, since it has to give away those that it holds.
    pub(super) fn leaves(&self, endpoint: Endpoint) -> bool {
        let leaving = |node: &NodeEntry| matches!(node.status, Status::Leaving | Status::Removing);
        self.ring.is_changing() && self.membership.state().node(endpoint.node).is_some_and(leaving)
    }

    /// Who is asked about a partition: its owners. When this core owns nothing of it, it stands in for the first.
    pub(super) fn voters(&self, partition: u16) -> Few<Voter> {
        let mut voters: Few<Voter> = Voter::owners(&self.ring, partition).collect();
        if !self.owns(partition)
            && let Some(first) = voters.first_mut()
        {
            *first = Voter::stand_in(self.settings.me, first.groups);
        }
        voters
    }

    /// How many of the partitions that this core owns lack a quorum: fewer of their owners can be reached than a read or a
    /// write needs by default.
    #[must_use]
    pub fn partitions_without_quorum(&self) -> usize {
        let needed = self.settings.read_quorum.max(self.settings.write_quorum);
        let lacks = |&partition: &u16| {
            let up = Voter::owners(&self.ring, partition).filter(|voter| !self.down.contains(&voter.endpoint));
            let up: Few<Voter> = up.collect();
            self.owns(partition) && !Tally::of(up.iter()).reaches(needed, self.ring.is_changing())
        };
        (0..self.ring.partitions()).filter(lacks).count()
    }

    pub(super) fn owns(&self, partition: u16) -> bool {
        self.ring.primaries(partition).contains(&self.settings.me)
    }

    pub(super) fn quorum_of(&self, asked: u8, default: u8) -> Result<u8, Failure> {
        let replicas = self.ring.replicas();
        match asked {
            0 => Ok(default),
            asked if asked <= replicas => Ok(asked),
            asked => Err(Failure::BadRequest(format!("a quorum of {asked} was asked of {replicas} replicas"))),
        }
    }
}
