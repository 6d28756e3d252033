//! What this core does as a replica, for coordinators elsewhere.

use std::time::Duration;

use bytes::Bytes;
use quorate_engine::{
    AppendError, ReadError,
    disk::Disk,
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    key::{self, Key},
    message::{ArchivedProbe, ArchivedReplicate, Message, Probed, ProbedVersion, ReplicaOutcome, Replicated},
};

use super::{Core, Load, Loaded, LogId, Waiter};
use crate::{
    clock::{Instant, Now},
    coordinator::Local,
    effect::Effect,
    object::{Object, VersionHash, view},
    recorder::{Kind, Stage, Trace},
    replica::{Decision, decide},
};

/// Who sent an object, and waits to hear what became of it.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    /// A coordinator.
    Coordinator {
        /// Where.
        to: Endpoint,
        /// Its number for the put.
        operation: u64,
        /// When the object came.
        came: Instant,
    },
    /// This core's own anti-entropy, for a peer.
    Exchange {
        /// Its number for the object.
        job: u64,
    },
}

/// An object that waits for the body of what is here.
pub(super) struct ReplicateJob {
    sender: Sender,
    deadline: Instant,
    hint: bool,
    partition: u16,
    durable: bool,
    base: VersionHash,
    key: Key,
    body: Bytes,
}

/// A version that waits for its body.
pub(super) struct ProbeJob {
    from: Endpoint,
    operation: u64,
    partition: u16,
    key: Key,
}

/// An object as it came, wherever its bytes lie.
struct Incoming<'a> {
    sender: Sender,
    /// This core is asked to keep it for an owner.
    hint: bool,
    partition: u16,
    durable: bool,
    base: VersionHash,
    key: &'a [u8],
    body: &'a [u8],
}

impl<D: Disk> Core<D> {
    /// A coordinator sends an object to keep.
    pub(super) fn replicate(&mut self, now: Now, from: Endpoint, replicate: &ArchivedReplicate, out: &mut Vec<Effect>) {
        let incoming = Incoming {
            sender: Sender::Coordinator { to: from, operation: replicate.operation.to_native(), came: now.instant },
            hint: replicate.hint_for.is_some(),
            partition: replicate.partition.to_native(),
            durable: replicate.durable,
            base: VersionHash(replicate.base.to_native()),
            key: replicate.key.encoded(),
            body: replicate.body.as_slice(),
        };
        let deadline = now.instant + Duration::from_micros(replicate.timeout_us.to_native().into());
        self.take_in(now, deadline, &incoming, out);
    }

    /// Anti-entropy brings an object: it is taken like a coordinator's.
    pub(super) fn take_exchanged(
        &mut self,
        now: Now,
        job: u64,
        partition: u16,
        key: &Key,
        body: &Bytes,
        out: &mut Vec<Effect>,
    ) {
        let sender = Sender::Exchange { job };
        let base = VersionHash::ABSENT;
        let incoming = Incoming { sender, hint: false, partition, durable: true, base, key: key.encoded(), body };
        self.take_in(now, now.instant + self.settings.timeout, &incoming, out);
    }

    fn take_in(&mut self, now: Now, deadline: Instant, incoming: &Incoming<'_>, out: &mut Vec<Effect>) {
        if let Some(refusal) = self.refusal(incoming) {
            return self.tell_outcome(now, incoming.sender, refusal, out);
        }
        if let Some((log, body_needed)) = self.take(now, incoming, None, out) {
            let job = ReplicateJob {
                sender: incoming.sender,
                deadline,
                hint: incoming.hint,
                partition: incoming.partition,
                durable: incoming.durable,
                base: incoming.base,
                key: body_needed,
                body: Bytes::copy_from_slice(incoming.body),
            };
            self.load_for_replica(log, job, out);
        }
    }

    /// The body of what is here was read: try again.
    pub(super) fn replicate_job(
        &mut self,
        now: Now,
        log: LogId,
        job: ReplicateJob,
        loaded: &Loaded,
        out: &mut Vec<Effect>,
    ) {
        if job.deadline <= now.instant {
            return self.tell_outcome(now, job.sender, ReplicaOutcome::Overloaded, out);
        }
        let incoming = Incoming {
            sender: job.sender,
            hint: job.hint,
            partition: job.partition,
            durable: job.durable,
            base: job.base,
            key: job.key.encoded(),
            body: &job.body,
        };
        // The ring may have changed meanwhile: then what was read is of another log.
        let loaded = (log == self.log_of(job.partition)).then_some(loaded);
        if let Some(refusal) = self.refusal(&incoming) {
            return self.tell_outcome(now, job.sender, refusal, out);
        }
        if let Some((log, _)) = self.take(now, &incoming, loaded, out) {
            self.load_for_replica(log, job, out);
        }
    }

    /// A coordinator asks for this core's version.
    pub(super) fn probe(&mut self, _now: Now, from: Endpoint, probe: &ArchivedProbe, out: &mut Vec<Effect>) {
        let (operation, partition) = (probe.operation.to_native(), probe.partition.to_native());
        let key = probe.key.encoded();
        self.statistics.probed += 1;
        if key::check(key).is_err() || self.ring.partition(key::name_of(key)) != partition {
            return Self::tell_version(from, operation, ProbedVersion::Unknown, out);
        }
        let known = VersionHash(probe.known.to_native());
        let log = self.log_of(partition);
        let (local, pending) = self.glance(log, partition, key);
        let knows = match log {
            LogId::Objects => !local.lost,
            // Who holds no hint knows nothing of the key, not even that it is absent. And two who hold one, and take each
            // other for its owner, must not both forget it.
            LogId::Hints => !local.lost && !probe.owner && (!local.is_absent() || planted(Bug::FallbackSaysAbsent)),
        };
        let version = if !knows {
            ProbedVersion::Unknown
        } else if local.is_absent() {
            // Also to who named no version: "the same" says nothing to who has lost its own copy.
            ProbedVersion::Absent
        } else if local.version == known {
            ProbedVersion::Same
        } else if let Some(body) = self.recent(log, partition, key) {
            ProbedVersion::Object(body)
        } else if self.is_full() {
            ProbedVersion::Unknown
        } else {
            self.statistics.get_loads += 1;
            let key = Key::from_encoded(key).expect("checked above");
            let job = ProbeJob { from, operation, partition, key: key.clone() };
            return self.load(log, partition, key, Load::Probe(job), out);
        };
        match pending {
            Some(_) if planted(Bug::ShowsUndurable) => Self::tell_version(from, operation, version, out),
            // What a crash could still take back is not shown.
            Some(_) if self.is_full() => {
                Self::tell_version(from, operation, ProbedVersion::Unknown, out);
            }
            Some(sequence) => self.when_durable(log, sequence, Waiter::Probed { to: from, operation, version }),
            None => Self::tell_version(from, operation, version, out),
        }
    }

    /// The body for a probe was read. It may be newer than when it was asked for, and then not yet on disk.
    pub(super) fn probe_loaded(&mut self, log: LogId, job: &ProbeJob, loaded: &Loaded, out: &mut Vec<Effect>) {
        let &ProbeJob { from, operation, partition, ref key } = job;
        let version = match loaded {
            Ok(Some(body)) => ProbedVersion::Object(body.clone()),
            Ok(None) | Err(_) => ProbedVersion::Unknown,
        };
        match self.glance(log, partition, key.encoded()) {
            (_, Some(sequence)) if !planted(Bug::ShowsUndurable) => {
                self.when_durable(log, sequence, Waiter::Probed { to: from, operation, version });
            }
            _ => Self::tell_version(from, operation, version, out),
        }
    }

    /// What was taken is on disk, or never will be.
    pub(super) fn acknowledge(&mut self, now: Now, sender: Sender, durable: bool, out: &mut Vec<Effect>) {
        match sender {
            Sender::Exchange { .. } => self.exchange_waits -= 1,
            Sender::Coordinator { came, .. } => {
                let mut trace = Trace::new(came);
                trace.mark(now.instant, Stage::Commit);
                self.recorder.record(now.instant, Kind::Replicate, &trace, None, !durable);
            }
        }
        let outcome = if durable || planted(Bug::FailureAcknowledged) {
            ReplicaOutcome::Durable
        } else {
            ReplicaOutcome::StoreFailed
        };
        self.tell_outcome(now, sender, outcome, out);
    }

    pub(super) fn tell_version(to: Endpoint, operation: u64, version: ProbedVersion, out: &mut Vec<Effect>) {
        out.push(Effect::Send { to, message: Message::Probed(Probed { operation, version }) });
    }

    fn tell_outcome(&mut self, now: Now, sender: Sender, outcome: ReplicaOutcome, out: &mut Vec<Effect>) {
        match sender {
            Sender::Coordinator { to, operation, .. } => {
                out.push(Effect::Send { to, message: Message::Replicated(Replicated { operation, outcome }) });
            }
            Sender::Exchange { job } => self.exchange_taken(now, job, outcome == ReplicaOutcome::Durable, out),
        }
    }

    /// Why the object cannot be taken at all.
    fn refusal(&mut self, incoming: &Incoming<'_>) -> Option<ReplicaOutcome> {
        let ours = key::check(incoming.key).is_ok()
            && self.ring.partition(key::name_of(incoming.key)) == incoming.partition
            && (incoming.hint || self.keeps(incoming.partition));
        if !ours {
            return Some(ReplicaOutcome::NotOwner);
        }
        if self.transfer.is_dropping(incoming.partition) {
            return Some(ReplicaOutcome::Overloaded);
        }
        // Anti-entropy has bounds of its own.
        let bounded = matches!(incoming.sender, Sender::Coordinator { .. });
        if bounded && self.is_full() {
            return Some(ReplicaOutcome::Overloaded);
        }
        None
    }

    /// Stores what is to be stored, and acknowledges now or when it is on disk. `Some`: the body of this key in this log is
    /// needed.
    fn take(
        &mut self,
        now: Now,
        incoming: &Incoming<'_>,
        loaded: Option<&Loaded>,
        out: &mut Vec<Effect>,
    ) -> Option<(LogId, Key)> {
        let &Incoming { sender, partition, key, .. } = incoming;
        let log = self.log_of(partition);
        let Ok(object) = view(incoming.body) else {
            self.statistics.malformed += 1;
            self.tell_outcome(now, sender, ReplicaOutcome::Malformed, out);
            return None;
        };
        let body = loaded.and_then(|loaded| loaded.as_ref().ok()).and_then(Option::as_ref);
        let (mut local, pending) = self.local(log, partition, key, body.and_then(|body| Object::decode(body).ok()));
        let mut decision = decide(&local, object, incoming.base);
        if decision == Decision::NeedBody && self.add_body(&mut local, log, partition, key) {
            decision = decide(&local, object, incoming.base);
        }
        if planted(Bug::ExchangeOverwrites) && matches!(sender, Sender::Exchange { .. }) {
            decision = Decision::Take;
        }
        let lost = matches!(loaded, Some(Err(ReadError::Corrupt { .. })));
        if matches!(loaded, Some(Err(_))) && !lost {
            self.tell_outcome(now, sender, ReplicaOutcome::StoreFailed, out);
            return None;
        }
        if let (Decision::Store(both), Some(held)) = (&decision, &local.object) {
            self.statistics.clock_entries_dropped += both.dropped_of([&held.clock, &object.outline().clock]);
        }
        let appended = match decision {
            Decision::NeedBody if !lost => {
                return Some((log, Key::from_encoded(key).expect("checked by refusal")));
            }
            // What was here cannot be read any more: the coordinator's object is what is left.
            Decision::NeedBody | Decision::Take => match log {
                LogId::Objects => self.objects.append_view(partition, key, incoming.body, object),
                LogId::Hints => self.hints.append_view(partition, key, incoming.body, object),
            }
            .map(Some),
            Decision::Store(ref both) => match log {
                LogId::Objects => self.objects.append(partition, key, &both.encode()),
                LogId::Hints => self.hints.append(partition, key, &both.encode()),
            }
            .map(Some),
            Decision::Keep => Ok(pending),
        };
        // A write that was refused is not known here: its retry must be made anew.
        for sibling in object.siblings.iter().filter(|_| appended.is_ok()) {
            if let Some(token) = sibling.token.as_ref() {
                self.tokens.insert(key, token.to_native());
            }
        }
        self.statistics.replicated += 1;
        if log == LogId::Hints && decision != Decision::Keep && appended.is_ok() {
            self.hint_taken(now, partition, key, local.is_absent(), out);
        }
        let told = match appended {
            Ok(Some(_)) if incoming.durable && planted(Bug::AckBeforeFsync) => ReplicaOutcome::Durable,
            Ok(Some(sequence)) if incoming.durable => {
                self.exchange_waits += usize::from(matches!(sender, Sender::Exchange { .. }));
                self.when_durable(log, sequence, Waiter::Replicated(sender));
                return None;
            }
            Ok(None) => ReplicaOutcome::Durable,
            Ok(Some(_)) => ReplicaOutcome::Buffered,
            Err(error) => {
                if matches!(error, AppendError::TooLarge) {
                    self.statistics.unfit += 1;
                    out.push(Effect::Unfit { key: Key::from_encoded(key).expect("checked by refusal") });
                }
                refusal_of(error)
            }
        };
        self.tell_outcome(now, sender, told, out);
        None
    }

    fn load_for_replica(&mut self, log: LogId, job: ReplicateJob, out: &mut Vec<Effect>) {
        self.statistics.put_loads += 1;
        self.load(log, job.partition, job.key.clone(), Load::Replicate(job), out);
    }

    /// What a log of this core holds of a key, for tests and tools.
    #[must_use]
    pub fn local_version(&self, log: LogId, key: &Key) -> Local {
        self.local(log, self.ring.partition(key.name()), key.encoded(), None).0
    }
}

fn refusal_of(error: AppendError) -> ReplicaOutcome {
    match error {
        AppendError::Full => ReplicaOutcome::DiskFull,
        AppendError::Busy => ReplicaOutcome::Overloaded,
        AppendError::TooLarge => ReplicaOutcome::TooLarge,
        _ => ReplicaOutcome::StoreFailed,
    }
}
