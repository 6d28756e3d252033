//! Cores that deliver what they hold for each other, over networks that lose, double, delay and reorder.

mod world;

use std::time::Duration;

use bytes::Bytes;
use quorate_net::key::Key;

use self::world::{Faults, MS, PARTITIONS, Rng, World, endpoint, first, hashed, key, ring, written};
use super::Action;
use crate::anti_entropy::Tree;

/// A ring of some of the nodes, at times fewer than there are replicas.
fn any_ring(rng: &mut Rng, nodes: usize) -> std::rc::Rc<crate::ring::Ring> {
    let mut members: Vec<_> = (0..nodes).collect();
    while members.len() > 2 && rng.below(3) > 0 {
        members.remove(rng.below(members.len() as u64) as usize);
    }
    ring(&members)
}

/// A write that reaches some primaries at once, and some other nodes as a hint.
fn write(world: &mut World, number: u64, counter: u64) {
    let key = key(number);
    let bytes = world.rng.below(3000) as usize;
    let known = (0..world.nodes.len()).filter_map(|node| world.nodes[node].main.get(&key)).next().cloned();
    let object = match known {
        Some(known) if world.rng.below(2) == 0 => written(&known, 1, counter, bytes),
        _ => first(2 + world.rng.below(3) as u16, counter, bytes),
    };
    for node in world.primaries(&key) {
        if world.nodes[node].up && world.rng.below(2) == 0 {
            world.put(node, &key, &object);
        }
    }
    for node in 0..world.nodes.len() {
        if world.nodes[node].up && world.rng.below(3) == 0 {
            world.hint(node, &key, &object);
        }
    }
}

fn live_through_anything(world: &mut World) {
    let nodes = world.nodes.len() as u64;
    for counter in 1..=200 {
        let node = world.rng.below(nodes) as usize;
        match world.rng.below(20) {
            0 if world.nodes[node].up => world.stop(node),
            0..=2 if !world.nodes[node].up => world.start(node),
            3 => world.nodes[node].mute = !world.nodes[node].mute,
            4 if world.rng.below(3) == 0 => {
                let ring = any_ring(&mut world.rng, nodes as usize);
                world.set_ring(&ring);
            }
            5 => {
                let key = key(world.rng.below(60));
                world.damage(node, &key);
            }
            6 if world.nodes[node].up => {
                let (key, version) = (key(1000 + world.rng.below(10)), world.rng.next() >> 2 | 1);
                world.take_in(node, &key, Bytes::from_static(b"no object"), version);
            }
            _ => {
                let number = world.rng.below(60);
                write(world, number, counter);
            }
        }
        let time = Duration::from_micros(world.rng.below(60_000));
        world.run(time);
        world.check_counters();
    }
}

fn heal(world: &mut World) {
    for node in 0..world.nodes.len() {
        world.nodes[node].mute = false;
        if !world.nodes[node].up {
            world.start(node);
        }
    }
}

#[test]
fn whatever_happens_all_is_delivered_in_the_end() {
    let mut refused_forgets = 0;
    let (mut superseded, mut dropped, mut timeouts) = (0, 0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed, 6, |settings| settings.acknowledged_max = [0, 5, 1000][seed as usize % 3]);
        world.faults = Faults::MANY;
        world.forget_delay_us = [100, 100_000][seed as usize % 2];
        live_through_anything(&mut world);
        heal(&mut world);
        let took = world.run_until_drained(Duration::from_secs(120));
        assert!(took.is_some(), "seed {seed}: {} hints are held after two minutes", world.held());
        world.run(Duration::from_secs(5));
        assert!(world.nodes.iter().all(|node| node.core.is_idle()), "seed {seed}: something is owed, but nothing held");
        world.check_counters();
        world.check_forgotten();
        refused_forgets += world.refused_forgets;
        superseded += world.total(|s| s.superseded);
        dropped += world.total(|s| s.dropped);
        timeouts += world.total(|s| s.timeouts);
    }
    let hits = [refused_forgets, superseded, dropped, timeouts];
    assert!(hits.iter().all(|&hits| hits > 0), "something was never seen: {hits:?}");
}

#[test]
fn a_seed_repeats_exactly() {
    let run = || {
        let mut world = World::new(7, 6, |_| {});
        world.faults = Faults::MANY;
        live_through_anything(&mut world);
        (world.trace, world.sent.clone())
    };
    assert_eq!(run(), run());
}

/// The node `down` is stopped and lacks what the others have and its fallback holds: the keys of which it is a primary.
fn miss(world: &mut World, down: usize, keys: std::ops::Range<u64>) -> Vec<Key> {
    world.stop(down);
    let keys: Vec<_> = keys.map(key).filter(|key| world.primaries(key).contains(&down)).collect();
    for (counter, key) in (1..).zip(&keys) {
        let object = first(1, counter, 100);
        world.primaries(key).into_iter().filter(|&node| node != down).for_each(|node| world.put(node, key, &object));
        let fallback = fallback(world, key);
        world.hint(fallback, key, &object);
    }
    keys
}

fn fallback(world: &World, key: &Key) -> usize {
    let primaries = world.primaries(key);
    (0..world.nodes.len()).find(|node| !primaries.contains(node)).unwrap()
}

fn objects_sent(world: &World) -> u64 {
    world.sent.iter().filter(|((_, carries), _)| *carries).map(|(_, sent)| sent).sum()
}

#[test]
fn who_comes_back_gets_what_it_missed_and_the_others_are_sent_nothing() {
    let mut world = World::new(1, 5, |settings| settings.acknowledged_max = 10_000);
    let keys = miss(&mut world, 0, 0..500);
    world.run(Duration::from_secs(5));
    assert_eq!((world.held(), objects_sent(&world)), (keys.len(), 0));
    let probes = world.total(|s| s.probes);
    assert_eq!(probes, 2 * keys.len() as u64, "each of the others is asked once");
    world.run(Duration::from_secs(60));
    assert_eq!(world.total(|s| s.probes), probes, "nobody is asked what it has said");
    world.start(0);
    let took = world.run_until_drained(Duration::from_secs(5)).expect("drained");
    assert!(took < 500 * MS, "took {took:?}");
    assert_eq!(objects_sent(&world), keys.len() as u64);
    assert_eq!(world.total(|s| s.delivered), keys.len() as u64);
    assert_eq!(world.total(|s| s.probes), 3 * keys.len() as u64);
    world.check_forgotten();
}

#[test]
fn those_that_are_up_get_theirs_meanwhile() {
    let mut world = World::new(2, 5, |_| {});
    let key = key(1);
    let (primaries, holder) = (world.primaries(&key), fallback(&world, &key));
    world.stop(primaries[0]);
    let object = first(1, 1, 100);
    world.hint(holder, &key, &object);
    world.run(100 * MS);
    for &node in &primaries[1..] {
        assert_eq!(world.nodes[node].main.get(&key), Some(&object));
    }
    assert_eq!(world.held(), 1);
}

/// H6: the ring changes between hinting and delivery. The new owner gets it, and only then is it forgotten.
#[test]
fn h6_a_hint_goes_to_who_owns_the_partition_when_it_is_delivered() {
    let mut world = World::new(3, 5, |_| {});
    let keys = miss(&mut world, 0, 0..300);
    world.run(Duration::from_secs(2));
    assert_eq!(world.held(), keys.len());
    world.set_ring(&ring(&[1, 2, 3, 4]));
    world.sent.clear();
    assert!(world.run_until_drained(Duration::from_secs(10)).is_some());
    assert!(world.sent.keys().all(|&(to, _)| to != endpoint(0)), "the one that left was sent something");
    assert_eq!(world.forgotten.len(), keys.len());
    world.check_forgotten();
}

/// H6: the ring changes after all had it and before it is forgotten.
#[test]
fn h6_a_hint_is_not_forgotten_when_a_new_owner_comes_in_between() {
    let mut world = World::new(4, 5, |_| {});
    world.forget_delay_us = 1_000_000;
    let keys = miss(&mut world, 0, 0..100);
    world.start(0);
    world.run(50 * MS);
    world.set_ring(&ring(&[1, 2, 3, 4]));
    assert!(world.run_until_drained(Duration::from_secs(100)).is_some());
    assert!(world.refused_forgets > 0, "no hint was about to be forgotten");
    assert_eq!(world.total(|s| s.delivered), keys.len() as u64);
    world.check_forgotten();
}

/// H6: one that left and came back may have dropped what it had acknowledged.
#[test]
fn h6_who_left_the_ring_and_came_back_is_asked_again() {
    let mut world = World::new(5, 6, |settings| settings.acknowledged_max = 10_000);
    miss(&mut world, 0, 0..300);
    world.run(Duration::from_secs(2));
    world.set_ring(&ring(&[0, 2, 3, 4, 5]));
    world.set_ring(&ring(&[0, 1, 2, 3, 4, 5]));
    world.start(0);
    assert!(world.run_until_drained(Duration::from_secs(10)).is_some());
    assert!(world.sent.contains_key(&(endpoint(1), true)), "nothing was given back to the one that dropped it");
    world.check_forgotten();
}

/// When all that are left have it, nobody new is to be served: it is forgotten all the same.
#[test]
fn a_ring_that_shrinks_lets_go() {
    let mut world = World::new(6, 4, |settings| settings.acknowledged_max = 10_000);
    world.set_ring(&ring(&[0, 1, 2]));
    world.stop(0);
    for number in 0..50 {
        let object = first(1, number + 1, 100);
        world.hint(3, &key(number), &object);
    }
    world.run(Duration::from_secs(2));
    assert_eq!(world.held(), 50);
    world.set_ring(&ring(&[1, 2]));
    assert!(world.run_until_drained(Duration::from_secs(2)).is_some());
}

#[test]
fn a_core_that_owns_the_partition_now_gives_it_to_itself() {
    let mut world = World::new(7, 4, |_| {});
    let key = key(5);
    let own = world.primaries(&key)[0];
    world.hint(own, &key, &first(1, 1, 10));
    assert!(world.run_until_drained(Duration::from_secs(1)).is_some());
    assert!(world.nodes[own].main.contains_key(&key));
}

#[test]
fn a_silent_primary_does_not_hold_up_the_others() {
    let mut world = World::new(8, 6, |_| {});
    world.nodes[0].mute = true;
    let mut others = Vec::new();
    for number in 0..600 {
        let key = key(number);
        if !world.primaries(&key).contains(&0) {
            others.push(key.clone());
        }
        world.hint(5, &key, &first(1, number + 1, 50));
    }
    world.run(Duration::from_secs(3));
    let held = |key: &&Key| world.nodes[5].hints.find(world.partition(key), hashed(key)).is_some();
    assert_eq!(others.iter().filter(held).count(), 0, "of {}", others.len());
    // Those who share a partition with it have theirs, too.
    for number in 0..600 {
        let lacks = |&node: &usize| node != 0 && !world.nodes[node].main.contains_key(&key(number));
        assert!(!world.primaries(&key(number)).iter().any(lacks), "{number}");
    }
    let asked = world.sent.get(&(endpoint(0), false)).copied().unwrap_or(0);
    assert!(asked <= 8 * 6, "it was asked {asked} times in three seconds");
}

/// One that goes away in the middle is served from there on, not from the beginning.
#[test]
fn it_goes_on_where_it_stopped() {
    let mut world = World::new(9, 6, |settings| settings.acknowledged_max = 10_000);
    // With another one down, nothing is forgotten.
    world.stop(0);
    world.stop(1);
    let both = |key: &Key, world: &World| [0, 1].iter().all(|node| world.primaries(key).contains(node));
    let keys: Vec<_> = (0..3000).map(key).filter(|key| both(key, &world)).collect();
    for (counter, key) in (1..).zip(&keys) {
        world.hint(5, key, &first(1, counter, 10));
    }
    // All are there when it starts, so that each primary needs one round.
    world.stop(5);
    world.start(5);
    world.start(0);
    for _ in 0..20 {
        world.run(20 * MS);
        world.stop(0);
        world.run(5 * MS);
        world.start(0);
    }
    world.run(Duration::from_secs(2));
    let lacks = keys.iter().filter(|key| !world.nodes[0].main.contains_key(key)).count();
    assert_eq!((lacks, world.held()), (0, keys.len()));
    // Each time those under way begin anew, and no others.
    let asked = world.sent[&(endpoint(0), false)];
    assert!(asked <= keys.len() as u64 + 20 * 8, "asked {asked} times about {}", keys.len());
}

#[test]
fn a_newer_hint_is_not_forgotten_with_the_one_under_way() {
    let mut world = World::new(10, 5, |_| {});
    world.forget_delay_us = 50_000;
    let key = key(3);
    let (holder, mut object) = (fallback(&world, &key), first(1, 1, 100));
    for counter in 2..60 {
        world.hint(holder, &key, &object);
        object = written(&object, 1, counter, 100);
        world.run(3 * MS);
    }
    world.hint(holder, &key, &object);
    assert!(world.run_until_drained(Duration::from_secs(5)).is_some());
    for node in world.primaries(&key) {
        assert_eq!(world.nodes[node].main.get(&key), Some(&object));
    }
    assert!(world.total(|s| s.superseded) > 0);
    world.check_counters();
}

#[test]
fn no_more_is_sent_than_the_rate_allows() {
    let mut world = World::new(11, 4, |settings| settings.bytes_per_second = 100_000);
    for number in 0..400 {
        world.hint(number as usize % 4, &key(number), &first(1, number + 1, 2000));
    }
    let mut before = 0;
    for _ in 0..5 {
        world.run(Duration::from_secs(1));
        let sent = world.total(|s| s.bytes_sent);
        // Four cores, each with what it may have under way.
        assert!(sent - before <= 4 * (100_000 + 4 * (8 << 10)), "{} bytes in a second", sent - before);
        before = sent;
    }
    assert!(world.held() > 0);
    assert!(world.run_until_drained(Duration::from_secs(60)).is_some());
}

#[test]
fn a_hint_larger_than_all_room_goes_alone() {
    let mut world = World::new(12, 4, |_| {});
    for number in 0..20 {
        world.hint(3, &key(number), &first(1, number + 1, [100, 20_000][number as usize % 2]));
    }
    assert!(world.run_until_drained(Duration::from_secs(10)).is_some());
}

#[test]
fn what_was_held_before_the_start_is_delivered() {
    let mut world = World::new(13, 5, |_| {});
    miss(&mut world, 0, 0..200);
    for node in 1..5 {
        world.stop(node);
    }
    heal(&mut world);
    assert!(world.nodes.iter().any(|node| node.core.owed().count() > 0));
    assert!(world.run_until_drained(Duration::from_secs(5)).is_some());
    world.check_counters();
}

#[test]
fn an_empty_store_costs_nothing() {
    let mut world = World::new(14, 4, |_| {});
    assert!(world.nodes[0].core.is_idle() && world.nodes[0].core.next_timeout().is_none());
    world.run(Duration::from_secs(60));
    assert!(world.sent.is_empty());
    // A hint that is gone again when its turn comes, too.
    let (now, mut out) = (world.now, Vec::new());
    let node = &mut world.nodes[0];
    for partition in 0..PARTITIONS {
        node.core.handle_hint(now, partition, hashed(&key(1)), false, &node.hints, &mut out);
    }
    assert!(!out.iter().any(|action| matches!(action, Action::Load { .. })));
    assert!(node.core.is_idle());
}
