//! Puts that this core coordinates: from the request to the fan-out.

use bytes::Bytes;
use quorate_engine::{
    AppendError, ReadError, Sequence,
    disk::Disk,
    planted::{Bug, planted},
};
use quorate_net::{
    id::{Endpoint, NodeId},
    key::Key,
    message::{ArchivedReplicated, Durability, Failure, Message, Outcome, Put, Replicate, Replicated},
};

use super::{Call, Core, Load, Loaded, LogId, Waiter, micros_left};
use crate::{
    clock::Now,
    context::Context,
    coordinator::{
        Local,
        put::{PutCoordinator, Written, written},
    },
    effect::Effect,
    object::{Object, Sibling, VersionHash},
    quorum::Few,
    recorder::{Kind, Stage},
    version::{Clock, Dot},
};

/// A put that was not yet made.
pub(super) struct PutJob {
    pub(super) call: Call,
    put: Put,
    /// The version whose record turned out to be lost.
    lost: Option<VersionHash>,
}

impl PutJob {
    pub(super) fn new(call: Call, put: Put) -> Self {
        Self { call, put, lost: None }
    }
}

/// A put that was made, from the fan-out on.
pub(super) struct Underway {
    pub(super) coordinator: PutCoordinator,
    pub(super) call: Call,
    durable: bool,
    base: VersionHash,
    pub(super) key: Key,
    body: Bytes,
}

/// An object that this core is about to send to the other replicas.
struct FanOut {
    base: VersionHash,
    body: Bytes,
    context: Bytes,
    replaced: bool,
    /// The own copy's sequence, `None` when it is on disk.
    pending: Option<Sequence>,
}

impl<D: Disk> Core<D> {
    /// Makes the new object from what the store holds, appends it and sends it out. `loaded` is the body that an earlier
    /// try had to read; it counts only while it is still the version that the index knows.
    pub(super) fn put(&mut self, now: Now, job: PutJob, loaded: Option<Object>, out: &mut Vec<Effect>) {
        let Call { deadline, partition, .. } = job.call;
        if deadline <= now.instant {
            let needed = self.settings.write_quorum;
            return self.fail_put(now, &job, Failure::Timeout { acks: 0, needed }, out);
        }
        let (quorum, context) = match self.check(&job.put) {
            Ok(checked) => checked,
            Err(failure) => return self.fail_put(now, &job, failure, out),
        };
        // The scrub may have found since the last event that this key's record is lost.
        self.look_for_damage(now, out);
        let Some(actor) = self.actor else {
            return self.deferred.push_back(job);
        };
        let named = job.put.key.clone();
        let key = named.encoded();
        let log = self.log_of(partition);
        if log == LogId::Objects && self.transfer.is_dropping(partition) {
            // It would be dropped with the rest. What the ring gave back is clear in a moment.
            return self.fail_put(now, &job, Failure::Overloaded { retry_after_us: 10_000 }, out);
        }
        let (mut local, pending) = self.local(log, partition, key, loaded);
        if job.lost == Some(local.version) {
            // What is here cannot be read: the new actor starts from nothing, and the others keep what they hold.
            local = Local::absent();
        }
        if let Some(token) = job.put.token.filter(|_| !planted(Bug::TokenForgotten)) {
            // A retry is recognised by the objects that carry its token: the body must be seen.
            if !local.is_absent() && !self.add_body(&mut local, log, partition, key) {
                return self.load_for_put(log, job, out);
            }
            let known = self.tokens.contains(key, token)
                || local.object.iter().flat_map(|o| &o.siblings).any(|sibling| sibling.token == Some(token));
            if let Some(object) = local.object.as_ref().filter(|_| known) {
                let fan_out = self.again(&job.put, object, token, context, pending);
                return self.fan_out(now, &job, quorum, fan_out, out);
            }
        }
        let mut dot = Dot { actor, counter: self.counter + 1 };
        if planted(Bug::Doomstone) {
            dot.counter = local.outline.as_ref().map_or(0, |outline| outline.clock.vector().counter(actor)) + 1;
        }
        let sibling = Sibling { dot, timestamp_ms: now.wall_ms, token: job.put.token, value: job.put.value.clone() };
        let made = written(&local, context.as_ref(), sibling.clone()).or_else(|| {
            self.add_body(&mut local, log, partition, key).then(|| written(&local, context.as_ref(), sibling))?
        });
        let Some(made) = made else { return self.load_for_put(log, job, out) };
        let nothing = Clock::new();
        let held = local.object.as_ref().map(|object| &object.clock).or(local.outline.as_ref().map(|o| &o.clock));
        let seen = context.as_ref().map_or(&nothing, |context| &context.seen);
        let dropped = made.object.dropped_of([held.unwrap_or(&nothing), seen]);
        match self.append_own(log, &job, &local, &made) {
            Ok(fan_out) => {
                self.statistics.clock_entries_dropped += dropped;
                if log == LogId::Hints {
                    self.hint_taken(now, partition, key, local.is_absent(), out);
                }
                self.counter = dot.counter;
                if let Some(token) = job.put.token {
                    self.tokens.insert(key, token);
                }
                self.fan_out(now, &job, quorum, fan_out, out);
            }
            Err(failure) => self.fail_put(now, &job, failure, out),
        }
    }

    fn fail_put(&mut self, now: Now, job: &PutJob, failure: Failure, out: &mut Vec<Effect>) {
        self.finish(now, Kind::Put, &job.call, job.put.key.encoded(), Outcome::Failed(failure), out);
    }

    /// The body that a put needed was read, or is lost.
    pub(super) fn put_loaded(&mut self, now: Now, log: LogId, mut job: PutJob, loaded: &Loaded, out: &mut Vec<Effect>) {
        job.call.trace.mark(now.instant, Stage::Read);
        match loaded {
            // The ring changed meanwhile: what was read is of another log.
            _ if log != self.log_of(job.call.partition) => self.put(now, job, None, out),
            Ok(body) => {
                let object = body.as_ref().and_then(|body| Object::decode(body).ok());
                self.put(now, job, object, out);
            }
            Err(ReadError::Corrupt { .. }) => {
                let (local, _) = self.glance(log, job.call.partition, job.put.key.encoded());
                job.lost = Some(local.version);
                self.put(now, job, None, out);
            }
            Err(_) => self.fail_put(now, &job, Failure::Corrupt, out),
        }
    }

    fn check(&self, put: &Put) -> Result<(u8, Option<Context>), Failure> {
        let quorum = self.quorum_of(put.quorum, self.settings.write_quorum)?;
        if put.value.as_ref().is_some_and(|value| value.len() > self.settings.value_bytes_max) {
            return Err(Failure::TooLarge { limit: self.settings.value_bytes_max as u32 });
        }
        let open = |text: &Bytes| self.sealer.open(put.key.encoded(), text).map_err(|_| Failure::BadContext);
        Ok((quorum, put.context.as_ref().map(open).transpose()?))
    }

    fn load_for_put(&mut self, log: LogId, job: PutJob, out: &mut Vec<Effect>) {
        self.statistics.put_loads += 1;
        self.load(log, job.call.partition, job.put.key.clone(), Load::Put(Box::new(job)), out);
    }

    fn append_own(&mut self, log: LogId, job: &PutJob, local: &Local, made: &Written) -> Result<FanOut, Failure> {
        let siblings_max = self.settings.siblings_max;
        if made.object.siblings.len() > siblings_max {
            return Err(Failure::TooManySiblings { limit: siblings_max as u16 });
        }
        let body = made.object.encode();
        if body.len() > self.settings.object_bytes_max {
            return Err(Failure::TooLarge { limit: self.settings.object_bytes_max as u32 });
        }
        let key = job.put.key.encoded();
        let appended = match log {
            LogId::Objects => self.objects.append(job.call.partition, key, &body),
            LogId::Hints => self.hints.append(job.call.partition, key, &body),
        };
        let sequence = appended.map_err(|error| match error {
            AppendError::Full => Failure::DiskFull,
            AppendError::Busy => Failure::Overloaded { retry_after_us: 10_000 },
            AppendError::TooLarge => Failure::TooLarge { limit: self.settings.object_bytes_max as u32 },
            _ => Failure::StoreFailed,
        })?;
        self.statistics.puts += 1;
        let context = self.seal(&job.put, &made.context);
        Ok(FanOut { base: local.version, body, context, replaced: local.has_value, pending: Some(sequence) })
    }

    /// The context of the answer, when it is wanted.
    fn seal(&self, put: &Put, context: &Context) -> Bytes {
        if put.wants_context { self.sealer.seal(put.key.encoded(), context) } else { Bytes::new() }
    }

    /// A write whose token is known is not made again: what it became is sent out again, so that the answer rests on W
    /// copies as ever.
    ///
    /// Its context covers the write and what its writer had seen. When siblings have come meanwhile, what a blind write
    /// had seen cannot be told any more: its context then covers nothing, which only means that a put with it replaces
    /// nothing.
    fn again(
        &self,
        put: &Put,
        object: &Object,
        token: u128,
        context: Option<Context>,
        pending: Option<Sequence>,
    ) -> FanOut {
        let write = object.siblings.iter().find(|sibling| sibling.token == Some(token)).map(|sibling| sibling.dot);
        let context = if write.is_some() && (object.siblings.len() == 1 || planted(Bug::RetryContextWide)) {
            Context { seen: object.clock.clone(), version: object.version() }
        } else {
            let seen = context.map(|mut context| {
                write.into_iter().for_each(|dot| context.seen.add(dot));
                context.seen
            });
            Context { seen: seen.unwrap_or_default(), version: VersionHash::ABSENT }
        };
        FanOut {
            base: object.version(),
            body: object.encode(),
            context: self.seal(put, &context),
            replaced: false,
            pending,
        }
    }

    fn fan_out(&mut self, now: Now, job: &PutJob, quorum: u8, fan_out: FanOut, out: &mut Vec<Effect>) {
        let (me, durability, consistency) = (self.settings.me, job.put.durability, job.put.consistency);
        let voters = self.voters(job.call.partition);
        let fallbacks = self.fallbacks(job.call.partition, consistency);
        let unreachable = self.unreachable(&voters, &fallbacks, quorum);
        let FanOut { base, body, context, replaced, pending } = fan_out;
        let outcome = (context, replaced);
        let mut coordinator = PutCoordinator::new(me, durability, quorum, &voters, fallbacks, outcome);
        coordinator.handle_own_appended();
        if pending.is_none() {
            coordinator.handle_own(true);
        }
        for &endpoint in &unreachable {
            coordinator.handle_unreachable(endpoint);
        }
        let put = Underway {
            coordinator,
            call: job.call,
            durable: durability == Durability::Durable && !planted(Bug::BufferedCounts),
            base,
            key: job.put.key.clone(),
            body,
        };
        let up = voters.iter().filter(|voter| voter.endpoint != me && !unreachable.contains(&voter.endpoint));
        let sends: Few<_> = up.map(|voter| (voter.endpoint, None)).collect();
        let operation = self.begin(now, job.call.deadline, super::Underway::Put(Box::new(put)));
        self.send_put(now, operation, sends, out);
        if let Some(sequence) = pending {
            self.when_durable(self.log_of(job.call.partition), sequence, Waiter::Put { operation });
        }
        self.put_progress(now, operation, out);
    }

    fn send_put(&mut self, now: Now, operation: u64, to: Few<(Endpoint, Option<NodeId>)>, out: &mut Vec<Effect>) {
        let Some(super::Underway::Put(put)) = self.operations.get(&operation) else { return };
        for (to, hint_for) in to {
            let replicate = Replicate {
                operation,
                timeout_us: micros_left(now, put.call.deadline),
                partition: put.call.partition,
                durable: put.durable,
                hint_for,
                base: put.base.0,
                key: put.key.clone(),
                body: put.body.clone(),
            };
            out.push(Effect::Send { to, message: Message::Replicate(replicate) });
        }
    }

    /// The own copy is on disk, or never will be.
    pub(super) fn own_durable(&mut self, now: Now, operation: u64, durable: bool, out: &mut Vec<Effect>) {
        if let Some(super::Underway::Put(put)) = self.operations.get_mut(&operation) {
            put.coordinator.handle_own(durable);
            put.call.trace.mark(now.instant, Stage::Commit);
            self.put_progress(now, operation, out);
        }
    }

    /// A replica answered.
    pub(super) fn replicated(
        &mut self,
        now: Now,
        from: Endpoint,
        replicated: &ArchivedReplicated,
        out: &mut Vec<Effect>,
    ) {
        self.answered(now, from, out);
        let Ok(Replicated { operation, outcome }) =
            rkyv::deserialize::<Replicated, rkyv::rancor::Infallible>(replicated);
        if let Some(super::Underway::Put(put)) = self.operations.get_mut(&operation) {
            put.coordinator.handle_replicated(from, outcome);
            put.call.trace.mark(now.instant, Stage::Peer(from));
            self.put_progress(now, operation, out);
        } else {
            self.hint_replicated(now, from, operation, outcome, out);
        }
    }

    pub(super) fn put_progress(&mut self, now: Now, operation: u64, out: &mut Vec<Effect>) {
        let Some(super::Underway::Put(put)) = self.operations.get_mut(&operation) else { return };
        let engaged = put.coordinator.engage();
        if !engaged.is_empty() {
            self.statistics.hints_sent += engaged.len() as u64;
            let hints = engaged.into_iter().map(|(to, primary)| (to, Some(primary))).collect();
            self.send_put(now, operation, hints, out);
        }
        let Some(super::Underway::Put(put)) = self.operations.get_mut(&operation) else { return };
        let answer = put.coordinator.answer().map(|outcome| (put.call, put.key.clone(), outcome));
        if put.coordinator.is_complete() {
            self.operations.remove(&operation);
        }
        if let Some((call, key, outcome)) = answer {
            self.finish(now, Kind::Put, &call, key.encoded(), outcome, out);
        }
    }
}
