//! The version algebra against explicit causal histories.

use bytes::Bytes;
use quorate_engine::{disk::simulated::Random, versions::Versions};
use quorate_net::key::Key;
use quorate_node::{
    context::{Context, Sealer},
    coordinator::{
        Local,
        put::{Written, written},
    },
    object::{Object, Sibling, VersionHash, view},
    replica::{Decision, decide},
    summary::ActorTable,
    version::{Actor, Clock, Dot, VersionVector},
};
use quorate_tests::{
    causality::{Events, Histories},
    seeds::for_each_seed,
};

/// One replica of one key: the object, the same in explicit sets, and the actor that writes here.
#[derive(Clone)]
struct Replica {
    object: Option<Object>,
    known: Events,
    actor: Actor,
    counter: u64,
}

/// What a client may hand back.
#[derive(Clone)]
struct Given {
    context: Context,
    seen: Events,
}

/// Replicas of one key, written and reconciled at random.
struct Universe {
    random: Random,
    histories: Histories,
    replicas: Vec<Replica>,
    given: Vec<Given>,
    /// Messages under way: an object, what it knows, and the version that it was built on.
    messages: Vec<(Object, Events, VersionHash)>,
    sealer: Sealer,
    actors: ActorTable,
    tokens: bool,
}

impl Universe {
    fn new(seed: u64, tokens: bool) -> Self {
        let mut random = Random::new(seed);
        let replicas = (1..=random.range(2..5) as u16).map(|node| Replica {
            object: None,
            known: Events::default(),
            actor: Actor { node, core: 0, incarnation: 7 },
            counter: 0,
        });
        Self {
            replicas: replicas.collect(),
            histories: Histories::default(),
            given: vec![Given { context: Context::default(), seen: Events::default() }],
            messages: Vec::new(),
            sealer: Sealer::new("an algebra's secret"),
            actors: ActorTable::default(),
            tokens,
            random,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.range(0..10) {
                0..4 => self.put(),
                4..6 => self.get(),
                6..9 => self.deliver(),
                _ => self.restart(),
            }
        }
    }

    /// What the core knows before it reads the body; the body as well in half of the cases.
    fn local(&mut self, at: usize) -> Local {
        let Some(object) = &self.replicas[at].object else { return Local::absent() };
        let summary = self.actors.summarise(&object.encode()).unwrap();
        Local {
            version: self.actors.version(summary),
            outline: self.actors.outline(summary),
            has_value: self.actors.has_value(summary),
            object: self.random.one_in(2).then(|| object.clone()),
            lost: false,
        }
    }

    fn put(&mut self) {
        let at = self.random.index(self.replicas.len());
        let given = (!self.random.one_in(3)).then(|| self.given[self.random.index(self.given.len())].clone());
        let value = (!self.random.one_in(5)).then(|| Bytes::from(self.random.next_u64().to_string()));
        let token = (self.tokens && self.random.one_in(2)).then(|| u128::from(self.random.range(0..6)));
        let mut local = self.local(at);
        let replica = &self.replicas[at];
        let dot = Dot { actor: replica.actor, counter: replica.counter + 1 + self.random.range(0..3) };
        let write = Sibling { dot, timestamp_ms: self.random.range(0..9), token, value: value.clone() };
        let context = given.as_ref().map(|given| &given.context);
        let made = written(&local, context, write.clone()).unwrap_or_else(|| {
            local.object.clone_from(&replica.object);
            written(&local, context, write).expect("with the body at hand every put can be made")
        });
        let Written { object, context } = made;

        // A blind put has seen what the coordinator holds.
        let base = replica.known.clone();
        let seen = given.map_or(base.clone(), |given| given.seen);
        let event = self.histories.add(dot, value, token, &seen).expect("dots are unique");
        let mut known = base.union(&seen);
        known.insert(event);
        self.check(&object, &known);

        let mut covered = seen;
        covered.insert(event);
        if object.siblings.len() == 1 {
            covered = known.clone();
        }
        self.give(context, covered);
        self.messages.push((object.clone(), known.clone(), local.version));
        let replica = &mut self.replicas[at];
        replica.counter = dot.counter;
        (replica.object, replica.known) = (Some(object), known);
    }

    /// Reconciles what some replicas hold, as a get does.
    fn get(&mut self) {
        let (mut object, mut known) = (Object::default(), Events::default());
        for replica in &self.replicas {
            if self.random.one_in(2)
                && let Some(theirs) = &replica.object
            {
                object = object.reconcile(theirs);
                known.extend(&replica.known);
            }
        }
        if known.is_empty() {
            return;
        }
        self.check(&object, &known);
        self.give(Context { version: object.version(), seen: object.clock }, known);
    }

    /// Delivers any message to any replica, perhaps again.
    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let (object, theirs, base) = self.messages[self.random.index(self.messages.len())].clone();
        let at = self.random.index(self.replicas.len());
        let body = object.encode();
        let incoming = view(&body).expect("a coordinator's object is whole");
        let mut local = self.local(at);
        let mut decision = decide(&local, incoming, base);
        if decision == Decision::NeedBody {
            local.object.clone_from(&self.replicas[at].object);
            decision = decide(&local, incoming, base);
        }
        let replica = &mut self.replicas[at];
        match decision {
            Decision::Keep => {}
            Decision::Take => replica.object = Some(object.clone()),
            Decision::Store(both) => replica.object = Some(both),
            Decision::NeedBody => panic!("the body is at hand"),
        }
        replica.known.extend(&theirs);
        let (object, known) = (replica.object.clone().unwrap(), replica.known.clone());
        self.check(&object, &known);
    }

    /// A core starts anew: another incarnation, and at times an older copy of its store.
    fn restart(&mut self) {
        let at = self.random.index(self.replicas.len());
        let incarnation = self.random.next_u64();
        let older =
            self.random.one_in(3).then(|| self.messages.get(self.random.index(self.messages.len().max(1))).cloned());
        let replica = &mut self.replicas[at];
        replica.actor.incarnation = incarnation;
        replica.counter = 0;
        match older.flatten() {
            Some((object, known, _)) => (replica.object, replica.known) = (Some(object), known),
            None if incarnation.is_multiple_of(8) => (replica.object, replica.known) = (None, Events::default()),
            None => {}
        }
    }

    /// The siblings are those that the explicit histories have, and the clock claims what is known and nothing else.
    fn check(&self, object: &Object, known: &Events) {
        let live = object.siblings.iter().map(|sibling| self.histories.event(sibling.dot).expect("it was written"));
        let live: Events = live.collect();
        if self.tokens {
            assert_eq!(self.histories.fault(&live, known), None);
        } else {
            assert_eq!(live, self.histories.maximal(known));
        }
        assert_eq!(self.histories.covered(&object.clock), *known, "the clock of {object:?}");
        let body = object.encode();
        assert_eq!(Object::decode(&body).as_ref(), Ok(object));
        let viewed = view(&body).unwrap();
        assert_eq!((viewed.version(), viewed.has_value()), (object.version(), object.has_value()));
        let summary = self.actors.summarise(&body).expect("it is an object");
        assert_eq!(self.actors.version(summary), object.version());
        assert_eq!(self.actors.has_value(summary), object.has_value());
        if let Some(outline) = self.actors.outline(summary) {
            let live = object.siblings.iter().map(|sibling| sibling.dot).collect();
            assert_eq!((outline.clock, outline.live), (object.clock.clone(), live));
        }
    }

    /// P4: a context covers what its reader was shown, with the past of that, and nothing else.
    fn give(&mut self, context: Context, seen: Events) {
        assert_eq!(self.histories.covered(&context.seen), seen, "the context {context:?}");
        let key = Key::new(b"b", b"k").unwrap();
        let text = self.sealer.seal(key.encoded(), &context);
        assert_eq!(self.sealer.open(key.encoded(), &text).as_ref(), Ok(&context));
        self.given.push(Given { context, seen });
    }
}

#[test]
fn siblings_and_contexts_are_those_of_explicit_histories() {
    for_each_seed(4_000, |seed| {
        let mut universe = Universe::new(seed, false);
        universe.run(60);
    });
}

#[test]
fn tokens_lose_nothing_that_no_twin_stands_for() {
    for_each_seed(2_000, |seed| {
        let mut universe = Universe::new(seed, true);
        universe.run(40);
    });
}

/// Any objects of one universe, reachable ones only.
fn objects(seed: u64) -> Vec<Object> {
    let mut universe = Universe::new(seed, false);
    universe.run(30);
    let mut objects: Vec<_> = universe.messages.into_iter().map(|(object, ..)| object).collect();
    objects.extend(universe.replicas.into_iter().filter_map(|replica| replica.object));
    objects
}

#[test]
fn reconcile_is_commutative_associative_and_idempotent() {
    for_each_seed(400, |seed| {
        let objects = objects(seed);
        let mut random = Random::new(seed);
        if objects.is_empty() {
            return;
        }
        for _ in 0..30 {
            let [a, b, c] = std::array::from_fn(|_| &objects[random.index(objects.len())]);
            assert_eq!(a.reconcile(a), *a);
            assert_eq!(a.reconcile(b), b.reconcile(a));
            assert_eq!(a.reconcile(b).reconcile(c), a.reconcile(&b.reconcile(c)));
            assert_eq!(a.reconcile(b).reconcile(b), a.reconcile(b));
        }
    });
}

/// With tokens the order may show for a while (a sibling whose twin was replaced elsewhere), but never in the end.
#[test]
fn replicas_that_exchange_all_converge_with_tokens_too() {
    for_each_seed(1_000, |seed| {
        let mut universe = Universe::new(seed, true);
        universe.run(40);
        let replicas = &mut universe.replicas;
        for _ in 0..3 {
            for a in 0..replicas.len() {
                for b in 0..replicas.len() {
                    let other = replicas[b].object.clone().unwrap_or_default();
                    let mine = replicas[a].object.clone().unwrap_or_default();
                    replicas[a].object = Some(mine.reconcile(&other));
                }
            }
        }
        for replica in replicas.iter() {
            assert_eq!(replica.object, replicas[0].object, "seed {seed}");
        }
    });
}

/// Figure 3 of the paper: D1[(Sx,1)], D2[(Sx,2)], D3[(Sx,2),(Sy,1)], D4[(Sx,2),(Sz,1)], D5[(Sx,3),(Sy,1),(Sz,1)].
#[test]
fn the_papers_figure_3() {
    let actor = |node| Actor { node, core: 0, incarnation: 1 };
    let (x, y, z) = (actor(1), actor(2), actor(3));
    let write = |object: &Object, actor, counter, context: &Clock| {
        let dot = Dot { actor, counter };
        object
            .after_write(context, Sibling { dot, timestamp_ms: 0, token: None, value: Some(Bytes::from_static(b"D")) })
    };
    let vector = |entries: &[(Actor, u64)]| {
        let entries = entries.iter().map(|&(actor, counter)| Dot { actor, counter });
        Clock::from(VersionVector::from_entries(entries).unwrap())
    };
    let d1 = write(&Object::default(), x, 1, &Clock::new());
    let d2 = write(&d1, x, 2, &d1.clock);
    let d3 = write(&d2, y, 1, &d2.clock);
    let d4 = write(&d2, z, 1, &d2.clock);
    assert_eq!(d1.clock, vector(&[(x, 1)]));
    assert_eq!(d2.clock, vector(&[(x, 2)]));
    assert_eq!(d3.clock, vector(&[(x, 2), (y, 1)]));
    assert_eq!(d4.clock, vector(&[(x, 2), (z, 1)]));
    assert_eq!(d3.clock.partial_cmp(&d4.clock), None);
    let both = d3.reconcile(&d4);
    assert_eq!(both.siblings.len(), 2);
    assert_eq!(both.clock, vector(&[(x, 2), (y, 1), (z, 1)]));
    let d5 = write(&both, x, 3, &both.clock);
    assert_eq!(d5.clock, vector(&[(x, 3), (y, 1), (z, 1)]));
    assert_eq!(d5.siblings.len(), 1);
}
