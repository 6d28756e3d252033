//! What operators ask for and change.

use super::*;

#[test]
fn operators_are_answered_in_json() {
    let known = "There are: CLUSTER, EXCHANGES, FIGURES, HELP, HINTS, KEYS, LATENCIES, MEMBERS, METRICS, REPAIR, RING, ROOTS, TAIL, TASKS";
    let mut harness = check(&[
        ("QUORATE", "-ERR wrong number of arguments for 'quorate' command"),
        ("QUORATE FOO", &format!("-ERR unknown subcommand 'FOO'. Try QUORATE HELP. {known}")),
        ("QUORATE CLUSTER", &format!("-ERR wrong number of arguments for 'quorate|cluster' command {known}")),
        ("QUORATE REPAIR 4", "-ERR the partition must be a number from 0 to 3; nothing was done"),
        ("QUORATE REPAIR -1", "-ERR the partition must be a number from 0 to 3; nothing was done"),
        ("QUORATE REPAIR x", "-ERR the partition must be a number from 0 to 3; nothing was done"),
        ("QUORATE REPAIR 1 2", "-ERR wrong number of arguments for 'quorate|repair' command"),
    ]);
    for refused in ["QUORATE ROOTS 1", "quorate hints x"] {
        assert!(harness.run(refused).starts_with("-ERR wrong number of arguments for 'quorate|"), "{refused}");
    }
    for (line, asked) in [
        ("QUORATE ROOTS", Inquiry::Roots),
        ("quorate hints", Inquiry::Hints),
        ("QUORATE EXCHANGES", Inquiry::Exchanges),
        ("QUORATE TAIL", Inquiry::Tail),
        ("QUORATE LATENCIES", Inquiry::Latencies),
        ("QUORATE RING", Inquiry::Ring),
        ("QUORATE FIGURES", Inquiry::Figures),
        ("QUORATE METRICS", Inquiry::Metrics),
        ("QUORATE TASKS", Inquiry::Tasks),
        ("QUORATE KEYS", Inquiry::Keys),
        ("QUORATE MEMBERS", Inquiry::Members),
        ("QUORATE CLUSTER STATUS", Inquiry::Cluster),
        ("QUORATE REPAIR", Inquiry::Repair(None)),
        ("QUORATE REPAIR 3", Inquiry::Repair(Some(3))),
    ] {
        let reply = harness.run(line);
        let Reply::Bulk(text) = Reply::parse(reply.as_bytes()) else { panic!("{line}: {reply}") };
        let value: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(value, harness.node.inquire(asked).unwrap(), "{line}");
    }
    assert_eq!(harness.run("QUORATE CLUSTER PLAN"), "-ERR there is nothing to plan\r\n");
    assert!(harness.run("QUORATE HELP").contains("ROOTS"));
    assert!(harness.run("QUORATE CLUSTER HELP").contains("REPLACE"));
}

#[test]
fn a_change_is_answered_in_its_turn_when_it_is_made() {
    let (four, five) = (NodeId(4), NodeId(5));
    for (line, wanted) in [
        ("QUORATE CLUSTER LEAVE 4", Change::Leave(four)),
        ("quorate cluster stay 4", Change::Stay(four)),
        ("QUORATE CLUSTER REMOVE 4", Change::Remove(four)),
        ("QUORATE CLUSTER REPLACE 4 5", Change::Replace { old: four, new: five }),
        ("QUORATE CLUSTER COMMIT 00000000000000fF", Change::Commit { plan: 255 }),
        ("QUORATE CLUSTER ABORT", Change::Abort),
        ("QUORATE CLUSTER PAUSE", Change::Pause),
        ("QUORATE CLUSTER RESUME", Change::Resume),
    ] {
        for (result, reply) in
            [(Ok(json!({"node": 1})), "$10\r\n{\"node\":1}\r\n"), (Err("STALE no".to_owned()), "-STALE no\r\n")]
        {
            let mut harness = Harness::new();
            harness.feed(format!("{line}\r\nPING\r\n").as_bytes());
            assert_eq!(harness.out, b"", "nothing is said before the change is on disk");
            let ask = harness.asks.pop().unwrap();
            assert_eq!(ask.task, Task::Change(wanted.clone()), "{line}");
            let after = harness.session.changed(ask.ticket, result, &mut harness.asks, &mut harness.out);
            assert_eq!((after, harness.session.unanswered()), (After::Nothing, 0));
            assert_eq!(String::from_utf8_lossy(&harness.out), format!("{reply}+PONG\r\n"), "{line}");
        }
    }
}

#[test]
fn a_change_that_is_not_understood_changes_nothing() {
    let mut harness = Harness::new();
    for (line, words) in [
        ("QUORATE CLUSTER JOIN 4", "unknown subcommand 'JOIN'. Try QUORATE CLUSTER HELP. There are: ABORT, COMMIT"),
        ("QUORATE CLUSTER LEAVE", "wrong number of arguments"),
        ("QUORATE CLUSTER LEAVE 0", "from 1 to 65535; nothing was changed"),
        ("QUORATE CLUSTER LEAVE 65536", "from 1 to 65535; nothing was changed"),
        ("QUORATE CLUSTER REPLACE 1 x", "from 1 to 65535; nothing was changed"),
        ("QUORATE CLUSTER COMMIT ff", "16 hexadecimal digits"),
        ("QUORATE CLUSTER COMMIT +0000000000000ff", "16 hexadecimal digits"),
        ("QUORATE CLUSTER COMMIT 00000000000000fg", "16 hexadecimal digits"),
        ("QUORATE CLUSTER ABORT now", "wrong number of arguments"),
    ] {
        let reply = harness.run(line);
        assert!(reply.starts_with("-ERR ") && reply.contains(words), "{line}: {reply}");
    }
}
