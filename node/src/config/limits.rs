//! How much: the bounds on clients, and the sizes of a core's store.
//!
//! The rule: what a client may send fits what a segment and the write queue can hold, so that no accepted put is ever
//! too large for the store.

use std::time::Duration;

use quorate_net::bounds;

use super::{error::ConfigError, section::Section, unit::Size};

/// The bounds on what clients may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most bytes in a value.
    pub value: u32,
    /// The most bytes in an object: its clock and all its siblings.
    pub object: u32,
    /// The most siblings of a key.
    pub siblings: u16,
    /// How long a request is worked on when it names no time of its own.
    pub timeout: Duration,
    /// The most client connections of one core.
    pub connections: u32,
    /// The most requests that one core works on at a time.
    pub operations: u32,
}

/// What requests are promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceLevel {
    /// Of a thousand requests one may take longer.
    pub p999: Duration,
    /// Background work is held back while more do.
    pub admission: bool,
}

/// The sizes of one core's store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The most bytes on disk; as much as the disk allows if there is none.
    pub capacity: Option<u64>,
    /// The bytes of a segment.
    pub segment: u32,
    /// The bytes of the record cache.
    pub cache: u64,
    /// How many commits are under way at a time, 1 to 4.
    pub commits_in_flight: u8,
    /// How a commit reaches the disk.
    pub commit: Commit,
    /// A checkpoint is made after this many bytes of log.
    pub checkpoint_every: u64,
    /// The most bytes that wait to be written; beyond it puts are refused as overload.
    pub queue: u64,
    /// So many bytes a second are read again to find what has rotted; 0: none are.
    pub scrub: u64,
}

/// How a commit reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// One write that returns when it is durable (`O_DSYNC`).
    Dsync,
    /// A write, then `fdatasync`.
    Fdatasync,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// So many of the largest objects fit a segment, or its end would be wasted too often. The engine asks for it.
const OBJECTS_PER_SEGMENT: u64 = 3;

/// A core's store needs this many segments at the least: two streams, spares, and room to compact.
const SEGMENTS_MIN: u64 = 8;

/// The engine numbers no more.
const SEGMENTS_MAX: u64 = 999_999;

pub(super) fn read_limits(root: &mut Section<'_>) -> Result<Limits, ConfigError> {
    let keys = &["value", "object", "siblings", "timeout", "connections", "operations"];
    let mut section = root.table("limits", keys)?;
    let value = section.size("value", 1..=bounds::VALUE_BYTES_MAX as u64)?.unwrap_or(MIB);
    let object = section.size("object", KIB..=bounds::OBJECT_BYTES_MAX as u64)?.unwrap_or(8 * MIB);
    if object < value + KIB {
        return Err(section.bad("object", format!("must be at least 1KiB more than `value` ({value} bytes)")));
    }
    let timeout = Duration::from_millis(10)..=Duration::from_secs(60);
    Ok(Limits {
        value: value as u32,
        object: object as u32,
        siblings: section.integer("siblings", 1..=bounds::SIBLINGS_MAX as u64)?.unwrap_or(64) as u16,
        timeout: section.duration("timeout", timeout)?.unwrap_or(Duration::from_secs(2)),
        connections: section.integer("connections", 1..=100_000)?.unwrap_or(10_000) as u32,
        operations: section.integer("operations", 1..=1_000_000)?.unwrap_or(16_384) as u32,
    })
}

pub(super) fn read_service_level(root: &mut Section<'_>) -> Result<ServiceLevel, ConfigError> {
    let mut section = root.table("slo", &["p999", "admission"])?;
    let p999 = Duration::from_micros(100)..=Duration::from_secs(10);
    Ok(ServiceLevel {
        p999: section.duration("p999", p999)?.unwrap_or(Duration::from_millis(10)),
        admission: section.boolean("admission")?.unwrap_or(true),
    })
}

pub(super) fn read_store(root: &mut Section<'_>, limits: &Limits) -> Result<Store, ConfigError> {
    let keys = &["capacity", "segment", "cache", "commits_in_flight", "commit", "checkpoint_every", "queue", "scrub"];
    let mut section = root.table("store", keys)?;
    let object = u64::from(limits.object);
    let segment = section.size("segment", 4 * MIB..=64 * MIB)?.unwrap_or(64 * MIB);
    if !segment.is_multiple_of(128 * KIB) {
        return Err(section.bad("segment", "must be a multiple of 128KiB"));
    }
    if segment / OBJECTS_PER_SEGMENT < object {
        let problem = format!(
            "must hold {OBJECTS_PER_SEGMENT} of the largest objects ([limits] `object`, {object} bytes): make it larger or \
             that one smaller"
        );
        return Err(section.bad("segment", problem));
    }
    let queue = section.size("queue", 64 * KIB..=GIB)?.unwrap_or(16 * MIB);
    if queue < object {
        return Err(section.bad("queue", format!("must hold the largest object ([limits] `object`, {object} bytes)")));
    }
    let mut store = Store {
        capacity: None,
        segment: segment as u32,
        cache: 256 * MIB,
        commits_in_flight: section.integer("commits_in_flight", 1..=4)?.unwrap_or(1) as u8,
        commit: read_commit(&mut section)?,
        checkpoint_every: section.size("checkpoint_every", MIB..=TIB)?.unwrap_or(512 * MIB),
        queue,
        scrub: section.size("scrub", 0..=GIB)?.unwrap_or(MIB),
    };
    override_store(&mut section, &mut store)?;
    Ok(store)
}

/// Takes over what may differ from core to core.
pub(super) fn override_store(section: &mut Section<'_>, store: &mut Store) -> Result<(), ConfigError> {
    if let Some(cache) = section.size("cache", 0..=TIB)? {
        store.cache = cache;
    }
    if let Some(capacity) = section.size("capacity", 0..=1024 * TIB)? {
        let segments = capacity / u64::from(store.segment);
        if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&segments) {
            let segment = Size(store.segment.into());
            let problem = format!("must be {SEGMENTS_MIN} to {SEGMENTS_MAX} segments of {segment}");
            return Err(section.bad("capacity", problem));
        }
        store.capacity = Some(capacity);
    }
    Ok(())
}

fn read_commit(section: &mut Section<'_>) -> Result<Commit, ConfigError> {
    match section.text("commit")?.as_deref() {
        None | Some("dsync") => Ok(Commit::Dsync),
        Some("fdatasync") => Ok(Commit::Fdatasync),
        Some(other) => Err(section.bad("commit", format!("must be \"dsync\" or \"fdatasync\", not \"{other}\""))),
    }
}
