//! Hazards of a ring that changes.

use std::time::Duration;

use quorate_net::key::Key;
use quorate_node::membership::state::Change;
use quorate_tests::{seeds::for_each_seed, world::World};

use super::{is_written, ms};

/// Keys all over the ring, each with a value of its own on all three replicas.
fn write_all(world: &mut World, via: usize) -> Vec<Key> {
    let keys: Vec<Key> = (0..48).map(|number| World::key(&format!("k{number}"))).collect();
    for (number, key) in keys.iter().enumerate() {
        assert!(is_written(world.ask(via, key, World::put(&format!("v{number}"), 3)).as_ref()));
    }
    keys
}

fn assert_all_there(world: &mut World, via: usize, keys: &[Key]) {
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(world.values(via, key, 2).0, [format!("v{number}")], "{key:?}");
    }
}

/// The ring changes between a hint and its delivery: who is to have it now gets it, and it is kept until then.
#[test]
pub(in super::super) fn h6_a_hint_goes_to_who_owns_the_partition_now() {
    for_each_seed(10, |seed| {
        let mut world = World::scripted(seed, 5);
        let key = World::key("k");
        let preference = world.preference(&key);
        let (a, c, d) = (preference[0], preference[2], preference[3]);
        world.isolate(c);
        assert!(is_written(world.ask_sloppily(a, &key, World::put("x", 3)).as_ref()));
        let holder = preference[3..].iter().copied().find(|node| world.hints(*node) > 0).unwrap_or(d);
        assert!(world.hints(holder) > 0, "a fallback holds it");
        let gone = world.lose_for_good(c);
        assert_eq!(gone.map_err(|violation| violation.to_string()), Ok(true));
        world.look_after_ring();
        world.settle_ring();
        world.converge();
        let owners = world.preference(&key);
        assert!(!owners.contains(&c));
        for &owner in &owners[..3] {
            assert_eq!(world.values(owner, &key, 1).0, ["x"]);
        }
        world.heal_and_audit();
    });
}

/// Who joins dies when it has some of what it is to keep, most of it, or almost all: the old owners serve until it has all.
#[test]
pub(in super::super) fn h9_a_joiner_that_dies_in_its_transfer_serves_nothing_before_it_has_all() {
    for percent in [30, 60, 99] {
        for_each_seed(4, |seed| {
            let mut world = World::scripted(seed, 3);
            let keys = write_all(&mut world, 0);
            let joiner = world.add_node();
            let serves = |world: &World, key: &Key| world.preference(key)[..3].contains(&joiner);
            let far = |world: &World| {
                world.core(joiner).is_some_and(|core| {
                    let (left, total) = core.transfer().progress();
                    total > 0 && (total - left) * 100 >= total * percent
                }) || keys.iter().any(|key| serves(world, key))
            };
            world.wait_for("the transfer gets so far", far);
            world.power_cut(joiner);
            assert_all_there(&mut world, 0, &keys);
            world.wait_for("the joiner serves", |world| keys.iter().any(|key| serves(world, key)));
            for key in keys.iter().filter(|key| serves(&world, key)) {
                assert!(world.core(joiner).is_none() || world.holds(joiner, key), "it serves {key:?} and lacks it");
            }
            world.settle_ring();
            world.settle_down();
            assert_all_there(&mut world, joiner, &keys);
            world.converge();
            world.heal_and_audit();
        });
    }
}

/// A node that was removed returns with the disk that it had: it is refused, and what it says is not heard.
#[test]
pub(in super::super) fn h11_a_removed_node_that_returns_is_refused() {
    for_each_seed(10, |seed| {
        let mut world = World::scripted(seed, 4);
        let keys = write_all(&mut world, 0);
        let gone = world.lose_for_good(3);
        assert_eq!(gone.map_err(|violation| violation.to_string()), Ok(true));
        world.look_after_ring();
        world.settle_ring();
        world.bring_back(3);
        world.wait_for("it is up", |world| world.core(3).is_some());
        // A client that is refused may try elsewhere.
        for key in ["l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"].map(World::key) {
            let answer = world.ask(3, &key, World::put("late", 2));
            assert!(!is_written(answer.as_ref()), "{answer:?}");
        }
        world
            .wait_for("it is refused", |world| world.core(3).is_some_and(|core| core.membership().refusal().is_some()));
        world.converge();
        assert_all_there(&mut world, 0, &keys);
        world.heal_and_audit();
    });
}

/// Each side of a split lets a node in, and gives it partitions: one of the rings counts, and nothing is dropped.
#[test]
pub(in super::super) fn h12_of_two_rings_that_a_split_brings_one_counts_and_nothing_is_lost() {
    for_each_seed(8, |seed| {
        let mut world = World::scripted(seed, 4);
        let keys = write_all(&mut world, 0);
        let (left, right) = (world.new_node(), world.new_node());
        let sides = [[0, 1, left], [2, 3, right]];
        for here in sides[0] {
            sides[1].into_iter().for_each(|there| world.cut_off(here, there));
        }
        for side in sides {
            let id = world.id(side[2]);
            world.wait_for("it asks to join", |world| {
                side[..2]
                    .iter()
                    .all(|node| world.core(*node).is_some_and(|c| c.membership().state().node(id).is_some()))
            });
            world.commit_plan(side[0]);
        }
        let stamps = |world: &World| [0, 2].map(|node| world.core(node).map(|core| core.membership().state().stamp()));
        let [one, other] = stamps(&world);
        assert_ne!(one, other, "each side has a ring of its own");
        world.pass(Duration::from_secs(2));
        // Whether it is done or not: what is acknowledged counts.
        for key in &keys[..12] {
            let _ = world.ask_sloppily(0, key, World::put("left", 2));
            let _ = world.ask_sloppily(2, key, World::put("right", 2));
        }
        for here in sides[0] {
            sides[1].into_iter().for_each(|there| world.join_up(here, there));
        }
        world.wait_for("one ring counts", World::all_agree);
        world.look_after_ring();
        world.settle_ring();
        world.settle_down();
        world.converge();
        for (number, key) in keys.iter().enumerate().skip(12) {
            assert_eq!(world.values(0, key, 3).0, [format!("v{number}")], "{key:?}");
        }
        world.heal_and_audit();
    });
}

/// A node stands still for so long that it is removed, then goes on with what it was doing.
#[test]
pub(in super::super) fn h13_a_node_that_stood_still_until_it_was_removed_is_not_heard() {
    for_each_seed(4, |seed| {
        let mut world = World::scripted(seed, 4);
        let keys = write_all(&mut world, 0);
        world.freeze(3, Duration::from_secs(20));
        // It has these before it; it takes them up when it goes on.
        for key in ["l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"].map(World::key) {
            let put = world.intend(&key, World::put("late", 2));
            world.send_to(3, put);
        }
        world.pass(ms(500));
        world.give_up_node(3, 0);
        world.wait_for("it is removed", |world| {
            let id = world.id(3);
            (0..3).all(|node| world.core(node).is_some_and(|core| core.membership().state().node(id).is_none()))
        });
        assert_all_there(&mut world, 0, &keys);
        world.pass(Duration::from_secs(20));
        world.settle_ring();
        world.converge();
        assert_all_there(&mut world, 0, &keys);
        world.heal_and_audit();
    });
}

/// A gives a partition away, is to have it back, and stands in for its owners before anything of it was transferred:
/// what it minted before lives.
#[test]
pub(in super::super) fn h20_who_is_to_have_a_partition_back_mints_anew() {
    let mut minted = 0;
    for_each_seed(12, |seed| {
        let mut world = World::scripted(seed, 3);
        let keys = write_all(&mut world, 0);
        let kept: Vec<Key> = keys.into_iter().filter(|key| world.keeps(0, key)).collect();
        let joiner = world.add_node();
        world.wait_for("the joiner is up", |world| world.core(joiner).is_some());
        world.pass(Duration::from_secs(5));
        world.settle_ring();
        world.converge();
        let mut given: Vec<Key> = kept.into_iter().filter(|key| !world.keeps(0, key)).collect();
        world.change(1, &Change::Leave(world.id(joiner)));
        world.wait_for("all know that it leaves", World::all_agree);
        world.commit_plan(1);
        let gets_back = |world: &World| given.iter().any(|key| world.keeps(0, key));
        world.wait_for("A is to have some back", gets_back);
        given.retain(|key| world.keeps(0, key) && !world.holds(0, key));
        world.isolate(0);
        world.wait_for("it thinks that it is alone", |world| world.core(0).is_some_and(|core| core.peers_down() == 3));
        for key in &given {
            let put = world.ask_sloppily(0, key, World::put("y", 1));
            minted += usize::from(is_written(put.as_ref()) && world.holds(0, key));
        }
        world.readmit(0);
        world.look_after_ring();
        world.settle_ring();
        world.converge();
        world.heal_and_audit();
    });
    assert!(minted > 0, "A never stood in for what it is to have back");
}
