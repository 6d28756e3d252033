//! What is asked wrongly, and what a refusal reads like.

use std::io;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[test]
fn ids_are_numbers_that_nodes_can_have() {
    for words in ["leave", "leave 0", "leave 65536", "leave x", "replace 1", "commit", "join", "nothing", ""] {
        assert!(Cli::try_parse_from(["cluster"].into_iter().chain(words.split_whitespace())).is_err(), "{words}");
    }
    for words in ["leave 65535", "replace 1 2 --json", "commit 00000000000000ab --wait", "status", "join ::1"] {
        assert!(Cli::try_parse_from(["cluster"].into_iter().chain(words.split_whitespace())).is_ok(), "{words}");
    }
}

#[test]
fn a_refusal_says_what_to_do_next() {
    for (answer, wanted) in [
        (
            "STALE this is not the plan any more",
            "the plan has changed, nothing was committed: look at it again: `quorate",
        ),
        ("ERR the cluster has no node 9; nothing was changed", "the cluster has no node 9; nothing was changed"),
        ("NOTSTORED core 1.0 cannot store it", "core 1.0 cannot store it"),
        ("REFUSED this node was removed", "this node was removed"),
        ("no answer in time", "no answer whether the change was made (no answer in time): `quorate cluster status`"),
    ] {
        let said = view::refusal(&io::Error::other(answer));
        assert!(said.starts_with(wanted), "{said}");
    }
}
