//! One core's local store of opaque records: an append log with group commit, an index in RAM, a record cache, Merkle
//! leaves, compaction, checkpoints and recovery.
//!
//! The rule: what the store reports as durable survives any crash, and what is read is what was
//! written, or an error.
//!
//! Not here: what a record means (`node/object`), who else holds it (`node/ring`), the network, wall clocks. All file
//! access, and all waiting, goes through the one [`disk::Disk`] trait.

pub mod cache;
pub mod disk;
pub mod index;
pub mod versions;
