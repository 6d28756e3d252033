//! What the store counts.
//!
//! Not here: latencies, which the caller sees better; names and units of metrics (`node`).

use std::cell::Cell;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counted since the store was opened.
        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Cell<u64>,)* }

        /// What the store has done since it was opened, and how it stands.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)*
            /// Keys in the index, tombstones included.
            pub keys: u64,
            /// How many of them are tombstones.
            pub tombstones: u64,
            /// How many of them are lost: see `Summary::LOST`.
            pub lost: u64,
            /// Bytes of RAM that the index takes.
            pub index_bytes: u64,
            /// Bytes of records that the index points at.
            pub live_bytes: u64,
            /// Bytes of records that are not durable yet.
            pub queued_bytes: u64,
            /// Segment files.
            pub segments: u64,
            /// Segments that could be filled before the disk is full, the reserve included.
            pub segments_free: u64,
            /// Bytes of one segment.
            pub segment_bytes: u64,
            /// Bytes in the record cache.
            pub cache_bytes: u64,
            /// 1 when the disk or the quota is full: only deletes are accepted.
            pub full: u64,
        }

        impl Counters {
            pub(crate) fn copy(&self, to: &mut Statistics) { $(to.$name = self.$name.get();)* }
        }
    };
}

counters! {
    /// Records appended.
    records,
    /// Their bytes, headers and padding included.
    record_bytes,
    /// Keys forgotten, one by one or with their partition.
    forgotten,
    /// Frames written to the log, seals included.
    commits,
    /// Bytes written to the log.
    log_bytes,
    /// Bytes written by compaction.
    compaction_bytes,
    /// Bytes read by compaction.
    compaction_read_bytes,
    /// Segments compacted.
    compacted_segments,
    /// Bytes written into checkpoints.
    checkpoint_bytes,
    /// Checkpoints written.
    checkpoints,
    /// Checkpoints that could not be written.
    checkpoints_failed,
    /// Checkpoints that were found not to validate, at the start or by the scrub.
    checkpoints_bad,
    /// Bytes of zeros and headers written to make segments ready.
    prepared_bytes,
    /// Reads that went to the disk.
    disk_reads,
    /// Bytes that they read.
    disk_read_bytes,
    /// Reads answered from the record cache.
    cache_hits,
    /// Reads answered from frames that were not on the disk yet.
    pending_hits,
    /// Passes of the scrub that were made from their start to their end.
    scrub_passes,
    /// Bytes read by the scrub.
    scrub_read_bytes,
    /// Records that the scrub has checked.
    scrubbed_records,
    /// Those of them that are damaged.
    scrub_damaged,
    /// Damage found, see `Store::damage`.
    damaged,
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}
