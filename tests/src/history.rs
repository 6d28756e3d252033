//! What the clients did and were told.
//!
//! The rule: an operation has happened, has not, or **may have**: a request that got no answer, or one that says that
//! state may have changed, is unknown for ever.
//!
//! Not here: whether the answers were right (`checkers`).

use std::time::Duration;

use bytes::Bytes;
use quorate_net::{
    key::Key,
    message::{Consistency, Durability, Failure},
};

use crate::causality::Events;

/// What a client knows of its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// No answer yet, or none any more: it may have happened.
    Unknown,
    /// It happened.
    Ok,
    /// It did not happen.
    Failed,
}

/// What was asked for.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A get with R.
    Get {
        /// R.
        quorum: u8,
    },
    /// A put or a delete.
    Put {
        /// Unique; `None` deletes.
        value: Option<Bytes>,
        /// W.
        quorum: u8,
        /// What must be on disk first.
        durability: Durability,
        /// The same in each retry.
        token: Option<u128>,
        /// The context as it was sent, and all that its holder had seen; `None` for a blind put.
        context: Option<(Bytes, Events)>,
    },
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Whose.
    pub client: usize,
    /// On what.
    pub key: Key,
    /// What.
    pub action: Action,
    /// Whether fallbacks may count.
    pub consistency: Consistency,
    /// When it was sent first.
    pub start: Duration,
    /// How often its client sent it.
    pub sends: u32,
    /// When its answer was given.
    pub end: Option<Duration>,
    /// What the client knows of it.
    pub status: Status,
    /// Its answer said that it rests on a fallback.
    pub sloppy: bool,
    /// The writes that it became: more than one when it was retried, or doubled on its way.
    pub writes: Events,
}

/// Whether a failure leaves no doubt that nothing was written.
#[must_use]
pub fn wrote_nothing(failure: &Failure) -> bool {
    match failure {
        Failure::Timeout { .. } | Failure::Unavailable { .. } | Failure::DiskFull | Failure::StoreFailed => false,
        Failure::Overloaded { .. }
        | Failure::BadContext
        | Failure::TooLarge { .. }
        | Failure::TooManySiblings { .. }
        | Failure::Corrupt
        | Failure::BadRequest(_) => true,
    }
}
