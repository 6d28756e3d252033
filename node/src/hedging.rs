//! Hedging: a get that takes unusually long is asked for once more, elsewhere (Dean and Barroso, "The Tail at Scale", 2013).
//!
//! The rule: of twenty gets at most one is hedged, so that hedges never become the load that makes gets slow. Unusually long is
//! what takes longer than 19 of 20 did, as far as a core can tell by looking at each once.
//!
//! A get asks all owners for their versions anyway, and waits for R of them. What is hedged is what it waits for alone: this
//! core's own copy, of which the others were told the version only; and the owner that it was sent on to.
//!
//! Pure. Not here: whom to ask (`coordinator/get`, `core/forwards`).

use std::{collections::VecDeque, time::Duration};

use crate::clock::Instant;

/// Each get earns so much of a hedge.
const EARNED: f64 = 0.05;

/// So many hedges may have been saved up.
const SAVED_MAX: f64 = 32.0;

/// Nothing is hedged sooner: so often deadlines are looked at.
const USUAL_MIN: Duration = Duration::from_millis(1);

/// What is taken for usual until more is known.
const USUAL_FIRST: Duration = Duration::from_millis(10);

/// When one of twenty is over what is usual, these two keep each other in balance.
const RAISE: f64 = 1.095;
const LOWER: f64 = 0.995;

/// What a get may wait for alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Its own copy: the disk.
    Own,
    /// The owner that it was sent on to.
    Owner,
}

/// The hedges of one core.
#[derive(Debug)]
pub struct Hedging {
    most: Duration,
    saved: f64,
    lines: [Line; 2],
}

/// Gets that wait for the same thing.
#[derive(Debug)]
struct Line {
    usual: Duration,
    /// When each has waited for what is usual, about in order.
    due: VecDeque<(Instant, u64)>,
}

impl Hedging {
    /// Nobody waits. Nothing is usual that takes longer than `most`.
    #[must_use]
    pub fn new(most: Duration) -> Self {
        let most = most.max(USUAL_MIN);
        let line = || Line { usual: USUAL_FIRST.min(most), due: VecDeque::new() };
        Self { most, saved: 0.0, lines: [line(), line()] }
    }

    /// A get came.
    pub fn handle_get(&mut self) {
        self.saved = (self.saved + EARNED).min(SAVED_MAX);
    }

    /// Get `number` begins to wait.
    pub fn handle_wait(&mut self, now: Instant, wait: Wait, number: u64) {
        let line = &mut self.lines[wait as usize];
        line.due.push_back((now + line.usual, number));
    }

    /// What a get waited for so long has come.
    pub fn handle_end(&mut self, wait: Wait, waited: Duration) {
        let usual = self.lines[wait as usize].usual;
        self.learn(wait, waited > usual);
    }

    /// The next get that has waited unusually long. It may have been answered.
    pub fn next_due(&mut self, now: Instant) -> Option<(Wait, u64)> {
        [Wait::Own, Wait::Owner].into_iter().find_map(|wait| {
            let (_, number) = self.lines[wait as usize].due.pop_front_if(|(at, _)| *at <= now)?;
            Some((wait, number))
        })
    }

    /// Whether one more hedge is paid for; it then counts as made.
    pub fn pay(&mut self, wait: Wait) -> bool {
        // What is waited for may come after the answer, and then nobody tells.
        self.learn(wait, true);
        let paid = self.saved >= 1.0;
        self.saved -= if paid { 1.0 } else { 0.0 };
        paid
    }

    /// Gets that wait no longer, as `open` says of each, need not be looked at.
    pub fn forget(&mut self, open: impl Fn(u64) -> bool) {
        for line in &mut self.lines {
            while line.due.pop_front_if(|(_, number)| !open(*number)).is_some() {}
        }
    }

    /// When to call [`Hedging::next_due`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.lines.iter().filter_map(|line| line.due.front()).map(|&(at, _)| at).min()
    }

    fn learn(&mut self, wait: Wait, longer: bool) {
        let line = &mut self.lines[wait as usize];
        line.usual = line.usual.mul_f64(if longer { RAISE } else { LOWER }).clamp(USUAL_MIN, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn hedging() -> Hedging {
        Hedging::new(50 * MILLI)
    }

    fn at(ms: u32) -> Instant {
        Instant(7) + ms * MILLI
    }

    #[test]
    fn who_waits_for_longer_than_is_usual_is_due() {
        let mut hedging = hedging();
        hedging.handle_wait(at(0), Wait::Own, 1);
        hedging.handle_wait(at(3), Wait::Owner, 2);
        assert_eq!(hedging.next_timeout(), Some(at(10)));
        assert_eq!(hedging.next_due(at(9)), None);
        assert_eq!(hedging.next_due(at(20)), Some((Wait::Own, 1)));
        assert_eq!(hedging.next_due(at(20)), Some((Wait::Owner, 2)));
        assert_eq!((hedging.next_due(at(20)), hedging.next_timeout()), (None, None));
        hedging.handle_wait(at(30), Wait::Own, 3);
        hedging.handle_wait(at(31), Wait::Own, 4);
        hedging.forget(|number| number == 4);
        assert_eq!(hedging.next_timeout(), Some(at(41)));
    }

    #[test]
    fn of_twenty_gets_one_is_paid_for_and_few_are_saved_up() {
        let mut hedging = hedging();
        let paid =
            |hedging: &mut Hedging| std::iter::repeat_with(|| hedging.pay(Wait::Own)).take_while(|&paid| paid).count();
        assert_eq!(paid(&mut hedging), 0);
        (0..101).for_each(|_| hedging.handle_get());
        assert_eq!(paid(&mut hedging), 5);
        (0..100_000).for_each(|_| hedging.handle_get());
        assert_eq!(paid(&mut hedging), SAVED_MAX as usize);
    }

    #[test]
    fn what_is_usual_is_learnt() {
        let mut hedging = hedging();
        // Evenly from 0 to 40 ms, so one of twenty takes over 38 ms.
        (0..200_000u32).for_each(|i| hedging.handle_end(Wait::Own, i * 7_919 % 40_000 * (MILLI / 1000)));
        let usual = hedging.lines[Wait::Own as usize].usual;
        assert!((34 * MILLI..40 * MILLI).contains(&usual), "{usual:?}");
        (0..10_000).for_each(|_| hedging.handle_end(Wait::Own, MILLI / 10));
        assert_eq!(hedging.lines[Wait::Own as usize].usual, USUAL_MIN);
        (0..10_000).for_each(|_| hedging.handle_end(Wait::Own, 9_000 * MILLI));
        assert_eq!(hedging.lines[Wait::Own as usize].usual, 50 * MILLI);
    }
}
