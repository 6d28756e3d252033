//! One put: the object that it makes, then the count of those who hold it.
//!
//! The rule: what the writer's context covers is replaced, all else stays beside the new value; the answer waits for W
//! distinct nodes, on disk as far as the request's durability asks. When a primary cannot be reached, a fallback takes a
//! hint in its place, and the answer says so (sloppy quorum, section 4.6).
//!
//! Pure. Not here: minting the dot and appending (`core`), the replica's side (`replica`).

use bytes::Bytes;
use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::{Endpoint, NodeId},
    message::{Durability, Failure, Outcome, ReplicaOutcome},
};

use super::{Local, stand_in::StandIns};
use crate::{
    context::Context,
    object::{Object, Outline, Sibling, VersionHash},
    quorum::{Few, Quorum, Standing, Voter},
    version::Clock,
};

/// The object after a put, and the context that its writer gets.
#[derive(Clone, PartialEq, Debug)]
pub struct Written {
    /// What to store and to send.
    pub object: Object,
    /// Covers the new value and what it replaced, and no sibling that stays.
    pub context: Context,
}

/// The object that the put makes of what the store holds. `None`: the body is needed first.
///
/// Without a context the put replaces all that the store holds at this moment (rule of blind writes).
#[must_use]
pub fn written(local: &Local, context: Option<&Context>, write: Sibling) -> Option<Written> {
    let dot = write.dot;
    let nothing_seen = Context::default();
    let context = context.or(planted(Bug::BlindPutEmpty).then_some(&nothing_seen));
    let object = match (&local.object, context) {
        (Some(object), Some(context)) => object.after_write(&context.seen, write),
        (Some(object), None) => object.after_write(&object.clock, write),
        (None, _) => {
            let nothing = Outline::default();
            let outline = if local.is_absent() { Some(&nothing) } else { local.outline.as_ref() };
            let same = context.filter(|context| context.version == local.version && !local.is_absent());
            let clock = same.map(|context| &context.seen).or(outline.map(|outline| &outline.clock))?;
            let seen = context.map_or(clock, |context| &context.seen);
            // A value that stays has to be read. What is known to be the writer's own version is covered whole.
            if same.is_none() && outline.is_some_and(|outline| outline.live.iter().any(|&dot| !seen.covers(dot))) {
                return None;
            }
            Object { clock: clock.clone(), siblings: Vec::new() }.after_write(seen, write)
        }
    };
    let alone = object.siblings.len() == 1 || planted(Bug::ContextCoversUnseen);
    let context = if alone {
        Context { seen: object.clock.clone(), version: object.version() }
    } else {
        let mut seen = context.map(|context| context.seen.clone()).unwrap_or_default();
        let cover = if planted(Bug::ContextCoversBefore) { Clock::mint } else { Clock::add };
        cover(&mut seen, dot);
        Context { seen, version: VersionHash::ABSENT }
    };
    Some(Written { object, context })
}

/// One client put, from the fan-out to the answer.
#[derive(Debug)]
pub struct PutCoordinator {
    me: Endpoint,
    /// This core's own copy is a hint.
    stands_in: bool,
    durability: Durability,
    quorum: Quorum,
    stand_ins: StandIns,
    own_durable: bool,
    context: Bytes,
    replaced: bool,
    full: bool,
    answered: bool,
}

impl PutCoordinator {
    /// The put is in this core's log, and goes out to the others now. `owners` are all owners of the partition, this core
    /// too unless it stands in for one; `fallbacks` those who may stand in, in order: nobody when the put is strict.
    #[must_use]
    pub fn new(
        me: Endpoint,
        durability: Durability,
        needed: u8,
        owners: &[Voter],
        fallbacks: Few<Endpoint>,
        outcome: (Bytes, bool),
    ) -> Self {
        let (context, replaced) = outcome;
        let quorum = Quorum::new(needed, owners.iter().copied());
        let stand_ins = StandIns::new(owners, fallbacks);
        Self {
            me,
            stands_in: owners.iter().any(|owner| owner.endpoint == me && owner.stands_in),
            durability,
            quorum,
            stand_ins,
            own_durable: false,
            context,
            replaced,
            full: false,
            answered: false,
        }
    }

    /// This core's own copy is in memory; on disk later, see [`PutCoordinator::handle_own`].
    pub fn handle_own_appended(&mut self) {
        if self.durability == Durability::Buffered || planted(Bug::OwnCopyEarly) {
            self.quorum.vote(self.me, true);
        }
    }

    /// This core's own copy is on disk (or never will be).
    pub fn handle_own(&mut self, durable: bool) {
        self.own_durable |= durable;
        self.vote(self.me, durable);
    }

    /// A replica answered. For a durable put only copies on disk count.
    pub fn handle_replicated(&mut self, from: Endpoint, outcome: ReplicaOutcome) {
        self.full |= outcome == ReplicaOutcome::DiskFull;
        let yes = match outcome {
            ReplicaOutcome::Durable => true,
            ReplicaOutcome::Buffered => self.durability != Durability::Durable || planted(Bug::BufferedCounts),
            _ => false,
        };
        self.vote(from, yes);
    }

    /// A replica cannot be reached.
    pub fn handle_unreachable(&mut self, replica: Endpoint) {
        self.vote(replica, false);
    }

    /// Those who have not answered yet. When `patience` is over, others stand in for them, and their answers still count.
    pub fn handle_silence(&mut self) -> Few<Endpoint> {
        let silent: Few<Endpoint> = self.quorum.silent().filter(|&replica| replica != self.me).collect();
        if self.quorum.standing() == Standing::Open {
            silent.iter().for_each(|&replica| self.stand_ins.want_for(replica));
        }
        silent
    }

    /// The fallbacks that are asked from now on, each with the primary that it stands in for.
    pub fn engage(&mut self) -> Vec<(Endpoint, NodeId)> {
        let engaged = self.stand_ins.engage();
        for &(voter, _) in &engaged {
            self.quorum.add(voter);
        }
        engaged.into_iter().map(|(voter, primary)| (voter.endpoint, primary.node)).collect()
    }

    /// The answer, once, when it is certain.
    pub fn answer(&mut self) -> Option<Outcome> {
        let outcome = match self.quorum.standing() {
            _ if self.answered => return None,
            // One durable copy is this core's own: its log is the first to get the put.
            Standing::Reached if self.durability != Durability::One || self.own_durable => Outcome::Written {
                context: std::mem::take(&mut self.context),
                replaced: self.replaced,
                // The owners may all be enough, and the one copy on disk be a hint.
                sloppy: !self.quorum.is_strict() || self.stands_in && self.durability == Durability::One,
            },
            Standing::Lost if self.full => Outcome::Failed(Failure::DiskFull),
            Standing::Lost => {
                Outcome::Failed(Failure::Unavailable { reachable: self.quorum.yes(), needed: self.quorum.needed() })
            }
            Standing::Reached | Standing::Open => return None,
        };
        self.answered = true;
        Some(outcome)
    }

    /// The deadline has passed: the answer, if it was not given.
    pub fn handle_timeout(&mut self) -> Option<Outcome> {
        if std::mem::replace(&mut self.answered, true) {
            return None;
        }
        let failure = Failure::Timeout { acks: self.quorum.yes(), needed: self.quorum.needed() };
        Some(Outcome::Failed(failure))
    }

    /// Nothing more can come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.answered && self.quorum.is_complete()
    }

    fn vote(&mut self, voter: Endpoint, yes: bool) {
        if self.quorum.vote(voter, yes) && !yes {
            self.stand_ins.want_for(voter);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::CoreId;

    use super::*;
    use crate::{
        quorum::Groups,
        version::{Actor, Dot},
    };

    fn node(id: u16) -> Endpoint {
        Endpoint::new(NodeId(id), CoreId(0))
    }

    fn put(durability: Durability) -> PutCoordinator {
        put_with(durability, Vec::new())
    }

    fn put_with(durability: Durability, fallbacks: Vec<Endpoint>) -> PutCoordinator {
        let owners = [1, 2, 3].map(|id| Voter { endpoint: node(id), groups: Groups::PRESENT, stands_in: false });
        let mut put = PutCoordinator::new(node(1), durability, 2, &owners, fallbacks.into(), Default::default());
        put.handle_own_appended();
        put
    }

    fn is_written(answer: Option<&Outcome>) -> bool {
        matches!(answer, Some(Outcome::Written { .. }))
    }

    #[test]
    fn a_durable_put_counts_only_copies_on_disk() {
        let mut put = put(Durability::Durable);
        put.handle_replicated(node(2), ReplicaOutcome::Durable);
        put.handle_replicated(node(2), ReplicaOutcome::Durable);
        assert!(put.answer().is_none(), "one node is one copy, however often it says so");
        put.handle_replicated(node(3), ReplicaOutcome::Buffered);
        assert!(put.answer().is_none());
        put.handle_own(true);
        assert!(is_written(put.answer().as_ref()));
        assert!(put.answer().is_none() && put.handle_timeout().is_none(), "an answer is given once");
    }

    #[test]
    fn one_durable_copy_is_the_coordinators() {
        let mut put = put(Durability::One);
        put.handle_replicated(node(2), ReplicaOutcome::Buffered);
        put.handle_replicated(node(3), ReplicaOutcome::Buffered);
        assert!(put.answer().is_none());
        put.handle_own(true);
        assert!(is_written(put.answer().as_ref()));
    }

    #[test]
    fn one_durable_copy_that_is_a_hint_is_told_as_sloppy() {
        for (durability, told) in [(Durability::One, true), (Durability::Buffered, false)] {
            let owners = [1, 2, 3].map(|id| Voter { endpoint: node(id), groups: Groups::PRESENT, stands_in: id == 1 });
            let mut put = PutCoordinator::new(node(1), durability, 2, &owners, Few::new(), Default::default());
            put.handle_own_appended();
            put.handle_own(true);
            put.handle_replicated(node(2), ReplicaOutcome::Buffered);
            put.handle_replicated(node(3), ReplicaOutcome::Buffered);
            let answer = put.answer();
            assert!(
                matches!(answer, Some(Outcome::Written { sloppy, .. }) if sloppy == told),
                "{durability:?}: {answer:?}"
            );
        }
    }

    #[test]
    fn a_buffered_put_waits_for_no_disk() {
        let mut put = put(Durability::Buffered);
        put.handle_replicated(node(2), ReplicaOutcome::Buffered);
        assert!(is_written(put.answer().as_ref()));
    }

    #[test]
    fn a_put_that_cannot_succeed_is_answered_at_once() {
        let mut lost = put(Durability::Durable);
        lost.handle_unreachable(node(2));
        lost.handle_replicated(node(3), ReplicaOutcome::StoreFailed);
        let expected = Failure::Unavailable { reachable: 0, needed: 2 };
        assert_eq!(lost.answer(), Some(Outcome::Failed(expected)));

        let mut full = put(Durability::Durable);
        full.handle_replicated(node(2), ReplicaOutcome::DiskFull);
        full.handle_replicated(node(3), ReplicaOutcome::DiskFull);
        assert_eq!(full.answer(), Some(Outcome::Failed(Failure::DiskFull)));
    }

    #[test]
    fn a_fallback_stands_in_for_who_cannot_be_reached_and_the_answer_says_so() {
        let mut put = put_with(Durability::Durable, vec![node(4), node(5)]);
        put.handle_own(true);
        put.handle_unreachable(node(2));
        assert_eq!(put.engage(), [(node(4), NodeId(2))]);
        assert_eq!(put.engage(), [], "once");
        put.handle_replicated(node(4), ReplicaOutcome::DiskFull);
        assert_eq!(put.engage(), [(node(5), NodeId(2))], "the next one, when the first cannot");
        put.handle_replicated(node(5), ReplicaOutcome::Durable);
        assert!(matches!(put.answer(), Some(Outcome::Written { sloppy: true, .. })));
        put.handle_replicated(node(3), ReplicaOutcome::StoreFailed);
        assert!(put.engage().is_empty(), "nobody is left");
        assert!(put.is_complete());
    }

    #[test]
    fn who_is_silent_is_stood_in_for_and_counts_all_the_same() {
        let mut put = put_with(Durability::Durable, vec![node(4)]);
        put.handle_own(true);
        assert_eq!(put.handle_silence()[..], [node(2), node(3)]);
        assert_eq!(put.engage(), [(node(4), NodeId(2))]);
        put.handle_replicated(node(3), ReplicaOutcome::Durable);
        assert!(matches!(put.answer(), Some(Outcome::Written { sloppy: false, .. })), "two owners have it");
        assert!(!put.is_complete(), "two have still to say something");
    }

    #[test]
    fn a_context_never_covers_a_sibling_that_its_writer_has_not_seen() {
        let dot = |counter| Dot { actor: Actor { node: 1, core: 0, incarnation: 1 }, counter };
        let write = |counter| Sibling { dot: dot(counter), timestamp_ms: 0, token: None, value: Some(Bytes::new()) };
        let first = Object::default().after_write(&Clock::new(), write(1));
        let local =
            Local { version: first.version(), has_value: true, object: Some(first), outline: None, lost: false };
        let Written { object, context } = written(&local, Some(&Context::default()), write(2)).unwrap();
        assert_eq!(object.siblings.len(), 2);
        assert!(context.seen.covers(dot(2)) && !context.seen.covers(dot(1)));
    }
}
