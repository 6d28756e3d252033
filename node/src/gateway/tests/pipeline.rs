//! Commands on one connection: their order, what is held back, what ends it.

use super::*;

#[test]
fn replies_leave_in_the_order_of_the_commands() {
    let mut harness = Harness::new();
    harness.feed(b"PING\r\nGET a\r\nPING x\r\nMGET b c\r\nHELLO 3\r\nGET d\r\n");
    assert_eq!(harness.out, b"+PONG\r\n");
    assert_eq!(harness.asks.len(), 4);
    let value =
        |text: &'static str| Outcome::Values { context: Bytes::new(), values: [text.into()].into(), sloppy: false };
    // d, then c: nothing may leave before a is there.
    harness.answer(3, value("d"));
    harness.answer(2, value("c"));
    assert_eq!(harness.out, b"+PONG\r\n");
    assert_eq!(harness.session.unanswered(), 5);
    harness.answer(0, Outcome::Values { context: Bytes::new(), values: [].into_iter().collect(), sloppy: false });
    assert_eq!(harness.out, b"+PONG\r\n$-1\r\n$1\r\nx\r\n");
    harness.answer(0, value("b"));
    let out = String::from_utf8(harness.out).unwrap();
    // Each in the version that was spoken when it was read.
    assert!(out.contains("*2\r\n$1\r\nb\r\n$1\r\nc\r\n%7\r\n") && out.ends_with("$1\r\nd\r\n"), "{out}");
}

/// Only so many requests are under way, only so many commands are read; all the same each gets its reply.
#[test]
fn a_pipeline_without_end_is_held_back() {
    let mut harness = Harness::new();
    let sets = (0..100).map(|n| format!("SET k{n} v{n}\r\n"));
    let pipeline: Vec<u8> =
        sets.chain((0..100).map(|n| format!("GET k{n}\r\n"))).flat_map(String::into_bytes).collect();
    assert_eq!(harness.feed(&pipeline), Next::Pause);
    assert_eq!(harness.asks.len(), limits().requests_max);
    assert!(harness.session.unanswered() <= limits().commands_max);
    while !harness.asks.is_empty() {
        let Task::Request(operation) = harness.asks[0].task.clone() else { panic!("a request") };
        let outcome = harness.outcome(&operation);
        if harness.answer(0, outcome) == After::Resume {
            harness.feed(b"");
        }
    }
    let values: String = (0..100).map(|n| format!("${}\r\nv{n}\r\n", n.to_string().len() + 1)).collect();
    assert_eq!(String::from_utf8(harness.out).unwrap(), "+OK\r\n".repeat(100) + &values);
    assert_eq!((harness.session.unanswered(), harness.input.len()), (0, 0));
}

/// A get of a key that is written by the same pipeline sees the sets before it, and none after it.
#[test]
fn a_read_and_a_write_of_one_key_do_not_overlap() {
    let mut harness = Harness::new();
    harness.feed(b"GET a\r\nGET a\r\nSET a 1\r\nSET a 2\r\nMGET b a\r\nSET b 3\r\n");
    let mut asked = Vec::new();
    while !harness.asks.is_empty() {
        asked.push(harness.asks.len());
        for ask in std::mem::take(&mut harness.asks) {
            let Task::Request(operation) = &ask.task else { panic!("a request") };
            let outcome = harness.outcome(operation);
            harness.session.answered(ask.ticket, outcome, &mut harness.asks, &mut harness.out);
        }
        harness.feed(b"");
    }
    // Both gets; both sets, and b, which nobody writes yet; a, and the set of b, which has been read.
    assert_eq!(asked, [2, 3, 2]);
    assert_eq!(harness.out, b"$-1\r\n$-1\r\n+OK\r\n+OK\r\n*2\r\n$-1\r\n$1\r\n2\r\n+OK\r\n");
}

/// Who sends without end leaves others their turn, and what the core allows is shared with them.
#[test]
fn a_turn_ends_and_a_share_shrinks() {
    let mut harness = Harness::new();
    harness.input = b"PING\r\n".repeat(20);
    assert_eq!(harness.turn(), Next::Yield);
    assert_eq!(harness.out, b"+PONG\r\n".repeat(limits().turn));
    assert!(matches!(harness.feed(b""), Next::Read { .. }));
    harness.session.allow(2);
    assert_eq!(harness.feed(&b"GET k\r\n".repeat(10)), Next::Pause);
    assert_eq!(harness.asks.len(), 2);
    harness.session.allow(100);
    let outcome = || Outcome::Values { context: Bytes::new(), values: [].into_iter().collect(), sloppy: false };
    harness.answer(0, outcome());
    harness.answer(0, outcome());
    assert!(harness.asks.len() <= limits().requests_max);
    harness.session.allow(0);
    harness.feed(b"");
    while !harness.asks.is_empty() {
        assert!(harness.asks.len() <= limits().requests_max);
        harness.answer(0, outcome());
        harness.feed(b"");
    }
    assert_eq!(harness.out.len(), 20 * b"+PONG\r\n".len() + 10 * b"$-1\r\n".len());
    // The end of a turn does not hide the end of the session.
    harness.input = [b"PING\r\n".repeat(limits().turn - 1), b"QUIT\r\n".to_vec()].concat();
    assert_eq!(harness.turn(), Next::Close);
}

#[test]
fn one_command_of_many_keys_is_asked_in_parts() {
    let mut harness = Harness::new();
    let names: Vec<String> = (0..1000).map(|n| format!("k{n}")).collect();
    for name in &names {
        harness.store.insert(name.clone().into_bytes(), vec![name.clone().into()]);
    }
    let line = format!("MGET {}", names.join(" "));
    harness.feed(format!("{line}\r\n").as_bytes());
    assert_eq!(harness.asks.len(), limits().requests_max);
    harness.answer_all();
    let expected: String = names.iter().map(|name| format!("${}\r\n{name}\r\n", name.len())).collect();
    assert_eq!(String::from_utf8(harness.out).unwrap(), format!("*1000\r\n{expected}"));
}

/// Replies that wait behind a slow one are bounded in bytes too.
#[test]
fn held_replies_stop_the_reading() {
    let mut harness = Harness::new();
    let next = harness.feed(format!("GET slow\r\n{}", "COMMAND\r\n".repeat(10)).as_bytes());
    assert_eq!(next, Next::Pause);
    let held = harness.session.unanswered();
    assert!(held < 6, "{held}");
    let ask = harness.asks.pop().unwrap();
    let Task::Request(operation) = &ask.task else { panic!("a request") };
    let outcome = harness.outcome(operation);
    let after = harness.session.answered(ask.ticket, outcome, &mut harness.asks, &mut harness.out);
    assert_eq!(after, After::Resume);
    assert!(matches!(harness.feed(b""), Next::Read { .. }));
    assert_eq!(harness.session.unanswered(), 0);
}

#[test]
fn the_end_comes_after_the_last_reply() {
    let mut harness = Harness::new();
    assert_eq!(harness.feed(b"QUIT\r\nPING\r\n"), Next::Close);
    assert_eq!(harness.out, b"+OK\r\n");

    let mut harness = Harness::new();
    assert_eq!(harness.feed(b"GET a\r\nQUIT\r\nSET b 1\r\n"), Next::Pause);
    assert!(harness.out.is_empty() && harness.asks.len() == 1);
    let after = harness.answer(0, Outcome::Failed(Failure::Corrupt));
    assert_eq!(after, After::Finish);
    assert!(harness.out.ends_with(b"\r\n+OK\r\n"));

    let mut harness = Harness::new();
    assert_eq!(harness.feed(b"GET a\r\n*1\r\nPING"), Next::Pause);
    assert_eq!(harness.answer(0, Outcome::Failed(Failure::Corrupt)), After::Finish);
    assert!(harness.out.ends_with(b"\r\n-ERR Protocol error: expected '$', got 'P'\r\n"));

    let mut harness = Harness::new();
    harness.feed(b"GET a\r\n");
    assert!(!harness.session.input_ended());
    assert_eq!(harness.answer(0, Outcome::Failed(Failure::Corrupt)), After::Finish);
    assert!(Harness::new().session.input_ended());
}

/// What a page in a browser could make it send leads nowhere.
#[test]
fn web_requests_end_the_connection() {
    let mut harness = Harness::new();
    let next = harness.feed(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\r\n");
    assert_eq!((next, harness.out.len(), harness.asks.len()), (Next::Close, 0, 0));
}
