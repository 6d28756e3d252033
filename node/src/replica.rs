//! The replica's side of a put: what to make of an object that a coordinator sent.
//!
//! The rule: a replica never forgets what it held: an object is taken as it came only when it covers all that is here.
//!
//! Pure. Not here: the log, the answer (`core`).

use crate::{
    coordinator::Local,
    object::{ArchivedObject, Object, VersionHash},
};

/// What to do with an object.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// It is here already, or older than what is here: acknowledge what is here.
    Keep,
    /// Store it as it came.
    Take,
    /// Store the two reconciled.
    Store(Object),
    /// What is here must be read first.
    NeedBody,
}

/// What to make of `incoming`, which its coordinator built on the version `base`.
#[must_use]
pub fn decide(local: &Local, incoming: &ArchivedObject, base: VersionHash) -> Decision {
    if local.is_absent() {
        return Decision::Take;
    }
    let version = incoming.version();
    if local.version == version {
        return Decision::Keep;
    }
    if local.version == base {
        return Decision::Take;
    }
    if let Some(mine) = &local.outline {
        let theirs = incoming.outline();
        if theirs.clock.includes(&mine.clock) {
            return Decision::Take;
        }
        if mine.clock.includes(&theirs.clock) {
            return Decision::Keep;
        }
    }
    let Some(object) = &local.object else { return Decision::NeedBody };
    let both = object.reconcile(&incoming.to_object());
    if both == *object {
        Decision::Keep
    } else if both.version() == version {
        Decision::Take
    } else {
        Decision::Store(both)
    }
}
