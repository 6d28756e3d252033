//! What a get has seen some replicas lack is brought to them.

use std::time::Duration;

use quorate_engine::index::Index;
use quorate_net::{key::Key, message::Outcome};
use quorate_tests::{
    history::Action,
    seeds::for_each_seed,
    world::{Settings, World},
};

const A_WHILE: Duration = Duration::from_millis(100);

/// Node 1 reads; the coordinators of the writes cannot tell the other of them.
fn two_that_do_not_hear_each_other(seed: u64) -> World {
    let mut world = World::scripted_with(seed, 3, Settings::stop_exchanges);
    world.cut_off(0, 2);
    world
}

fn has(world: &World, node: usize, key: &Key) -> bool {
    let store = world.store(node).expect("the node is up");
    (0..store.index(Index::partitions)).any(|partition| store.lookup(partition, key.encoded()).is_some())
}

#[test]
fn a_replica_that_missed_a_write_has_it_after_a_get() {
    for_each_seed(20, |seed| {
        let mut world = two_that_do_not_hear_each_other(seed);
        let key = World::key("k");
        assert!(matches!(world.ask(0, &key, World::put("x", 2)), Some(Outcome::Written { .. })));
        world.pass(A_WHILE);
        assert!(!has(&world, 2, &key), "nobody has asked yet");
        assert_eq!(world.values(1, &key, 2).0, ["x"]);
        world.pass(A_WHILE);
        assert!(has(&world, 2, &key));
        world.heal_and_audit();
    });
}

#[test]
fn siblings_that_were_written_apart_meet_on_every_replica() {
    for_each_seed(20, |seed| {
        let mut world = two_that_do_not_hear_each_other(seed);
        let key = World::key("k");
        let (first, second) = (world.intend(&key, World::put("x", 1)), world.intend(&key, World::put("y", 1)));
        world.send_to(0, first);
        world.send_to(2, second);
        // Those who do not hear each other tell node 1 what they think of each other, until that is refuted.
        let all = Action::Get { quorum: 3 };
        let answered = (0..50).any(|_| {
            world.pass(A_WHILE);
            matches!(world.ask(1, &key, all.clone()), Some(Outcome::Values { .. }))
        });
        assert!(answered, "node 1 hears both");
        assert_eq!(world.values(1, &key, 2).0, ["x", "y"]);
        world.pass(A_WHILE);
        for node in 0..3 {
            assert_eq!(world.values(node, &key, 1).0, ["x", "y"], "node {node}");
        }
        world.heal_and_audit();
    });
}
