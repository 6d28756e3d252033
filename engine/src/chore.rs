//! What a store does in the background, how fast, and how far it is.
//!
//! The rule: background work goes in chunks and rests after each ([`Config::background_pause`](crate::Config)); who runs the
//! store may stretch these rests, for each kind of work by itself. What must not wait does not rest at all, whatever is said
//! here: while segments are short, compaction and zeroing.
//!
//! Not here: who decides (`node/admission`), the work itself (`compactor`, `checkpoint`, `preparer`, `scrub`, `forget`).

use std::{cell::Cell, time::Duration};

/// One kind of background work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Chore {
    /// Moving what lives out of segments that are mostly dead.
    Compaction,
    /// Writing the index to disk, so that the next start is fast.
    Checkpoint,
    /// Zeroing segments ahead of their use.
    Zeroing,
    /// Reading all that lives, to find what has rotted.
    Scrub,
    /// Forgetting the keys of a partition.
    Dropping,
}

impl Chore {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Compaction, Self::Checkpoint, Self::Zeroing, Self::Scrub, Self::Dropping];

    /// As people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Checkpoint => "checkpoint",
            Self::Zeroing => "zeroing",
            Self::Scrub => "scrub",
            Self::Dropping => "dropping",
        }
    }
}

/// How far the present piece of work is, in parts of about the same size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// To be done, with what is done.
    pub all: u64,
}

/// How fast each kind of work goes, and how far it is.
pub(crate) struct Chores {
    pause: Duration,
    stretches: [Cell<u32>; Chore::ALL.len()],
    progress: [Cell<Option<Progress>>; Chore::ALL.len()],
}

/// Held by a piece of work while it is under way.
pub(crate) struct Underway<'a>(&'a Cell<Option<Progress>>);

impl Chores {
    pub(crate) fn new(pause: Duration) -> Self {
        Self { pause, stretches: std::array::from_fn(|_| Cell::new(1)), progress: Default::default() }
    }

    /// How long this work rests after a chunk.
    pub(crate) fn pause(&self, chore: Chore) -> Duration {
        self.pause * self.stretch(chore)
    }

    pub(crate) fn stretch(&self, chore: Chore) -> u32 {
        self.stretches[chore as usize].get()
    }

    pub(crate) fn set_stretch(&self, chore: Chore, factor: u32) {
        self.stretches[chore as usize].set(factor.max(1));
    }

    pub(crate) fn progress(&self, chore: Chore) -> Option<Progress> {
        self.progress[chore as usize].get()
    }

    /// A piece of work begins. It is under way until what this returns is dropped.
    pub(crate) fn begin(&self, chore: Chore, all: u64) -> Underway<'_> {
        let progress = &self.progress[chore as usize];
        progress.set(Some(Progress { done: 0, all }));
        Underway(progress)
    }
}

impl Underway<'_> {
    /// So much of it is done.
    pub(crate) fn reached(&self, done: u64) {
        if let Some(Progress { all, .. }) = self.0.get() {
            self.0.set(Some(Progress { done, all: all.max(done) }));
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_work_is_stretched_by_itself() {
        let chores = Chores::new(Duration::from_micros(500));
        chores.set_stretch(Chore::Scrub, 8);
        assert_eq!(chores.pause(Chore::Scrub), Duration::from_millis(4));
        assert_eq!(chores.pause(Chore::Compaction), Duration::from_micros(500));
        chores.set_stretch(Chore::Scrub, 0);
        assert_eq!(chores.pause(Chore::Scrub), Duration::from_micros(500), "a pause is never left out");
    }

    #[test]
    fn what_ends_is_not_under_way() {
        let chores = Chores::new(Duration::ZERO);
        let underway = chores.begin(Chore::Zeroing, 10);
        underway.reached(4);
        assert_eq!(chores.progress(Chore::Zeroing), Some(Progress { done: 4, all: 10 }));
        underway.reached(12);
        assert_eq!(chores.progress(Chore::Zeroing), Some(Progress { done: 12, all: 12 }));
        drop(underway);
        assert_eq!(chores.progress(Chore::Zeroing), None);
    }
}
