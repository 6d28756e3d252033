//! Requests for keys that this core does not coordinate: they go to one that does.
//!
//! The rule: an owner that can be reached coordinates; for a sloppy request the first fallback that can be, when there is
//! none. Who does not answer within the patience, or cannot be reached any more, is not waited for: the next one is asked, and
//! whichever answers first counts. A put that reached two coordinators may leave one sibling more, of the same value.
//!
//! A put without a context replaces what its coordinator holds at that moment. Made once more by a coordinator that was late,
//! it would replace what came after it. So the context is asked for first, and the put goes on with it: however often and
//! however late it is made then, it replaces no more than was there when it began.
//!
//! Not here: the coordinators (`puts`, `gets`).

use quorate_engine::{
    disk::Disk,
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    message::{ArchivedReply, Consistency, Failure, Get, Message, Operation, Outcome, Put, Reply, Request},
};

use super::{Call, Core, Underway, micros_left};
use crate::{
    clock::Now,
    effect::Effect,
    hedging::Wait,
    recorder::{Kind, Stage},
};

/// A request is forwarded at most this often: once to a node of the key's, with room for nodes that do not agree.
const HOPS_MAX: u8 = 3;

/// Somebody may have done it.
pub(super) const MAYBE_DONE: Failure = Failure::Timeout { acks: 0, needed: 1 };

/// A request that others work on.
pub(super) struct Forward {
    pub(super) call: Call,
    request: Request,
    /// What the put would replace is asked for.
    looks: bool,
    /// Who was asked, the last one last.
    pub(super) asked: Vec<Endpoint>,
    /// Those of them that said that they failed, or that cannot be reached.
    failed: Vec<Endpoint>,
}

impl Forward {
    /// Those who may still answer.
    pub(super) fn silent(&self) -> impl Iterator<Item = Endpoint> {
        self.asked.iter().filter(|asked| !self.failed.contains(asked)).copied()
    }

    /// What is asked of others now.
    fn operation(&self) -> Operation {
        match &self.request.operation {
            Operation::Put(Put { key, consistency, .. }) if self.looks => {
                Operation::Get(Get { key: key.clone(), quorum: 1, consistency: *consistency, wants_context: true })
            }
            operation => operation.clone(),
        }
    }
}

impl<D: Disk> Core<D> {
    /// Whether this core coordinates requests for the partition.
    pub(super) fn coordinates(&self, partition: u16, consistency: Consistency) -> bool {
        self.owns(partition)
            || consistency == Consistency::Sloppy
                && self.coordinators(partition, consistency).next() == Some(self.settings.me)
    }

    /// Who may coordinate, and can be reached, in the order in which they are asked: this node's own core first. Those that
    /// are only late come last: when there is nobody else they are asked all the same.
    fn coordinators(&self, partition: u16, consistency: Consistency) -> impl Iterator<Item = Endpoint> + '_ {
        let up = |endpoint: &Endpoint| !self.down.contains(endpoint);
        let late = move |endpoint: &Endpoint| !up(endpoint) && !self.disconnected.contains(endpoint);
        let owners = self.ring.primaries(partition);
        let own = owners.iter().copied().filter(|owner| owner.node == self.settings.me.node);
        let others = owners.iter().copied().filter(|owner| owner.node != self.settings.me.node);
        let fallbacks = match consistency {
            Consistency::Sloppy => self.ring.fallbacks(partition),
            Consistency::Strict => &[],
        };
        let fallbacks = fallbacks.iter().copied().filter(|&fallback| !self.leaves(fallback));
        let all = own.chain(others).chain(fallbacks);
        all.clone().filter(up).chain(all.filter(late))
    }

    pub(super) fn forward(&mut self, now: Now, call: Call, mut request: Request, out: &mut Vec<Effect>) {
        let Call { reply_to, deadline, partition, .. } = call;
        if request.hops >= HOPS_MAX {
            let text = "forwarded too often: the nodes do not agree on the ring".to_owned();
            return self.fail(reply_to, Failure::BadRequest(text), out);
        }
        let Some(to) = self.coordinators(partition, request.operation.consistency()).next() else {
            return self.fail(reply_to, Failure::Unavailable { reachable: 0, needed: 1 }, out);
        };
        self.statistics.forwarded += 1;
        request.hops += 1;
        let is_get = matches!(request.operation, Operation::Get(_));
        // A token tells by itself that a write was made before.
        let is_blind = matches!(&request.operation, Operation::Put(Put { context: None, token: None, .. }));
        let looks = is_blind && !planted(Bug::SentOnBlind);
        let forward = Forward { call, request, looks, asked: Vec::with_capacity(1), failed: Vec::new() };
        let number = self.begin(now, deadline, Underway::Forward(Box::new(forward)));
        if is_get {
            self.hedging.handle_get();
            self.hedging.handle_wait(now.instant, Wait::Owner, number);
        }
        self.forward_to(now, number, to, out);
    }

    /// The owner that a get was sent on to is late: another one is asked as well.
    pub(super) fn hedge_forward(&mut self, now: Now, number: u64, out: &mut Vec<Effect>) {
        let Some(Underway::Forward(forward)) = self.operations.get(&number) else { return };
        if forward.asked.len() == 1 && self.next_coordinator(forward).is_some() && self.hedging.pay(Wait::Owner) {
            self.statistics.hedges += 1;
            self.forward_again(now, number, out);
        }
    }

    fn forward_to(&mut self, now: Now, number: u64, to: Endpoint, out: &mut Vec<Effect>) {
        let Some(Underway::Forward(forward)) = self.operations.get_mut(&number) else { return };
        forward.asked.push(to);
        let (timeout_us, hops) = (micros_left(now, forward.call.deadline), forward.request.hops);
        let request = Request { id: number, timeout_us, hops, operation: forward.operation() };
        out.push(Effect::Send { to, message: Message::Request(request) });
    }

    /// Asks the next one, beside those who were asked already.
    pub(super) fn forward_again(&mut self, now: Now, number: u64, out: &mut Vec<Effect>) {
        let Some(Underway::Forward(forward)) = self.operations.get(&number) else { return };
        match self.next_coordinator(forward) {
            Some(to) => {
                self.statistics.forwarded_again += 1;
                self.patience.push_back((now.instant + self.settings.patience, number));
                self.forward_to(now, number, to, out);
            }
            // Somebody may still answer.
            None if forward.failed.len() < forward.asked.len() => {}
            None => self.end_forward(now, number, Outcome::Failed(MAYBE_DONE), out),
        }
    }

    /// Who could be asked beside those who were.
    fn next_coordinator(&self, forward: &Forward) -> Option<Endpoint> {
        let consistency = forward.request.operation.consistency();
        let asked = |to: &Endpoint| *to == self.settings.me || forward.asked.contains(to);
        self.coordinators(forward.call.partition, consistency).find(|to| !asked(to))
    }

    /// Somebody that the request went to cannot be reached any more. It may have got there.
    pub(super) fn forward_unreachable(&mut self, now: Now, number: u64, peer: Endpoint, out: &mut Vec<Effect>) {
        if let Some(Underway::Forward(forward)) = self.operations.get_mut(&number)
            && forward.asked.contains(&peer)
            && !forward.failed.contains(&peer)
        {
            forward.failed.push(peer);
            self.forward_again(now, number, out);
        }
    }

    pub(super) fn forwarded_reply(&mut self, now: Now, from: Endpoint, reply: &ArchivedReply, out: &mut Vec<Effect>) {
        self.answered(now, from, out);
        let number = reply.id.to_native();
        let Some(Underway::Forward(forward)) = self.operations.get_mut(&number) else { return };
        if !forward.asked.contains(&from) {
            return;
        }
        forward.call.trace.mark(now.instant, Stage::Peer(from));
        let Ok(reply) = rkyv::deserialize::<Reply, rkyv::rancor::Error>(reply) else {
            self.statistics.malformed += 1;
            return;
        };
        if let (Operation::Put(put), Outcome::Values { context, .. }) = (&mut forward.request.operation, &reply.outcome)
        {
            // Another one has answered before.
            if !std::mem::take(&mut forward.looks) {
                return;
            }
            put.context = Some(context.clone());
            forward.asked.clear();
            forward.failed.clear();
            return self.forward_to(now, number, from, out);
        }
        if matches!(reply.outcome, Outcome::Failed(_)) && forward.asked.len() > 1 {
            // Another one may have done it, or still do it.
            if !forward.failed.contains(&from) {
                forward.failed.push(from);
            }
            // What this one says of itself says nothing of what another one may have done.
            if forward.failed.len() < forward.asked.len() {
                return;
            }
            return self.end_forward(now, number, Outcome::Failed(MAYBE_DONE), out);
        }
        self.end_forward(now, number, reply.outcome, out);
    }

    fn end_forward(&mut self, now: Now, number: u64, outcome: Outcome, out: &mut Vec<Effect>) {
        if let Some(Underway::Forward(forward)) = self.operations.remove(&number) {
            self.finish_forward(now, &forward, outcome, out);
        }
    }

    pub(super) fn finish_forward(&mut self, now: Now, forward: &Forward, outcome: Outcome, out: &mut Vec<Effect>) {
        let key = match &forward.request.operation {
            Operation::Get(get) => {
                self.hedging.handle_end(Wait::Owner, now.instant.since(forward.call.trace.begun()));
                get.key.encoded()
            }
            Operation::Put(put) => put.key.encoded(),
            Operation::ClusterMap => unreachable!("that is answered where it is asked"),
        };
        self.finish(now, Kind::Forward, &forward.call, key, outcome, out);
    }
}
