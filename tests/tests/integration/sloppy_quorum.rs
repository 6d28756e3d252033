//! Fallbacks stand in for owners that are away.

use std::time::Duration;

use quorate_net::message::Outcome;
use quorate_node::core::Core;
use quorate_tests::{seeds::for_each_seed, world::World};

/// Two of three owners cannot be reached, and all who may stand in for them have just been late: they are asked all the same.
#[test]
fn fallbacks_that_are_late_take_writes_when_there_is_nobody_else() {
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 5);
        let key = World::key("k");
        let preference = world.preference(&key);
        let a = preference[0];
        preference[1..3].iter().for_each(|&owner| world.isolate(owner));
        let frozen = Duration::from_secs(2);
        preference[3..].iter().for_each(|&fallback| world.freeze(fallback, frozen));
        let thaw = world.now() + frozen;
        for number in 0..10 {
            let operation = world.intend_sloppily(&key, World::put(&number.to_string(), 2));
            world.send_to(a, operation);
            world.pass(frozen / 12);
        }
        assert_eq!(world.core(a).map(Core::peers_down), Some(4), "nobody is up for the next write");
        world.pass((thaw - world.now()) - Duration::from_millis(50));
        let written = world.ask_sloppily(a, &key, World::put("x", 2));
        assert!(matches!(written, Some(Outcome::Written { sloppy: true, .. })), "{written:?}");
        world.heal_and_audit();
    });
}
