//! Which primary is served next, and from which hint on.
//!
//! The rule: for each partition and primary there is a place in the order of the hints; all hints before it were offered
//! to that primary, but for those from `again` on. Only what happens to this primary moves its place, so nobody begins
//! anew because another one went away. Of all that may be served the one that waits longest comes first.
//!
//! Not here: what is done with a hint (`offer`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_net::{
    id::Endpoint,
    message::exchange::{HashedKey, HeldKey},
};

use super::Settings;
use crate::{anti_entropy::Tree, clock::Instant};

/// A primary that fails again and again waits at most 2^this times as long as after the first failure.
const DOUBLINGS_MAX: u32 = 5;

/// Where a hint lies in its partition: in the order of its fingerprint's bits from the lowest to the highest, so that a
/// leaf of any level is a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place(u128);

impl Place {
    pub(super) const START: Self = Self(0);
    const TAG_BITS: u32 = 8;

    pub(super) fn of(key: HashedKey) -> Self {
        Self(u128::from(key.fingerprint.reverse_bits()) << Self::TAG_BITS | u128::from(key.tag))
    }

    /// The next place; `None` after the last.
    pub(super) fn after(self) -> Option<Self> {
        Self::within(self.0 + 1)
    }

    fn within(place: u128) -> Option<Self> {
        (place >> (u64::BITS + Self::TAG_BITS) == 0).then_some(Self(place))
    }
}

/// The hints from `from` on that are in its leaf, in order, and where the next leaf begins.
pub(super) fn leaf_from(tree: &impl Tree, partition: u16, from: Place) -> (Vec<HeldKey>, Option<Place>) {
    let level = tree.level(partition);
    let shift = u64::BITS - u32::from(level) + Place::TAG_BITS;
    let at = from.0 >> shift;
    let index = (at as u64).reverse_bits().checked_shr(u64::BITS - u32::from(level)).unwrap_or(0);
    let mut hints = tree.held(partition, level, index);
    hints.retain(|hint| Place::of(hint.key) >= from);
    hints.sort_unstable_by_key(|hint| Place::of(hint.key));
    (hints, Place::within((at + 1) << shift))
}

/// When something may be served; of two moments that are the same, what waits longer comes first.
type Turn = (Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Schedule {
    owners: BTreeMap<Endpoint, Owner>,
    next_turn: u64,
}

/// What is owed to one primary, and how it fares.
#[derive(Debug, Default)]
struct Owner {
    down: bool,
    /// It is not asked before this, because it did not answer or could not take more.
    not_before: Instant,
    /// How often in a row it came to that.
    failures: u32,
    /// Hints under way to it.
    underway: usize,
    /// By partition; none where nothing is owed.
    rounds: BTreeMap<u16, Round>,
    queue: BTreeSet<(Turn, u16)>,
}

/// How far one partition has been gone through for one primary.
#[derive(Debug)]
struct Round {
    next: Place,
    /// The first place before `next` that must be looked at once more.
    again: Option<Place>,
    turn: Turn,
}

impl Schedule {
    /// A hint at `place`, or more from there on, may be lacking at the primary. If the round has been past it, the next
    /// one begins there. If there is no round, one begins at `at`.
    pub(super) fn owe(&mut self, to: Endpoint, partition: u16, place: Place, at: Instant) {
        let turn = self.turn(at);
        let owner = self.owners.entry(to).or_default();
        match owner.rounds.get_mut(&partition) {
            Some(round) if place < round.next => {
                round.again = Some(round.again.map_or(place, |again| again.min(place)));
            }
            Some(_) => {}
            None => {
                owner.rounds.insert(partition, Round { next: place, again: None, turn });
                owner.queue.insert((turn, partition));
            }
        }
    }

    /// The primary went away with this hint under way to it: its round goes on from there when it is back, which costs less
    /// than one more round from there to the end.
    pub(super) fn rewind(&mut self, to: Endpoint, partition: u16, place: Place) {
        let owner = self.owners.get_mut(&to);
        if let Some(round) = owner.and_then(|owner| owner.rounds.get_mut(&partition)) {
            round.next = round.next.min(place);
        }
    }

    /// The partition that is gone on with now, and from where.
    pub(super) fn first(&self, now: Instant, settings: &Settings) -> Option<(u16, Place)> {
        let first = |(&endpoint, owner): (&Endpoint, &Owner)| {
            let &(turn, partition) = owner.queue.first().filter(|(turn, _)| turn.0 <= now)?;
            owner.is_free(now, settings).then_some((turn, endpoint, partition))
        };
        let (_, endpoint, partition) = self.owners.iter().filter_map(first).min()?;
        Some((partition, self.owners[&endpoint].rounds[&partition].next))
    }

    /// When somebody may be served, unless something happens before.
    pub(super) fn next_start(&self, settings: &Settings) -> Option<Instant> {
        let reachable = self.owners.values().filter(|owner| !owner.down && owner.has_room(settings));
        reachable.filter_map(|owner| Some(owner.queue.first()?.0.0.max(owner.not_before))).min()
    }

    /// Whether the primary can be offered a hint of the partition now.
    pub(super) fn is_free(&self, to: Endpoint, partition: u16, now: Instant, settings: &Settings) -> bool {
        self.owners.get(&to).is_none_or(|owner| {
            owner.is_free(now, settings) && owner.rounds.get(&partition).is_none_or(|round| round.turn.0 <= now)
        })
    }

    /// There is no hint from `from` up to `to` that was not offered to the primary; `None`: up to the end.
    pub(super) fn advance(
        &mut self,
        to: Endpoint,
        partition: u16,
        from: Place,
        upto: Option<Place>,
        now: Instant,
        retry: Duration,
    ) {
        let mut turn = self.turn(now);
        let Some(owner) = self.owners.get_mut(&to) else { return };
        let Some(round) = owner.rounds.get_mut(&partition) else { return };
        if round.next < from || upto.is_some_and(|upto| round.next > upto) {
            return;
        }
        owner.queue.remove(&(round.turn, partition));
        let Some(next) = upto.or_else(|| round.again.take()) else {
            owner.rounds.remove(&partition);
            return;
        };
        if upto.is_none() {
            turn.0 = now + retry;
        }
        (round.next, round.turn) = (next, turn);
        owner.queue.insert((turn, partition));
    }

    /// The primary takes nothing of this partition for a while.
    pub(super) fn delay(&mut self, to: Endpoint, partition: u16, until: Instant) {
        let turn = self.turn(until);
        let Some(owner) = self.owners.get_mut(&to) else { return };
        let Some(round) = owner.rounds.get_mut(&partition) else { return };
        if round.turn < turn {
            owner.queue.remove(&(round.turn, partition));
            round.turn = turn;
            owner.queue.insert((turn, partition));
        }
    }

    /// One more hint is under way to the primary.
    pub(super) fn begin(&mut self, to: Endpoint) {
        self.owners.entry(to).or_default().underway += 1;
    }

    /// A hint is under way to it no longer.
    pub(super) fn end(&mut self, to: Endpoint) {
        let owner = self.owners.get_mut(&to).expect("an owner with something under way is kept");
        owner.underway -= 1;
    }

    /// The primary answered as it should.
    pub(super) fn succeed(&mut self, to: Endpoint) {
        if let Some(owner) = self.owners.get_mut(&to) {
            owner.failures = 0;
        }
    }

    /// The primary did not answer, or cannot take more. What fails while it is left alone tells nothing new.
    pub(super) fn fail(&mut self, to: Endpoint, now: Instant, retry: Duration) {
        let Some(owner) = self.owners.get_mut(&to).filter(|owner| owner.not_before <= now) else { return };
        owner.not_before = now + retry * (1 << owner.failures.min(DOUBLINGS_MAX));
        owner.failures += 1;
    }

    /// One that came up is served at once.
    pub(super) fn set_up(&mut self, peer: Endpoint, up: bool, now: Instant) {
        let turn = self.turn(now);
        let owner = self.owners.entry(peer).or_default();
        owner.down = !up;
        if up {
            (owner.not_before, owner.failures) = (now, 0);
            owner.queue = owner.rounds.keys().map(|&partition| (turn, partition)).collect();
            owner.rounds.values_mut().for_each(|round| round.turn = turn);
        }
    }

    /// Nothing is owed any more that `owes` does not name.
    pub(super) fn retain(&mut self, owes: impl Fn(Endpoint, u16) -> bool) {
        for (&endpoint, owner) in &mut self.owners {
            let Owner { rounds, queue, .. } = owner;
            rounds.retain(|&partition, _| owes(endpoint, partition));
            queue.retain(|(_, partition)| rounds.contains_key(partition));
        }
        self.owners.retain(|_, owner| owner.down || owner.underway > 0 || !owner.rounds.is_empty());
    }

    /// Partitions that have to be gone through, by primary.
    pub(super) fn owed(&self) -> impl Iterator<Item = (Endpoint, u16)> + '_ {
        self.owners
            .iter()
            .flat_map(|(&endpoint, owner)| owner.rounds.keys().map(move |&partition| (endpoint, partition)))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.owners.values().all(|owner| owner.rounds.is_empty())
    }

    fn turn(&mut self, at: Instant) -> Turn {
        self.next_turn += 1;
        (at, self.next_turn)
    }
}

impl Owner {
    fn has_room(&self, settings: &Settings) -> bool {
        self.underway < settings.hints_per_primary_max
    }

    fn is_free(&self, now: Instant, settings: &Settings) -> bool {
        !self.down && self.not_before <= now && self.has_room(settings)
    }
}
