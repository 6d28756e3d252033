//! Frames: a put and its replication as they are encoded once and read in place.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_net::{
    frame,
    key::{DEFAULT_BUCKET, Key},
    message::{Consistency, Durability, Get, Message, Operation, Outcome, Put, Replicate, Reply, Request},
};

fn key() -> Key {
    Key::new(DEFAULT_BUCKET, b"key:000000000042").expect("a sound key")
}

fn request(operation: Operation) -> Message {
    Message::Request(Request { id: 7, timeout_us: 1_000_000, hops: 0, operation })
}

fn messages(value: &Bytes) -> [(&'static str, Message); 4] {
    let put = Put {
        key: key(),
        value: Some(value.clone()),
        context: None,
        quorum: 2,
        durability: Durability::Durable,
        consistency: Consistency::Sloppy,
        token: Some(1),
        wants_context: true,
    };
    let replicate = Replicate {
        operation: 7,
        timeout_us: 1_000_000,
        partition: 3,
        durable: true,
        hint_for: None,
        base: 5,
        key: key(),
        body: value.clone(),
    };
    let values =
        Outcome::Values { context: Bytes::from_static(&[7; 48]), values: [value.clone()].into(), sloppy: false };
    [
        (
            "get",
            request(Operation::Get(Get {
                key: key(),
                quorum: 2,
                consistency: Consistency::Sloppy,
                wants_context: true,
            })),
        ),
        ("put", request(Operation::Put(put))),
        ("replicate", Message::Replicate(replicate)),
        ("values", Message::Reply(Reply { id: 7, outcome: values })),
    ]
}

fn frames(criterion: &mut Criterion) {
    let value = Bytes::from(vec![0x5a; 1024]);
    for (name, message) in messages(&value) {
        let mut group = criterion.benchmark_group(format!("frame/{name}/1KiB"));
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("within the bounds");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut out = Vec::with_capacity(4096);
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                out.clear();
                frame::encode(black_box(&message), &mut out).expect("within the bounds");
            });
        });
        group.bench_function("access", |bencher| {
            bencher.iter(|| {
                let frame = frame::decode(black_box(&bytes), usize::MAX).expect("sound").expect("whole");
                black_box(frame.access().expect("a message"));
            });
        });
        group.bench_function("copy out", |bencher| {
            bencher.iter(|| {
                let frame = frame::decode(black_box(&bytes), usize::MAX).expect("sound").expect("whole");
                black_box(frame.message().expect("a message"));
            });
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
