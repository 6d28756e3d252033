//! What follows from time alone on this core: requests whose time is over, those that are late, and when to look again.
//!
//! Not here: what each machine does at its own deadlines.

use std::cmp::Reverse;

use quorate_engine::disk::Disk;
use quorate_net::{id::Endpoint, message::Outcome};

use super::{Core, Underway, forwards};
use crate::{
    clock::{Instant, Now},
    effect::Effect,
    hedging::Wait,
    membership::Contact,
    recorder::{Kind, Stage},
};

/// A core is busy when of all that it may have under way one part in so many is.
const BUSY: usize = 4;

impl<D: Disk> Core<D> {
    /// Deadlines may have passed.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.store_state_again(now, out);
        self.heal_on(now, out);
        self.gossip_on(now, out);
        self.transfer_on(now, out);
        self.reap_on(now, out);
        self.pace_on(now);
        if self.anti_entropy.next_timeout().is_some_and(|at| at <= now.instant) {
            self.exchange(now, out, |exchanges, tree, actions| exchanges.handle_timeout(now.instant, tree, actions));
        }
        while let Some(&Reverse((deadline, number))) = self.deadlines.peek() {
            if deadline > now.instant {
                break;
            }
            self.deadlines.pop();
            match self.operations.remove(&number) {
                Some(Underway::Put(mut put)) => {
                    if let Some(outcome) = put.coordinator.handle_timeout() {
                        self.finish(now, Kind::Put, &put.call, put.key.encoded(), outcome, out);
                    }
                }
                Some(Underway::Get(mut get)) => {
                    if let Some(outcome) = get.coordinator.handle_timeout() {
                        self.finish(now, Kind::Get, &get.call, get.key.encoded(), outcome, out);
                    }
                    self.repair(&get, out);
                }
                Some(Underway::Forward(forward)) => {
                    self.finish_forward(now, &forward, Outcome::Failed(forwards::MAYBE_DONE), out);
                }
                None => {}
            }
        }
        self.hand_off_on(now, out);
        while let Some((wait, number)) = self.hedging.next_due(now.instant) {
            self.hedge(now, wait, number, out);
        }
        let operations = &self.operations;
        self.hedging.forget(|number| operations.contains_key(&number));
        while let Some((_, number)) = self.patience.pop_front_if(|(at, _)| *at <= now.instant) {
            self.lose_patience(now, number, out);
        }
        self.settle(now, out);
    }

    /// An operation takes long: whom it waits for is late, others are asked in the place of those.
    fn lose_patience(&mut self, now: Now, number: u64, out: &mut Vec<Effect>) {
        let Some(operation) = self.operations.get_mut(&number) else { return };
        let (call, late) = match operation {
            Underway::Put(put) => (&mut put.call, put.coordinator.handle_silence()),
            Underway::Get(get) => (&mut get.call, get.coordinator.handle_silence()),
            Underway::Forward(forward) => {
                let silent = forward.silent().collect();
                (&mut forward.call, silent)
            }
        };
        call.trace.mark(now.instant, Stage::Patience);
        for peer in late {
            self.late.insert(peer);
            self.contact(now, peer, Contact::TimedOut, out);
        }
        match self.operations.get(&number) {
            Some(Underway::Put(_)) => self.put_progress(now, number, out),
            Some(Underway::Get(_)) => self.get_progress(now, number, out),
            Some(Underway::Forward(_)) => self.forward_again(now, number, out),
            None => {}
        }
    }

    /// A get takes unusually long. Where there is too much to do already, more of it would not help.
    fn hedge(&mut self, now: Now, wait: Wait, number: u64, out: &mut Vec<Effect>) {
        if self.queue_length() > self.settings.operations_max / BUSY {
            return;
        }
        match wait {
            Wait::Own => self.hedge_get(now, number, out),
            Wait::Owner => self.hedge_forward(now, number, out),
        }
    }

    /// A peer answered what it was asked.
    pub(super) fn answered(&mut self, now: Now, peer: Endpoint, out: &mut Vec<Effect>) {
        // One that is avoided has to hold for a while first: the gossip asks it.
        if !self.late.is_empty() && self.late.remove(&peer) && !self.down.contains(&peer) {
            self.contact(now, peer, Contact::Answered, out);
        }
    }

    /// When to call [`Core::handle_timeout`] next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|Reverse((deadline, _))| *deadline);
        let patience = self.patience.front().map(|&(at, _)| at);
        let machines = [
            self.membership.next_timeout(),
            self.anti_entropy.next_timeout(),
            self.handoff.next_timeout(),
            self.transfer.next_timeout(),
            self.reaper.next_timeout(),
            self.unhealed.next_timeout(),
            Some(self.admission.next_timeout()),
            self.hedging.next_timeout(),
        ];
        [deadline, patience, self.store_again].into_iter().chain(machines).flatten().min()
    }
}
