//! A short fuzz of every decoder, the same inputs at each run. Longer and guided by coverage: `tests/fuzz`.

use quorate_tests::fuzz::{TARGETS, shake};

#[test]
fn no_decoder_is_upset_by_changed_input() {
    for target in &TARGETS {
        shake(target, 1, 20_000);
    }
}
