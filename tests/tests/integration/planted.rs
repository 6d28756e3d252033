//! The simulator finds bugs that are planted: some that it finds soon; all of them is `quorate sim --planted`.

use std::{panic::catch_unwind, time::Duration};

use quorate_engine::planted::{Bug, plant};
use quorate_tests::planted::{SURVIVES, bug, hunt, run};

use super::hazards::{self, ring};

/// Far more than any of these needs, even unoptimised.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn planted_bugs_are_found() {
    const { assert!(SURVIVES, "an assertion would end the test") };
    for planted in
        [Bug::OwnCopyEarly, Bug::NewestWins, Bug::TakesAsItCame, Bug::HintForgottenEarly, Bug::MerkleKeepsOld]
    {
        let hunt = hunt(planted, 0, 2, LIMIT);
        assert!(hunt.found.is_some(), "{} was not found in {} seeds", planted.word(), hunt.seeds);
    }
}

/// A seed finds a bug again, as it says; and only the one that is switched on.
#[test]
fn what_finds_a_bug_finds_it_again() {
    let found = hunt(Bug::AnswersAtOneLess, 0, 1, LIMIT).found.expect("a bug that shows at once");
    let again = run(Bug::AnswersAtOneLess, found.seed).expect("the same seed");
    assert_eq!((found.property, found.detail), (again.property, again.detail));
}

#[test]
fn each_bug_has_a_name_of_its_own() {
    for &planted in Bug::ALL {
        assert_eq!(bug(planted.word()), Some(planted), "{}", planted.word());
        assert!(!planted.hazard().is_empty() && !planted.what().is_empty(), "{}", planted.word());
    }
    for hazard in 1..=20 {
        let hazard = format!("H{hazard}");
        assert!(Bug::ALL.iter().any(|planted| planted.hazard() == hazard), "no bug is about {hazard}");
    }
}

/// The test of a hazard fails when the code has the bug that it is about.
#[test]
fn the_tests_of_hazards_fail_with_their_bugs() {
    let tests: [(Bug, fn()); 12] = [
        (Bug::OwnCopyEarly, hazards::h1_a_dot_is_not_used_again_after_a_crash),
        (Bug::EmptyTrusted, hazards::h2_who_has_lost_its_disk_does_not_say_that_a_key_is_absent),
        (Bug::Doomstone, hazards::h3_a_late_tombstone_does_not_take_a_new_value_along),
        (Bug::TombstoneDropped, hazards::h4_a_late_hint_does_not_bring_back_what_was_deleted),
        (Bug::ExchangeOverwrites, hazards::h5_who_was_away_for_long_does_not_bring_back_what_was_deleted),
        (Bug::HintsOwedAsBefore, ring::h6_a_hint_goes_to_who_owns_the_partition_now),
        (Bug::ConfirmsUncompared, ring::h9_a_joiner_that_dies_in_its_transfer_serves_nothing_before_it_has_all),
        (Bug::RemovedHeard, ring::h11_a_removed_node_that_returns_is_refused),
        (Bug::SplitRingsStay, ring::h12_of_two_rings_that_a_split_brings_one_counts_and_nothing_is_lost),
        (Bug::LateAnswerCounts, hazards::h13_an_answer_to_an_earlier_life_does_not_count),
        (Bug::ChecksumUnchecked, hazards::h17_rot_under_an_unchanged_tree_is_found_and_repaired),
        (Bug::SloppyUnsaid, hazards::h18_a_write_on_fallbacks_says_so_and_is_read_after_the_handoff),
        (Bug::ActorKeptAfterMove, ring::h20_who_is_to_have_a_partition_back_mints_anew),
    ];
    let passed: Vec<&str> = tests
        .into_iter()
        .filter(|(planted, test)| {
            plant(Some(*planted));
            let outcome = catch_unwind(test);
            plant(None);
            outcome.is_ok()
        })
        .map(|(planted, _)| planted.word())
        .collect();
    assert!(passed.is_empty(), "these are not seen: {passed:?}");
}
