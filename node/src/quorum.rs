//! Counting answers.
//!
//! The rule: each node has one vote, the first that arrives; duplicates and strangers do not count. While the ring changes
//! there are two groups, the owners before and those to be, and what counts must be enough in each: so two requests always
//! meet, whichever of the two rings they go by (R + W > N). A fallback that stands in for a primary votes in its groups, and
//! only for requests that are sloppy.
//!
//! Pure. Not here: what a vote is about.

use quorate_engine::planted::{Bug, planted};
use quorate_net::id::Endpoint;
use smallvec::SmallVec;

use crate::ring::Ring;

/// How a quorum stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Enough said yes.
    Reached,
    /// It can still go either way.
    Open,
    /// Too many said no.
    Lost,
}

/// Which owners of a partition a voter is one of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    /// Of the ring that serves.
    pub present: bool,
    /// Of the ring that is to come; all `false` when none is.
    pub next: bool,
}

/// Somebody who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter {
    /// Who.
    pub endpoint: Endpoint,
    /// In what it counts.
    pub groups: Groups,
    /// It is a fallback.
    pub stands_in: bool,
}

/// As many as a request usually asks, without an allocation.
pub type Few<T> = SmallVec<[T; 4]>;

/// How many voters there are of a kind, in each group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    present: u8,
    next: u8,
}

impl Groups {
    /// An owner by the only ring that there is.
    pub const PRESENT: Self = Self { present: true, next: false };
}

impl Voter {
    /// All owners of a partition, by the ring that serves and by the one that is to come.
    pub fn owners(ring: &Ring, partition: u16) -> impl Iterator<Item = Self> + '_ {
        let present = ring.primaries(partition).iter().map(|&endpoint| (endpoint, true));
        let gaining = ring.gaining(partition).map(|endpoint| (endpoint, false));
        present.chain(gaining).map(move |(endpoint, present)| {
            let next = ring.is_changing() && ring.next_primaries(partition).contains(&endpoint);
            Self { endpoint, groups: Groups { present, next }, stands_in: false }
        })
    }

    /// A fallback in the place of an owner.
    #[must_use]
    pub fn stand_in(endpoint: Endpoint, groups: Groups) -> Self {
        Self { endpoint, groups, stands_in: true }
    }
}

impl Tally {
    /// Counts those voters.
    pub fn of<'a>(voters: impl Iterator<Item = &'a Voter>) -> Self {
        let mut tally = Self::default();
        for voter in voters {
            tally.present += u8::from(voter.groups.present);
            tally.next += u8::from(voter.groups.next);
        }
        tally
    }

    /// Whether there are `needed` in each group that there is.
    #[must_use]
    pub fn reaches(self, needed: u8, changing: bool) -> bool {
        self.least(changing) >= needed
    }

    /// How many are missing of `needed` in each group that there is, at most: one more may count in both.
    #[must_use]
    pub fn lacks(self, needed: u8, changing: bool) -> usize {
        let next = if changing { needed.saturating_sub(self.next) } else { 0 };
        usize::from(needed.saturating_sub(self.present)) + usize::from(next)
    }

    /// How many there are in the group that has fewer.
    #[must_use]
    pub fn least(self, changing: bool) -> u8 {
        if changing && planted(Bug::GainerCountsAlone) {
            self.present.max(self.next)
        } else if changing {
            self.present.min(self.next)
        } else {
            self.present
        }
    }
}

/// The votes of those who are asked, of whom `needed` must say yes.
#[derive(Clone, Debug)]
pub struct Quorum {
    needed: u8,
    changing: bool,
    votes: Few<(Voter, Option<bool>)>,
}

impl Quorum {
    /// Nobody has voted yet.
    #[must_use]
    pub fn new(needed: u8, voters: impl IntoIterator<Item = Voter>) -> Self {
        let votes: Few<_> = voters.into_iter().map(|voter| (voter, None)).collect();
        let changing = votes.iter().any(|(voter, _)| voter.groups.next);
        let needed = if planted(Bug::AnswersAtOneLess) { needed.max(2) - 1 } else { needed };
        Self { needed, changing, votes }
    }

    /// One more is asked.
    pub fn add(&mut self, voter: Voter) {
        self.votes.push((voter, None));
    }

    /// Takes a vote. False when it does not count: a stranger's, or a second one.
    pub fn vote(&mut self, voter: Endpoint, yes: bool) -> bool {
        let is_his = |asked: &Voter| asked.endpoint == voter || planted(Bug::CountsTwice);
        match self.votes.iter_mut().find(|(asked, vote)| is_his(asked) && vote.is_none()) {
            Some((_, vote)) => {
                *vote = Some(yes);
                true
            }
            None => false,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let tally = |counts: fn(Option<bool>) -> bool| {
            Tally::of(self.votes.iter().filter(|(_, vote)| counts(*vote)).map(|(voter, _)| voter))
        };
        if tally(|vote| vote == Some(true)).reaches(self.needed, self.changing) {
            Standing::Reached
        } else if tally(|vote| vote != Some(false)).reaches(self.needed, self.changing) {
            Standing::Open
        } else {
            Standing::Lost
        }
    }

    /// How many said yes, in the group that has fewer.
    #[must_use]
    pub fn yes(&self) -> u8 {
        Tally::of(self.votes.iter().filter(|(_, vote)| *vote == Some(true)).map(|(voter, _)| voter))
            .least(self.changing)
    }

    /// Whether it is reached without the fallbacks.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        let counts = |voter: &Voter| !voter.stands_in || planted(Bug::SloppyUnsaid);
        let owners = self.votes.iter().filter(|(voter, vote)| *vote == Some(true) && counts(voter));
        Tally::of(owners.map(|(voter, _)| voter)).reaches(self.needed, self.changing)
    }

    /// How many must.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// Those who were asked and have not voted.
    pub fn silent(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.votes.iter().filter(|(_, vote)| vote.is_none()).map(|(voter, _)| voter.endpoint)
    }

    /// True when everybody has voted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.silent().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::{CoreId, NodeId};

    use super::*;

    fn endpoint(node: u16) -> Endpoint {
        Endpoint::new(NodeId(node), CoreId(0))
    }

    fn voter(node: u16, present: bool, next: bool) -> Voter {
        Voter { endpoint: endpoint(node), groups: Groups { present, next }, stands_in: false }
    }

    fn owners(nodes: &[u16]) -> Vec<Voter> {
        nodes.iter().map(|&node| voter(node, true, false)).collect()
    }

    #[test]
    fn each_voter_counts_once() {
        let mut quorum = Quorum::new(2, owners(&[1, 2, 3]));
        assert!(quorum.vote(endpoint(1), true));
        assert!(!quorum.vote(endpoint(1), true) && !quorum.vote(endpoint(1), false) && !quorum.vote(endpoint(9), true));
        assert_eq!((quorum.yes(), quorum.standing()), (1, Standing::Open));
        assert!(quorum.vote(endpoint(2), false));
        assert_eq!(quorum.standing(), Standing::Open);
        assert!(quorum.vote(endpoint(3), true));
        assert_eq!((quorum.standing(), quorum.is_complete()), (Standing::Reached, true));
    }

    #[test]
    fn a_quorum_that_cannot_be_reached_is_lost_at_once() {
        let mut quorum = Quorum::new(2, owners(&[1, 2]));
        quorum.vote(endpoint(2), false);
        assert_eq!(quorum.standing(), Standing::Lost);
        assert_eq!(Quorum::new(3, owners(&[1, 2])).standing(), Standing::Lost);
    }

    #[test]
    fn a_fallback_counts_and_is_told() {
        let mut quorum = Quorum::new(2, owners(&[1, 2, 3]));
        quorum.vote(endpoint(1), true);
        quorum.vote(endpoint(2), false);
        quorum.vote(endpoint(3), false);
        assert_eq!(quorum.standing(), Standing::Lost);
        quorum.add(Voter::stand_in(endpoint(4), Groups::PRESENT));
        assert_eq!(quorum.standing(), Standing::Open);
        quorum.vote(endpoint(4), true);
        assert_eq!((quorum.standing(), quorum.is_strict()), (Standing::Reached, false));
    }

    #[test]
    fn while_the_ring_changes_both_groups_must_agree() {
        // From 1, 2, 3 to 3, 4, 5.
        let both = [voter(1, true, false), voter(2, true, false), voter(3, true, true), voter(4, false, true)];
        let mut quorum = Quorum::new(2, both.into_iter().chain([voter(5, false, true)]));
        quorum.vote(endpoint(1), true);
        quorum.vote(endpoint(2), true);
        assert_eq!((quorum.standing(), quorum.yes()), (Standing::Open, 0), "nobody of the ring to come");
        quorum.vote(endpoint(4), true);
        quorum.vote(endpoint(5), false);
        assert_eq!(quorum.standing(), Standing::Open);
        quorum.vote(endpoint(3), false);
        assert_eq!(quorum.standing(), Standing::Lost, "the old owners alone are not enough");
    }
}
