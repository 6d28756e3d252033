//! Time, as it is handed to the state machines.
//!
//! The rule: nothing in this crate outside `runtime/` reads a clock. Deadlines use [`Instant`], which never goes back;
//! wall time only dates values, so that a winner among siblings can be named, and no causal result depends on it.

use std::{ops::Add, time::Duration};

/// A moment on a core's monotonic clock, in nanoseconds from some start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

/// What a state machine is told about time with each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// Milliseconds since 1970, as the machine believes. May be wrong, may jump.
    pub wall_ms: u64,
}

impl Instant {
    /// The time from `earlier` to now, zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment that was so long before.
    #[must_use]
    pub fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}
