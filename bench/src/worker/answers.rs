//! What becomes of an operation when an answer, or none, came.
//!
//! The rule: a write without a clear answer is unknown for ever; a phase that tries again does so with a new write.
//!
//! Not here: what a read may show (`ledger`).

use super::{RETRY_NS, Waiting, Worker};
use crate::{
    client::Operation,
    ledger::Shown,
    phase::{Phase, Task},
    protocol::{Failed, Outcome, Step},
    workload::Kind,
};

impl Worker {
    pub(super) fn handle_answer(
        &mut self,
        phase: &Phase,
        client: usize,
        endpoint: usize,
        mut operation: Operation,
        outcome: Outcome<'_>,
        now: u64,
    ) {
        self.health[endpoint] = super::Health::default();
        match (operation.step, outcome) {
            (_, Outcome::Failed(failed)) => self.fail(phase, client, operation, &failed, now),
            (Step::Get, Outcome::Values { first, more, context }) => {
                let values = usize::from(first.is_some()) + more.len();
                if !self.accept_read(phase, client, &mut operation, first.into_iter().chain(more), now) {
                    return;
                }
                if self.is_measured(phase, operation.intended) {
                    self.recorder.found(values);
                }
                self.after_read(phase, client, operation, context, now);
            }
            (Step::Put, Outcome::Written { context }) => {
                if let Some(ledger) = &self.shared.ledger {
                    ledger.acknowledge(operation.key, operation.sequence);
                    let own = operation.key % self.shared.clients == self.clients[client].index;
                    if own && !context.is_empty() {
                        self.clients[client].remember(operation.key, context);
                    }
                }
                self.complete(phase, client, &operation, now);
            }
            (step, outcome) => panic!("the protocol gave {outcome:?} to a {step:?}"),
        }
    }

    /// Judges a read. False: it is to be tried again.
    fn accept_read<'a>(
        &mut self,
        phase: &Phase,
        client: usize,
        operation: &mut Operation,
        values: impl Iterator<Item = &'a [u8]>,
        now: u64,
    ) -> bool {
        let Some(ledger) = &self.shared.ledger else { return true };
        let (shown, latest) = ledger.judge(operation.key, operation.floor, values);
        if shown != Shown::Stale {
            return true;
        }
        // Trying again must not count one stale key many times.
        if !std::mem::replace(&mut operation.stale, true) {
            ledger.note_stale(operation.key, operation.floor, latest);
        }
        if phase.task == Task::Check {
            if !phase.is_over(now) {
                self.try_again(client, operation.clone(), now);
                return false;
            }
            ledger.note_lost(operation.key, operation.floor, latest);
        }
        true
    }

    /// A read is done: the second half of a read-modify-write follows.
    fn after_read(&mut self, phase: &Phase, client: usize, mut operation: Operation, context: &[u8], now: u64) {
        let modifies = operation.kind == Kind::ReadModifyWrite;
        let state = &mut self.clients[client];
        if let Some(ledger) = &self.shared.ledger {
            // The owner goes on from what it read, unless it has written meanwhile.
            let own = operation.key % self.shared.clients == state.index;
            let writes = state.is_writing(operation.key) && !modifies;
            let quiet = operation.sent_before == ledger.sent(operation.key) && !writes;
            if own && quiet && !context.is_empty() {
                state.remember(operation.key, context);
            }
        } else if modifies && !context.is_empty() {
            operation.context = Some(context.into());
        }
        if modifies {
            operation.step = Step::Put;
            self.next_steps.push((client, operation));
        } else {
            self.complete(phase, client, &operation, now);
        }
    }

    fn complete(&mut self, phase: &Phase, client: usize, operation: &Operation, now: u64) {
        let measured = self.is_measured(phase, operation.intended);
        self.recorder.completed(operation.kind, now.saturating_sub(operation.intended), now, measured);
        self.end(phase, client, operation);
    }

    /// A request failed. Its operation ends with it, or is tried again.
    pub(super) fn fail(&mut self, phase: &Phase, client: usize, operation: Operation, failed: &Failed, now: u64) {
        let unknown = operation.sequence > 0 && !failed.nothing_written;
        if unknown && let Some(ledger) = &self.shared.ledger {
            ledger.lose_sight(operation.key, operation.sequence, operation.blind);
        }
        let measured = self.is_measured(phase, operation.intended);
        if phase.tries_again() && !phase.is_over(now) {
            self.recorder.error(&failed.class, &failed.text, None, now, measured);
            self.try_again(client, operation, now);
            return;
        }
        let latency = now.saturating_sub(operation.intended);
        self.recorder.error(&failed.class, &failed.text, Some(latency), now, measured);
        if phase.task == Task::Check
            && let Some(ledger) = &self.shared.ledger
        {
            ledger.note_unread(operation.key);
        }
        self.end(phase, client, &operation);
    }

    fn try_again(&mut self, client: usize, mut operation: Operation, now: u64) {
        operation.sequence = 0;
        operation.begun = now + RETRY_NS;
        self.waiting.push_back(Waiting { client, operation, not_before: now + RETRY_NS });
    }

    fn end(&mut self, phase: &Phase, client: usize, operation: &Operation) {
        if operation.kind != Kind::Read {
            self.clients[client].stop_writing(operation.key);
        }
        if operation.kind == Kind::Insert && phase.task == Task::Draw {
            self.shared.keys.settle(operation.key);
        }
        self.begun -= 1;
        self.free.push_back(client);
    }
}
