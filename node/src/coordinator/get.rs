//! One get: this core's own copy, and what the other replicas say of theirs.
//!
//! The rule: the answer rests on R distinct replicas whose versions are all known in full, and is the reconciliation of
//! all that was learnt. A replica that cannot say gives no credit; nor does a fallback without a hint for the key, which
//! knows nothing of it: else an absent key would be reported that is only out of reach.
//!
//! The others are told the version that this core holds: those that hold the same say so from RAM, those that hold
//! another send it whole. When the own copy is late, one of those that hold the same may be asked for it whole: then "the
//! same" says something without the own copy. Pure. Not here: reading this core's copy (`core`), the replica's side (`replica`).

use bytes::Bytes;
use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::Endpoint,
    message::{Failure, Outcome},
};
use smallvec::smallvec;

use crate::{
    context::{Context, Sealer},
    object::{Malformed, Object, VersionHash, view},
    quorum::{Few, Groups, Tally, Voter},
};

use super::stand_in::StandIns;

/// This core's own copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Own {
    /// Being read, or not yet on disk.
    Pending,
    /// The key is absent here.
    Absent,
    /// The encoded object.
    Body(Bytes),
    /// Damaged: this copy gives no credit.
    Lost,
    /// This core knows nothing of the key, so it only asks the others: it is no owner and holds no hint, or its copy is not
    /// healed yet and lacks the key.
    None,
}

/// What another replica has.
#[derive(Clone, PartialEq, Debug)]
pub enum Theirs {
    /// What this core named.
    Same,
    /// Nothing. Never "the same", also when this core named no version: that would say nothing where its own copy is lost.
    Absent,
    /// Another version.
    Object(Object),
    /// It cannot say, or cannot be reached.
    Unknown,
}

/// One client get, from the first probe to the answer, and on to what late replies show to be lacking.
#[derive(Debug)]
pub struct GetCoordinator {
    needed: u8,
    changing: bool,
    own: Own,
    /// As what this core's copy counts.
    me: Voter,
    theirs: Few<(Voter, Option<Theirs>)>,
    stand_ins: StandIns,
    answered: bool,
    /// The version that was answered.
    told: Option<VersionHash>,
    /// An object came after that.
    late: bool,
    /// Who was asked to tell in full what this core named, since the own copy is late, and what was named.
    in_full: Option<(Endpoint, VersionHash)>,
    /// It did.
    named: bool,
}

/// How a get stands.
#[derive(Debug)]
pub enum Progress {
    /// Wait for more.
    Open,
    /// Answer this.
    Answer(Outcome),
    /// This core's copy is lost, so ask these replicas again for all that they have.
    Ask(Few<Endpoint>),
}

impl GetCoordinator {
    /// Nothing is known yet. `owners` are all owners of the partition, this core (`me`) among them unless it stands in for
    /// one; `fallbacks` those who may stand in, in order: nobody when the get is strict.
    #[must_use]
    pub fn new(me: Endpoint, needed: u8, owners: &[Voter], fallbacks: Few<Endpoint>) -> Self {
        let no_owner = Voter::stand_in(me, Groups::PRESENT);
        let own = owners.iter().copied().find(|voter| voter.endpoint == me).unwrap_or(no_owner);
        let needed = if planted(Bug::ReadsOneLess) { needed.max(2) - 1 } else { needed };
        let others = owners.iter().copied().filter(|voter| voter.endpoint != me);
        Self {
            needed,
            changing: owners.iter().any(|voter| voter.groups.next),
            own: Own::Pending,
            me: own,
            theirs: others.map(|other| (other, None)).collect(),
            stand_ins: StandIns::new(owners, fallbacks),
            answered: false,
            told: None,
            late: false,
            in_full: None,
            named: false,
        }
    }

    /// This core's copy is known. Only the first word counts.
    pub fn handle_own(&mut self, own: Own) {
        if self.own == Own::Pending {
            self.own = own;
        }
    }

    /// Another replica answered.
    pub fn handle_probed(&mut self, from: Endpoint, theirs: Theirs) {
        let asked_in_full = self.in_full.filter(|(peer, _)| *peer == from).map(|(_, named)| named);
        let Some((_, answer)) = self.theirs.iter_mut().find(|(voter, _)| voter.endpoint == from) else { return };
        match (&*answer, &theirs, asked_in_full) {
            (None, ..) => {
                if theirs == Theirs::Unknown {
                    self.stand_ins.want_for(from);
                }
                self.late |= self.answered && matches!(theirs, Theirs::Object(_));
            }
            // What it holds by now may be newer.
            (Some(Theirs::Same), Theirs::Object(object), Some(named)) => self.named |= object.version() == named,
            _ => return,
        }
        *answer = Some(theirs);
    }

    /// One of those that hold the same as this core, whose own copy is late.
    #[must_use]
    pub fn may_tell_in_full(&self) -> Option<Endpoint> {
        let late = self.own == Own::Pending && !self.answered && self.in_full.is_none();
        let same = |(_, theirs): &&(Voter, Option<Theirs>)| late && *theirs == Some(Theirs::Same);
        self.theirs.iter().find(same).map(|(voter, _)| voter.endpoint)
    }

    /// That one is asked for it whole. `named`: what the others were told that this core holds.
    pub fn ask_in_full(&mut self, peer: Endpoint, named: VersionHash) {
        self.in_full = Some((peer, named));
    }

    /// Those who have not answered yet. When `patience` is over, others stand in for them, and their answers still count.
    pub fn handle_silence(&mut self) -> Few<Endpoint> {
        let silent = self.theirs.iter().filter(|(_, theirs)| theirs.is_none()).map(|(voter, _)| voter.endpoint);
        let silent: Few<Endpoint> = silent.collect();
        if !self.answered {
            silent.iter().for_each(|&replica| self.stand_ins.want_for(replica));
        }
        silent
    }

    /// The fallbacks that are asked from now on.
    pub fn engage(&mut self) -> Few<Endpoint> {
        if self.answered {
            return Few::new();
        }
        let engaged = self.stand_ins.engage();
        self.theirs.extend(engaged.iter().map(|&(voter, _)| (voter, None)));
        engaged.into_iter().map(|(voter, _)| voter.endpoint).collect()
    }

    /// How it stands now. Without a `sealer` the answer brings no context.
    ///
    /// # Errors
    /// When this core's own body is no object; the get goes on without it.
    pub fn progress(&mut self, sealer: Option<&Sealer>, key: &[u8]) -> Result<Progress, Malformed> {
        if self.answered {
            return Ok(Progress::Open);
        }
        let again = self.unusable();
        if !again.is_empty() {
            return Ok(Progress::Ask(again));
        }
        if self.credit(|_| true).reaches(self.needed, self.changing) {
            let sloppy = !self.credit(|voter| !voter.stands_in).reaches(self.needed, self.changing);
            let (told, outcome) = self.values(sealer, key, sloppy).inspect_err(|_| self.own = Own::Lost)?;
            (self.answered, self.told) = (true, Some(told));
            return Ok(Progress::Answer(outcome));
        }
        let open = self.theirs.iter().filter(|(_, theirs)| *theirs != Some(Theirs::Unknown)).map(|(voter, _)| voter);
        let open = Tally::of(open.chain(self.own_may_count().then_some(&self.me)));
        if !open.reaches(self.needed, self.changing) {
            self.answered = true;
            let failure = if self.own == Own::Lost {
                Failure::Corrupt
            } else {
                Failure::Unavailable { reachable: open.least(self.changing), needed: self.needed }
            };
            return Ok(Progress::Answer(Outcome::Failed(failure)));
        }
        Ok(Progress::Open)
    }

    /// The deadline has passed: the answer, if it was not given.
    pub fn handle_timeout(&mut self) -> Option<Outcome> {
        if std::mem::replace(&mut self.answered, true) {
            return None;
        }
        let acks = self.credit(|_| true).least(self.changing);
        Some(Outcome::Failed(Failure::Timeout { acks, needed: self.needed }))
    }

    /// Those whose versions are known in full.
    fn credit(&self, counts: impl Fn(&Voter) -> bool) -> Tally {
        // "The same as yours" says something only beside what ours is.
        let own = matches!(self.own, Own::Absent | Own::Body(_));
        let known = self.theirs.iter().filter(|(_, theirs)| match theirs {
            Some(Theirs::Absent | Theirs::Object(_)) => true,
            Some(Theirs::Same) => own || self.named,
            Some(Theirs::Unknown) | None => false,
        });
        Tally::of(known.map(|(voter, _)| voter).chain(own.then_some(&self.me)).filter(|voter| counts(voter)))
    }

    /// Whether this core's own copy is damaged.
    #[must_use]
    pub fn own_is_lost(&self) -> bool {
        self.own == Own::Lost
    }

    fn own_may_count(&self) -> bool {
        matches!(self.own, Own::Pending | Own::Absent | Own::Body(_))
    }

    /// What each replica lacks of what the others told, when nothing more is waited for: read repair. The versions go on as
    /// they were told, and who takes one reconciles it with its own.
    #[must_use]
    pub fn repairs(&self, me: Endpoint) -> Vec<(Endpoint, Object)> {
        let differs = |theirs: &Option<Theirs>| match theirs {
            Some(Theirs::Object(_)) => true,
            Some(Theirs::Absent) => matches!(self.own, Own::Body(_)),
            Some(Theirs::Same | Theirs::Unknown) | None => false,
        };
        if self.own != Own::Lost && !self.theirs.iter().any(|(_, theirs)| differs(theirs)) {
            return Vec::new();
        }
        let own = match &self.own {
            Own::Body(body) => Object::decode(body).ok(),
            // Who is no owner named no version when it asked.
            Own::Absent | Own::None => Some(Object::default()),
            Own::Pending | Own::Lost => None,
        };
        let told = |theirs: &Option<Theirs>| match theirs {
            Some(Theirs::Object(object)) => Some(object.clone()),
            Some(Theirs::Absent) => Some(Object::default()),
            Some(Theirs::Same) => own.clone(),
            Some(Theirs::Unknown) | None => None,
        };
        let mut held: Vec<(Endpoint, Object)> =
            self.theirs.iter().filter_map(|(voter, theirs)| Some((voter.endpoint, told(theirs)?))).collect();
        match own {
            Some(own) if self.own != Own::None => held.push((me, own)),
            None if self.own == Own::Lost => held.push((me, Object::default())),
            _ => {}
        }
        let covers = |one: &Object, other: &Object| one.reconcile(other).version() == one.version();
        // Of versions that know the same only the first goes on.
        let needless = |at: usize| {
            let (_, object) = &held[at];
            held.iter()
                .enumerate()
                .any(|(i, (_, other))| i != at && covers(other, object) && (i < at || !covers(object, other)))
        };
        let newest: Vec<&Object> = (0..held.len()).filter(|&at| !needless(at)).map(|at| &held[at].1).collect();
        let lacks = |(endpoint, has): &(Endpoint, Object)| {
            newest
                .iter()
                .filter(|object| !covers(has, object))
                .map(|&object| (*endpoint, object.clone()))
                .collect::<Vec<_>>()
        };
        // A hint goes to those who own the key; a fallback is given none by readers.
        let stands_in = |endpoint: Endpoint| {
            let mut all = self.theirs.iter().map(|(voter, _)| voter).chain([&self.me]);
            all.any(|voter| voter.endpoint == endpoint && voter.stands_in)
        };
        held.iter().filter(|(endpoint, _)| !stands_in(*endpoint)).flat_map(lacks).collect()
    }

    /// Whether a replica that answered later knew of more than the answer told. The write may have come meanwhile, and
    /// with R + W > N it then was not acknowledged before this get began.
    #[must_use]
    pub fn was_stale(&self) -> bool {
        let differs = |told| self.reconciled().is_ok_and(|all| all.version() != told);
        self.late && self.told.is_some_and(differs)
    }

    /// Lets go of what it was told.
    pub fn clear(&mut self) {
        self.own = Own::None;
        self.theirs.clear();
    }

    /// Nothing more can come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.answered && self.theirs.iter().all(|(_, theirs)| theirs.is_some())
    }

    /// "The same as yours" says nothing when ours is lost: those who said it are asked again.
    fn unusable(&mut self) -> Few<Endpoint> {
        if self.own != Own::Lost || self.named {
            return Few::new();
        }
        let same = self.theirs.iter_mut().filter(|(_, theirs)| *theirs == Some(Theirs::Same));
        same.map(|(voter, theirs)| {
            *theirs = None;
            voter.endpoint
        })
        .collect()
    }

    /// The answer, and which version it is.
    fn values(&self, sealer: Option<&Sealer>, key: &[u8], sloppy: bool) -> Result<(VersionHash, Outcome), Malformed> {
        let agreed = !self.theirs.iter().any(|(_, theirs)| matches!(theirs, Some(Theirs::Object(_))));
        if let (true, Own::Body(body)) = (agreed, &self.own)
            && let object = view(body)?
            && let Some(value) = object.only_value()
        {
            // The usual case: what is here is all there is, and is told as it lies.
            let version = object.version();
            let context = sealer.map(|sealer| sealer.seal_object(key, object, version)).unwrap_or_default();
            let values = smallvec![body.slice_ref(value)];
            return Ok((version, Outcome::Values { context, values, sloppy }));
        }
        let object = self.reconciled()?;
        let version = object.version();
        let seal = |sealer: &Sealer| sealer.seal(key, &Context { seen: object.clock.clone(), version });
        let context = sealer.map(seal).unwrap_or_default();
        Ok((version, Outcome::Values { context, values: object.values().into(), sloppy }))
    }

    fn reconciled(&self) -> Result<Object, Malformed> {
        let own = match &self.own {
            Own::Body(body) => Object::decode(body)?,
            _ => Object::default(),
        };
        let objects = self.theirs.iter().filter_map(|(_, theirs)| match theirs {
            Some(Theirs::Object(object)) => Some(object),
            _ => None,
        });
        Ok(objects.fold(own, |all, object| all.reconcile(object)))
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::{CoreId, NodeId};

    use super::*;
    use crate::{
        object::Sibling,
        version::{Actor, Clock, Dot},
    };

    fn node(id: u16) -> Endpoint {
        Endpoint::new(NodeId(id), CoreId(0))
    }

    fn object(writer: u16, value: &'static str) -> Object {
        let dot = Dot { actor: Actor { node: writer, core: 0, incarnation: 1 }, counter: 1 };
        let write = Sibling { dot, timestamp_ms: 0, token: None, value: Some(Bytes::from_static(value.as_bytes())) };
        Object::default().after_write(&Clock::new(), write)
    }

    fn get(needed: u8) -> GetCoordinator {
        get_with(needed, Vec::new())
    }

    fn get_with(needed: u8, fallbacks: Vec<Endpoint>) -> GetCoordinator {
        let owners = [1, 2, 3].map(|id| Voter { endpoint: node(id), groups: Groups::PRESENT, stands_in: false });
        GetCoordinator::new(node(1), needed, &owners, fallbacks.into())
    }

    fn progress(get: &mut GetCoordinator) -> Progress {
        get.progress(Some(&Sealer::new("secret")), b"key").unwrap()
    }

    fn values_of(progress: Progress) -> Vec<Bytes> {
        match progress {
            Progress::Answer(Outcome::Values { values, .. }) => values.into_vec(),
            other => panic!("values were expected, not {other:?}"),
        }
    }

    #[test]
    fn the_own_copy_and_one_that_agrees_are_enough_for_two() {
        let mut get = get(2);
        get.handle_probed(node(3), Theirs::Same);
        assert!(matches!(progress(&mut get), Progress::Open), "what they agree with is not known yet");
        get.handle_own(Own::Body(object(1, "a").encode()));
        assert_eq!(values_of(progress(&mut get)), ["a"]);
        assert!(matches!(progress(&mut get), Progress::Open), "an answer is given once");
        assert!(!get.is_complete());
        get.handle_probed(node(2), Theirs::Unknown);
        assert!(get.is_complete());
    }

    #[test]
    fn a_later_answer_tells_whether_the_get_was_stale() {
        let stale = |later: Theirs| {
            let mut get = get(2);
            get.handle_own(Own::Body(object(1, "a").encode()));
            get.handle_probed(node(2), Theirs::Same);
            assert_eq!(values_of(progress(&mut get)), ["a"]);
            get.handle_probed(node(3), later);
            get.was_stale()
        };
        assert!(stale(Theirs::Object(object(2, "b"))));
        assert!(!stale(Theirs::Object(object(1, "a"))), "it says the same in full");
        assert!(!stale(Theirs::Same) && !stale(Theirs::Absent) && !stale(Theirs::Unknown));
    }

    #[test]
    fn a_late_own_copy_is_told_in_full_by_who_holds_the_same() {
        let late = |object: Object| {
            let mut get = get(2);
            assert_eq!(get.may_tell_in_full(), None);
            get.handle_probed(node(2), Theirs::Same);
            get.handle_probed(node(3), Theirs::Same);
            assert_eq!(get.may_tell_in_full(), Some(node(2)));
            get.ask_in_full(node(2), self::object(1, "a").version());
            assert_eq!(get.may_tell_in_full(), None, "once");
            assert!(matches!(progress(&mut get), Progress::Open));
            get.handle_probed(node(2), Theirs::Object(object));
            get
        };
        let mut get = late(object(1, "a"));
        assert_eq!(values_of(progress(&mut get)), ["a"]);
        assert!(get.is_complete() && !get.was_stale());
        assert_eq!(get.repairs(node(1)), []);
        // Another version than the one that was named says nothing of what the third one has.
        let mut get = late(object(2, "b"));
        assert!(matches!(progress(&mut get), Progress::Open));
        get.handle_own(Own::Body(object(1, "a").encode()));
        assert_eq!(values_of(progress(&mut get)).len(), 2);
    }

    #[test]
    fn what_others_know_better_is_reconciled() {
        let mut get = get(2);
        get.handle_own(Own::Body(object(1, "a").encode()));
        get.handle_probed(node(2), Theirs::Object(object(2, "b")));
        let mut values = values_of(progress(&mut get));
        values.sort();
        assert_eq!(values, ["a", "b"]);
    }

    #[test]
    fn a_lost_own_copy_gives_no_credit_and_no_meaning_to_the_same() {
        let mut get = get(2);
        get.handle_probed(node(2), Theirs::Same);
        get.handle_own(Own::Lost);
        match progress(&mut get) {
            Progress::Ask(replicas) => assert_eq!(replicas[..], [node(2)]),
            other => panic!("node 2 should be asked again, not {other:?}"),
        }
        get.handle_probed(node(2), Theirs::Object(object(1, "a")));
        assert!(matches!(progress(&mut get), Progress::Open));
        get.handle_probed(node(3), Theirs::Object(object(1, "a")));
        assert_eq!(values_of(progress(&mut get)), ["a"]);
    }

    #[test]
    fn a_fallback_counts_only_with_a_hint_and_the_answer_says_so() {
        let mut get = get_with(2, vec![node(4), node(5)]);
        get.handle_own(Own::Absent);
        get.handle_probed(node(2), Theirs::Unknown);
        get.handle_probed(node(3), Theirs::Unknown);
        assert_eq!(get.engage()[..], [node(4), node(5)]);
        get.handle_probed(node(4), Theirs::Unknown);
        assert!(get.engage().is_empty(), "nobody is left");
        assert!(matches!(progress(&mut get), Progress::Open), "the absent key of one owner and no more");
        get.handle_probed(node(5), Theirs::Object(object(1, "a")));
        let Progress::Answer(Outcome::Values { values, sloppy, .. }) = progress(&mut get) else {
            panic!("two have told")
        };
        assert_eq!((&values[..], sloppy), (&[Bytes::from_static(b"a")][..], true));
        assert_eq!(get.repairs(node(1)), [(node(1), object(1, "a"))], "the owner gets it, no fallback does");
    }

    #[test]
    fn who_owns_nothing_gives_no_credit() {
        let owners = [2, 3].map(|id| Voter { endpoint: node(id), groups: Groups::PRESENT, stands_in: false });
        let mut get = GetCoordinator::new(node(1), 2, &owners, vec![node(4)].into());
        get.handle_own(Own::None);
        get.handle_probed(node(2), Theirs::Absent);
        assert!(matches!(progress(&mut get), Progress::Open));
        get.handle_probed(node(3), Theirs::Object(object(1, "a")));
        assert_eq!(values_of(progress(&mut get)), ["a"]);
        assert_eq!(get.repairs(node(1)), [(node(2), object(1, "a"))]);
    }

    #[test]
    fn each_replica_is_sent_what_it_lacks_and_no_more() {
        let (a, b) = (object(1, "a"), object(2, "b"));
        let repairs = |own: Own, second: Theirs, third: Theirs| {
            let mut get = get(2);
            get.handle_own(own);
            get.handle_probed(node(2), second);
            get.handle_probed(node(3), third);
            get.repairs(node(1))
        };
        let body = |object: &Object| Own::Body(object.encode());
        assert_eq!(repairs(body(&a), Theirs::Same, Theirs::Same), []);
        assert_eq!(repairs(body(&a), Theirs::Same, Theirs::Unknown), []);
        assert_eq!(repairs(body(&a), Theirs::Same, Theirs::Absent), [(node(3), a.clone())]);
        assert_eq!(
            repairs(Own::Absent, Theirs::Absent, Theirs::Object(a.clone())),
            [(node(2), a.clone()), (node(1), a.clone())]
        );
        assert_eq!(repairs(Own::Lost, Theirs::Object(a.clone()), Theirs::Object(a.clone())), [(node(1), a.clone())]);
        // Siblings cross; a version that covers both goes alone.
        let crossed = [(node(2), a.clone()), (node(3), b.clone()), (node(3), a.clone()), (node(1), b.clone())];
        let mut sent = repairs(body(&a), Theirs::Object(b.clone()), Theirs::Absent);
        assert!(crossed.iter().all(|wanted| sent.contains(wanted)) && sent.len() == 4, "{sent:?}");
        let both = a.reconcile(&b);
        sent = repairs(body(&a), Theirs::Object(b), Theirs::Object(both.clone()));
        assert_eq!(sent, [(node(2), both.clone()), (node(1), both)]);
    }

    #[test]
    fn an_answer_that_cannot_come_is_not_waited_for() {
        let mut lost = get(2);
        lost.handle_own(Own::Absent);
        lost.handle_probed(node(2), Theirs::Unknown);
        assert!(matches!(progress(&mut lost), Progress::Open));
        lost.handle_probed(node(3), Theirs::Unknown);
        let expected = Failure::Unavailable { reachable: 1, needed: 2 };
        assert!(matches!(progress(&mut lost), Progress::Answer(Outcome::Failed(failure)) if failure == expected));
        assert!(lost.handle_timeout().is_none(), "it was answered");

        let mut late = get(3);
        late.handle_own(Own::Absent);
        late.handle_probed(node(2), Theirs::Absent);
        let outcome = late.handle_timeout().unwrap();
        assert_eq!(outcome, Outcome::Failed(Failure::Timeout { acks: 2, needed: 3 }));
    }
}
