//! Gets that this core coordinates.

use bytes::Bytes;
use quorate_engine::{
    disk::Disk,
    planted::{Bug, planted},
};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{self, ArchivedProbed, ArchivedProbedVersion, Failure, Message, Outcome, Probe, Replicate},
};

use super::{Call, Core, Load, Loaded, LogId, NONE_KNOWN, Underway, Waiter, micros, micros_left};
use crate::{
    clock::{Instant, Now},
    coordinator::get::{GetCoordinator, Own, Progress, Theirs},
    effect::Effect,
    hedging::Wait,
    object::{VersionHash, view},
    quorum::{Few, Voter},
    recorder::{Kind, Stage},
};

/// The memory of so many gets that have ended is kept for the next ones.
const SPARE_GETS_MAX: usize = 64;

/// A get under way.
pub(super) struct Get {
    pub coordinator: GetCoordinator,
    pub(super) call: Call,
    /// The version that the others are told this core holds.
    known: VersionHash,
    pub(super) key: Key,
    wants_context: bool,
}

impl<D: Disk> Core<D> {
    /// Asks the other replicas for their versions, and reads the own copy meanwhile.
    pub(super) fn get(&mut self, now: Now, call: Call, get: message::Get, out: &mut Vec<Effect>) {
        let Call { reply_to, deadline, partition, .. } = call;
        let needed = match self.quorum_of(get.quorum, self.settings.read_quorum) {
            Ok(needed) => needed,
            Err(failure) => return self.fail(reply_to, failure, out),
        };
        self.statistics.gets += 1;
        self.hedging.handle_get();
        let me = self.settings.me;
        let owns = self.owns(partition);
        let voters: Few<Voter> = Voter::owners(&self.ring, partition).collect();
        let fallbacks = self.fallbacks(partition, get.consistency);
        // A fallback need not hold a hint: nobody can count on it.
        let unreachable = self.unreachable(&voters, &[], needed);
        let mut coordinator = GetCoordinator::new(me, needed, &voters, fallbacks);
        for &endpoint in &unreachable {
            coordinator.handle_probed(endpoint, Theirs::Unknown);
        }
        let log = self.log_of(partition);
        let (local, pending) = self.glance(log, partition, get.key.encoded());
        let key = get.key.clone();
        let known = local.version;
        let get = Get { coordinator, call, known, key: get.key, wants_context: get.wants_context };
        let get = self.boxed(get);
        let operation = self.begin(now, deadline, Underway::Get(get));
        for voter in voters.iter().filter(|voter| voter.endpoint != me && !unreachable.contains(&voter.endpoint)) {
            out.push(probe(now, voter.endpoint, operation, deadline, partition, known, &key));
        }
        if local.is_absent() {
            // What a copy that is not healed lacks it never had, or has it lost: it knows nothing of the key.
            let unknown = || self.objects.store.lookup(partition, key.encoded()).is_none();
            let own = match (local.lost, owns) {
                (true, true) if self.lacks(partition) && unknown() => Own::None,
                (true, _) => Own::Lost,
                (false, true) => Own::Absent,
                (false, false) => Own::None,
            };
            return self.own_known(now, operation, own, out);
        }
        match (self.recent(log, partition, key.encoded()), pending) {
            (Some(body), None) => self.own_known(now, operation, Own::Body(body), out),
            // What a crash could still take back is not shown.
            (Some(body), Some(sequence)) => {
                self.hedging.handle_wait(now.instant, Wait::Own, operation);
                self.when_durable(log, sequence, Waiter::Get { operation, body });
                self.get_progress(now, operation, out);
            }
            (None, _) => {
                self.statistics.get_loads += 1;
                self.hedging.handle_wait(now.instant, Wait::Own, operation);
                self.load(log, partition, key, Load::Get { operation }, out);
                self.get_progress(now, operation, out);
            }
        }
    }

    /// The own copy was read. It may be newer than when it was asked for, and then not yet on disk.
    pub(super) fn own_loaded(&mut self, now: Now, log: LogId, operation: u64, loaded: &Loaded, out: &mut Vec<Effect>) {
        let Some(Underway::Get(get)) = self.operations.get_mut(&operation) else { return };
        get.call.trace.mark(now.instant, Stage::Read);
        let (partition, key, begun) = (get.call.partition, get.key.clone(), get.call.trace.begun());
        if let Ok(Some(body)) = loaded
            && let (_, Some(sequence)) = self.glance(log, partition, key.encoded())
        {
            return self.when_durable(log, sequence, Waiter::Get { operation, body: body.clone() });
        }
        self.hedging.handle_end(Wait::Own, now.instant.since(begun));
        let own = match loaded {
            Ok(Some(body)) => Own::Body(body.clone()),
            // It was there when the get began; a partition that leaves takes its keys along.
            Ok(None) | Err(_) => Own::Lost,
        };
        self.own_known(now, operation, own, out);
    }

    /// The own copy is on disk, so it may be shown; `None`: it never will be.
    pub(super) fn own_readable(&mut self, now: Now, operation: u64, body: Option<Bytes>, out: &mut Vec<Effect>) {
        if let Some(Underway::Get(get)) = self.operations.get_mut(&operation) {
            get.call.trace.mark(now.instant, Stage::Commit);
            self.hedging.handle_end(Wait::Own, now.instant.since(get.call.trace.begun()));
        }
        self.own_known(now, operation, body.map_or(Own::Lost, Own::Body), out);
    }

    /// Another replica answered.
    pub(super) fn probed(&mut self, now: Now, from: Endpoint, probed: &ArchivedProbed, out: &mut Vec<Effect>) {
        self.answered(now, from, out);
        let operation = probed.operation.to_native();
        let theirs = match &probed.version {
            ArchivedProbedVersion::Same => Theirs::Same,
            ArchivedProbedVersion::Absent => Theirs::Absent,
            ArchivedProbedVersion::Unknown => Theirs::Unknown,
            ArchivedProbedVersion::Object(body) => match view(body.as_slice()) {
                Ok(object) => Theirs::Object(object.to_object()),
                Err(_) => {
                    self.statistics.malformed += 1;
                    Theirs::Unknown
                }
            },
        };
        if let Some(Underway::Get(get)) = self.operations.get_mut(&operation) {
            let differs = match theirs {
                Theirs::Absent => get.known != VersionHash::ABSENT,
                Theirs::Object(ref object) => object.version() != get.known,
                Theirs::Same | Theirs::Unknown => false,
            };
            self.statistics.divergent += u64::from(differs);
            get.coordinator.handle_probed(from, theirs);
            get.call.trace.mark(now.instant, Stage::Peer(from));
            self.get_progress(now, operation, out);
        } else {
            self.hint_probed(now, from, operation, &theirs, out);
        }
    }

    /// The own copy is late: one of those that hold the same is asked for it whole.
    pub(super) fn hedge_get(&mut self, now: Now, operation: u64, out: &mut Vec<Effect>) {
        let Some(Underway::Get(get)) = self.operations.get_mut(&operation) else { return };
        let Some(to) = get.coordinator.may_tell_in_full() else { return };
        if self.hedging.pay(Wait::Own) {
            self.statistics.hedges += 1;
            get.coordinator.ask_in_full(to, get.known);
            out.push(probe(now, to, operation, get.call.deadline, get.call.partition, NONE_KNOWN, &get.key));
        }
    }

    /// A replica cannot be reached.
    pub(super) fn get_unreachable(&mut self, now: Now, operation: u64, peer: Endpoint, out: &mut Vec<Effect>) {
        if let Some(Underway::Get(get)) = self.operations.get_mut(&operation) {
            get.coordinator.handle_probed(peer, Theirs::Unknown);
            self.get_progress(now, operation, out);
        }
    }

    fn own_known(&mut self, now: Now, operation: u64, own: Own, out: &mut Vec<Effect>) {
        if let Some(Underway::Get(get)) = self.operations.get_mut(&operation) {
            get.coordinator.handle_own(own);
            self.get_progress(now, operation, out);
        }
    }

    pub(super) fn get_progress(&mut self, now: Now, operation: u64, out: &mut Vec<Effect>) {
        let Some(Underway::Get(get)) = self.operations.get_mut(&operation) else { return };
        let engaged = get.coordinator.engage();
        // Who has lost its own copy has to be told everything.
        let known = if get.coordinator.own_is_lost() { NONE_KNOWN } else { get.known };
        let ask = |to| probe(now, to, operation, get.call.deadline, get.call.partition, known, &get.key);
        out.extend(engaged.into_iter().map(ask));
        // A body that is no object counts as lost; the second look goes on without it.
        let sealer = get.wants_context.then_some(&self.sealer);
        let progress = get.coordinator.progress(sealer, get.key.encoded()).or_else(|_| {
            self.statistics.malformed += 1;
            get.coordinator.progress(sealer, get.key.encoded())
        });
        let call = get.call;
        match progress {
            Ok(Progress::Answer(outcome)) => {
                let key = get.key.clone();
                self.finish(now, Kind::Get, &call, key.encoded(), outcome, out);
                self.end_complete_get(operation, out);
            }
            Ok(Progress::Ask(replicas)) => {
                let (Call { deadline, partition, .. }, key) = (call, get.key.clone());
                let ask = |to| probe(now, to, operation, deadline, partition, NONE_KNOWN, &key);
                out.extend(replicas.into_iter().map(ask));
            }
            Ok(Progress::Open) => self.end_complete_get(operation, out),
            Err(_) => {
                let key = get.key.clone();
                self.operations.remove(&operation);
                self.finish(now, Kind::Get, &call, key.encoded(), Outcome::Failed(Failure::Corrupt), out);
            }
        }
    }
}

impl<D: Disk> Core<D> {
    fn end_complete_get(&mut self, operation: u64, out: &mut Vec<Effect>) {
        if let Some(Underway::Get(get)) = self.operations.get(&operation)
            && get.coordinator.is_complete()
            && let Some(Underway::Get(mut get)) = self.operations.remove(&operation)
        {
            self.repair(&get, out);
            get.coordinator.clear();
            if self.spare_gets.len() < SPARE_GETS_MAX {
                self.spare_gets.push(get);
            }
        }
    }

    fn boxed(&mut self, get: Get) -> Box<Get> {
        match self.spare_gets.pop() {
            Some(mut spare) => {
                *spare = get;
                spare
            }
            None => Box::new(get),
        }
    }

    /// What some replicas have and others lack goes to those, this core among them (section 5). Nobody waits for it.
    pub(super) fn repair(&mut self, get: &Get, out: &mut Vec<Effect>) {
        self.statistics.stale += u64::from(get.coordinator.was_stale());
        for (to, mut object) in get.coordinator.repairs(self.settings.me) {
            object.siblings.truncate(if planted(Bug::RepairsOneSibling) { 1 } else { usize::MAX });
            self.statistics.repairs += 1;
            let replicate = Replicate {
                operation: self.number(),
                timeout_us: micros(self.settings.timeout),
                partition: get.call.partition,
                durable: false,
                hint_for: None,
                base: VersionHash::ABSENT.0,
                key: get.key.clone(),
                body: object.encode(),
            };
            out.push(Effect::Send { to, message: Message::Replicate(replicate) });
        }
    }
}

fn probe(
    now: Now,
    to: Endpoint,
    operation: u64,
    deadline: Instant,
    partition: u16,
    known: VersionHash,
    key: &Key,
) -> Effect {
    let timeout_us = micros_left(now, deadline);
    let probe = Probe { operation, timeout_us, partition, known: known.0, owner: false, key: key.clone() };
    Effect::Send { to, message: Message::Probe(probe) }
}
