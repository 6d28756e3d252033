//! Looking at machines and stores after every event: what was made, what is held, what was promised.
//!
//! The rule: a core is watched from outside. Each version that its store takes is entered in the ledger with how it came
//! to be; each answer is checked at the moment when it is given.
//!
//! Not here: what must be true of versions and answers (`checkers`).

use std::time::Duration;

use bytes::Bytes;
use quorate_engine::{Sequence, Watermark, disk::Disk, versions::Summary};
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{
        ArchivedMessage, ArchivedOperation, Durability, Message, Outcome, ProbedVersion, Reply,
        exchange::{ArchivedStep, Step},
        gossip,
    },
};
use quorate_node::{
    core::LogId,
    effect::Effect,
    object::{Object, view},
    ring::Ring,
};

use super::{Fate, World, shell::Shell};
use crate::{
    checkers::{Checked, Origin, violation},
    faults::Class,
    history::{Action, Status, wrote_nothing},
};

/// Both logs of a core.
const LOGS: [LogId; 2] = [LogId::Objects, LogId::Hints];

/// What an event is about.
#[derive(Clone)]
pub(super) enum Cause {
    /// No key's version can change.
    None,
    /// A put, and the operation that asked for it.
    Put { key: Key, asked: Option<usize> },
    /// A version that a coordinator sent.
    Sent { key: Key, version: u64 },
    /// A key that is only looked at.
    Look { key: Key },
    /// Some of these keys.
    Keys(Vec<Key>),
}

/// What a core's store holds of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    /// The newest version that survives a crash, 0 for none.
    durable: u64,
    /// Newer ones, that become durable with their sequence.
    pending: Vec<(Sequence, u64)>,
}

impl Holding {
    fn newest(&self) -> u64 {
        self.pending.last().map_or(self.durable, |(_, version)| *version)
    }

    fn settle(&mut self, upto: Sequence) {
        let durable = self.pending.iter().take_while(|(sequence, _)| *sequence <= upto).count();
        if let Some((_, version)) = self.pending.drain(..durable).next_back() {
            self.durable = version;
        }
    }
}

impl World {
    /// `asked`: the operation, when the message is a request for it.
    pub(super) fn cause_of(&self, message: &ArchivedMessage, asked: Option<usize>) -> Cause {
        let key = |encoded: &[u8]| Key::from_encoded(encoded).expect("a checked message");
        let sent = |encoded: &[u8], body: &[u8]| Cause::Sent {
            key: key(encoded),
            version: view(body).expect("cores send objects").version().0,
        };
        match message {
            ArchivedMessage::Request(request) => match &request.operation {
                ArchivedOperation::ClusterMap => Cause::None,
                ArchivedOperation::Get(get) => Cause::Look { key: key(get.key.encoded()) },
                ArchivedOperation::Put(put) => Cause::Put { key: key(put.key.encoded()), asked },
            },
            ArchivedMessage::Replicate(replicate) => sent(replicate.key.encoded(), replicate.body.as_slice()),
            ArchivedMessage::Exchange(exchange) => match &exchange.step {
                ArchivedStep::Give { object, .. } => sent(object.key.encoded(), object.body.as_slice()),
                ArchivedStep::Fetched { object, .. } => match object.as_ref() {
                    Some(object) => sent(object.key.encoded(), object.body.as_slice()),
                    None => Cause::None,
                },
                _ => Cause::None,
            },
            ArchivedMessage::Probe(probe) => Cause::Look { key: key(probe.key.encoded()) },
            _ => Cause::None,
        }
    }

    /// What the core holds of the keys that an event is about.
    pub(super) fn held(&mut self, at: usize, cause: &Cause) -> Vec<(LogId, Key, u64)> {
        let shell = &mut self.shells[at];
        let keys = match cause {
            Cause::None => return Vec::new(),
            Cause::Put { key, .. } => {
                shell.coordinated.insert(key.clone());
                std::slice::from_ref(key)
            }
            Cause::Sent { key, .. } | Cause::Look { key } => std::slice::from_ref(key),
            Cause::Keys(keys) => keys,
        };
        let Some(core) = shell.core() else { return Vec::new() };
        let held = |key: &Key| LOGS.map(|log| (log, key.clone(), core.local_version(log, key).version.0));
        keys.iter().flat_map(held).collect()
    }

    /// Enters what an event made in the ledger, and checks it. `before`: what the core held of the keys it is about; `puts`:
    /// how many puts it made or repeated.
    pub(super) fn observe(
        &mut self,
        at: usize,
        cause: &Cause,
        before: &[(LogId, Key, u64)],
        puts: u64,
        effects: &[Effect],
    ) -> Checked {
        let (asked, sent) = match cause {
            Cause::Put { asked, .. } => (*asked, None),
            Cause::Sent { version, .. } => (None, Some(*version)),
            Cause::None | Cause::Look { .. } | Cause::Keys(_) => (None, None),
        };
        for effect in effects {
            let Effect::Send { message, .. } = effect else { continue };
            match message {
                Message::Replicate(replicate) => {
                    let object = decode(&replicate.key, &replicate.body)?;
                    if self.ledger.knows(&replicate.key, object.version().0).is_none() {
                        self.note(Some(&replicate.key), || format!("core {at} makes {object:?}"));
                        // See below.
                        let (key, base) = (&replicate.key, replicate.base);
                        let misses = self.ledger.unseen(&object).len() > 1 || self.ledger.knows(key, base).is_none();
                        if matches!(cause, Cause::Keys(_)) && misses {
                            self.ledger.unwatch(key);
                        }
                        self.ledger.made(&replicate.key, &object, Origin::Put { base: replicate.base, asked })?;
                    }
                    self.ledger.sighted(&replicate.key, &object)?;
                }
                Message::Exchange(exchange) => {
                    let (Step::Give { object, .. } | Step::Fetched { object: Some(object), .. }) = &exchange.step
                    else {
                        continue;
                    };
                    self.ledger.sighted(&object.key, &decode(&object.key, &object.body)?)?;
                }
                Message::Probed(probed) => {
                    if let Cause::Look { key } = cause {
                        self.check_told(at, key, &probed.version)?;
                    }
                }
                _ => {}
            }
        }
        // Puts that waited for a new actor are made in one go. When several of a key fan out to nobody, those before the last
        // are not seen.
        let core = self.shells[at].core();
        let holds = |log, key: &Key| core.map_or(0, |core| core.local_version(log, key).version.0);
        let changed: Vec<Key> = before
            .iter()
            .filter(|(log, key, before)| holds(*log, key) != *before)
            .map(|(_, key, _)| key.clone())
            .collect();
        if matches!(cause, Cause::Keys(_)) && puts > changed.len() as u64 {
            changed.iter().for_each(|key| self.ledger.unwatch(key));
        }
        for (log, key, before) in before {
            let origin = match (sent, cause) {
                (Some(sent), _) => Origin::Reconciled { held: *before, sent },
                // What is only looked at may lose its past.
                (None, Cause::Look { .. }) => Origin::Shortened { of: *before },
                (None, _) => Origin::Put { base: *before, asked },
            };
            self.observe_key(at, *log, key, *before, origin)?;
        }
        self.observe_forgotten_hints(at)?;
        self.check_bounds(at)
    }

    /// What a replica tells of a key it knows for good: it shows nothing that a crash can still take back, and says that the
    /// key is absent only as an owner who has not lost it.
    fn check_told(&mut self, at: usize, key: &Key, told: &ProbedVersion) -> Checked {
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let (ring, me) = (core.ring(), self.shells[at].me);
        let partition = ring.partition(key.name());
        // By the ring that it goes by itself.
        let owns = ring.keepers(partition).any(|keeper| keeper == me);
        match told {
            ProbedVersion::Absent => {
                let found = core.store().lookup(partition, key.encoded());
                let lost = found.is_some_and(|found| found.summary == Summary::LOST);
                if owns && !lost {
                    let owners = ring.primaries(partition).to_vec();
                    return self.check_healed(at, key, &owners);
                }
                let property = if lost { "P13 corruption" } else { "P9 hints" };
                Err(violation(property, key, format!("core {at} says that the key is absent, which it cannot know")))
            }
            ProbedVersion::Object(body) => {
                let object = decode(key, body)?;
                self.ledger.sighted(key, &object)?;
                self.settle(at);
                // In either log: what it keeps may have changed while the answer waited for the disk.
                let durable = |log: LogId| {
                    let holding = self.shells[at].holdings.get(&(log, key.clone()));
                    self.ledger.knows(key, holding.map_or(0, |holding| holding.durable)).unwrap_or_default()
                };
                let shown = self.ledger.knows(key, object.version().0).unwrap_or_default();
                let on_disk = LOGS.iter().any(|&log| shown.is_within(&durable(log)));
                if self.shells[at].spoiled || !self.ledger.watches(key) || on_disk {
                    return Ok(());
                }
                let durable = durable(if owns { LogId::Objects } else { LogId::Hints });
                Err(violation("P12 durability", key, format!("core {at} shows {shown:?} with {durable:?} on disk")))
            }
            ProbedVersion::Same | ProbedVersion::Unknown => Ok(()),
        }
    }

    /// Who has lost its disk says of a key that it is absent only when no other owner has what was lost. For a while: who is away
    /// is not waited for longer.
    fn check_healed(&mut self, at: usize, key: &Key, owners: &[Endpoint]) -> Checked {
        let shell = &self.shells[at];
        // Who is only to be an owner counts for what is written from now on.
        let lacking = shell.lacking.get(key).filter(|_| owners.contains(&shell.me));
        let Some((version, holders)) = lacking else { return Ok(()) };
        // Its clock may be a little fast.
        if shell.disk.now() > shell.lacking_since + self.settings.away() / 2 || !self.ledger.watches(key) {
            return Ok(());
        }
        let brought = self.ledger.remembers(key, *version).unwrap_or_default();
        for &other in holders.iter().filter(|&&other| owners.contains(&self.shells[other].me)) {
            let durable = self.durable(other, key);
            let knows = self.ledger.knows(key, durable).unwrap_or_default();
            if !brought.is_empty() && brought.is_within(&knows) && !self.shells[other].spoiled {
                let detail = format!(
                    "core {at} lost {version:x}, and says that the key is absent; core {other} has {durable:x}"
                );
                return Err(violation("P5 read your writes", key, detail));
            }
        }
        Ok(())
    }

    /// What a core has of a key among its objects, on disk.
    fn durable(&self, at: usize, key: &Key) -> u64 {
        self.shells[at].holdings.get(&(LogId::Objects, key.clone())).map_or(0, |holding| holding.durable)
    }

    /// P13: a store finds no damage on a disk that was never spoiled.
    pub(super) fn check_undamaged(&self, at: usize) -> Checked {
        let Some(core) = self.shells[at].core().filter(|_| !self.shells[at].spoiled) else { return Ok(()) };
        let damaged = core.store().statistics().damaged + core.hint_store().statistics().damaged;
        if damaged == 0 {
            return Ok(());
        }
        Err(self.fail("P13 corruption", format!("core {at} reports {damaged} places of damage on a sound disk")))
    }

    /// P9: a hint is forgotten only when every owner has on disk what it brought, but for one that the operator gave up.
    fn observe_forgotten_hints(&mut self, at: usize) -> Checked {
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let held = self.shells[at].holdings.iter().rev().take_while(|((log, _), _)| *log == LogId::Hints);
        let gone = |key: &Key| core.local_version(LogId::Hints, key).is_absent();
        let forgotten: Vec<(Key, u64)> =
            held.filter(|((_, key), _)| gone(key)).map(|((_, key), holding)| (key.clone(), holding.newest())).collect();
        for (key, version) in forgotten {
            self.note(Some(&key), || format!("core {at} forgets the hint {version:x}"));
            self.shells[at].holdings.remove(&(LogId::Hints, key.clone()));
            // What a disk has spoiled is given up.
            if self.shells[at].spoiled {
                continue;
            }
            let state = self.shells[at].core().map(|core| core.membership().state().clone());
            let given_up = |owner: Endpoint| {
                let node = state.as_ref().and_then(|state| state.node(owner.node));
                node.is_some_and(|node| node.status == gossip::Status::Removing)
            };
            if let Some(lacking) = self.owner_that_lacks(at, &key, version, |owner| !given_up(owner)) {
                let detail = format!("core {at} forgot the hint {version:x}: {lacking}");
                return Err(violation("P9 hints", &key, detail));
            }
        }
        Ok(())
    }

    /// P8: a tombstone is dropped, or the past of a clock, only when every owner has that version on disk, or had, and
    /// nobody has anything older.
    fn observe_forgotten(&mut self, at: usize, key: &Key, version: u64, left: Option<&Object>) -> Checked {
        self.note(Some(key), || format!("core {at} forgets {version:x}, or its past"));
        *if left.is_some() { &mut self.shortened } else { &mut self.dropped } += 1;
        let known = self.ledger.remembers(key, version).unwrap_or_default();
        let mut fault = self.owner_that_lacks(at, key, version, |_| true).filter(|_| !self.shells[at].spoiled);
        if left.is_none() {
            self.shells[at].holdings.remove(&(LogId::Objects, key.clone()));
        }
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let (ring, members) = (core.ring(), core.membership().state());
        let owners = ring.primaries(ring.partition(key.name()));
        for (other, shell) in self.shells.iter().enumerate().filter(|(_, shell)| !shell.spoiled) {
            let owns = owners.contains(&shell.me);
            // Who was let go may not have heard of it yet.
            let belongs = self.nodes[self.node_of(other)].fate == Fate::Belongs && members.has(shell.me);
            for log in LOGS.into_iter().filter(|log| belongs && (*log == LogId::Hints || !owns)) {
                let Some(holding) = shell.holdings.get(&(log, key.clone())) else { continue };
                let older = self.ledger.remembers(key, holding.newest()).unwrap_or_default();
                if !older.is_empty() && older.is_within(&known) {
                    fault = Some(format!("core {other} holds {:x} among its {log:?}", holding.newest()));
                }
            }
        }
        self.ledger.forget(key, version, left);
        let detail = format!("core {at} forgot {version:x}, or its past");
        fault.map_or(Ok(()), |fault| Err(violation("P8 deletes stay deleted", key, format!("{detail}: {fault}"))))
    }

    /// One of the owners that count, by the ring that core `at` goes by, that does not have on disk what a version of a key
    /// brought.
    fn owner_that_lacks(
        &mut self,
        at: usize,
        key: &Key,
        version: u64,
        counts: impl Fn(Endpoint) -> bool,
    ) -> Option<String> {
        let brought = self.ledger.remembers(key, version).unwrap_or_default();
        let ring = self.shells[at].core()?.ring().clone();
        for &primary in ring.primaries(ring.partition(key.name())).iter().filter(|&&primary| counts(primary)) {
            let owner = self.shell_of(primary);
            self.settle(owner);
            let holding = self.shells[owner].holdings.get(&(LogId::Objects, key.clone()));
            let knows = self.ledger.knows(key, holding.map_or(0, |holding| holding.durable)).unwrap_or_default();
            if !self.shells[owner].spoiled && self.ledger.watches(key) && !brought.is_within(&knows) {
                return Some(format!("it brought {brought:?}, and core {owner} ({primary}) has {knows:?}"));
            }
        }
        None
    }

    /// A core is about to drop a partition: every owner has on disk all that it drops. From now on it need not have it.
    pub(super) fn check_drop(&mut self, at: usize, partition: u16) -> Checked {
        let ring = self.settings.ring.clone();
        let dropped: Vec<(Key, u64)> = self.shells[at]
            .holdings
            .iter()
            .filter(|((log, key), _)| *log == LogId::Objects && ring.partition(key.name()) == partition)
            .map(|((_, key), holding)| (key.clone(), holding.newest()))
            .collect();
        self.note(None, || format!("core {at} drops partition {partition}"));
        for (key, version) in dropped {
            self.note(Some(&key), || format!("core {at} drops {version:x}"));
            self.shells[at].holdings.remove(&(LogId::Objects, key.clone()));
            if self.shells[at].spoiled {
                continue;
            }
            if let Some(lacking) = self.owner_that_lacks(at, &key, version, |_| true) {
                let detail = format!("core {at} drops partition {partition} with {version:x}: {lacking}");
                return Err(violation("P1 no acknowledged write lost", &key, detail));
            }
        }
        Ok(())
    }

    fn observe_key(&mut self, at: usize, log: LogId, key: &Key, before: u64, origin: Origin) -> Checked {
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let after = core.local_version(log, key).version.0;
        if after == before {
            return Ok(());
        }
        if after == 0 {
            // See `observe_forgotten_hints`.
            return if log == LogId::Hints { Ok(()) } else { self.observe_forgotten(at, key, before, None) };
        }
        let partition = self.settings.ring.partition(key.name());
        let (body, found) = match log {
            LogId::Objects => {
                (core.store().recent(partition, key.encoded()), core.store().lookup(partition, key.encoded()))
            }
            LogId::Hints => {
                let hints = core.hint_store();
                (hints.recent(partition, key.encoded()), hints.lookup(partition, key.encoded()))
            }
        };
        if let Origin::Shortened { of } = origin {
            let left = decode(key, body.as_ref().expect("what was just appended is in RAM"))?;
            self.observe_forgotten(at, key, of, Some(&left))?;
        }
        if self.ledger.knows(key, after).is_none() {
            let body = body.expect("what was just appended is in RAM");
            let object = decode(key, &body)?;
            self.note(Some(key), || format!("core {at} keeps {object:?}"));
            // What a damaged store cannot read any more it builds nothing on.
            let lost = matches!(origin, Origin::Put { .. }) && self.shells[at].spoiled;
            let made = self.ledger.made(key, &object, origin);
            if made.is_err() && lost {
                let Origin::Put { asked, .. } = origin else { unreachable!("matched above") };
                self.ledger.made(key, &object, Origin::Put { base: 0, asked })?;
            } else {
                made?;
            }
        }
        self.note(Some(key), || format!("core {at} holds {after:x} instead of {before:x}"));
        let shell = &mut self.shells[at];
        shell.lacking.remove(key);
        if !shell.spoiled {
            self.ledger.taken(key, before, after)?;
        }
        let holding = shell.holdings.entry((log, key.clone())).or_default();
        match found.and_then(|found| found.pending) {
            Some(sequence) => holding.pending.push((sequence, after)),
            None => *holding = Holding { durable: after, pending: Vec::new() },
        }
        Ok(())
    }

    /// The store says how far it is durable.
    pub(super) fn settle(&mut self, at: usize) {
        if let Some(core) = self.shells[at].core() {
            let (objects, hints) = (core.store().durable(), core.hint_store().durable());
            self.settle_upto(at, LogId::Objects, objects);
            self.settle_upto(at, LogId::Hints, hints);
        }
    }

    pub(super) fn settle_upto(&mut self, at: usize, log: LogId, watermark: Watermark) {
        if let Watermark::Durable(upto) = watermark {
            let holdings = self.shells[at].holdings.iter_mut().filter(|((of, _), _)| *of == log);
            holdings.for_each(|(_, holding)| holding.settle(upto));
        }
    }

    /// A core is up again: what its store had called durable is there.
    pub(super) fn check_recovered(&mut self, at: usize) -> Checked {
        self.check_undamaged(at)?;
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let found: Vec<(LogId, Key, u64, u64)> = self.shells[at]
            .holdings
            .iter()
            .map(|((log, key), holding)| (*log, key.clone(), holding.durable, core.local_version(*log, key).version.0))
            .collect();
        let emptied = std::mem::take(&mut self.shells[at].emptied);
        if emptied {
            self.shells[at].lacking_since = self.shells[at].started;
        }
        for (log, key, durable, now) in found {
            if emptied && log == LogId::Objects && now == 0 && durable != 0 {
                let lost = self.ledger.remembers(&key, durable).unwrap_or_default();
                let has = |other: &usize| {
                    let knows = self.ledger.knows(&key, self.durable(*other, &key)).unwrap_or_default();
                    *other != at && lost.is_within(&knows)
                };
                let holders = (0..self.shells.len()).filter(has).collect();
                self.shells[at].lacking.insert(key.clone(), (durable, holders));
            }
            self.note(Some(&key), || format!("core {at} comes back with {now:x}, {durable:x} was durable"));
            let (before, after) = (self.ledger.remembers(&key, durable), self.ledger.knows(&key, now));
            let Some(after) = after else {
                return Err(violation("P13 corruption", &key, format!("core {at} came back with an unknown {now:x}")));
            };
            if !self.shells[at].spoiled && before.is_none_or(|before| !before.is_within(&after)) {
                let detail = format!("core {at} had {durable:x} on disk, and came back with {now:x} ({after:?})");
                return Err(violation("P12 durability", &key, detail));
            }
            self.shells[at].holdings.insert((log, key), Holding { durable: now, pending: Vec::new() });
        }
        self.find_what_is_back(at);
        Ok(())
    }

    /// What was forgotten, and not yet for good, is there again.
    fn find_what_is_back(&mut self, at: usize) {
        let Some(core) = self.shells[at].core() else { return };
        let of_key = |key: Key| LOGS.map(|log| (log, key.clone(), core.local_version(log, &key).version.0));
        let is_new = |(log, key, now): &(LogId, Key, u64)| {
            *now != 0 && !self.shells[at].holdings.contains_key(&(*log, key.clone()))
        };
        let back: Vec<_> = self.ledger.keys().into_iter().flat_map(of_key).filter(is_new).collect();
        for (log, key, durable) in back {
            self.note(Some(&key), || format!("core {at} has {durable:x} again among its {log:?}"));
            self.shells[at].holdings.insert((log, key), Holding { durable, pending: Vec::new() });
        }
    }

    /// A core is about to be no more.
    pub(super) fn lose_process(&mut self, at: usize) {
        self.settle(at);
        let shell = &mut self.shells[at];
        shell.holdings.values_mut().for_each(|holding| holding.pending.clear());
        shell.forget_process();
        for observer in 0..self.shells.len() {
            if self.node_of(observer) != self.node_of(at) {
                self.look_soon(observer, at);
            }
        }
    }

    /// An answer is given to a client.
    pub(super) fn check_answer(&mut self, client: usize, reply: &Reply) -> Checked {
        let Some(operation) = self.operation_of(client, reply) else { return Ok(()) };
        let key = self.ledger.operations[operation].key.clone();
        self.note(Some(&key), || format!("client {client} is told of #{operation}: {:?}", reply.outcome));
        if let Some(outcomes) = &mut self.outcomes {
            outcomes.insert(operation, reply.outcome.clone());
        }
        match &reply.outcome {
            Outcome::Values { context, values, sloppy } => {
                self.ledger.read(operation, context, values, *sloppy)?;
            }
            Outcome::Written { context, sloppy, .. } => {
                self.ledger.operations[operation].sloppy = *sloppy;
                self.check_durable(operation, *sloppy)?;
                self.ledger.written(operation, context)?;
            }
            Outcome::Failed(failure) => {
                // A request that was sent more than once may have been carried out by another core.
                let once =
                    self.clients[client].attempts(operation) == 1 && self.network.hits.of(Class::Duplication) == 0;
                if once && wrote_nothing(failure) && !self.ledger.writes_of(operation).is_empty() {
                    let detail = format!("{failure:?} says that nothing was written, but it was");
                    return Err(violation("honest errors", &key, detail));
                }
                return Ok(());
            }
            Outcome::ClusterMap(_) => return Ok(()),
        }
        let operation = &mut self.ledger.operations[operation];
        operation.status = Status::Ok;
        operation.end.get_or_insert(self.now);
        Ok(())
    }

    /// P12: W distinct nodes have it on disk when the client is told so.
    fn check_durable(&mut self, operation: usize, sloppy: bool) -> Checked {
        let asked = &self.ledger.operations[operation];
        if !self.ledger.watches(&asked.key) {
            return Ok(());
        }
        let Action::Put { quorum, durability, .. } = asked.action else { unreachable!("only puts are written") };
        let needed = match durability {
            Durability::Durable => usize::from(quorum),
            Durability::One => 1,
            Durability::Buffered => return Ok(()),
        };
        let (key, writes, start) = (asked.key.clone(), asked.writes.clone(), asked.start);
        let partition = self.settings.ring.partition(key.name());
        (0..self.shells.len()).for_each(|at| self.settle(at));
        let have = |log: LogId| -> Vec<Endpoint> {
            let has = |shell: &&Shell| {
                let durable = shell.holdings.get(&(log, key.clone())).map_or(0, |holding| holding.durable);
                !writes.common(&self.ledger.knows(&key, durable).unwrap_or_default()).is_empty()
            };
            self.shells.iter().filter(has).map(|shell| shell.me).collect()
        };
        let owning = have(LogId::Objects);
        // Fallbacks count for sloppy answers.
        let hinting = if sloppy { have(LogId::Hints) } else { Vec::new() };
        // A copy that was destroyed meanwhile was one all the same.
        let destroyed = usize::from(self.destroyed_since(start));
        let holders = |owners: &[Endpoint]| {
            // Who is to own it by a ring that the coordinator does not know yet keeps among its objects what it stands in for.
            let more = owning.iter().filter(|of| sloppy && !owners.contains(of) && !hinting.contains(of));
            let standing_in = hinting.iter().filter(|of| !owners.contains(of) || !owning.contains(of)).chain(more);
            owners.iter().filter(|owner| owning.contains(owner)).count() + standing_in.count() + destroyed
        };
        // What stood in for one that was given up may be forgotten as soon as all others have it, while the ring changes.
        let given_up = |owners: &[Endpoint]| {
            let dead = |owner: &&Endpoint| self.nodes[self.node_of(self.shell_of(**owner))].fate == Fate::Dead;
            owners.iter().filter(dead).count()
        };
        // By one of the rings that cores went by: its owners, and those to be.
        let enough = |ring: &Ring| {
            let excused = |owners| if sloppy && ring.is_changing() { given_up(owners) } else { 0 };
            let holds = |owners| holders(owners) + excused(owners) >= needed;
            holds(ring.primaries(partition)) && (needed == 1 || holds(ring.next_primaries(partition)))
        };
        if self.rings.iter().any(|(_, ring)| enough(ring)) {
            return Ok(());
        }
        let owners = |ring: &Ring| format!("{:?} then {:?}", ring.primaries(partition), ring.next_primaries(partition));
        let owners: Vec<String> = self.rings.iter().map(|(_, ring)| owners(ring)).collect();
        let detail = format!(
            "#{operation} is acknowledged, but {owning:?} and {hinting:?} alone have it on disk, of {owners:?}"
        );
        Err(violation("P12 durability", &key, detail))
    }

    /// P14: nothing grows beyond its bound. What is taken becomes two things at most: its operation, and its wait for
    /// the disk.
    fn check_bounds(&mut self, at: usize) -> Checked {
        let Some(core) = self.shells[at].core() else { return Ok(()) };
        let (length, max) = (core.queue_length(), self.settings.operations_max());
        if length <= 2 * max {
            return Ok(());
        }
        let detail = format!("core {at} has {length} things under way, {max} are its limit");
        Err(self.fail("P14 bounds", detail))
    }

    pub(super) fn destroyed_since(&self, moment: Duration) -> bool {
        self.ledger.destroyed().is_some_and(|destroyed| destroyed >= moment)
    }
}

fn decode(key: &Key, body: &Bytes) -> Checked<Object> {
    Object::decode(body).map_err(|_| violation("P13 corruption", key, "a body that is no object is sent".to_owned()))
}
