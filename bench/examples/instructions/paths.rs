//! The hot paths, each as a loop of its own.
//!
//! The rule: an operation is what a request does once the store runs, after everything that it needs was made.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use quorate_bare::FirstBytes;
use quorate_engine::{
    index::{Index, Place},
    versions::Summary,
};
use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    message::{Message, Request},
    resp::{CommandLimits, CommandParser, write_command},
};
use quorate_node::{
    clock::Instant,
    object::{Object, Sibling},
    recorder::{Kind, Recorder, Stage, Trace},
    version::{Actor, Dot},
};

use crate::cluster::{Cluster, get, put};

pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Few and many.
    pub(crate) operations: (u64, u64),
    /// Does so many operations.
    pub(crate) run: fn(u64),
}

pub(crate) const PATHS: [Path; 11] = [
    Path { name: "frame-encode", what: "a put of 1 KiB, to a frame", operations: (100, 5_100), run: encode },
    Path { name: "frame-decode", what: "a put of 1 KiB, from a frame", operations: (100, 5_100), run: decode },
    Path { name: "resp-get", what: "GET, parsed", operations: (100, 10_100), run: resp_get },
    Path { name: "resp-set", what: "SET of 1 KiB, parsed", operations: (100, 10_100), run: resp_set },
    Path { name: "index-insert", what: "a new key in the index", operations: (20_000, 60_000), run: index_insert },
    Path { name: "index-find", what: "a key of 20,000 in the index", operations: (100, 10_100), run: index_find },
    Path {
        name: "reconcile",
        what: "an object and a newer one, three actors",
        operations: (100, 5_100),
        run: reconcile,
    },
    Path { name: "record", what: "a get that the flight recorder takes in", operations: (10_000, 60_000), run: record },
    Path { name: "core-get", what: "a get by three cores, N3 R2, in RAM", operations: (100, 600), run: core_get },
    Path {
        name: "core-put",
        what: "a put by three cores, N3 W2, on simulated disks",
        operations: (100, 600),
        run: core_put,
    },
    Path { name: "core-put-new", what: "the same, of a key that is new", operations: (100, 600), run: core_put_new },
];

fn request(number: u64) -> Request {
    put(number, 0)
}

fn encode(operations: u64) {
    let message = Message::Request(request(1));
    let mut out = Vec::with_capacity(4096);
    for _ in 0..operations {
        out.clear();
        frame::encode(black_box(&message), &mut out).expect("within the bounds");
        black_box(&out);
    }
}

fn decode(operations: u64) {
    let mut bytes = Vec::new();
    frame::encode(&Message::Request(request(1)), &mut bytes).expect("within the bounds");
    for _ in 0..operations {
        let frame = frame::decode(black_box(&bytes), usize::MAX).expect("sound").expect("whole");
        black_box(frame.message().expect("a message"));
    }
}

fn parse(arguments: &[&[u8]], operations: u64) {
    let mut input = Vec::new();
    write_command(&mut input, arguments);
    let mut parser = CommandParser::new(CommandLimits::default());
    for _ in 0..operations {
        let command = parser.parse(black_box(&input)).expect("sound").expect("whole");
        black_box(command.argument(1));
    }
}

fn resp_get(operations: u64) {
    parse(&[b"GET", b"key:000000000042"], operations);
}

fn resp_set(operations: u64) {
    parse(&[b"SET", b"key:000000000042", &[0x5a; 1024]], operations);
}

fn insert(index: &mut Index, number: u64) {
    let hash = index.hash(&quorate_bare::key(number));
    index.insert((number % 64) as u16, &hash, Place::from_bits(number), Summary(number), &FirstBytes);
}

fn index_insert(operations: u64) {
    let mut index = Index::new(64, 1);
    (0..operations).for_each(|number| insert(&mut index, number));
}

fn index_find(operations: u64) {
    let mut index = Index::new(64, 1);
    (0..20_000).for_each(|number| insert(&mut index, number));
    for number in (0..operations).map(|step| step * 7919 % 20_000) {
        let hash = index.hash(&quorate_bare::key(number));
        assert!(black_box(index.find((number % 64) as u16, &hash)).is_some());
    }
}

fn reconcile(operations: u64) {
    let write = |node, counter| Sibling {
        dot: Dot { actor: Actor::new(Endpoint::new(NodeId(node), CoreId(0)), 1), counter },
        timestamp_ms: counter,
        token: None,
        value: Some(Bytes::from(vec![0x5a; 1024])),
    };
    let after = |object: Object, node, counter| object.after_write(&object.clock.clone(), write(node, counter));
    let mine = (1..=3).fold(Object::default(), |object, node| after(object, node, 1));
    let newer = after(mine.clone(), 1, 2);
    for _ in 0..operations {
        black_box(black_box(&mine).reconcile(black_box(&newer)));
    }
}

/// 20,000 a second, of 200 µs each; one in a hundred took twice as long.
fn record(operations: u64) {
    let peer = Endpoint::new(NodeId(2), CoreId(0));
    let mut recorder = Recorder::new(Instant(0), Duration::from_millis(10));
    for number in 0..operations {
        let key = quorate_bare::key(number * 7919 % 20_000);
        let begun = Instant(number * 50_000);
        let mut trace = Trace::new(begun);
        trace.mark(begun + Duration::from_micros(10), Stage::Queue);
        trace.mark(begun + Duration::from_micros(150), Stage::Peer(peer));
        let took = Duration::from_micros(if number % 100 == 0 { 400 } else { 200 });
        recorder.record(begun + took, Kind::Get, black_box(&trace), Some((1, &key)), false);
    }
    black_box(recorder.latencies(Kind::Get));
}

/// Keys that gets and puts go to in turn.
const KEYS: u64 = 64;

fn filled() -> Cluster {
    let mut cluster = Cluster::new();
    (0..KEYS).for_each(|number| cluster.ask(put(number, 0)));
    cluster
}

fn core_get(operations: u64) {
    let mut cluster = filled();
    (0..operations).for_each(|step| cluster.ask(get(step % KEYS)));
}

fn core_put(operations: u64) {
    let mut cluster = filled();
    (0..operations).for_each(|step| cluster.ask(put(step % KEYS, step)));
}

fn core_put_new(operations: u64) {
    let mut cluster = filled();
    (0..operations).for_each(|step| cluster.ask(put(KEYS + step, step)));
}
