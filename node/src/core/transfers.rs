//! Ring changes on this core: what operators ask for, and what follows of partitions that move.
//!
//! Not here: what moves when (`transfer`), the state that they change (`membership/state`).

use std::collections::BTreeSet;

use quorate_engine::disk::Disk;

use super::Core;
use crate::{
    clock::Now,
    effect::Effect,
    membership::state::{Change, ChangeError, Plan, PlanError},
    transfer::{Step, Transfer},
};

impl<D: Disk> Core<D> {
    /// An operator changes who belongs, or what is to become of the ring.
    ///
    /// # Errors
    /// When it does not fit what is known here; nothing has changed then.
    pub fn handle_change(&mut self, now: Now, change: Change, out: &mut Vec<Effect>) -> Result<(), ChangeError> {
        self.drive_membership(now, out, |members, effects| members.change(now.instant, change, effects))
    }

    /// Whether all that this core knows of the cluster is on its disk. As long as it is not, the others are not told.
    #[must_use]
    pub fn is_state_stored(&self) -> bool {
        self.storing_states == 0 && self.store_again.is_none()
    }

    /// What a commit would do now.
    ///
    /// # Errors
    /// When there is nothing to do, or it cannot be done.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        self.membership.state().plan()
    }

    /// What moves.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// A partition was dropped, as [`Effect::Drop`] asked.
    pub fn handle_dropped(&mut self, now: Now, partition: u16, out: &mut Vec<Effect>) {
        self.transfer.handle_dropped(partition);
        self.follow_ring(now, out);
        self.settle(now, out);
    }

    /// What this core holds and does not keep.
    pub(super) fn surplus(&self) -> BTreeSet<u16> {
        let held = |partition: &u16| self.objects.store.index(|index| index.partition_len(*partition)) > 0;
        (0..self.ring.partitions()).filter(|&partition| !self.keeps(partition)).filter(held).collect()
    }

    /// Looks whether what moves has got further.
    pub(super) fn transfer_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.transfer.next_timeout().is_none_or(|at| at > now.instant) {
            return;
        }
        let mut steps = Vec::new();
        let hints = self.hints.store.keys() - self.hints.store.statistics().lost;
        let all_know = self.membership.all_know_ring();
        self.transfer.look(now.instant, self.membership.state(), all_know, hints, &mut steps);
        for step in steps {
            match step {
                Step::Compare { peer, partition } => self.anti_entropy.hurry(peer, partition),
                Step::Confirm => self.change_by_itself(now, Change::Confirm(self.settings.me), out),
                Step::Finish => self.change_by_itself(now, Change::Finish, out),
                Step::Drop { partition } => out.push(Effect::Drop { partition }),
            }
        }
        self.exchange(now, out, |_, _, _| {});
    }

    /// What another core has done already is refused, which is as well.
    fn change_by_itself(&mut self, now: Now, change: Change, out: &mut Vec<Effect>) {
        let _ = self.handle_change(now, change, out);
    }
}
