//! What was sent and what was acknowledged, per key, and the judgement over what reads then show.
//!
//! The rule: every key has one writer, which has at most one write of it under way; so its writes have an order, and the
//! last acknowledged one is known. A read must show that one or a later one, and never one that was not sent. A write
//! whose outcome is unknown (no answer, or an error that leaves it open) may have happened, and may still happen: if it
//! was blind (without a context) it may then replace a later one, which is not a loss.
//!
//! Not here: what a stamped value looks like (`value`), who reads when (`client`).

use std::{
    collections::HashMap,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

use crate::value::{Stamp, StampError};

/// How many violations of one kind are kept word for word; all are counted.
const SAMPLES_MAX: u64 = 20;
/// The most separate stretches of unknown writes that are kept, some 200 MB; beyond it nothing can be judged.
const UNKNOWN_MAX: usize = 4 << 20;
const CHUNK_KEYS: usize = 1 << 16;
const CHUNKS: usize = 1 << 16;
/// The most keys that a run can verify.
pub(crate) const KEYS_MAX: u64 = (CHUNK_KEYS * CHUNKS) as u64;

/// The memory of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u64,
    chunks: Box<[OnceLock<Box<[Entry]>>]>,
    keys_end: AtomicU64,
    unknown: Mutex<Unknown>,
    judged: Mutex<Judged>,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Entry {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Blind writes whose outcome is unknown, per key as stretches of sequences.
#[derive(Default, Debug)]
struct Unknown {
    by_key: HashMap<u64, Vec<(u64, u64)>>,
    stretches: usize,
}

#[derive(Default, Debug)]
struct Counts {
    reads: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    surfaced: AtomicU64,
}

#[derive(Default, Debug)]
struct Judged {
    stale: u64,
    lost: u64,
    damaged: u64,
    never_sent: u64,
    unread: u64,
    samples: Vec<String>,
}

/// What a run's reads showed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// Reads that were checked.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes whose outcome is not known.
    pub unknown: u64,
    /// Reads that showed such a write in place of a later one: allowed, since it was blind.
    pub surfaced: u64,
    /// Keys that the last pass read.
    pub keys: u64,
    /// Reads that missed a write that had been acknowledged before they began.
    pub stale_reads: u64,
    /// Keys whose last acknowledged write did not come back until the end.
    pub lost_writes: u64,
    /// Values with a wrong checksum, or of another key.
    pub damaged_values: u64,
    /// Values that nobody had sent.
    pub never_sent: u64,
    /// Keys that the last pass could not read.
    pub unread_keys: u64,
    /// The first violations of each kind, word for word.
    pub violations: Vec<String>,
}

/// What one read showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// The last acknowledged write or a later one.
    Current,
    /// An older one, or none.
    Stale,
    /// Something that no write of this run can have made.
    Wrong,
}

impl Ledger {
    /// An empty ledger of the run numbered `run`.
    #[must_use]
    pub(crate) fn new(run: u64) -> Self {
        let chunks = (0..CHUNKS).map(|_| OnceLock::new()).collect();
        Self {
            run,
            chunks,
            keys_end: AtomicU64::new(0),
            unknown: Mutex::default(),
            judged: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// The run's number, which all its stamps carry.
    #[must_use]
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// The key's writer sends its next write. Its sequence.
    pub(crate) fn send(&self, key: u64) -> u64 {
        self.keys_end.fetch_max(key + 1, Ordering::Relaxed);
        self.entry(key).sent.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The key's last write that was sent.
    #[must_use]
    pub(crate) fn sent(&self, key: u64) -> u64 {
        self.entry(key).sent.load(Ordering::SeqCst)
    }

    /// What a read that begins now must show at least.
    #[must_use]
    pub(crate) fn floor(&self, key: u64) -> u64 {
        self.entry(key).acknowledged.load(Ordering::SeqCst)
    }

    /// A write was acknowledged.
    pub(crate) fn acknowledge(&self, key: u64, sequence: u64) {
        self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.entry(key).acknowledged.fetch_max(sequence, Ordering::SeqCst);
    }

    /// A write was sent and its outcome will never be known. `blind`: it carried no context.
    pub(crate) fn lose_sight(&self, key: u64, sequence: u64, blind: bool) {
        self.counts.unknown.fetch_add(1, Ordering::Relaxed);
        if !blind {
            return;
        }
        let mut unknown = self.unknown.lock().expect("no panic under the lock");
        let stretches = unknown.by_key.entry(key).or_default();
        match stretches.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => {
                stretches.push((sequence, sequence));
                unknown.stretches += 1;
                assert!(unknown.stretches <= UNKNOWN_MAX, "too many writes without an answer to verify anything");
            }
        }
    }

    /// Judges what a read showed that had to show `floor` at least. A stale read is not noted as a violation here:
    /// [`Ledger::note_stale`] and [`Ledger::note_lost`] do, as the caller knows which it is.
    pub(crate) fn judge<'a>(&self, key: u64, floor: u64, values: impl Iterator<Item = &'a [u8]>) -> (Shown, u64) {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let mut latest = 0;
        for value in values {
            match Stamp::of(value) {
                Ok(stamp) if stamp.run != self.run => {}
                Ok(stamp) if stamp.key != key => return self.wrong(key, &format!("the value of key {}", stamp.key)),
                Ok(stamp) if stamp.sequence > self.sent(key) => {
                    self.note(
                        |judged| &mut judged.never_sent,
                        || format!("key {key} showed write {}, which was never sent", stamp.sequence),
                    );
                    return (Shown::Wrong, 0);
                }
                Ok(stamp) => latest = latest.max(stamp.sequence),
                // Something that was there before: as good as nothing.
                Err(StampError::Foreign) => {}
                Err(StampError::Damaged) => return self.wrong(key, "a value with a wrong checksum"),
            }
        }
        if latest >= floor {
            return (Shown::Current, latest);
        }
        if latest > 0 && self.is_unknown(key, latest) {
            self.counts.surfaced.fetch_add(1, Ordering::Relaxed);
            return (Shown::Current, latest);
        }
        (Shown::Stale, latest)
    }

    /// A read missed an acknowledged write.
    pub(crate) fn note_stale(&self, key: u64, floor: u64, shown: u64) {
        self.note(
            |judged| &mut judged.stale,
            || format!("key {key} showed {}, write {floor} had been acknowledged before the read", nth(shown)),
        );
    }

    /// The last pass never saw an acknowledged write.
    pub(crate) fn note_lost(&self, key: u64, floor: u64, shown: u64) {
        self.note(
            |judged| &mut judged.lost,
            || format!("key {key} lost the acknowledged write {floor}: it shows {}", nth(shown)),
        );
    }

    /// The last pass could not read a key.
    pub(crate) fn note_unread(&self, key: u64) {
        self.note(|judged| &mut judged.unread, || format!("key {key} could not be read at the end"));
    }

    /// Whether any write of `key` was sent.
    #[must_use]
    pub(crate) fn is_touched(&self, key: u64) -> bool {
        self.chunks[key as usize / CHUNK_KEYS].get().is_some_and(|_| self.sent(key) > 0)
    }

    /// One past the highest key that was written.
    pub(crate) fn keys_end(&self) -> u64 {
        self.keys_end.load(Ordering::Relaxed)
    }

    /// The judgement so far.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
        let judged = self.judged.lock().expect("no panic under the lock");
        Verdict {
            reads: self.counts.reads.load(Ordering::Relaxed),
            acknowledged: self.counts.acknowledged.load(Ordering::Relaxed),
            unknown: self.counts.unknown.load(Ordering::Relaxed),
            surfaced: self.counts.surfaced.load(Ordering::Relaxed),
            keys: (0..self.keys_end()).filter(|&key| self.is_touched(key)).count() as u64,
            stale_reads: judged.stale,
            lost_writes: judged.lost,
            damaged_values: judged.damaged,
            never_sent: judged.never_sent,
            unread_keys: judged.unread,
            violations: judged.samples.clone(),
        }
    }

    fn entry(&self, key: u64) -> &Entry {
        let chunk = self.chunks[key as usize / CHUNK_KEYS]
            .get_or_init(|| std::iter::repeat_with(Entry::default).take(CHUNK_KEYS).collect());
        &chunk[key as usize % CHUNK_KEYS]
    }

    fn is_unknown(&self, key: u64, sequence: u64) -> bool {
        let unknown = self.unknown.lock().expect("no panic under the lock");
        let stretches = unknown.by_key.get(&key);
        stretches.is_some_and(|all| all.iter().any(|&(first, last)| (first..=last).contains(&sequence)))
    }

    fn wrong(&self, key: u64, what: &str) -> (Shown, u64) {
        self.note(|judged| &mut judged.damaged, || format!("key {key} showed {what}"));
        (Shown::Wrong, 0)
    }

    fn note(&self, count: impl Fn(&mut Judged) -> &mut u64, sample: impl Fn() -> String) {
        let mut judged = self.judged.lock().expect("no panic under the lock");
        let count = count(&mut judged);
        *count += 1;
        if *count <= SAMPLES_MAX {
            judged.samples.push(sample());
        }
    }
}

impl Verdict {
    /// Whether nothing was violated. `stale_allowed`: reads may be stale while servers fail, losses are losses.
    #[must_use]
    pub fn is_sound(&self, stale_allowed: bool) -> bool {
        let wrong = self.lost_writes + self.damaged_values + self.never_sent + self.unread_keys;
        wrong == 0 && (stale_allowed || self.stale_reads == 0)
    }
}

fn nth(sequence: u64) -> String {
    if sequence == 0 { "none of this run's values".to_owned() } else { format!("write {sequence}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::Random, value::Values};

    fn stamped(key: u64, sequence: u64) -> Vec<u8> {
        let values = Values::new(1, 64..65);
        let mut value = Vec::new();
        let stamp = Stamp { run: 1, key, sequence, writer: 0 };
        values.stamped(values.draw(&mut Random::new(1, 1)), stamp, &mut value);
        value
    }

    fn shown(ledger: &Ledger, floor: u64, sequences: &[u64]) -> Shown {
        let values: Vec<_> = sequences.iter().map(|&sequence| stamped(5, sequence)).collect();
        ledger.judge(5, floor, values.iter().map(Vec::as_slice)).0
    }

    #[test]
    fn an_acknowledged_write_must_show() {
        let ledger = Ledger::new(1);
        assert_eq!(shown(&ledger, ledger.floor(5), &[]), Shown::Current);
        for sequence in 1..=3 {
            assert_eq!(ledger.send(5), sequence);
        }
        ledger.acknowledge(5, 2);
        assert_eq!(ledger.floor(5), 2);
        assert_eq!(shown(&ledger, 2, &[2]), Shown::Current);
        assert_eq!(shown(&ledger, 2, &[3]), Shown::Current, "sent, not yet answered");
        assert_eq!(shown(&ledger, 2, &[1]), Shown::Stale);
        assert_eq!(shown(&ledger, 2, &[]), Shown::Stale);
        assert_eq!(shown(&ledger, 2, &[1, 2]), Shown::Current, "one of the siblings is it");
        assert_eq!(shown(&ledger, 2, &[4]), Shown::Wrong, "never sent");
        assert_eq!(ledger.verdict().never_sent, 1);
    }

    #[test]
    fn an_unknown_write_may_surface_only_if_it_was_blind() {
        for (blind, expected) in [(true, Shown::Current), (false, Shown::Stale)] {
            let ledger = Ledger::new(1);
            for _ in 1..=4 {
                ledger.send(5);
            }
            ledger.acknowledge(5, 1);
            ledger.lose_sight(5, 2, blind);
            ledger.lose_sight(5, 3, blind);
            ledger.acknowledge(5, 4);
            assert_eq!(shown(&ledger, 4, &[3]), expected);
            assert_eq!(shown(&ledger, 4, &[2]), expected);
            assert_eq!(shown(&ledger, 4, &[1]), Shown::Stale, "the first one was acknowledged and replaced");
        }
    }

    #[test]
    fn another_keys_value_and_damage_are_seen() {
        let ledger = Ledger::new(1);
        ledger.send(5);
        ledger.send(6);
        let mut value = stamped(6, 1);
        assert_eq!(ledger.judge(5, 0, [value.as_slice()].into_iter()).0, Shown::Wrong);
        value[50] ^= 1;
        assert_eq!(ledger.judge(6, 0, [value.as_slice()].into_iter()).0, Shown::Wrong);
        let verdict = ledger.verdict();
        assert_eq!((verdict.damaged_values, verdict.keys), (2, 2));
        assert!(!verdict.is_sound(true));
    }
}
