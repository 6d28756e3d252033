//! A rate that background work keeps.
//!
//! The rule: what was done is paid for by the time that passes, and nothing more begins while more than [`BURST`] is owed;
//! so one large object is late, and never refused. Pure.

use std::time::Duration;

use crate::clock::Instant;

/// What is done may be ahead of its rate by this, so that a timer that is late costs no rate.
const BURST: Duration = Duration::from_millis(10);

/// What has been done at a rate of so many bytes per second.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    stretch: u32,
    /// By then all bytes so far are paid for.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), stretch: 1, paid_at: Instant(0) }
    }

    /// From now on all takes so many times as long.
    pub(crate) fn set_stretch(&mut self, factor: u32) {
        self.stretch = factor.max(1);
    }

    /// When the next may begin.
    pub(crate) fn may_begin_at(&self) -> Instant {
        Instant(self.paid_at.0.saturating_sub(BURST.as_nanos() as u64))
    }

    /// So many bytes begin now.
    pub(crate) fn charge(&mut self, now: Instant, bytes: u64) {
        let nanos = u128::from(bytes) * u128::from(self.stretch) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.paid_at = self.paid_at.max(now) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_paid_for_by_the_time_that_passes() {
        let mut pace = Pace::new(1000);
        let now = Instant(1 << 40);
        assert!(pace.may_begin_at() <= now);
        pace.charge(now, 5);
        assert!(pace.may_begin_at() <= now, "a burst is ahead of its rate");
        pace.charge(now, 1000);
        assert_eq!(pace.may_begin_at(), now + Duration::from_millis(995));
        pace.set_stretch(4);
        let slower = now + Duration::from_secs(30);
        pace.charge(slower, 1000);
        assert_eq!(pace.may_begin_at(), slower + Duration::from_millis(3990));
        pace.set_stretch(1);
        // Time in which nothing is done is not saved up.
        let later = now + Duration::from_secs(60);
        pace.charge(later, 1000);
        assert_eq!(pace.may_begin_at(), later + Duration::from_millis(990));
    }
}
