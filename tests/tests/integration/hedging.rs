//! A get whose own copy is late is answered from what another replica tells in full.

use std::time::Duration;

use quorate_tests::{seeds::for_each_seed, world::World};

/// So many times as long a disk takes: a read of it takes longer than all else together.
const SLOWNESS: u32 = 3_000;

#[test]
fn a_get_does_not_wait_for_a_stalled_disk_of_its_own() {
    let mut hedges = 0;
    for_each_seed(12, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        world.ask(0, &key, World::put("x", 3));
        // More than any cache holds, then enough gets for a hedge to be earned.
        let fat = "f".repeat(50_000);
        for other in 0..40 {
            world.ask(0, &World::key(&format!("fat{other}")), World::put(&fat, 3));
        }
        for _ in 0..30 {
            world.values(0, &World::key("fat39"), 2);
        }
        let made = |world: &World| world.core(0).map_or(0, |core| core.statistics().hedges);
        let (before, begun) = (made(&world), world.now());
        world.disk(0).set_slowness(SLOWNESS);
        assert_eq!(world.values(0, &key, 2).0, ["x"]);
        let (took, made) = (world.now() - begun, made(&world) - before);
        world.disk(0).set_slowness(1);
        hedges += made;
        if made > 0 {
            assert!(took < Duration::from_millis(40), "seed {seed}: a hedged get took {took:?}");
        }
        world.heal_and_audit();
    });
    assert!(hedges >= 6, "{hedges} of 12 gets were hedged");
}
