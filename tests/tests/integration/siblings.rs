//! More siblings than one record holds.

use quorate_net::message::Outcome;
use quorate_tests::{seeds::for_each_seed, world::World};

const NODES: u16 = 8;

/// Nodes that are all alone each take a large write; what replicas cannot keep together they refuse, and say so, until a client
/// has resolved it.
#[test]
fn siblings_that_fit_no_record_are_told_and_wait_for_a_client() {
    for_each_seed(6, |seed| {
        let mut world = World::scripted(seed, NODES);
        let (key, nodes) = (World::key("k"), 0..usize::from(NODES));
        nodes.clone().for_each(|node| world.isolate(node));
        let alone = |world: &World, node| world.core(node).is_some_and(|core| core.peers_down() == nodes.len() - 1);
        world.wait_for("each knows that it is alone", |world| nodes.clone().all(|node| alone(world, node)));
        for node in nodes.clone() {
            let value = char::from(b'a' + node as u8).to_string().repeat(60_000);
            let written = world.ask_sloppily(node, &key, World::put(&value, 1));
            assert!(matches!(written, Some(Outcome::Written { .. })), "{written:?}");
        }
        nodes.clone().for_each(|node| world.readmit(node));
        let unfit = |world: &World, node| world.core(node).map_or(0, |core| core.statistics().unfit);
        world.wait_for("a replica refuses what fits no record", |world| {
            nodes.clone().any(|node| unfit(world, node) > 0)
        });
        let owners = world.preference(&key)[..3].to_vec();
        for round in 0..3 {
            for &owner in &owners {
                world.ask(owner, &key, World::put(&format!("{round}.{owner}"), 1));
            }
        }
        world.converge();
        world.heal_and_audit();
    });
}
