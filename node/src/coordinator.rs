//! Coordinators: one get or one put, from the fan-out to the answer.
//!
//! The rule: a coordinator is told what happened and says how it stands; it is answered once.
//!
//! Pure. Not here: the core that runs them, and its store (`core`).

pub mod get;
pub mod put;

use crate::{
    object::{Object, VersionHash},
    version::Clock,
};

/// What a core's own store tells of a key without reading the disk.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The version; [`VersionHash::ABSENT`] when the key is absent.
    pub version: VersionHash,
    /// Its clock, when the summary holds it: the version is then a single write, and this is it.
    pub single: Option<crate::version::Dot>,
    /// Whether it has a live value.
    pub has_value: bool,
    /// The object, when its body was at hand.
    pub object: Option<Object>,
}

impl Local {
    /// Nothing is known of the key.
    #[must_use]
    pub fn absent() -> Self {
        Self::default()
    }

    /// Whether the key is absent.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.version == VersionHash::ABSENT
    }

    /// The clock, when it is known without the body or the body is at hand.
    #[must_use]
    pub fn clock(&self) -> Option<Clock> {
        if self.is_absent() {
            return Some(Clock::new());
        }
        let single = self.single.map(|dot| crate::version::VersionVector::of(dot).into());
        single.or_else(|| self.object.as_ref().map(|object| object.clock.clone()))
    }
}
