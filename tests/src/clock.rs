//! What a node takes for the time: a monotonic clock that drifts, a wall clock that steps.
//!
//! The rule: the monotonic clock never goes back; the wall clock may say anything.
//!
//! Not here: the world's own time, which only the simulation knows.

use std::time::Duration;

use quorate_node::clock::{Instant, Now};

/// Milliseconds from 1970 to the start of every simulation.
const START_MS: i64 = 1_800_000_000_000;

const MILLION: i64 = 1_000_000;

/// One node's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the monotonic clock shows when the world begins, in nanoseconds.
    offset: u64,
    /// How much faster it runs, in millionths.
    drift: i64,
    /// How much the wall clock is off, in milliseconds.
    step_ms: i64,
}

impl Clock {
    /// A clock that shows `offset` nanoseconds at the start and gains `drift` millionths.
    ///
    /// # Panics
    /// When it would run backwards.
    #[must_use]
    pub fn new(offset: u64, drift: i64) -> Self {
        assert!(drift.abs() < MILLION, "a clock that gains {drift} millionths runs backwards");
        Self { offset, drift, step_ms: 0 }
    }

    /// The wall clock is set forward or back.
    pub fn step(&mut self, by_ms: i64) {
        self.step_ms += by_ms;
    }

    /// What the node is told at the world's time `world`.
    #[must_use]
    pub fn now(&self, world: Duration) -> Now {
        let wall = START_MS + world.as_millis() as i64 + self.step_ms;
        Now { instant: self.instant(world), wall_ms: u64::try_from(wall).unwrap_or(0) }
    }

    /// The first moment of the world at which the node's clock shows `instant`.
    #[must_use]
    pub fn world_at(&self, instant: Instant) -> Duration {
        // The clock rounds towards its start: by one less this begins at or before the moment that is looked for.
        let shown = instant.0.saturating_sub(self.offset).saturating_sub(1);
        let world = scaled(shown, MILLION, MILLION + self.drift);
        let mut world = Duration::from_nanos(u64::try_from(world).unwrap_or(u64::MAX));
        while self.instant(world) < instant {
            world += Duration::from_nanos(1);
        }
        world
    }

    fn instant(&self, world: Duration) -> Instant {
        let nanos = world.as_nanos() as u64;
        Instant(self.offset + (i128::from(nanos) + scaled(nanos, self.drift, MILLION)) as u64)
    }
}

/// `nanos` times `by`, of `of`, in as few bits as it takes: this is asked at every event.
fn scaled(nanos: u64, by: i64, of: i64) -> i128 {
    let narrow = i64::try_from(nanos).ok().and_then(|nanos| nanos.checked_mul(by));
    narrow.map_or_else(|| i128::from(nanos) * i128::from(by) / i128::from(of), |product| i128::from(product / of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_on_a_drifting_clock_is_found_again() {
        for drift in [-400_000, -17, 0, 3, 900_000] {
            let clock = Clock::new(12_345, drift);
            for nanos in [0, 1, 999, 1_000_001, 77_777_777_777] {
                let world = Duration::from_nanos(nanos);
                let found = clock.world_at(clock.now(world).instant);
                assert!(found <= world && clock.now(found).instant == clock.now(world).instant, "{drift} {nanos}");
            }
        }
    }
}
