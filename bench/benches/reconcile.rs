//! Objects: reconciling two replicas' versions, and what a replica does with a body that comes in.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use quorate_net::id::{CoreId, Endpoint, NodeId};
use quorate_node::{
    object::{self, Object, Sibling},
    version::{Actor, Clock, Dot},
};

fn write(node: u16, counter: u64) -> Sibling {
    let actor = Actor::new(Endpoint::new(NodeId(node), CoreId(0)), 1);
    let value = Some(Bytes::from(vec![0x5a; 1024]));
    Sibling { dot: Dot { actor, counter }, timestamp_ms: counter, token: None, value }
}

/// One value, written `writes` times through each of `nodes` nodes in turn.
fn settled(nodes: u16, writes: u64) -> Object {
    let mut object = Object::default();
    for counter in 1..=writes {
        for node in 1..=nodes {
            let seen = object.clock.clone();
            object = object.after_write(&seen, write(node, counter));
        }
    }
    object
}

/// Concurrent values of as many nodes.
fn siblings(nodes: u16) -> Object {
    let blind = Clock::new();
    (1..=nodes).fold(Object::default(), |object, node| object.after_write(&blind, write(node, 1)))
}

fn reconcile(criterion: &mut Criterion) {
    let newer = |object: &Object| object.after_write(&object.clock.clone(), write(1, 1000));
    let (one, three) = (settled(1, 10), settled(3, 10));
    let (apart, other) = (siblings(4), siblings(8));
    let cases = [
        ("the same version", three.clone(), three.clone()),
        ("newer, one actor", one.clone(), newer(&one)),
        ("newer, three actors", three.clone(), newer(&three)),
        ("four siblings and eight", apart, other),
    ];
    let mut group = criterion.benchmark_group("reconcile");
    for (name, mine, theirs) in &cases {
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(black_box(mine).reconcile(black_box(theirs)))));
    }
    group.finish();

    let mut group = criterion.benchmark_group("object/1KiB");
    let body = three.encode();
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(black_box(&three).encode())));
    group.bench_function("view", |bencher| bencher.iter(|| black_box(object::view(black_box(&body)).is_ok())));
    group.bench_function("decode", |bencher| bencher.iter(|| black_box(Object::decode(black_box(&body)).is_ok())));
    group.bench_function("version", |bencher| bencher.iter(|| black_box(black_box(&three).version())));
    group.bench_function("after write", |bencher| {
        let next = write(1, 1000);
        bencher.iter(|| black_box(three.after_write(black_box(&three.clock), next.clone())));
    });
}

criterion_group!(benches, reconcile);
criterion_main!(benches);
