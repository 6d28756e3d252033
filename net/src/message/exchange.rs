//! What two primaries of a partition say to each other to find and repair where they differ (anti-entropy, section 4.7).
//!
//! The rule: the one that began asks, the other answers, and keeps nothing but a lease. Each ask carries the asker's own
//! sums as they are now, and the answer tells only of what differs from them now: so each step confirms the one before.
//!
//! Every list has a bound, and so has what an ask makes the other compute. Not here: who asks what and when
//! (`node/anti_entropy`).

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::key::Key;

/// The finest level of a partition's tree: it has 2^40 leaves there.
pub const LEVEL_MAX: u8 = 40;

/// The most levels that [`Step::Branches`] goes down at once: 16 sums for each branch.
pub const DEEPER_MAX: u8 = 4;

/// The most branches in [`Step::Branches`]: 1,024 sums in its answer.
pub const BRANCHES_MAX: usize = 64;

/// The most leaves in [`Step::List`].
pub const LEAVES_MAX: usize = 256;

/// The most entries in [`Step::Listed`].
pub const ENTRIES_MAX: usize = 1024;

/// The most keys in [`Step::Compare`].
pub const KEYS_MAX: usize = 1024;

/// A size class above this would be over any object's limit.
pub const SIZE_CLASS_MAX: u8 = 31;

/// One step of an exchange about one partition.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// The exchange, by the number of the one that began it. What comes late for another one is dropped.
    pub number: u64,
    /// The how-manieth ask of the exchange this is, or is the answer to.
    pub round: u32,
    /// The partition.
    pub partition: u16,
    /// What is said.
    pub step: Step,
}

/// A key, as far as an index knows it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HashedKey {
    /// Its low bits are the key's leaf.
    pub fingerprint: u64,
    /// Never 0.
    pub tag: u8,
}

/// A branch or a leaf, with what the asker has there.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Which of the 2^level of its level: all keys whose fingerprint ends in these bits.
    pub index: u64,
    /// The wrapping sum of the hashes of the asker's entries there.
    pub sum: u64,
}

/// A key and the version of it that is held.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldKey {
    /// The key.
    pub key: HashedKey,
    /// The stable hash of the version; never 0, which stands for none.
    pub version: u64,
    /// Its record has at most 2^this bytes.
    pub size_class: u8,
}

/// A whole object.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    /// The key.
    pub key: Key,
    /// The clock and all siblings.
    pub body: Bytes,
}

/// What is said. The asks come first, each followed by its answer.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// What is your root?
    Root,
    /// To [`Step::Root`].
    RootIs {
        /// The sum of the whole partition.
        sum: u64,
        /// The finest level that costs the teller no scan.
        level: u8,
        /// The teller's copy may lack what it once had: it wants to hear by [`Step::Close`] that it was compared.
        heals: bool,
    },
    /// Which of these branches differ from mine, and what are their parts?
    Branches {
        /// The level of the branches.
        level: u8,
        /// How many levels deeper the parts are.
        deeper: u8,
        /// The branches.
        branches: Vec<Branch>,
    },
    /// To [`Step::Branches`].
    BranchesAre {
        /// For each branch whether it differs.
        differ: Vec<bool>,
        /// For each that differs the 2^deeper sums of its parts: the one with the index `i << level | index` at `i`.
        sums: Vec<u64>,
    },
    /// Which of these leaves differ from mine, and what keys do they hold?
    List {
        /// The level of the leaves.
        level: u8,
        /// The leaves.
        leaves: Vec<Branch>,
        /// The keys of the first leaf up to this one have been told.
        after: Option<HashedKey>,
    },
    /// To [`Step::List`].
    ListIs {
        /// For each leaf whether it differs.
        differ: Vec<bool>,
        /// The keys of those that differ, in the order of the leaves, within a leaf by key.
        held: Vec<HeldKey>,
        /// There was no room for what comes after.
        more: bool,
    },
    /// Which versions of these keys do you hold now?
    Compare {
        /// The keys.
        keys: Vec<HashedKey>,
    },
    /// To [`Step::Compare`].
    CompareIs {
        /// For each key its version; 0 is none.
        versions: Vec<u64>,
    },
    /// Send this key's object, unless it is the version that I have.
    Fetch {
        /// The key.
        key: HashedKey,
        /// The version that the asker has; 0 is none.
        known: u64,
    },
    /// To [`Step::Fetch`].
    Fetched {
        /// The key.
        key: HashedKey,
        /// The object, if there is one that the asker has not.
        object: Option<Whole>,
    },
    /// Take this object, and say when it is on disk.
    Give {
        /// The key.
        key: HashedKey,
        /// The object.
        object: Whole,
    },
    /// To [`Step::Give`].
    Given {
        /// The key.
        key: HashedKey,
        /// Whether the receiver has it, or something that covers it, on disk.
        durable: bool,
    },
    /// To any ask but the first: the partition is in an exchange with another core. Try later.
    Busy,
    /// The exchange is over. Not answered.
    Close {
        /// All that was found was repaired.
        done: bool,
    },
    /// My copy of the partition was lost or damaged: begin an exchange with me. Belongs to none; not answered.
    Invite,
}

impl HeldKey {
    /// The class of a record of `bytes`.
    #[must_use]
    pub fn size_class(bytes: usize) -> u8 {
        bytes.next_power_of_two().trailing_zeros() as u8
    }
}

impl ArchivedStep {
    /// The key of an object that it carries, as it came.
    #[must_use]
    pub fn object(&self) -> Option<(&[u8], usize)> {
        match self {
            Self::Give { object, .. } => Some((object.key.encoded(), object.body.len())),
            Self::Fetched { object, .. } => object.as_ref().map(|object| (object.key.encoded(), object.body.len())),
            _ => None,
        }
    }

    /// Whether all lists are within their bounds, and each number names something that there can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Root | Self::Busy | Self::Close { .. } | Self::Invite => true,
            Self::RootIs { level, .. } => *level <= LEVEL_MAX,
            Self::Branches { level, deeper, branches } => {
                (1..=DEEPER_MAX).contains(deeper)
                    && level.checked_add(*deeper).is_some_and(|level| level <= LEVEL_MAX)
                    && sound_branches(*level, branches, BRANCHES_MAX)
            }
            Self::BranchesAre { differ, sums } => {
                differ.len() <= BRANCHES_MAX && sums.len() <= BRANCHES_MAX << DEEPER_MAX
            }
            Self::List { level, leaves, after } => {
                *level <= LEVEL_MAX
                    && sound_branches(*level, leaves, LEAVES_MAX)
                    && after.as_ref().is_none_or(ArchivedHashedKey::is_sound)
            }
            Self::ListIs { differ, held, .. } => {
                differ.len() <= LEAVES_MAX && held.len() <= ENTRIES_MAX && held.iter().all(ArchivedHeldKey::is_sound)
            }
            Self::Compare { keys } => keys.len() <= KEYS_MAX && keys.iter().all(ArchivedHashedKey::is_sound),
            Self::CompareIs { versions } => versions.len() <= KEYS_MAX,
            Self::Fetch { key, .. } | Self::Fetched { key, .. } | Self::Give { key, .. } | Self::Given { key, .. } => {
                key.is_sound()
            }
        }
    }
}

impl ArchivedHashedKey {
    fn is_sound(&self) -> bool {
        self.tag != 0
    }
}

impl ArchivedHeldKey {
    fn is_sound(&self) -> bool {
        self.key.is_sound() && self.version.to_native() != 0 && self.size_class <= SIZE_CLASS_MAX
    }
}

fn sound_branches(level: u8, branches: &[ArchivedBranch], max: usize) -> bool {
    branches.len() <= max && branches.iter().all(|branch| branch.index.to_native() >> level == 0)
}
