//! The replica's side of a put: what to make of an object that a coordinator sent.
//!
//! The rule: a replica never forgets what it held: an object is taken as it came only when it covers all that is here.
//!
//! Pure. Not here: the log, the answer (`core`).

use quorate_engine::planted::{Bug, planted};

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
        if theirs.clock.includes(&mine.clock) || planted(Bug::TakesAsItCame) {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        object::{Outline, Sibling, view},
        version::{Actor, Clock, Dot},
    };

    fn write(node: u16, counter: u64) -> Sibling {
        let dot = Dot { actor: Actor { node, core: 0, incarnation: 1 }, counter };
        Sibling { dot, timestamp_ms: 0, token: None, value: Some(Bytes::new()) }
    }

    fn local(object: &Object, with_body: bool) -> Local {
        let live = object.siblings.iter().map(|sibling| sibling.dot).collect();
        let outline = Some(Outline { clock: object.clock.clone(), live });
        Local {
            version: object.version(),
            has_value: true,
            outline,
            object: with_body.then(|| object.clone()),
            lost: false,
        }
    }

    fn decision(local: &Local, incoming: &Object, base: VersionHash) -> Decision {
        decide(local, view(&incoming.encode()).unwrap(), base)
    }

    #[test]
    fn only_what_covers_all_is_taken_as_it_came() {
        let old = Object::default().after_write(&Clock::new(), write(1, 1));
        let new = old.after_write(&old.clock, write(2, 1));
        let beside = Object::default().after_write(&Clock::new(), write(3, 1));
        let none = VersionHash::ABSENT;
        assert_eq!(decision(&Local::absent(), &old, none), Decision::Take);
        assert_eq!(decision(&local(&old, false), &old, none), Decision::Keep);
        assert_eq!(decision(&local(&old, false), &new, none), Decision::Take);
        assert_eq!(decision(&local(&new, false), &old, none), Decision::Keep);
        assert_eq!(decision(&local(&new, false), &beside, none), Decision::NeedBody);
        assert_eq!(decision(&local(&new, true), &beside, none), Decision::Store(new.reconcile(&beside)));
    }

    #[test]
    fn what_was_built_on_the_version_here_is_taken_without_a_look() {
        let old = Object::default().after_write(&Clock::new(), write(1, 1));
        let new = old.after_write(&old.clock, write(2, 1));
        let unseen = Local { version: old.version(), ..Local::default() };
        assert_eq!(decision(&unseen, &new, old.version()), Decision::Take);
        assert_eq!(decision(&unseen, &new, VersionHash::ABSENT), Decision::NeedBody);
    }
}
