//! Keys whose record cannot be read any more.
//!
//! The rule: a record of the index that does not read as it was written, or not at all, is lost exactly once: it is reported,
//! and the index says [`Summary::LOST`] from then on, so that the key's Merkle leaf differs from its replicas' and
//! no old version passes for the newest. One more record in the log says so, and takes the place of the lost one
//! as an append would: it is what the index points at, it is moved by compaction, it wins at a replay over all that is
//! older, and the segment of the lost record is given back no sooner than it is durable.
//!
//! When the log takes no record (it failed, or is full), the index still says so, and goes on pointing at what is lost: after
//! a crash it has to be found again, and the scrub or the compaction tries again.
//!
//! A read that fails with an error of the disk proves nothing: the next may succeed. The scrub and the compaction, which
//! come back to what they could not read and fail again, take it for lost.
//!
//! Not here: who finds it (`store`, `scrub`, `compactor`, `open`), repair (`node`, told by [`crate::Store::damage`]).

use crate::{
    disk::Disk,
    index::{Entry, Listed},
    record::{self, Head, Kind},
    shared::{Damage, DamageKind, Shared},
    versions::Summary,
};

impl<D: Disk> Shared<D> {
    /// The record of an entry is lost, unless the entry is out of date. False when the log did not take it: try again.
    pub(crate) fn lose(&self, partition: u16, listed: &Listed, kind: DamageKind) -> bool {
        let Listed { hash, entry } = *listed;
        let Entry { place, summary } = entry;
        let mut state = self.state.borrow_mut();
        if state.index.find(partition, &hash) != Some(entry) {
            return true;
        }
        let body = record::hash_bytes(hash);
        let length = record::length(0, body.len());
        let room = self.make_room(&mut state, length, true);
        let state_now = &mut *state;
        let mut to = place;
        if room.is_ok() {
            state_now.last_sequence += 1;
            let sequence = state_now.last_sequence;
            let head = Head { kind: Kind::Lost, partition, sequence, stable_hash: 0 };
            to = state_now.log.push(head, &[], &[&body], length);
            state_now.space.put(to.segment(), length);
            state_now.space.gain(to);
            state_now.space.clock += length as u64;
            state_now.space.lose(place, sequence);
        }
        state_now.index.insert(partition, &hash, to, Summary::LOST, &*self.versions);
        let first = summary != Summary::LOST;
        if first {
            state_now.cache.remove(partition, &hash);
            state_now.tombstones -= u64::from(self.is_tombstone(summary));
            state_now.lost += 1;
        }
        drop(state);
        if first {
            let (segment, offset, length) = (place.segment(), place.offset(), place.length());
            self.report(Damage { partition: Some(partition), kind, segment, offset, length });
        }
        if room.is_ok() {
            self.work.notify();
        }
        room.is_ok()
    }

    /// Whether a version is nothing but tombstones. One that is not known is not.
    pub(crate) fn is_tombstone(&self, summary: Summary) -> bool {
        summary != Summary::LOST && self.versions.is_tombstone(summary)
    }
}
