//! One core's local store of opaque records: an append log with group commit, an index in RAM, a record cache, Merkle
//! leaves, compaction, checkpoints and recovery.
//!
//! The rule: what the store reports as durable survives any crash, and what is read is what was
//! written, or an error.
//!
//! Not here: what a record means (`node/object`), who else holds it (`node/ring`), the network, wall clocks. All file
//! access, and all waiting, goes through the one [`disk::Disk`] trait.

mod blob;
pub mod cache;
mod checkpoint;
mod chore;
mod commit;
pub mod compaction;
mod compactor;
mod config;
pub mod disk;
mod forget;
pub mod frame;
pub mod index;
mod log;
mod lost;
mod open;
pub mod planted;
mod preparer;
pub mod record;
pub mod recovery;
mod replay;
mod scrub;
mod segment;
mod shared;
mod signal;
mod space;
mod statistics;
mod store;
pub mod versions;

pub use blob::BLOB_BYTES_MAX;
pub use chore::{Chore, Progress};
pub use config::{Config, OpenError};
pub use scrub::ScrubPosition;
pub use segment::{Commit, Stream};
pub use shared::{Damage, DamageKind};
pub use statistics::Statistics;
pub use store::{
    Append, AppendError, Found, Opened, OwnedRecord, ReadError, RecoveryReport, Sequence, Store, Task, Watermark,
};
