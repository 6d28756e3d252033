//! How fast background work goes on this core: what admission control says is passed on to those who do it.
//!
//! Not here: how much of the core it gets (`admission`), the work itself.

use quorate_engine::{Progress, disk::Disk};

use super::Core;
use crate::{
    admission::{Admission, Fared, Work},
    clock::Now,
    recorder::Kind,
};

/// What one kind of background work is at.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Underway {
    /// Which.
    pub work: Work,
    /// How many times as long it rests as it would by itself.
    pub stretch: u32,
    /// How far it is; `None` when there is nothing to do.
    pub progress: Option<Progress>,
}

impl<D: Disk> Core<D> {
    /// Looks how requests have fared, when it is time to.
    pub(super) fn pace_on(&mut self, now: Now) {
        if now.instant < self.admission.next_timeout() {
            return;
        }
        self.recorder.roll(now.instant);
        // A forwarded request is another core's to answer for.
        let counted = [Kind::Get, Kind::Put, Kind::Replicate].map(|kind| self.recorder.latencies(kind));
        let all = Fared {
            requests: counted.iter().filter_map(|latencies| latencies.at_most().last()).sum(),
            slow: counted.iter().map(|latencies| latencies.slow()).sum(),
        };
        if self.admission.handle_period(now.instant, all) {
            self.pass_on_shares();
        }
    }

    pub(super) fn pass_on_shares(&mut self) {
        for work in Work::ALL {
            let stretch = self.admission.stretch(work);
            match work {
                Work::Store(chore) => {
                    self.objects.store.set_stretch(chore, stretch);
                    self.hints.store.set_stretch(chore, stretch);
                }
                Work::Hints => self.handoff.set_stretch(stretch),
                Work::Exchange => self.anti_entropy.set_stretch(stretch),
            }
        }
    }

    /// The shares of background work.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What background work is at.
    #[must_use]
    pub fn background(&self) -> Vec<Underway> {
        let progress = |work| match work {
            Work::Store(chore) => {
                self.objects.store.chore_progress(chore).or_else(|| self.hints.store.chore_progress(chore))
            }
            Work::Hints => {
                let held = self.hints.store.keys();
                let done = self.handoff.statistics().delivered;
                (held > 0).then_some(Progress { done, all: done + held })
            }
            Work::Exchange => {
                let all = (0..self.ring.partitions()).filter(|&partition| self.keeps(partition)).count() as u64;
                let left = self.unhealed.partitions().count() as u64;
                match self.transfer.progress() {
                    (_, 0) => (left > 0).then(|| Progress { done: all.saturating_sub(left), all }),
                    (left, moving) => Some(Progress { done: (moving - left) as u64, all: moving as u64 }),
                }
            }
        };
        let underway = |work| Underway { work, stretch: self.admission.stretch(work), progress: progress(work) };
        Work::ALL.map(underway).to_vec()
    }
}
