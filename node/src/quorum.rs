//! Counting answers.
//!
//! The rule: each endpoint has one vote, the first that arrives; duplicates and strangers do not count.
//!
//! Pure. Not here: what a vote is about.

use quorate_net::id::Endpoint;

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

/// The votes of a set of replicas, of which `needed` must say yes.
#[derive(Clone, Debug)]
pub struct Quorum {
    needed: u8,
    votes: Vec<(Endpoint, Option<bool>)>,
}

impl Quorum {
    /// Nobody has voted yet.
    #[must_use]
    pub fn new(needed: u8, voters: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { needed, votes: voters.into_iter().map(|voter| (voter, None)).collect() }
    }

    /// Takes a vote. False when it does not count: a stranger's, or a second one.
    pub fn vote(&mut self, voter: Endpoint, yes: bool) -> bool {
        match self.votes.iter_mut().find(|(endpoint, vote)| *endpoint == voter && vote.is_none()) {
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
        let open = self.votes.iter().filter(|(_, vote)| vote.is_none()).count();
        if self.yes() >= self.needed {
            Standing::Reached
        } else if usize::from(self.yes()) + open >= usize::from(self.needed) {
            Standing::Open
        } else {
            Standing::Lost
        }
    }

    /// How many said yes.
    #[must_use]
    pub fn yes(&self) -> u8 {
        self.votes.iter().filter(|(_, vote)| *vote == Some(true)).count() as u8
    }

    /// How many must.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// True when everybody has voted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.votes.iter().all(|(_, vote)| vote.is_some())
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::{CoreId, NodeId};

    use super::*;

    fn voter(node: u16) -> Endpoint {
        Endpoint::new(NodeId(node), CoreId(0))
    }

    #[test]
    fn each_voter_counts_once() {
        let mut quorum = Quorum::new(2, [voter(1), voter(2), voter(3)]);
        assert!(quorum.vote(voter(1), true));
        assert!(!quorum.vote(voter(1), true) && !quorum.vote(voter(1), false) && !quorum.vote(voter(9), true));
        assert_eq!((quorum.yes(), quorum.standing()), (1, Standing::Open));
        assert!(quorum.vote(voter(2), false));
        assert_eq!(quorum.standing(), Standing::Open);
        assert!(quorum.vote(voter(3), true));
        assert_eq!((quorum.standing(), quorum.is_complete()), (Standing::Reached, true));
    }

    #[test]
    fn a_quorum_that_cannot_be_reached_is_lost_at_once() {
        let mut quorum = Quorum::new(2, [voter(1), voter(2)]);
        quorum.vote(voter(2), false);
        assert_eq!(quorum.standing(), Standing::Lost);
        assert_eq!(Quorum::new(3, [voter(1), voter(2)]).standing(), Standing::Lost);
    }
}
