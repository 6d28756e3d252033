//! What nodes say to each other to prove that a version is everywhere, before they forget its past.
//!
//! The rule: a list has a bound; who goes by another ring is no witness. Not here: when a node is ready
//! (`node/reaper`).

use rkyv::{Archive, Deserialize, Serialize};

use super::{exchange::HashedKey, gossip::RingStamp};

/// The most keys in a message.
pub const KEYS_MAX: usize = 256;

/// A version of a key.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyVersion {
    /// The key, as an index knows it.
    pub key: HashedKey,
    /// The stable hash of the version.
    pub version: u64,
}

/// One step of it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Reap {
    /// Is there anything at your place against forgetting the past of these?
    Ask {
        /// The answer carries it.
        number: u64,
        /// The ring that the sender goes by.
        ring: RingStamp,
        /// The keys' partition.
        partition: u16,
        /// What.
        keys: Vec<KeyVersion>,
    },
    /// To [`Reap::Ask`].
    Are {
        /// The ask's.
        number: u64,
        /// For each key: a primary holds exactly this version; and nobody holds a hint, or an old copy.
        ready: Vec<bool>,
    },
    /// All were ready, twice: forget their past, if they are still these versions. Not answered.
    Forget {
        /// The ring that the sender goes by.
        ring: RingStamp,
        /// The keys' partition.
        partition: u16,
        /// What.
        keys: Vec<KeyVersion>,
    },
}

impl ArchivedReap {
    /// Whether the list is within its bound, and the keys are some that there can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sound = |keys: &[ArchivedKeyVersion]| {
            keys.len() <= KEYS_MAX && keys.iter().all(|key| key.key.tag != 0 && key.version.to_native() != 0)
        };
        match self {
            Self::Ask { keys, .. } | Self::Forget { keys, .. } => sound(keys),
            Self::Are { ready, .. } => ready.len() <= KEYS_MAX,
        }
    }

    /// The partition that it names, if any.
    #[must_use]
    pub fn partition(&self) -> Option<u16> {
        match self {
            Self::Ask { partition, .. } | Self::Forget { partition, .. } => Some(partition.to_native()),
            Self::Are { .. } => None,
        }
    }
}
