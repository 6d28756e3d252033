//! Forgets keys for good: one by one, or a whole partition.
//!
//! A forgotten key is at once absent from the index, the cache, the Merkle leaf and the counts, and its record is dead.
//! What says so is one more record in the log, of the key or of a Merkle leaf of the partition, which the index does not
//! point at.
//!
//! The rule: **a segment that holds a forgetting record of sequence f is given back only when every checkpoint that
//! recovery may begin with reflects f, and there are two of them.** Then, and only then, no recovery needs the record:
//!
//! - Older records of the key may lie anywhere: in the log, in copies that compaction made before or even after f, in
//!   segments that are free but not yet overwritten. Their sequences are all below f, for a copy keeps its sequence.
//! - Recovery that begins with a checkpoint that reflects f skips each of them: what is not above the reflected sequence
//!   only counts as a copy of what the image has, and the image does not have the key, or has a later append of it.
//! - Recovery that begins with a checkpoint that does not reflect f, or with none, reads every segment of the log in which
//!   f may lie, since the position where it begins was noted before its image was taken. It finds the record, since
//!   its segment was not given back, and the record wins over all that is below f.
//! - The segment of the older record itself is given back no sooner than f is durable, as with an append.
//!
//! A checkpoint of an opened store does not know what the one before it reflects, so that takes two new ones. A list in each
//! checkpoint says which segments hold such records, for those that lie before where its recovery begins. When segments
//! are short and some wait for this alone, checkpoints are written for it.
//!
//! When no checkpoint validates although there are two, what was forgotten before them may be back: such a store is not opened.
//!
//! Not here: replaying such records (`replay`), which segments wait (`space`).

use crate::{
    chore::Chore,
    disk::Disk,
    index::KeyHash,
    record::{self, Head, KEY_MAX, Kind},
    shared::State,
    statistics::count,
    store::{AppendError, Sequence, Store},
    versions::Summary,
};
use std::time::Duration;

/// About how many keys one step of a drop forgets: it takes less than 50 µs.
const DROP_KEYS: u64 = 128;
/// How long a drop waits when the log is busy.
const DROP_RETRY: Duration = Duration::from_millis(1);

impl<D: Disk> Store<D> {
    /// Forgets a key if its version is `if_summary`: nothing is left of it, not even a tombstone. `None`, and nothing is
    /// done, when it has another version or is not there. It stays forgotten after any crash once the watermark has
    /// reached the sequence; a later append of the key is new. Goes on when the disk is full, as deletes do.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn forget(&self, partition: u16, key: &[u8], if_summary: Summary) -> Result<Option<Sequence>, AppendError> {
        let state = &mut *self.shared.state.borrow_mut();
        let hash = state.index.hash(key);
        if state.index.find(partition, &hash).is_none_or(|entry| entry.summary != if_summary) || key.len() > KEY_MAX {
            return Ok(None);
        }
        let sequence = self.push_forgetting(state, Kind::Forget, partition, key, &[])?;
        self.remove(state, partition, &hash, sequence);
        Ok(Some(Sequence(sequence)))
    }

    /// Forgets all keys of a partition, some at a time with rests between. When it returns, none is there, and the drop
    /// survives any crash once the watermark has reached the sequence; what is appended from then on is new. After an
    /// error, or a crash before that, a part of the partition is there: call it again. What is appended to the
    /// partition while this is under way may be dropped with it.
    ///
    /// # Errors
    /// See [`AppendError`]; never `Busy`: it waits.
    pub async fn drop_partition(&self, partition: u16) -> Result<Sequence, AppendError> {
        let keys = self.shared.state.borrow().index.partition_len(partition);
        let level = (keys / DROP_KEYS).max(1).ilog2();
        let underway = self.shared.chores.begin(Chore::Dropping, 1 << level);
        for leaf in 0..1 << level {
            underway.reached(leaf);
            while let Err(error) = self.drop_leaf(partition, level, leaf) {
                if error != AppendError::Busy {
                    return Err(error);
                }
                self.shared.disk.sleep(DROP_RETRY).await;
            }
            if leaf + 1 < 1 << level {
                self.shared.disk.sleep(self.shared.chores.pause(Chore::Dropping)).await;
            }
        }
        // Whatever forgot a key of it before counts, too.
        Ok(Sequence(self.shared.state.borrow().last_sequence))
    }

    fn drop_leaf(&self, partition: u16, level: u32, leaf: u64) -> Result<(), AppendError> {
        let state = &mut *self.shared.state.borrow_mut();
        let listed: Vec<_> = state.index.entries(partition, level, leaf).collect();
        if listed.is_empty() {
            return Ok(());
        }
        let which = record::leaf_bytes(level, leaf);
        let sequence = self.push_forgetting(state, Kind::Drop, partition, &[], &which)?;
        for listed in listed {
            self.remove(state, partition, &listed.hash, sequence);
        }
        Ok(())
    }

    fn push_forgetting(
        &self,
        state: &mut State<D>,
        kind: Kind,
        partition: u16,
        key: &[u8],
        body: &[u8],
    ) -> Result<u64, AppendError> {
        let length = record::length(key.len(), body.len());
        self.shared.make_room(state, length, true)?;
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        let place = state.log.push(Head { kind, partition, sequence, stable_hash: 0 }, key, &[body], length);
        state.space.put(place.segment(), length);
        state.space.forget(place.segment(), sequence);
        state.last_forget = sequence;
        state.space.clock += length as u64;
        self.shared.work.notify();
        Ok(sequence)
    }

    fn remove(&self, state: &mut State<D>, partition: u16, hash: &KeyHash, because: u64) {
        let shared = &*self.shared;
        let old = state.index.remove(partition, hash, &*shared.versions).expect("what is forgotten was just found");
        state.cache.remove(partition, hash);
        state.tombstones -= u64::from(shared.is_tombstone(old.summary));
        state.lost -= u64::from(old.summary == Summary::LOST);
        state.space.lose(old.place, because);
        count(&self.shared.counters.forgotten, 1);
    }
}
