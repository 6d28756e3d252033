//! Nodes that ask each other about what they have to forget, over a network that loses only what it is told to lose.

use std::collections::VecDeque;

use quorate_net::{
    id::{CoreId, NodeId},
    message::MappedNode,
};

use super::*;
use crate::ring::{Member, Table};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(100);
const INTERVAL: Duration = Duration::from_secs(10);
const STAMP: RingStamp = RingStamp { term: 1, hash: 1 };
const PARTITIONS: u16 = 64;
/// From this version on they are values.
const PASTS: u64 = 100_000;

/// What a node holds.
#[derive(Default)]
struct Held {
    /// Versions with a past.
    versions: BTreeSet<(u16, KeyVersion)>,
    /// Keys that have none.
    values: BTreeSet<(u16, HashedKey)>,
    hints: BTreeSet<HashedKey>,
}

impl Holdings for Held {
    fn level(&self, _: u16) -> u8 {
        1
    }

    fn reapable(&self, partition: u16, level: u8, index: u64) -> Vec<Reapable> {
        let here = |version: &KeyVersion| version.key.fingerprint % (1 << level) == index;
        let all = self.versions.range((partition, FIRST)..=(partition, LAST)).map(|(_, version)| *version);
        all.filter(here).map(|version| Reapable { version, tombstone: version.version < PASTS }).collect()
    }

    fn holds(&self, partition: u16, version: &KeyVersion) -> bool {
        self.versions.contains(&(partition, *version))
    }

    fn hints(&self, _: u16, version: &KeyVersion) -> bool {
        self.hints.contains(&version.key)
    }

    fn holds_any(&self, partition: u16) -> bool {
        let of = |held: u16| held == partition;
        self.versions.iter().any(|held| of(held.0)) || self.values.iter().any(|held| of(held.0))
    }
}

/// Four nodes, three of them primaries of each partition.
struct Cluster {
    now: Instant,
    ring: Rc<Ring>,
    reapers: Vec<Reaper>,
    held: Vec<Held>,
    /// Whom nothing reaches.
    deaf: BTreeSet<usize>,
    /// Who forgot what, and when.
    forgotten: Vec<(Instant, usize, KeyVersion)>,
    /// How many keys each asking was about.
    asked: Vec<usize>,
}

fn endpoint(node: usize) -> Endpoint {
    Endpoint::new(NodeId(node as u16 + 1), CoreId(0))
}

fn tombstone(number: u64) -> KeyVersion {
    KeyVersion { key: HashedKey { fingerprint: number, tag: 1 }, version: 1000 + number }
}

fn members(nodes: usize) -> Vec<Member> {
    let member = |node: usize| {
        let id = endpoint(node).node;
        let node = MappedNode { id, address: format!("127.0.0.{id}"), cores: 1, port: 1, core_port: 2 };
        Member { node, rack: id.to_string(), weight: 1.0 }
    };
    (0..nodes).map(member).collect()
}

fn settings(node: usize) -> Settings {
    Settings { wait: WAIT, timeout: SECOND, interval: INTERVAL, ..Settings::typical(endpoint(node)) }
}

impl Cluster {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(tune: impl Fn(&mut Settings)) -> Self {
        let ring = Rc::new(Ring::new(PARTITIONS, 3, members(4)).unwrap());
        let reaper = |node| {
            let mut settings = settings(node);
            tune(&mut settings);
            Reaper::new(settings, (ring.clone(), STAMP), Instant(0), node as u64 * 1000)
        };
        Self {
            now: Instant(0),
            reapers: (0..4).map(reaper).collect(),
            held: (0..4).map(|_| Held::default()).collect(),
            ring,
            deaf: BTreeSet::new(),
            forgotten: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// The primaries of the first partition, then its fallback.
    fn places(&self) -> Vec<usize> {
        self.ring.preference(0).iter().map(|endpoint| usize::from(endpoint.node.0) - 1).collect()
    }

    /// All primaries hold these tombstones.
    fn bury(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let places = self.places();
        for number in numbers {
            for &node in &places[..3] {
                self.held[node].versions.insert((0, tombstone(number)));
            }
        }
    }

    fn act(&mut self, node: usize, actions: Vec<Action>) {
        let mut queue: VecDeque<(usize, Action)> = actions.into_iter().map(|action| (node, action)).collect();
        while let Some((node, action)) = queue.pop_front() {
            match action {
                Action::Send { to, message } => {
                    let to = usize::from(to.node.0) - 1;
                    if let Reap::Ask { keys, .. } = &message {
                        self.asked.push(keys.len());
                    }
                    if self.deaf.contains(&to) || self.deaf.contains(&node) {
                        continue;
                    }
                    let mut out = Vec::new();
                    self.reapers[to].handle_reap(self.now, endpoint(node), message, &self.held[to], &mut out);
                    queue.extend(out.into_iter().map(|action| (to, action)));
                }
                Action::Forget { partition, version } => {
                    if self.held[node].versions.remove(&(partition, version)) {
                        self.forgotten.push((self.now, node, version));
                    }
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.reapers.iter().filter_map(Reaper::next_timeout).min();
            let Some(next) = next.filter(|&next| next <= until) else { break };
            self.now = next.max(self.now);
            self.tick();
        }
        self.now = until;
    }

    fn tick(&mut self) {
        for node in 0..self.reapers.len() {
            if self.reapers[node].next_timeout().is_some_and(|at| at <= self.now) {
                let mut out = Vec::new();
                self.reapers[node].handle_timeout(self.now, &self.held[node], &mut out);
                self.act(node, out);
            }
        }
    }

    /// The one that asks, and everybody's first partition.
    fn asker(&mut self) -> &mut Reaper {
        let first = self.places()[0];
        &mut self.reapers[first]
    }
}

/// The longest until the first asking is through, and the second.
const ONCE: Duration = Duration::from_secs(11);

#[test]
fn what_all_have_is_forgotten_after_the_wait_and_not_before() {
    let mut cluster = Cluster::new();
    cluster.bury([1, 2]);
    cluster.run(WAIT - Duration::from_millis(1));
    assert_eq!(cluster.forgotten, []);
    assert_eq!(cluster.asker().oldest(), Some(Instant(0)));
    cluster.run(ONCE);
    assert_eq!(cluster.forgotten.len(), 6);
    assert!(cluster.forgotten.iter().all(|(at, ..)| at.since(Instant(0)) >= WAIT), "{:?}", cluster.forgotten);
    assert_eq!(cluster.asker().statistics().proven, 2);
    cluster.run(INTERVAL * 2);
    assert_eq!(cluster.asker().oldest(), None);
}

/// Whatever is against it, when it begins: nothing is forgotten as long as it lasts.
fn stays(change: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    change(&mut cluster);
    cluster.run(WAIT * 5);
    assert_eq!(cluster.forgotten, []);
    cluster
}

#[test]
fn whoever_is_away_blocks_it_and_it_goes_on_afterwards() {
    for place in 1..4 {
        let mut cluster = stays(|cluster| {
            let node = cluster.places()[place];
            cluster.deaf.insert(node);
        });
        cluster.deaf.clear();
        cluster.run(WAIT + ONCE * 2);
        assert_eq!(cluster.forgotten.len(), 3, "place {place}");
    }
}

#[test]
fn a_batch_is_given_up_when_somebody_goes_down() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(WAIT / 2);
    let peer = endpoint(cluster.places()[3]);
    cluster.asker().handle_peer(peer, false);
    cluster.asker().handle_peer(peer, true);
    assert_eq!(cluster.asker().statistics().given_up, 1);
    cluster.run(WAIT - ONCE);
    assert_eq!(cluster.forgotten, []);
    cluster.run(WAIT);
    assert_eq!(cluster.forgotten.len(), 3);
}

#[test]
fn nothing_begins_while_somebody_is_down() {
    let cluster = stays(|cluster| {
        let peer = endpoint(cluster.places()[2]);
        cluster.asker().handle_peer(peer, false);
    });
    assert!(cluster.asked.is_empty());
}

#[test]
fn a_primary_without_exactly_this_version_blocks_it() {
    for place in 1..3 {
        stays(|cluster| {
            let node = cluster.places()[place];
            cluster.held[node].versions.clear();
        });
        stays(|cluster| {
            let node = cluster.places()[place];
            cluster.held[node].versions = BTreeSet::from([(0, KeyVersion { version: 7, ..tombstone(1) })]);
        });
    }
}

#[test]
fn a_hint_of_the_key_blocks_it_wherever_it_lies() {
    for place in 0..4 {
        let mut cluster = stays(|cluster| {
            let node = cluster.places()[place];
            cluster.held[node].hints.insert(tombstone(1).key);
        });
        cluster.held.iter_mut().for_each(|grave| grave.hints.clear());
        cluster.run(WAIT + ONCE * 2);
        assert_eq!(cluster.forgotten.len(), 3, "place {place}");
    }
}

#[test]
fn an_old_copy_of_the_partition_blocks_it() {
    stays(|cluster| {
        let node = cluster.places()[3];
        cluster.held[node].values.insert((0, tombstone(9).key));
    });
}

#[test]
fn a_key_that_is_not_ready_blocks_no_other() {
    let mut cluster = Cluster::new();
    cluster.bury([2, 4]);
    let node = cluster.places()[1];
    cluster.held[node].hints.insert(tombstone(2).key);
    cluster.run(WAIT + ONCE);
    let forgotten: BTreeSet<u64> = cluster.forgotten.iter().map(|(_, _, key)| key.key.fingerprint).collect();
    assert_eq!(forgotten, BTreeSet::from([4]));
}

/// Between the two askings it has to begin anew: all that can happen then.
#[test]
fn what_happens_between_the_askings_counts() {
    let changes: [fn(&mut Cluster, usize); 3] = [
        |cluster, node| cluster.held[node].hints.extend([tombstone(1).key]),
        |cluster, node| cluster.held[node].values.extend([(0, tombstone(9).key)]),
        |cluster, node| cluster.deaf.extend([node]),
    ];
    for change in changes {
        let mut cluster = Cluster::new();
        cluster.bury([1]);
        cluster.run(WAIT / 2);
        let node = cluster.places()[3];
        change(&mut cluster, node);
        cluster.run(WAIT * 3);
        assert_eq!(cluster.forgotten, []);
    }
}

#[test]
fn a_ring_that_changed_begins_anew_and_one_that_changes_begins_nothing() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(WAIT / 2);
    let (ring, now) = (cluster.ring.clone(), cluster.now);
    // Who asks goes by another ring than the others: they are no witnesses.
    cluster.asker().handle_ring(now, ring.clone(), RingStamp { term: 2, hash: 2 });
    cluster.run(WAIT * 2);
    assert_eq!(cluster.forgotten, []);
    cluster.reapers.iter_mut().for_each(|reaper| reaper.handle_ring(now, ring.clone(), RingStamp { term: 2, hash: 2 }));
    cluster.run(WAIT + ONCE * 2);
    assert_eq!(cluster.forgotten.len(), 3);

    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(WAIT / 2);
    let table = Table::founded(PARTITIONS, 3, &members(4)).unwrap();
    let changing = Rc::new(Ring::of(&table, Some(&table), members(4)));
    let now = cluster.now;
    cluster.reapers.iter_mut().for_each(|reaper| reaper.handle_ring(now, changing.clone(), STAMP));
    assert_eq!(cluster.asker().statistics().given_up, 1);
    cluster.run(WAIT * 5);
    assert_eq!(cluster.forgotten, []);
}

/// It takes hints, so it is asked, though no table knows it.
#[test]
fn who_comes_to_belong_is_asked() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(WAIT / 2);
    let table = Table::founded(PARTITIONS, 3, &members(4)).unwrap();
    let ring = Rc::new(Ring::of(&table, None, members(5)));
    cluster.reapers.push(Reaper::new(settings(4), (ring.clone(), STAMP), cluster.now, 0));
    cluster.held.push(Held { hints: BTreeSet::from([tombstone(1).key]), ..Held::default() });
    let now = cluster.now;
    cluster.reapers.iter_mut().for_each(|reaper| reaper.handle_ring(now, ring.clone(), STAMP));
    cluster.run(WAIT * 3);
    assert_eq!(cluster.forgotten, []);
    cluster.held[4].hints.clear();
    cluster.run(WAIT + ONCE * 2);
    assert_eq!(cluster.forgotten.len(), 3);
}

#[test]
fn an_answer_to_the_asking_before_does_not_count_for_this_one() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    let places = cluster.places();
    let first = places[0];
    let asks = |cluster: &mut Cluster, now| {
        let mut out = Vec::new();
        cluster.reapers[first].handle_timeout(now, &cluster.held[first], &mut out);
        out.into_iter().find_map(|action| match action {
            Action::Send { message: Reap::Ask { number, .. }, .. } => Some(number),
            _ => None,
        })
    };
    let answer = |cluster: &mut Cluster, now, place: usize, number| {
        let (mut out, ready) = (Vec::new(), vec![true]);
        let from = endpoint(places[place]);
        cluster.reapers[first].handle_reap(now, from, Reap::Are { number, ready }, &cluster.held[first], &mut out);
        out
    };
    // The tombstone is in the second leaf of the first partition that it looks at.
    let mut now = Instant(0);
    let one = loop {
        if let Some(number) = asks(&mut cluster, now) {
            break number;
        }
        now = cluster.reapers[first].next_timeout().unwrap();
    };
    (1..4).for_each(|place| assert_eq!(answer(&mut cluster, now, place, one), []));
    let later = now + WAIT;
    let two = asks(&mut cluster, later).expect("asks again");
    assert_ne!(one, two);
    assert_eq!(answer(&mut cluster, later, 1, two), []);
    assert_eq!(answer(&mut cluster, later, 2, two), []);
    // Late, doubled, or from who has answered: none of them is the third answer.
    assert_eq!(answer(&mut cluster, later, 3, one), []);
    assert_eq!(answer(&mut cluster, later, 2, two), []);
    assert_eq!(answer(&mut cluster, later, 3, two).len(), 3);
}

/// What was on its way to who stood still waits for it, so a wait that it slept through is none.
#[test]
fn who_stood_still_asks_for_the_first_time_again() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(ONCE);
    cluster.now = cluster.now + WAIT * 2;
    cluster.tick();
    cluster.run(WAIT - ONCE);
    assert_eq!(cluster.forgotten, []);
    cluster.run(ONCE * 2);
    assert_eq!(cluster.forgotten.len(), 3);
}

#[test]
fn batches_are_bounded_and_all_have_their_turn() {
    let mut cluster = Cluster::with(|settings| settings.batches_max = 2);
    cluster.bury(0..1500);
    cluster.run(WAIT / 2);
    assert_eq!(cluster.asked, [KEYS_MAX; 6]);
    cluster.run(WAIT * 10);
    assert_eq!(cluster.forgotten.len(), 3 * 1500);
    assert!(cluster.asked.iter().all(|&keys| keys <= KEYS_MAX), "{:?}", cluster.asked);
}

#[test]
fn what_was_proven_is_forgotten_again_without_another_wait() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    cluster.run(WAIT + ONCE);
    assert_eq!(cluster.forgotten.len(), 3);
    cluster.bury([1]);
    cluster.run(ONCE);
    assert_eq!(cluster.forgotten.len(), 6);
}

#[test]
fn only_the_first_primary_has_others_forget() {
    let mut cluster = Cluster::new();
    cluster.bury([1]);
    let places = cluster.places();
    let told = |cluster: &mut Cluster, from: usize, ring| {
        let mut out = Vec::new();
        let message = Reap::Forget { ring, partition: 0, keys: vec![tombstone(1)] };
        let (now, to) = (cluster.now, places[2]);
        cluster.reapers[to].handle_reap(now, endpoint(places[from]), message, &cluster.held[to], &mut out);
        out.len()
    };
    assert_eq!(told(&mut cluster, 1, STAMP), 0);
    assert_eq!(told(&mut cluster, 0, RingStamp { term: 2, hash: 1 }), 0);
    assert_eq!(told(&mut cluster, 0, STAMP), 1);
}
