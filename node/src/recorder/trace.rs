//! What happened when on the way of one request.
//!
//! The rule: a mark is what has just ended, or come; what a request waited for longest is what the mark after the longest
//! pause names.

use std::time::Duration;

use quorate_net::id::Endpoint;

use crate::clock::Instant;

/// Later marks are not noted: a request that waits for more has waited for the first ones.
const MARKS_MAX: usize = 8;

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Its turn: what came before it on its connection, or what the core was doing.
    Queue,
    /// A new actor of this core.
    Actor,
    /// A body from this core's disk.
    Read,
    /// Its record on this core's disk.
    Commit,
    /// An answer of another core.
    Peer(Endpoint),
    /// Nobody: those who were late had their time, then others were asked.
    Patience,
}

impl Stage {
    /// As people and programs know it, without which core.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Actor => "actor",
            Self::Read => "read",
            Self::Commit => "commit",
            Self::Peer(_) => "peer",
            Self::Patience => "patience",
        }
    }
}

/// One request's marks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trace {
    begun: Instant,
    /// Microseconds from the beginning.
    marks: [(Stage, u32); MARKS_MAX],
    len: u8,
}

impl Trace {
    /// A request that begins.
    #[must_use]
    pub fn new(begun: Instant) -> Self {
        Self { begun, marks: [(Stage::Queue, 0); MARKS_MAX], len: 0 }
    }

    /// When it began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Something has ended, or come.
    pub fn mark(&mut self, now: Instant, stage: Stage) {
        if let Some(mark) = self.marks.get_mut(usize::from(self.len)) {
            *mark = (stage, u32::try_from(now.since(self.begun).as_micros()).unwrap_or(u32::MAX));
            self.len += 1;
        }
    }

    /// What was noted, and how long after the beginning.
    pub fn marks(&self) -> impl Iterator<Item = (Stage, Duration)> {
        self.marks[..usize::from(self.len)].iter().map(|&(stage, us)| (stage, Duration::from_micros(us.into())))
    }

    /// What it waited for longest, and how long; none when what it waited for last was not noted, and took longer.
    #[must_use]
    pub fn longest_wait(&self, took: Duration) -> Option<(Stage, Duration)> {
        let (mut last, mut longest) = (Duration::ZERO, None);
        for (stage, at) in self.marks() {
            let waited = at.saturating_sub(last);
            if longest.is_none_or(|(_, before)| before < waited) {
                longest = Some((stage, waited));
            }
            last = at;
        }
        longest.filter(|&(_, waited)| waited >= took.saturating_sub(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant(5) + Duration::from_micros(micros)
    }

    #[test]
    fn the_longest_pause_is_named_by_what_ended_it() {
        let mut trace = Trace::new(at(0));
        assert_eq!(trace.longest_wait(Duration::from_micros(9)), None);
        for (micros, stage) in [(10, Stage::Queue), (500, Stage::Read), (600, Stage::Commit)] {
            trace.mark(at(micros), stage);
        }
        assert_eq!(trace.longest_wait(Duration::from_micros(610)), Some((Stage::Read, Duration::from_micros(490))));
        assert_eq!(trace.longest_wait(Duration::from_micros(2000)), None, "whatever it waited for came last");
    }

    #[test]
    fn more_marks_than_there_is_room_for_are_not_noted() {
        let mut trace = Trace::new(at(0));
        (0..20).for_each(|mark| trace.mark(at(mark), Stage::Commit));
        assert_eq!(trace.marks().count(), MARKS_MAX);
    }
}
