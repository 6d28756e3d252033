//! How much: the bounds on clients, and the sizes of a core's store.
//!
//! The rule: what a client may send fits what a segment and the write queue can hold, so that no accepted put is ever
//! too large for the store.

use std::time::Duration;

use super::{error::ConfigError, section::Section, unit::Size, value::Value};

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

/// So many of the largest objects fit a segment, or its end would be wasted too often. The engine asks for it.
const OBJECTS_PER_SEGMENT: u64 = 3;

/// A core's store needs this many segments at the least: two streams, spares, and room to compact.
pub const SEGMENTS_MIN: u64 = 8;

/// The engine numbers no more.
const SEGMENTS_MAX: u64 = 999_999;

pub(super) fn read_limits(root: &mut Section<'_>) -> Result<Limits, ConfigError> {
    let mut section = root.table("limits")?;
    let (value, object) = (section.read("value")?, section.read("object")?);
    if u64::from(object) < u64::from(value) + KIB {
        return Err(section.bad("object", format!("must be at least 1KiB more than `value` ({value} bytes)")));
    }
    Ok(Limits {
        value,
        object,
        siblings: section.read("siblings")?,
        timeout: section.read("timeout")?,
        connections: section.read("connections")?,
        operations: section.read("operations")?,
    })
}

pub(super) fn read_service_level(root: &mut Section<'_>) -> Result<ServiceLevel, ConfigError> {
    let mut section = root.table("slo")?;
    Ok(ServiceLevel { p999: section.read("p999")?, admission: section.read("admission")? })
}

pub(super) fn read_store(root: &mut Section<'_>, limits: &Limits) -> Result<Store, ConfigError> {
    let mut section = root.table("store")?;
    let segment: u32 = section.read("segment")?;
    if !u64::from(segment).is_multiple_of(128 * KIB) {
        return Err(section.bad("segment", "must be a multiple of 128KiB"));
    }
    let mut store = Store {
        capacity: None,
        segment,
        cache: section.read("cache")?,
        commits_in_flight: section.read("commits_in_flight")?,
        commit: read_commit(&mut section)?,
        checkpoint_every: section.read("checkpoint_every")?,
        queue: section.read("queue")?,
        scrub: section.read("scrub")?,
    };
    check_fits(limits, &store).map_err(|(key, problem)| section.bad(key, problem))?;
    store.capacity = section.read_option("capacity", None)?;
    check_capacity(&section, &store)?;
    Ok(store)
}

/// Whether a store takes what clients may send; or which of its keys must be larger.
pub(super) fn check_fits(limits: &Limits, store: &Store) -> Result<(), (&'static str, String)> {
    let object = limits.object;
    if u64::from(store.segment) / OBJECTS_PER_SEGMENT < u64::from(object) {
        let problem = format!(
            "must hold {OBJECTS_PER_SEGMENT} of the largest objects ([limits] `object`, {object} bytes): make it larger or \
             that one smaller"
        );
        return Err(("segment", problem));
    }
    if store.queue < u64::from(object) {
        return Err(("queue", format!("must hold the largest object ([limits] `object`, {object} bytes)")));
    }
    Ok(())
}

/// Takes over what may differ from core to core.
pub(super) fn override_store(section: &mut Section<'_>, store: &mut Store) -> Result<(), ConfigError> {
    store.cache = section.read_or("cache", Value::Size(store.cache))?;
    store.capacity = section.read_option("capacity", store.capacity.map(Value::Size))?;
    check_capacity(section, store)
}

fn check_capacity(section: &Section<'_>, store: &Store) -> Result<(), ConfigError> {
    let segments = store.capacity.map(|capacity| capacity / u64::from(store.segment));
    if segments.is_none_or(|segments| (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&segments)) {
        return Ok(());
    }
    let segment = Size(store.segment.into());
    Err(section.bad("capacity", format!("must be {SEGMENTS_MIN} to {SEGMENTS_MAX} segments of {segment}")))
}

fn read_commit(section: &mut Section<'_>) -> Result<Commit, ConfigError> {
    Ok(match section.read::<String>("commit")?.as_str() {
        "dsync" => Commit::Dsync,
        "fdatasync" => Commit::Fdatasync,
        other => unreachable!("{other} is none of the choices"),
    })
}
