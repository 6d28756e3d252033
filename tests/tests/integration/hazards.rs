//! The named hazards, one by one. The checks against explicit histories run along in each of them.

pub(super) mod ring;

use std::time::Duration;

use bytes::Bytes;
use quorate_engine::disk::simulated::Kind;
use quorate_net::{
    key::Key,
    message::{Durability, Failure, Outcome},
};
use quorate_node::{
    context::{Context, Sealer},
    object::VersionHash,
    version::{Actor, Clock, Dot, VersionVector},
};
use quorate_tests::{history::Action, seeds::for_each_seed, world::World};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A put like [`World::put`], with all that can be said.
fn put_with(
    value: Option<&str>,
    token: Option<u128>,
    context: Option<(Bytes, quorate_tests::causality::Events)>,
) -> Action {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Action::Put { value, quorum: 2, durability: Durability::Durable, token, context }
}

fn is_written(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Written { .. }))
}

/// A coordinates x, B and C acknowledge; A dies before its own copy is on disk, restarts, and puts y blindly.
#[test]
pub(super) fn h1_a_dot_is_not_used_again_after_a_crash() {
    let mut forgotten = 0;
    for_each_seed(30, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        world.disk(0).set_slowness(2_000);
        assert!(is_written(world.ask(0, &key, World::put("x", 2)).as_ref()), "B and C acknowledge");
        world.power_cut(0);
        world.disk(0).set_slowness(1);
        world.settle_down();
        let survived = !world.values(0, &key, 1).0.is_empty();
        assert!(is_written(world.ask(0, &key, World::put("y", 2)).as_ref()));
        let (values, _) = world.values(1, &key, 3);
        if survived {
            assert_eq!(values, ["y"], "A had seen x");
        } else {
            forgotten += 1;
            assert_eq!(values, ["x", "y"], "A had not seen x");
        }
        world.heal_and_audit();
    });
    assert!(forgotten > 5, "the crash took x from A in {forgotten} of 30 seeds");
}

/// A minted dots; its disk is exchanged for an empty one, or for an older copy; it coordinates a blind put.
#[test]
pub(super) fn h2_a_dot_is_not_used_again_after_a_lost_or_restored_disk() {
    let mut lost = 0;
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        let snapshot = world.disk(0).snapshot();
        for value in ["u", "v", "x"] {
            assert!(is_written(world.ask(0, &key, World::put(value, 3)).as_ref()));
        }
        world.give_up_copies(0);
        world.power_cut(0);
        if seed % 2 == 0 {
            world.disk(0).lose_all();
        } else {
            world.disk(0).restore(&snapshot);
        }
        world.settle_down();
        // The others may have brought it back already.
        let healed = world.holds(0, &key);
        assert!(is_written(world.ask(0, &key, World::put("y", 2)).as_ref()));
        if !healed {
            assert_eq!(world.values(1, &key, 3).0, ["x", "y"]);
            lost += 1;
        }
        world.heal_and_audit();
    });
    assert!(lost > 10, "{lost} of 20 puts were made without x");
}

/// A and B have acknowledged x, which C missed; A loses its disk. Until it has been compared with B as well, A and C together do
/// not say that there is no such key.
#[test]
pub(super) fn h2_who_has_lost_its_disk_does_not_say_that_a_key_is_absent() {
    let mut asked = 0;
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        let [a, b, c] = world.preference(&key).try_into().expect("three nodes");
        world.isolate(c);
        insist(&mut world, a, &key, &World::put("x", 2));
        world.isolate(b);
        world.give_up_copies(a);
        world.power_cut(a);
        world.disk(a).lose_all();
        world.readmit(c);
        // B is still cut off from both.
        world.wait_for("A is up", |world| world.core(a).is_some());
        let until = world.now() + world.settings.away() / 2;
        for node in [a, c, a, c] {
            let outcome = world.ask(node, &key, Action::Get { quorum: 2 });
            if world.now() < until {
                assert!(!matches!(&outcome, Some(Outcome::Values { .. })), "{outcome:?} through {node}");
                asked += 1;
            }
        }
        world.readmit(b);
        world.settle_down();
        world.wait_until_healed();
        assert_eq!(world.values(a, &key, 2).0, ["x"]);
        world.heal_and_audit();
    });
    assert!(asked > 10, "{asked} gets were in time");
}

/// Who stands where for a key: its primaries, the first of them coordinates, and the fallback.
fn places(world: &World, key: &Key) -> [usize; 4] {
    world.preference(key).try_into().expect("four nodes")
}

/// Writes through a node until it is done: the others come to know by and by who can be reached.
fn insist(world: &mut World, node: usize, key: &Key, action: &Action) {
    let done = (0..100).any(|_| {
        world.pass(ms(50));
        is_written(world.ask(node, key, action.clone()).as_ref())
    });
    assert!(done, "{action:?} through node {node}");
}

/// A tombstone lies on two primaries and a fallback. The fallback is cut off, the key is written anew, the fallback hands
/// off.
#[test]
pub(super) fn h3_a_late_tombstone_does_not_take_a_new_value_along() {
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 4);
        let key = World::key("k");
        let [a, b, c, d] = places(&world, &key);
        assert!(is_written(world.ask(a, &key, World::put("x", 3)).as_ref()));
        world.isolate(c);
        assert!(is_written(world.ask_sloppily(a, &key, World::delete(3)).as_ref()));
        world.isolate(d);
        assert!(world.hints(d) > 0, "the fallback holds the tombstone");
        assert!(world.holds(a, &key) && world.holds(b, &key), "and so do two primaries, for good");
        insist(&mut world, a, &key, &World::put("y", 2));
        world.readmit(c);
        world.readmit(d);
        world.converge();
        for node in [a, b, c] {
            assert_eq!(world.values(node, &key, 3).0, ["y"]);
        }
        world.heal_and_audit();
    });
}

/// A write is hinted while a primary is away; the key is deleted on all primaries; then the holder of the hint returns.
#[test]
pub(super) fn h4_a_late_hint_does_not_bring_back_what_was_deleted() {
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 4);
        let key = World::key("k");
        let [a, b, c, d] = places(&world, &key);
        world.isolate(c);
        assert!(is_written(world.ask_sloppily(a, &key, World::put("x", 3)).as_ref()));
        world.isolate(d);
        assert!(world.hints(d) > 0, "the fallback holds it");
        for other in [a, b] {
            world.join_up(c, other);
        }
        insist(&mut world, a, &key, &World::delete(3));
        world.join_up(c, d);
        world.readmit(d);
        world.converge();
        for node in [a, b, c] {
            assert!(world.values(node, &key, 3).0.is_empty(), "it is deleted");
        }
        world.heal_and_audit();
    });
}

/// One is away for long while keys are deleted, and returns.
#[test]
pub(super) fn h5_who_was_away_for_long_does_not_bring_back_what_was_deleted() {
    for_each_seed(8, |seed| {
        let mut world = World::scripted(seed, 3);
        let keys: Vec<Key> = (0..8).map(|number| World::key(&format!("k{number}"))).collect();
        for key in &keys {
            assert!(is_written(world.ask(0, key, World::put("x", 3)).as_ref()));
        }
        world.isolate(2);
        for key in &keys {
            insist(&mut world, 0, key, &World::delete(2));
        }
        world.pass(Duration::from_secs(20));
        world.readmit(2);
        world.converge();
        for key in &keys {
            for node in 0..3 {
                assert!(world.values(node, key, 1).0.is_empty(), "it is deleted");
            }
        }
        world.heal_and_audit();
    });
}

/// The coordinator dies after 0, 1 or 2 sends, before or after its answer: what is read later is read by everybody.
#[test]
pub(super) fn h7_a_put_whose_coordinator_dies_is_all_or_nothing() {
    for_each_seed(60, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        let sends = seed % 3;
        for unreached in 1..3 - sends as usize {
            world.cut_off(0, unreached);
        }
        if sends == 0 {
            world.cut_off(0, 2);
        }
        let put = world.intend(&key, World::put("x", 2));
        world.send_to(0, put);
        let answered = if seed % 2 == 0 {
            world.pass(Duration::from_micros(1 + seed * 10));
            false
        } else {
            is_written(world.answer(put).as_ref())
        };
        world.power_cut(0);
        world.heal_and_audit();
        let seen: Vec<_> = (0..3).map(|node| world.values(node, &key, 3).0).collect();
        assert!(seen.iter().all(|values| *values == seen[0]), "{seen:?}");
        assert!(!answered || seen[0] == ["x"], "it was acknowledged");
        assert!(sends > 0 || !answered, "one copy is no quorum");
    });
}

/// The answer is lost and the client retries through another coordinator.
#[test]
pub(super) fn h8_a_retry_is_one_write_with_a_token_and_at_most_two_without() {
    for_each_seed(40, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        let token = (seed % 2 == 0).then_some(77);
        assert!(is_written(world.ask(1, &key, World::put("before", 3)).as_ref()));
        let put = world.intend(&key, put_with(Some("x"), token, None));
        world.send_to(0, put);
        // Before, while or after the first attempt reaches the other coordinator.
        world.pass(Duration::from_micros(seed * 20));
        world.send_to(1, put);
        assert!(is_written(world.answer(put).as_ref()));
        world.pass(ms(50));
        let (values, _) = world.values(2, &key, 3);
        match token {
            Some(_) => assert_eq!(values, ["x"]),
            None => assert!(values == ["x"] || values == ["x", "x"], "{values:?}"),
        }
        world.heal_and_audit();
    });
}

/// A retry whose first attempt has got a sibling meanwhile: its context does not cover what its writer has not seen.
#[test]
pub(super) fn h8_a_retry_is_not_told_of_siblings_that_its_writer_has_not_seen() {
    let mut world = World::scripted(1, 3);
    let key = World::key("k");
    let put = world.intend(&key, put_with(Some("x"), Some(5), None));
    world.send_to(0, put);
    assert!(is_written(world.answer(put).as_ref()));
    let nothing = Some((Bytes::new(), Default::default()));
    assert!(is_written(world.ask(1, &key, put_with(Some("y"), None, nothing)).as_ref()));
    world.pass(ms(50));
    world.send_to(0, put);
    let Some(Outcome::Written { context, .. }) = world.answer(put) else { panic!("a retry is answered") };
    let seen = world.ledger.open(&key, &context).unwrap();
    assert!(is_written(world.ask(2, &key, put_with(Some("z"), None, Some((context, seen)))).as_ref()));
    let (values, _) = world.values(0, &key, 3);
    assert!(values.contains(&"y".to_owned()), "{values:?}");
    world.heal_and_audit();
}

/// The wall clock jumps by an hour or a year, either way: what replaces what does not change.
#[test]
pub(super) fn h10_clock_steps_change_no_causal_result() {
    for (seed, step) in [HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS].into_iter().enumerate() {
        let mut world = World::scripted(seed as u64, 3);
        let key = World::key("k");
        assert!(is_written(world.ask(0, &key, World::put("x", 3)).as_ref()));
        let (_, context) = world.values(1, &key, 2);
        let seen = world.ledger.open(&key, &context).unwrap();
        world.step_wall_clock(0, step);
        world.step_wall_clock(2, -step);
        assert!(is_written(
            world.ask(0, &key, put_with(Some("y"), None, Some((context.clone(), seen.clone())))).as_ref()
        ));
        assert_eq!(world.values(1, &key, 3).0, ["y"]);
        // The same context once more: a sibling, whatever the clocks say.
        assert!(is_written(world.ask(2, &key, put_with(Some("z"), None, Some((context, seen)))).as_ref()));
        assert_eq!(world.values(1, &key, 3).0, ["y", "z"]);
        assert!(is_written(world.ask(0, &key, World::put("last", 2)).as_ref()));
        assert_eq!(world.values(2, &key, 3).0, ["last"]);
        world.heal_and_audit();
    }
}

/// The answer to a request of an earlier life comes when a later one asks for something else.
#[test]
pub(super) fn h13_an_answer_to_an_earlier_life_does_not_count() {
    for_each_seed(30, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        world.cut_off(0, 1);
        world.clog(2, 0, ms(900));
        let put = world.intend(&key, World::put("x", 2));
        world.send_to(0, put);
        world.pass(ms(20));
        world.kill(0);
        world.pass(ms(400));
        // What the later life asks for reaches nobody in time.
        world.clog(0, 2, ms(2_000));
        world.pass(ms(150));
        let again = world.ask(0, &key, World::put("y", 2));
        assert!(!is_written(again.as_ref()), "only one has it: {again:?}");
        world.heal_and_audit();
    });
}

/// A write or a sync fails: nothing more is acknowledged from that log, and nothing is tried again.
#[test]
pub(super) fn h14_after_a_failed_write_nothing_is_acknowledged() {
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        let other = World::key("other");
        assert!(is_written(world.ask(0, &key, World::put("before", 3)).as_ref()));
        assert!(is_written(world.ask(0, &other, World::put("another", 3)).as_ref()));
        // The log has said that it is idle.
        world.pass(ms(30));
        let kind = if seed % 2 == 0 { Kind::Write } else { Kind::Sync };
        (0..3).for_each(|node| world.disk(node).fail_always(kind, libc::EIO));
        let first = world.ask(0, &key, World::put("x", 2));
        world.pass(ms(50));
        let failed: Vec<bool> =
            (0..3).map(|node| world.store(node).is_some_and(|store| store.failure().is_some())).collect();
        if kind == Kind::Sync && !world.settings.commits_by_sync() {
            assert!(is_written(first.as_ref()), "its commits need no sync");
            return;
        }
        assert!(failed[0], "the log has failed");
        assert!(!is_written(first.as_ref()), "{first:?}");
        (0..3).for_each(|node| world.disk(node).mend());
        let before: Vec<_> = (0..3).map(|node| world.disk(node).statistics()).collect();
        let second = world.ask(0, &key, World::put("y", 1));
        assert_eq!(second, Some(Outcome::Failed(Failure::StoreFailed)));
        world.pass(ms(200));
        for (node, before) in before.iter().enumerate().filter(|(node, _)| failed[*node]) {
            let after = world.disk(node).statistics();
            assert_eq!((after.writes, after.syncs), (before.writes, before.syncs), "node {node} tries again");
        }
        assert_eq!(world.values(0, &other, 1).0, ["another"], "it still reads");
        // What no disk has is not shown, and nobody waits for it.
        match world.ask(0, &key, Action::Get { quorum: 1 }) {
            Some(Outcome::Failed(Failure::Corrupt)) => {}
            Some(Outcome::Values { values, .. }) => assert_eq!(values[..], ["before"]),
            other => panic!("{other:?}"),
        }
        (0..3).for_each(|node| world.kill(node));
        world.settle_down();
        assert!(is_written(world.ask(0, &key, World::put("z", 3)).as_ref()));
        world.heal_and_audit();
    });
}

/// The power fails at some write, rename or removal while the log is compacted: nothing durable is lost.
#[test]
pub(super) fn h15_a_crash_in_compaction_loses_nothing() {
    let mut compacted = 0;
    for_each_seed(12, |seed| {
        let mut world = World::scripted(seed, 3);
        let filler = "f".repeat(60_000);
        for round in 0..160 {
            let key = World::key(&format!("k{}", round % 24));
            // A log that outruns its segments refuses for a moment.
            let mut last = None;
            let written = (0..20).any(|attempt| {
                world.pass(ms(attempt));
                last = world.ask(0, &key, World::put(&format!("{round}.{attempt}.{filler}"), 3));
                is_written(last.as_ref())
            });
            assert!(written, "round {round}: {last:?}");
            // Each segment keeps something that only compaction can carry on.
            let cold = World::key(&format!("cold{round}"));
            world.ask(0, &cold, World::put(&format!("cold{round}"), 2));
        }
        compacted += world.store(0).map_or(0, |store| store.statistics().compacted_segments);
        world.disk(0).halt_after(1 + seed * 3);
        for round in 0..24 {
            let key = World::key(&format!("k{round}"));
            let _ = world.ask(0, &key, World::put(&format!("last{round}.{filler}"), 2));
        }
        world.power_cut(0);
        world.settle_down();
        world.heal_and_audit();
    });
    assert!(compacted > 0, "nothing was compacted");
}

/// Spoils a value in a node's log.
fn rot(world: &World, node: usize, value: &[u8]) {
    let disk = world.disk(node);
    let found = disk.names().into_iter().find_map(|(name, _)| {
        let bytes = disk.contents(&name)?;
        let at = bytes.windows(value.len()).position(|window| window == value)?;
        name.starts_with("segment").then_some((name, at))
    });
    let (segment, at) = found.expect("the record is in the log");
    assert!(disk.corrupt(&segment, at as u64, 3));
}

/// A torn tail is cut; a rotten record before sound ones is damage, and what follows it stays.
#[test]
pub(super) fn h16_rot_in_mid_log_is_not_taken_for_a_torn_tail() {
    for_each_seed(10, |seed| {
        let mut world = World::scripted(seed, 3);
        let names = ["first", "second", "third"];
        for name in names {
            assert!(is_written(world.ask(0, &World::key(name), World::put(&format!("value-of-{name}"), 3)).as_ref()));
            world.pass(ms(20));
        }
        world.give_up_copies(1);
        world.kill(1);
        rot(&world, 1, b"value-of-first");
        world.settle_down();
        assert!(world.store(1).expect("it is up").statistics().damaged > 0, "the rot is found");
        for name in &names[1..] {
            assert_eq!(world.values(1, &World::key(name), 1).0, [format!("value-of-{name}")], "it is not cut");
        }
        assert_eq!(world.values(1, &World::key("first"), 2).0, ["value-of-first"], "the others have it");
        world.heal_and_audit();
    });
}

/// A value rots on the disk, under a tree that does not know. A scrub finds it, and the others have it.
#[test]
pub(super) fn h17_rot_under_an_unchanged_tree_is_found_and_repaired() {
    for_each_seed(10, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        assert!(is_written(world.ask(0, &key, World::put("a-value-that-rots", 3)).as_ref()));
        world.converge();
        world.give_up_copies(1);
        rot(&world, 1, b"a-value-that-rots");
        world.converge();
        assert_eq!(world.store(1).expect("it is up").statistics().damaged, 0, "nobody has looked");
        world.scrub(1);
        assert!(world.store(1).expect("it is up").statistics().damaged > 0, "the scrub finds it");
        // Something happens, then the others are asked for what is lost.
        insist(&mut world, 1, &World::key("another"), &World::put("y", 2));
        world.wait_for("it is repaired", |world| {
            world.store(1).is_some_and(|store| store.statistics().lost == 0) && world.holds(1, &World::key("k"))
        });
        assert_eq!(world.values(1, &key, 1).0, ["a-value-that-rots"]);
        world.heal_and_audit();
    });
}

/// The only copy of a value rots. Whoever reads it asks the others what they have, once and once more, and not for ever.
#[test]
pub(super) fn h17_of_what_nobody_has_any_more_nobody_is_asked_again_and_again() {
    for_each_seed(10, |seed| {
        let mut world = World::scripted(seed, 3);
        let key = World::key("k");
        (1..3).for_each(|node| world.isolate(node));
        insist(&mut world, 0, &key, &World::put("a-value-that-rots", 1));
        world.give_up_copies(0);
        world.kill(0);
        rot(&world, 0, b"a-value-that-rots");
        (1..3).for_each(|node| world.readmit(node));
        world.settle_down();
        let probed = |world: &World| (1..3).map(|node| world.core(node).unwrap().statistics().probed).sum::<u64>();
        let before = probed(&world);
        let outcome = world.ask(0, &key, Action::Get { quorum: 2 });
        assert!(matches!(&outcome, Some(Outcome::Values { values, .. }) if values.is_empty()), "{outcome:?}");
        assert!(probed(&world) <= before + 4, "{} probes", probed(&world) - before);
    });
}

/// W landed on fallbacks, a strict get asks primaries only.
#[test]
pub(super) fn h18_a_write_on_fallbacks_says_so_and_is_read_after_the_handoff() {
    for_each_seed(20, |seed| {
        let mut world = World::scripted(seed, 4);
        let key = World::key("k");
        let [a, b, c, d] = places(&world, &key);
        for (here, there) in [(a, b), (a, c), (d, b), (d, c)] {
            world.cut_off(here, there);
        }
        let written = world.ask_sloppily(a, &key, World::put("x", 2));
        let Some(Outcome::Written { sloppy, .. }) = written else { panic!("the fallback counts: {written:?}") };
        assert!(sloppy, "the answer says so");
        assert!(world.values(b, &key, 2).0.is_empty(), "two primaries have heard nothing");
        for (here, there) in [(a, b), (a, c), (d, b), (d, c)] {
            world.join_up(here, there);
        }
        world.converge();
        for node in [a, b, c] {
            assert_eq!(world.values(node, &key, 1).0, ["x"]);
        }
        world.heal_and_audit();
    });
}

/// A client sends (A, u64::MAX), or a context of another cluster or key: nothing is replaced.
#[test]
pub(super) fn h19_a_forged_context_erases_nothing() {
    let mut world = World::scripted(3, 3);
    let key = World::key("k");
    assert!(is_written(world.ask(0, &key, World::put("x", 3)).as_ref()));
    let (_, honest) = world.values(0, &key, 3);
    let actor = Actor { node: 1, core: 0, incarnation: 1 };
    let vector = VersionVector::from_entries(vec![Dot { actor, counter: u64::MAX }]).unwrap();
    let forged = Context { seen: Clock::from(vector), version: VersionHash(1) };
    let contexts = [
        Sealer::new("another cluster's secret").seal(key.encoded(), &forged),
        Bytes::from_static(b"AAAA"),
        Bytes::from(vec![b'A'; 60_000]),
        honest.slice(..honest.len() - 2),
    ];
    for (number, context) in contexts.into_iter().enumerate() {
        let put = put_with(Some(&format!("forged{number}")), None, Some((context, Default::default())));
        assert_eq!(world.ask(0, &key, put), Some(Outcome::Failed(Failure::BadContext)));
    }
    let seen = Default::default();
    let other = world.ask(0, &World::key("another"), put_with(Some("y"), None, Some((honest, seen))));
    assert_eq!(other, Some(Outcome::Failed(Failure::BadContext)), "it is sealed for its key alone");
    assert_eq!(world.values(1, &key, 3).0, ["x"]);
    assert!(is_written(world.ask(0, &key, World::put("z", 3)).as_ref()), "the key has a future");
    assert_eq!(world.values(1, &key, 3).0, ["z"]);
    world.heal_and_audit();
}
