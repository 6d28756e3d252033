//! What a store is opened with, and why opening can fail.
//!
//! Not here: what the node's configuration file looks like (`node`).

use crate::{segment::Commit, space::RESERVE};
use std::{fmt, io, time::Duration};

/// Settings of one core's store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identifies a new store, at random. An existing one keeps its own: see `RecoveryReport::store`.
    pub store: u64,
    /// Partitions of the ring, fixed for the cluster's life.
    pub partitions: u16,
    /// Seeds the hash of keys. The same on every node of a cluster, or their Merkle leaves could not be compared.
    pub seed: u64,
    /// Bytes of one segment file: 256 KiB to 64 MiB, a multiple of 64 KiB. An existing store keeps its own.
    pub segment_bytes: u32,
    /// The most segment files there may be: 6 or more. Together they are the capacity of the store.
    pub segments_max: u32,
    /// Segments that are kept ready for the log: 1 to 8, typically 2.
    pub segments_ready: usize,
    /// How commits are made durable.
    pub commit: Commit,
    /// Commits that may be under way at once: 1 to 4. With one, those who wait for it make the next group larger: fewer
    /// bytes a record, and where the disk answers in a fraction of a millisecond a higher rate.
    pub commits_in_flight: usize,
    /// A commit is no larger than this, unless a single record is: 16 KiB to 8 MiB, a quarter of a segment
    /// at most.
    pub frame_bytes_max: usize,
    /// The largest body: up to 32 MiB, and at most a third of a segment.
    pub body_bytes_max: usize,
    /// Bytes that may wait for the disk before appends are refused.
    pub queue_bytes_max: usize,
    /// Bytes of the record cache.
    pub cache_bytes: usize,
    /// How long the log is idle before a frame says that all is durable.
    pub seal_idle: Duration,
    /// A checkpoint is written each time that the log has grown by this many bytes.
    pub checkpoint_log_bytes: u64,
    /// How long background work rests after each chunk of at most 128 KiB when nothing presses.
    pub background_pause: Duration,
    /// Compaction runs when more than this share of what is used is dead, in percent: 10 to 90. What is overwritten at
    /// random costs, at 65, a tenth of each write to be compacted; at 30, six tenths.
    pub dead_percent_max: u64,
    /// The same while nothing is appended, when moving costs nobody anything: 10 to 90.
    pub dead_percent_idle: u64,
    /// How long to wait before a full disk is asked again.
    pub full_retry: Duration,
    /// The scrub reads all that is live again and again, so many bytes a second. 0: only who calls `Store::scrub_step` does.
    pub scrub_bytes_per_second: u64,
    /// And each time takes as long as this at least, so that a store with next to nothing in it is not read without end.
    pub scrub_pass_min: Duration,
}

impl Config {
    /// Typical settings.
    #[must_use]
    pub fn new(store: u64, partitions: u16, seed: u64) -> Self {
        Self {
            store,
            partitions,
            seed,
            segment_bytes: 64 << 20,
            segments_max: 1 << 14,
            segments_ready: 2,
            commit: Commit::Dsync,
            commits_in_flight: 1,
            frame_bytes_max: 1 << 20,
            body_bytes_max: 16 << 20,
            queue_bytes_max: 32 << 20,
            cache_bytes: 64 << 20,
            seal_idle: Duration::from_millis(5),
            checkpoint_log_bytes: 512 << 20,
            background_pause: Duration::from_micros(500),
            dead_percent_max: 65,
            dead_percent_idle: 30,
            full_retry: Duration::from_millis(250),
            scrub_bytes_per_second: 0,
            scrub_pass_min: Duration::from_secs(1),
        }
    }

    /// Segments are short when fewer are free.
    pub(crate) fn free_wanted(&self) -> usize {
        self.segments_ready + RESERVE + 1
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: &str| Err(OpenError::Config(what.to_owned()));
        if !(256 << 10..=64 << 20).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(64 << 10) {
            return wrong("segment_bytes must be 256 KiB to 64 MiB and a multiple of 64 KiB");
        }
        if !(6..1_000_000).contains(&self.segments_max) {
            return wrong("segments_max must be 6 to 999999: the log, two ready, one for survivors, two in reserve");
        }
        if !(1..=8).contains(&self.segments_ready) || !(1..=4).contains(&self.commits_in_flight) {
            return wrong("segments_ready must be 1 to 8, commits_in_flight 1 to 4");
        }
        if !(16 << 10..=8 << 20).contains(&self.frame_bytes_max)
            || self.frame_bytes_max > self.segment_bytes as usize / 4
        {
            return wrong("frame_bytes_max must be 16 KiB to 8 MiB, and a quarter of a segment at most");
        }
        if self.body_bytes_max > 32 << 20 || self.body_bytes_max > self.segment_bytes as usize / 3 {
            return wrong("body_bytes_max must be 32 MiB and a third of a segment at most");
        }
        if self.partitions == 0 {
            return wrong("partitions must be 1 or more");
        }
        if [self.dead_percent_max, self.dead_percent_idle].iter().any(|percent| !(10..=90).contains(percent)) {
            return wrong("dead_percent_max and dead_percent_idle must be 10 to 90");
        }
        Ok(())
    }
}

/// Why a store could not be opened. None of them changed what the store holds.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The settings contradict themselves.
    Config(String),
    /// The store was made with other settings that cannot change.
    Mismatch {
        /// Which.
        what: &'static str,
        /// What the store was made with.
        stored: u64,
        /// What it was opened with.
        wanted: u64,
    },
    /// The file was written by a version of the store that is not known here.
    Version {
        /// Which file.
        file: String,
        /// Its format.
        version: u16,
    },
    /// The file belongs to another store.
    Foreign {
        /// Which file.
        file: String,
    },
    /// The directory holds segments but not the file that says whose they are.
    Unidentified,
    /// No checkpoint can be read of as many as segments are given back by: what was forgotten may still lie in the log, with
    /// nothing there any more that says so.
    Checkpoints,
    /// An operation on a file failed.
    Io {
        /// Which, on what.
        what: String,
        /// How.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) => write!(to, "bad store settings: {what}"),
            Self::Mismatch { what, stored, wanted } => write!(
                to,
                "the store was made with {what} {stored} and is opened with {wanted}: set it back to {stored}, or move \
                 the data to a new store"
            ),
            Self::Version { file, version } => write!(
                to,
                "{file} has format {version}, which this version does not know: start the version that wrote it"
            ),
            Self::Foreign { file } => {
                write!(to, "{file} belongs to another store: somebody moved files between directories; move it back")
            }
            Self::Unidentified => write!(
                to,
                "the directory holds segments but no readable file 'store.blob', which says whose they are: restore that \
                 file, or empty the directory and let the replicas fill it again"
            ),
            Self::Checkpoints => write!(
                to,
                "no checkpoint can be read, and without one deleted keys may come back: empty the directory and let the \
                 replicas fill it again; or, where there are none, remove the checkpoint files to start from the log alone"
            ),
            Self::Io { what, error } => write!(to, "{what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
