//! What must hold at every step, checked against explicit histories.
//!
//! The rule: each version of an object that exists anywhere is on record with the set of writes that it knows, computed
//! from how it came to be: a put knows what its coordinator held, what its context had seen, and itself; a
//! reconciliation knows what both sides knew. Siblings, clocks and contexts are compared with that.
//!
//! | property | where |
//! |---|---|
//! | P1 P2 P3 no lost write, no lost and no false sibling | [`Ledger::made`], [`Ledger::taken`], [`Ledger::read`] |
//! | P4 sound contexts | [`Ledger::read`], [`Ledger::written`] |
//! | P5 P6 read your writes, monotonic contexts | [`Ledger::read`] |
//! | P8 deletes stay deleted, and what was replaced | [`Ledger::taken`], [`Ledger::forget`], [`Ledger::read`] |
//! | P11 dots are unique | [`Ledger::sighted`] |
//! | P15 no write comes after itself: what replaces a write was not answered before that began | [`Ledger::made`] |
//!
//! P12 (durable copies) and P14 (bounds) need the stores: `world/observer`. Not here: convergence, which needs
//! anti-entropy.

use std::{collections::BTreeMap, fmt, time::Duration};

use ahash::AHashMap;
use bytes::Bytes;
use quorate_net::{
    key::Key,
    message::{Consistency, Durability},
};
use quorate_node::{
    context::Sealer,
    object::{Object, Sibling},
    version::{Clock, Dot},
};

use crate::{
    causality::{Events, Histories},
    history::{Action, Operation, Status},
};

/// A property that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its number and name.
    pub property: &'static str,
    /// Of which key, if of one.
    pub key: Option<Key>,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.property)?;
        if let Some(key) = &self.key {
            write!(f, "key {}: ", String::from_utf8_lossy(key.name()))?;
        }
        f.write_str(&self.detail)
    }
}

/// What a check gives.
pub type Checked<T = ()> = Result<T, Violation>;

/// All operations, all writes and all versions of all keys.
pub struct Ledger {
    /// N.
    pub replicas: u8,
    /// All operations of clients, by number.
    pub operations: Vec<Operation>,
    sealer: Sealer,
    keys: BTreeMap<Key, KeyLedger>,
    dots: AHashMap<Dot, (Key, Option<Bytes>)>,
    /// Answers before this moment promise nothing to strict reads: a copy was destroyed since.
    destroyed: Option<Duration>,
    /// A disk may bring back what was deleted and forgotten since.
    raises_dead: bool,
}

#[derive(Default)]
struct KeyLedger {
    histories: Histories,
    /// What puts without a context were sent on with.
    sent_on: BTreeMap<usize, Vec<Events>>,
    /// What each version knows, by its hash.
    versions: AHashMap<u64, Events>,
    /// The puts that were begun.
    puts: Vec<usize>,
    /// What each client was last shown.
    shown: AHashMap<usize, Events>,
    /// Writes of it were made, and it cannot be told by whom, so nothing is known of it any more.
    unwatched: bool,
}

/// How a version came to be.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// A put at a coordinator that held this version.
    Put {
        /// 0 when it held none.
        base: u64,
        /// Which operation asked for it, when that is known.
        asked: Option<usize>,
    },
    /// A replica that held one version was sent another.
    Reconciled {
        /// What it held.
        held: u64,
        /// What it was sent.
        sent: u64,
    },
    /// A replica forgot a version's past.
    Shortened {
        /// Which version's.
        of: u64,
    },
}

impl Ledger {
    /// Nothing has happened.
    #[must_use]
    pub fn new(replicas: u8, sealer: Sealer) -> Self {
        Self {
            replicas,
            sealer,
            operations: Vec::new(),
            keys: BTreeMap::new(),
            dots: AHashMap::new(),
            destroyed: None,
            raises_dead: false,
        }
    }

    /// All keys that were written or asked for.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.keys.keys().cloned().collect()
    }

    /// A copy was destroyed: strict reads may miss what was acknowledged before.
    pub fn copy_destroyed(&mut self, now: Duration) {
        self.destroyed = self.destroyed.max(Some(now));
    }

    /// When a copy was last destroyed.
    #[must_use]
    pub fn destroyed(&self) -> Option<Duration> {
        self.destroyed
    }

    /// A disk was put back to an earlier state, or may be: what was deleted since may come back from it.
    pub fn may_raise_dead(&mut self) {
        self.raises_dead = true;
    }

    /// A tombstone was dropped, for everybody: all that it knows need not be known any more, and is never shown again. Or its
    /// past alone: all that does not live in what is left of it.
    pub fn forget(&mut self, key: &Key, version: u64, left: Option<&Object>) {
        if let Some(known) = self.knows(key, version) {
            let histories = &mut self.key(key.clone()).histories;
            let live = left.iter().flat_map(|left| &left.siblings).filter_map(|sibling| histories.event(sibling.dot));
            let live = live.collect();
            histories.forget(&known.without(&live));
        }
    }

    /// What of a version has to be known still.
    #[must_use]
    pub fn remembers(&self, key: &Key, version: u64) -> Option<Events> {
        let forgotten = self.keys.get(key).map(|ledger| ledger.histories.forgotten().clone()).unwrap_or_default();
        Some(self.knows(key, version)?.without(&forgotten))
    }

    /// A client begins an operation. Returns its number.
    pub fn begin(&mut self, operation: Operation) -> usize {
        let number = self.operations.len();
        let ledger = self.key(operation.key.clone());
        if matches!(operation.action, Action::Put { .. }) {
            ledger.puts.push(number);
        }
        self.operations.push(operation);
        number
    }

    /// From now on nothing is checked of the key: see `KeyLedger::unwatched`.
    pub fn unwatch(&mut self, key: &Key) {
        self.key(key.clone()).unwatched = true;
    }

    /// Whether the key is checked.
    #[must_use]
    pub fn watches(&self, key: &Key) -> bool {
        self.keys.get(key).is_none_or(|ledger| !ledger.unwatched)
    }

    /// What the version knows, if it was ever made.
    #[must_use]
    pub fn knows(&self, key: &Key, version: u64) -> Option<Events> {
        if version == 0 || !self.watches(key) {
            return Some(Events::default());
        }
        self.keys.get(key)?.versions.get(&version).cloned()
    }

    /// The writes that an operation became.
    #[must_use]
    pub fn writes_of(&self, operation: usize) -> &Events {
        &self.operations[operation].writes
    }

    /// An object was sent: its writes are those that were made (P11), and its version is one that was made.
    ///
    /// # Errors
    /// When it is not so.
    pub fn sighted(&mut self, key: &Key, object: &Object) -> Checked {
        if !self.watches(key) {
            return Ok(());
        }
        for sibling in &object.siblings {
            let known = self.dots.get(&sibling.dot);
            if known.is_none_or(|(at, value)| at != key || *value != sibling.value) {
                let detail = format!("{:?} was {known:?} and is {:?}", sibling.dot, sibling.value);
                return Err(violation("P11 dots are unique", key, detail));
            }
        }
        if self.knows(key, object.version().0).is_none() {
            let detail = format!("version {:x} of {:?} was made by nobody", object.version().0, object.clock);
            return Err(violation("P3 no false sibling", key, detail));
        }
        Ok(())
    }

    /// A new version was made.
    ///
    /// # Errors
    /// When it is not what its origin makes it.
    pub fn made(&mut self, key: &Key, object: &Object, origin: Origin) -> Checked {
        if !self.watches(key) {
            return Ok(());
        }
        let known = match origin {
            Origin::Put { base, asked } => self.put_made(key, object, base, asked)?,
            Origin::Reconciled { held, sent } => {
                let (Some(held), Some(sent)) = (self.knows(key, held), self.knows(key, sent)) else {
                    return Err(violation("P3 no false sibling", key, format!("{object:?} came from nowhere")));
                };
                held.union(&sent)
            }
            Origin::Shortened { of } => self.knows(key, of).unwrap_or_default(),
        };
        if self.watches(key) {
            self.check_object(key, object, &known)?;
        }
        self.key(key.clone()).versions.insert(object.version().0, known);
        Ok(())
    }

    fn put_made(&mut self, key: &Key, object: &Object, base: u64, asked: Option<usize>) -> Checked<Events> {
        let fresh = self.unseen(object);
        let [write] = fresh.as_slice() else {
            // A dot that was used before, or writes that nobody saw made.
            let property = if fresh.is_empty() { "P11 dots are unique" } else { "P3 no false sibling" };
            return Err(violation(property, key, format!("a put made {object:?} with {} new writes", fresh.len())));
        };
        let Some(base) = self.knows(key, base) else {
            return Err(violation("P3 no false sibling", key, format!("{object:?} was built on an unknown version")));
        };
        // A coordinator that holds a write of this name sends that one out again.
        let histories = &self.key(key.clone()).histories;
        let same_name = |&event: &usize| write.token.is_some() && histories.write(event).token == write.token;
        if let Some(event) = histories.maximal(&base).iter().find(same_name) {
            let detail =
                format!("{write:?} was made, though {:?} of the same name was at hand", histories.write(event).dot);
            return Err(violation("P11 dots are unique", key, detail));
        }
        // Deletes are not told apart by their value. Where it is not known who asked, there is no telling which it was.
        let mut fault = None;
        let candidates = asked.map_or_else(|| self.key(key.clone()).puts.clone(), |asked| vec![asked]);
        if self.explaining(&candidates, write).count() > 1 {
            self.unwatch(key);
            return Ok(base);
        }
        for operation in self.explaining(&candidates, write).collect::<Vec<_>>() {
            let Action::Put { context, .. } = &self.operations[operation].action else { continue };
            let blind = context.is_none();
            let sent_on = self.keys[key].sent_on.get(&operation).cloned().unwrap_or_default();
            let possible: Vec<Events> = match context {
                Some((_, seen)) => vec![seen.clone()],
                None => sent_on.into_iter().chain([base.clone()]).collect(),
            };
            for seen in possible {
                let histories = &mut self.keys.get_mut(key).expect("it has puts").histories;
                let event = histories.add(write.dot, write.value.clone(), write.token, &seen).expect("a fresh dot");
                let mut known = base.union(&seen);
                known.insert(event);
                if let Some(found) = object_fault(histories, object, &known) {
                    histories.remove_last();
                    fault = Some(found);
                    continue;
                }
                if blind
                    && write.token.is_none()
                    && let Some(undone) = self.undone(key, operation, &seen)
                {
                    let detail = format!("{write:?} replaced {undone:?}, which was begun after it was answered");
                    return Err(violation("P15 no write comes after itself", key, detail));
                }
                self.dots.insert(write.dot, (key.clone(), write.value.clone()));
                self.operations[operation].writes.insert(event);
                return Ok(known);
            }
        }
        let fault = fault.unwrap_or_else(|| format!("no put asked for {write:?}"));
        Err(violation("P1 no write lost", key, fault))
    }

    /// A put without a context was sent on with one.
    ///
    /// # Errors
    /// When nobody gave it out.
    pub fn sent_on(&mut self, operation: usize, context: &[u8]) -> Checked {
        let key = self.operations[operation].key.clone();
        if matches!(self.operations[operation].action, Action::Put { context: None, .. }) && self.watches(&key) {
            let seen = self.open(&key, context)?;
            self.key(key).sent_on.entry(operation).or_default().push(seen);
        }
        Ok(())
    }

    /// An acknowledged write in `seen` that was begun only after `operation` had been answered. A client that sent it again
    /// has to reckon with that by itself.
    fn undone(&self, key: &Key, operation: usize, seen: &Events) -> Option<&Action> {
        let asked = &self.operations[operation];
        let answered = asked.end.filter(|_| asked.status == Status::Ok && asked.sends == 1)?;
        let puts = self.keys.get(key)?.puts.iter().map(|&put| &self.operations[put]);
        let mut later = puts.filter(|put| put.start > answered && put.status == Status::Ok);
        later.find(|put| !put.writes.common(seen).is_empty()).map(|put| &put.action)
    }

    /// The writes in it that nobody has seen made.
    #[must_use]
    pub fn unseen(&self, object: &Object) -> Vec<Sibling> {
        object.siblings.iter().filter(|sibling| !self.dots.contains_key(&sibling.dot)).cloned().collect()
    }

    /// The puts that ask for just this write.
    fn explaining<'a>(&'a self, puts: &'a [usize], write: &'a Sibling) -> impl Iterator<Item = usize> + 'a {
        puts.iter().copied().filter(move |&put| match &self.operations[put].action {
            Action::Put { value, token, .. } => (value, token) == (&write.value, &write.token),
            Action::Get { .. } => false,
        })
    }

    /// A store that held one version now holds another: it forgot nothing.
    ///
    /// # Errors
    /// When it did.
    pub fn taken(&self, key: &Key, held: u64, now: u64) -> Checked {
        let (Some(before), Some(after)) = (self.knows(key, held), self.knows(key, now)) else {
            return Err(violation("P3 no false sibling", key, format!("{held:x} or {now:x} was made by nobody")));
        };
        let Some(ledger) = self.keys.get(key) else { return Ok(()) };
        if let Some(event) = ledger.histories.risen(&after).filter(|_| !self.raises_dead) {
            let detail =
                format!("{:?} was deleted and forgotten, and is there again", ledger.histories.write(event).dot);
            return Err(violation("P8 deletes stay deleted", key, detail));
        }
        if before.without(ledger.histories.forgotten()).is_within(&after) {
            return Ok(());
        }
        Err(violation("P1 no write lost", key, format!("a replica that knew {before:?} now knows {after:?}")))
    }

    /// A get was answered. Returns all that its context covers.
    ///
    /// # Errors
    /// When the answer breaks a property.
    pub fn read(&mut self, operation: usize, context: &[u8], values: &[Bytes], sloppy: bool) -> Checked<Events> {
        let asked = self.operations[operation].clone();
        let key = &asked.key;
        let covered = self.open(key, context)?;
        if !self.watches(key) {
            return Ok(covered);
        }
        let raises_dead = self.raises_dead;
        let histories = &self.key(key.clone()).histories;
        self_contained(key, histories, &covered)?;
        // Siblings: what nothing known has seen; tombstones are not shown.
        let maximal = histories.maximal(&covered).without(histories.forgotten());
        let live: Events = maximal.iter().filter(|&event| histories.write(event).value.is_some()).collect();
        let shown: Vec<usize> = live.iter().filter(|&event| shows(histories, event, values)).collect();
        for event in live.iter() {
            if !shown.contains(&event) {
                let detail = format!("{:?} is live but was not returned", histories.write(event).dot);
                return Err(violation("P2 no lost sibling", key, detail));
            }
        }
        // A write that was made again under its name is shown once.
        let is_twice = |&event: &usize| {
            let write = histories.write(event);
            write.token.is_some() && values.iter().filter(|&value| Some(value) == write.value.as_ref()).count() > 1
        };
        if let Some(event) = live.iter().find(is_twice) {
            let detail = format!("{:?} was returned twice, though it has a name", histories.write(event).dot);
            return Err(violation("P3 no false sibling", key, detail));
        }
        let raised = if raises_dead { histories.forgotten().clone() } else { Events::default() };
        let may_show = live.union(&raised);
        let is_shown =
            |value: &Bytes| may_show.iter().any(|event| histories.write(event).value.as_ref() == Some(value));
        let dead = values.iter().find(|value| !is_shown(value));
        if let Some(value) = dead {
            let detail = format!("{} was returned, though it was replaced", String::from_utf8_lossy(value));
            return Err(violation("P3 no false sibling", key, detail));
        }
        if !sloppy && asked.consistency == Consistency::Strict {
            self.check_strict(&asked, &covered)?;
        }
        self.key(asked.key.clone()).shown.insert(asked.client, covered.clone());
        Ok(covered)
    }

    /// P5 and P6. Without a repair before the answer a read may show a write that no quorum holds, so both are asked of
    /// acknowledged writes only.
    fn check_strict(&self, get: &Operation, covered: &Events) -> Checked {
        let Action::Get { quorum: read } = get.action else { unreachable!("only gets are read") };
        let ledger = &self.keys[&get.key];
        for &number in &ledger.puts {
            let put = &self.operations[number];
            let Action::Put { quorum: write, durability: Durability::Durable, .. } = put.action else { continue };
            let before = put.end.is_some_and(|end| end < get.start) && self.destroyed.is_none_or(|at| at < put.start);
            if put.status != Status::Ok || put.sloppy || !before || read + write <= self.replicas {
                continue;
            }
            if is_missing(&ledger.histories, put, covered) {
                let own = ledger.shown.get(&get.client).is_some_and(|shown| !put.writes.common(shown).is_empty());
                let property = if own { "P6 monotonic contexts" } else { "P5 read your writes" };
                let detail = format!("a strict get with R={read} knows only {covered:?}, not {:?}", put.action);
                return Err(violation(property, &get.key, detail));
            }
        }
        Ok(())
    }

    /// A put was answered. Returns all that its context covers.
    ///
    /// # Errors
    /// When the answer breaks a property.
    pub fn written(&mut self, operation: usize, context: &[u8]) -> Checked<Events> {
        let asked = self.operations[operation].clone();
        let key = &asked.key;
        let covered = self.open(key, context)?;
        if !self.watches(key) {
            return Ok(covered);
        }
        let histories = &self.key(key.clone()).histories;
        if asked.writes.is_empty() {
            return Err(violation("P1 no write lost", key, format!("{:?} was answered, but never made", asked.action)));
        }
        self_contained(key, histories, &covered)?;
        let Action::Put { context: given, .. } = &asked.action else { unreachable!("only puts are written") };
        let mut allowed = given.as_ref().map(|(_, seen)| seen.clone()).unwrap_or_default();
        for event in asked.writes.iter() {
            allowed.insert(event);
            allowed.extend(&histories.write(event).past);
        }
        let unseen = covered.without(&allowed);
        let live = histories.maximal(&covered).common(&unseen).without(histories.forgotten());
        if let Some(event) = live.iter().next() {
            let detail = format!(
                "the context of {:?} covers {:?}, which its writer has not seen",
                asked.action,
                histories.write(event).dot
            );
            return Err(violation("P4 sound context", key, detail));
        }
        Ok(covered)
    }

    /// After healing: what all replicas together know covers each of these puts.
    ///
    /// # Errors
    /// When one is missing.
    pub fn check_kept(&self, key: &Key, covered: &Events, must: impl Fn(&Operation) -> bool) -> Checked {
        let Some(ledger) = self.keys.get(key).filter(|ledger| !ledger.unwatched) else { return Ok(()) };
        let lost = ledger
            .puts
            .iter()
            .map(|&number| &self.operations[number])
            .find(|put| put.status == Status::Ok && must(put) && is_missing(&ledger.histories, put, covered));
        lost.map_or(Ok(()), |put| {
            let detail = format!("{:?} was acknowledged, and no replica knows it: {covered:?}", put.action);
            Err(violation("P1 no acknowledged write lost", key, detail))
        })
    }

    /// How a put came out, for tests: the values of its writes that all replicas together still show.
    #[must_use]
    pub fn histories(&self, key: &Key) -> Option<&Histories> {
        self.keys.get(key).map(|ledger| &ledger.histories)
    }

    /// All that a context covers.
    ///
    /// # Errors
    /// When it is not one that the cluster gave out for the key.
    pub fn open(&self, key: &Key, context: &[u8]) -> Checked<Events> {
        let Ok(context) = self.sealer.open(key.encoded(), context) else {
            return Err(violation("P4 sound context", key, "a context that was returned does not open".to_owned()));
        };
        Ok(self.covered(key, &context.seen))
    }

    fn covered(&self, key: &Key, clock: &Clock) -> Events {
        self.keys.get(key).map(|ledger| ledger.histories.covered(clock)).unwrap_or_default()
    }

    fn check_object(&mut self, key: &Key, object: &Object, known: &Events) -> Checked {
        match object_fault(&self.key(key.clone()).histories, object, known) {
            None => Ok(()),
            Some(fault) => Err(violation("P1 no write lost", key, fault)),
        }
    }

    fn key(&mut self, key: Key) -> &mut KeyLedger {
        self.keys.entry(key).or_default()
    }
}

/// What is wrong with an object that ought to know `known`, if anything.
fn object_fault(histories: &Histories, object: &Object, known: &Events) -> Option<String> {
    let live: Option<Events> = object.siblings.iter().map(|sibling| histories.event(sibling.dot)).collect();
    let Some(live) = live else { return Some(format!("{object:?} has a sibling that nobody wrote")) };
    if let Some(fault) = histories.fault(&live, known) {
        return Some(fault);
    }
    let covered = histories.covered(&object.clock);
    let (claimed, right) = (covered.without(histories.forgotten()), known.without(histories.forgotten()));
    (claimed != right).then(|| {
        let (more, less) = (claimed.without(&right), right.without(&claimed));
        format!("{:?} claims {more:?}, which is not known, and not {less:?}, which is", object.clock)
    })
}

/// P4: what is covered is covered with its past.
fn self_contained(key: &Key, histories: &Histories, covered: &Events) -> Checked {
    for event in covered.without(histories.forgotten()).iter() {
        let write = histories.write(event);
        if !write.past.without(histories.forgotten()).is_within(covered) {
            let detail = format!("a context covers {:?} but not all that it had seen", write.dot);
            return Err(violation("P4 sound context", key, detail));
        }
    }
    Ok(())
}

/// Whether nothing of a put is covered, though it has to be.
fn is_missing(histories: &Histories, put: &Operation, covered: &Events) -> bool {
    put.writes.common(&covered.union(histories.forgotten())).is_empty()
}

fn shows(histories: &Histories, event: usize, values: &[Bytes]) -> bool {
    histories.write(event).value.as_ref().is_some_and(|value| values.contains(value))
}

/// A violation of a property of one key.
#[must_use]
pub fn violation(property: &'static str, key: &Key, detail: String) -> Violation {
    Violation { property, key: Some(key.clone()), detail }
}
