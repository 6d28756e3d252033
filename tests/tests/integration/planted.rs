//! The simulator finds bugs that are planted: some that it finds soon; all of them is `quorate sim --planted`.

use std::time::Duration;

use quorate_engine::planted::Bug;
use quorate_tests::planted::{SURVIVES, bug, hunt, run};

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
    assert!(Bug::ALL.len() >= 25);
}
