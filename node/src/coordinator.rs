//! Coordinators: one get or one put, from the fan-out to the answer.
//!
//! The rule: a coordinator is told what happened and says how it stands; it is answered once.
//!
//! Pure. Not here: the core that runs them, and its store (`core`).

pub mod get;
pub mod put;
mod stand_in;

use crate::object::{Object, Outline, VersionHash};

/// What a core's own store tells of a key without reading the disk.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The version; [`VersionHash::ABSENT`] when the key is absent.
    pub version: VersionHash,
    /// All but its values, when RAM holds that much.
    pub outline: Option<Outline>,
    /// Whether it has a live value.
    pub has_value: bool,
    /// The object, when its body was at hand.
    pub object: Option<Object>,
    /// There was a version that cannot be read any more. What is built here begins from nothing, as if the key were absent,
    /// but nobody may be told that it is.
    pub lost: bool,
}

impl Local {
    /// Nothing is known of the key.
    #[must_use]
    pub fn absent() -> Self {
        Self::default()
    }

    /// The version of the key cannot be read any more.
    #[must_use]
    pub fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    /// Whether the key is absent, or as good as that.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.version == VersionHash::ABSENT
    }
}
