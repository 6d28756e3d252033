//! Admission control: how much of a core background work gets, by how its requests fare (Dynamo 6.5).
//!
//! The rule: of a thousand requests one may take longer than the service level says. While more do, background work gets less
//! of the core, quickly; while clearly fewer do, it gets more again, slowly. No work stops for good: each kind has a least
//! share, and what the foreground itself would soon wait for, as room in the log, keeps its pace in any case (`engine/chore`).
//!
//! Holding back must help. When requests are about as slow with the least shares as they were with the full ones, it is not
//! background work that makes them slow but the disk or too much load: then it goes on for a while as if they were not.
//!
//! Every kind of work has a stretch: how many times as long it rests as it would by itself. What restores redundancy is
//! stretched less than what only tidies up.
//!
//! Pure. Not here: the measuring (`recorder`), the work.

use std::time::Duration;

use quorate_engine::Chore;

use crate::clock::Instant;

/// How often the shares are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// So many requests are enough to tell how they fare; fewer are added up over some periods.
const REQUESTS_MIN: u64 = 1000;

/// Periods that are added up at most.
const PERIODS_MAX: usize = 10;

/// The level at which every kind has its least share.
const LEVEL_MAX: f64 = 6.0;

/// Added at a time, while too many requests are slow: the next longer rest.
const UP: f64 = 1.0;

/// Taken away at a time, while few are. Half as fast as it comes: one stall of the disk must not hold back a repair for long.
const DOWN: f64 = 0.5;

/// So many periods with the least shares show whether holding back helps.
const TRIAL: u32 = 5;

/// It helps when at most so much of what was slow before still is.
const HELPS: f64 = 0.5;

/// When it does not, nothing is held back for so many periods.
const RESPITE: u32 = 60;

/// A kind of background work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Work {
    /// Of the store.
    Store(Chore),
    /// Hints go to their owners.
    Hints,
    /// Partitions are compared, repaired and transferred.
    Exchange,
}

impl Work {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Store(Chore::Compaction),
        Self::Store(Chore::Checkpoint),
        Self::Store(Chore::Zeroing),
        Self::Store(Chore::Scrub),
        Self::Store(Chore::Dropping),
        Self::Hints,
        Self::Exchange,
    ];

    /// As people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Store(chore) => chore.name(),
            Self::Hints => "hints",
            Self::Exchange => "exchange",
        }
    }

    /// Its rests get at most 2 to the power of this longer.
    fn level_max(self) -> f64 {
        match self {
            // The log needs zeroed segments; a put that waits for one is slower than any that waits for the zeroing.
            Self::Store(Chore::Zeroing) => 2.0,
            // Redundancy comes before tidiness.
            Self::Hints | Self::Exchange | Self::Store(Chore::Compaction | Chore::Checkpoint) => 4.0,
            Self::Store(Chore::Scrub | Chore::Dropping) => LEVEL_MAX,
        }
    }
}

/// How some requests fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fared {
    /// How many there were.
    pub requests: u64,
    /// How many of them took longer than the service level says.
    pub slow: u64,
}

/// The shares of one core's background work.
#[derive(Debug)]
pub struct Admission {
    enabled: bool,
    next: Instant,
    /// Since the start.
    told: Fared,
    /// The latest.
    periods: Vec<Fared>,
    /// So many of them came since the level last rose.
    fresh: usize,
    level: f64,
    /// Of all requests so many were slow when nothing was held back.
    slow_before: f64,
    /// Periods with the least shares.
    tried: u32,
    /// So many periods are left in which nothing is held back, since it did not help.
    respite: u32,
}

impl Admission {
    /// All work has its full share. When not `enabled` it keeps that.
    #[must_use]
    pub fn new(now: Instant, enabled: bool) -> Self {
        Self {
            enabled,
            next: now + PERIOD,
            told: Fared::default(),
            periods: Vec::new(),
            fresh: 0,
            level: 0.0,
            slow_before: 0.0,
            tried: 0,
            respite: 0,
        }
    }

    /// From now on background work may be held back, or always has its full share.
    pub fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// When to tell how requests have fared next.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.next
    }

    /// A period is over; `all` says how all requests since the start fared. Says whether the shares have changed.
    pub fn handle_period(&mut self, now: Instant, all: Fared) -> bool {
        self.next = now + PERIOD;
        let before = Work::ALL.map(|work| self.stretch(work));
        let told = std::mem::replace(&mut self.told, all);
        let fared = Fared { requests: all.requests - told.requests, slow: all.slow - told.slow };
        // The last one counts, and as many before it as it takes.
        self.periods.push(fared);
        let surplus = self.periods.len().saturating_sub(PERIODS_MAX);
        self.periods.drain(..surplus);
        self.fresh = (self.fresh + 1).min(PERIODS_MAX);
        let Fared { requests, slow } = self.of_the_last(self.fresh);
        if self.respite > 0 {
            self.respite -= 1;
            self.level = (self.level - DOWN).max(0.0);
        // One slow request of a few says nothing.
        } else if slow * 1000 > requests.max(REQUESTS_MIN) {
            self.hold_back(slow as f64 / requests as f64);
        } else if slow * 2000 <= requests {
            self.level = (self.level - DOWN).max(0.0);
        }
        before != Work::ALL.map(|work| self.stretch(work))
    }

    /// Too many requests are slow: so much of all.
    fn hold_back(&mut self, slow: f64) {
        if self.level == 0.0 {
            (self.slow_before, self.tried) = (slow, 0);
        }
        self.tried += u32::from(self.level == LEVEL_MAX);
        if self.tried >= TRIAL {
            self.tried = 0;
            self.respite = if slow > self.slow_before * HELPS { RESPITE } else { 0 };
        }
        // Those that were slow are answered for: what comes next shows whether this was enough.
        self.level = (self.level + UP).min(LEVEL_MAX);
        self.fresh = 0;
    }

    /// How many times as long this work rests as it would by itself: a power of 2.
    #[must_use]
    pub fn stretch(&self, work: Work) -> u32 {
        if self.enabled { 1 << self.level.min(work.level_max()) as u32 } else { 1 }
    }

    /// How requests fared lately, of as many as it takes to tell.
    #[must_use]
    pub fn recent(&self) -> Fared {
        self.of_the_last(PERIODS_MAX)
    }

    fn of_the_last(&self, periods: usize) -> Fared {
        let mut sum = Fared::default();
        for fared in self.periods.iter().rev().take(periods) {
            if sum.requests >= REQUESTS_MIN {
                break;
            }
            sum = Fared { requests: sum.requests + fared.requests, slow: sum.slow + fared.slow };
        }
        sum
    }

    /// From 0, when nothing is held back, to 1.
    #[must_use]
    pub fn held_back(&self) -> f64 {
        self.level / LEVEL_MAX
    }

    /// Holding back was tried, and requests stayed as slow: background work is not the reason.
    #[must_use]
    pub fn is_futile(&self) -> bool {
        self.respite > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRUB: Work = Work::Store(Chore::Scrub);

    fn admission() -> Admission {
        Admission::new(Instant(0), true)
    }

    fn tell(admission: &mut Admission, periods: usize, requests: u64, slow: u64) {
        for _ in 0..periods {
            let (now, told) = (admission.next_timeout(), admission.told);
            let all = Fared { requests: told.requests + requests, slow: told.slow + slow };
            admission.handle_period(now, all);
        }
    }

    #[test]
    fn slow_requests_hold_work_back_quickly_and_fast_ones_let_it_go_slowly() {
        let mut admission = admission();
        tell(&mut admission, 5, 10_000, 2);
        assert_eq!(admission.stretch(SCRUB), 1);
        tell(&mut admission, 3, 10_000, 50);
        assert_eq!((admission.stretch(SCRUB), admission.stretch(Work::Store(Chore::Zeroing))), (8, 4));
        tell(&mut admission, 3, 10_000, 20);
        assert_eq!((admission.stretch(SCRUB), admission.stretch(Work::Exchange)), (64, 16), "each has a least share");
        assert!((admission.held_back() - 1.0).abs() < f64::EPSILON);
        tell(&mut admission, 2, 10_000, 3);
        assert_eq!(admission.stretch(SCRUB), 32);
        tell(&mut admission, 12, 10_000, 3);
        assert_eq!(admission.stretch(SCRUB), 1);
    }

    #[test]
    fn what_is_at_the_service_level_stays_as_it_is() {
        let mut admission = admission();
        tell(&mut admission, 2, 10_000, 20);
        let stretch = admission.stretch(SCRUB);
        tell(&mut admission, 100, 10_000, 8);
        assert_eq!(admission.stretch(SCRUB), stretch);
    }

    #[test]
    fn few_requests_are_added_up() {
        let mut admission = admission();
        // One of a hundred is slow, in a period; of a thousand it is one, too, and then it counts once.
        tell(&mut admission, 9, 100, 0);
        tell(&mut admission, 1, 100, 1);
        assert_eq!(admission.stretch(SCRUB), 1);
        tell(&mut admission, 1, 100, 1);
        assert_eq!(admission.stretch(SCRUB), 2);
        tell(&mut admission, 9, 100, 0);
        assert_eq!(admission.recent(), Fared { requests: 1000, slow: 1 });
    }

    #[test]
    fn nobody_asks_so_nothing_is_held_back() {
        let mut admission = admission();
        tell(&mut admission, 10, 10_000, 100);
        tell(&mut admission, 60, 0, 0);
        assert_eq!(admission.stretch(SCRUB), 1);
    }

    #[test]
    fn what_does_not_help_is_given_up_for_a_while() {
        let mut admission = admission();
        tell(&mut admission, 6, 10_000, 100);
        assert_eq!(admission.stretch(SCRUB), 64);
        tell(&mut admission, 5, 10_000, 90);
        assert!(admission.is_futile());
        tell(&mut admission, 12, 10_000, 100);
        assert_eq!((admission.stretch(SCRUB), admission.is_futile()), (1, true));
        // Then it is tried again.
        tell(&mut admission, 54, 10_000, 100);
        assert!(!admission.is_futile() && admission.stretch(SCRUB) == 64);
    }

    #[test]
    fn what_helps_a_little_goes_on() {
        let mut admission = admission();
        tell(&mut admission, 6, 10_000, 100);
        tell(&mut admission, 100, 10_000, 40);
        assert!(!admission.is_futile() && admission.stretch(SCRUB) == 64);
    }

    #[test]
    fn it_can_be_switched_off() {
        let mut admission = Admission::new(Instant(0), false);
        tell(&mut admission, 10, 10_000, 100);
        assert_eq!(Work::ALL.map(|work| admission.stretch(work)), [1; 7]);
    }
}
