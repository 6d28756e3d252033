//! A get and a put of one client, through three nodes of one core each, over loopback and on a real disk.
//!
//! What this says is what one request takes when nothing else goes on: three executors and the client share the machine's
//! CPUs, so wake-ups are most of it. Under load: `quorate bench`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use quorate_bare::Tail;
use quorate_net::{
    client::{Client, ClientOptions, GetOptions, PutOptions},
    key::{DEFAULT_BUCKET, Key},
    message::Durability,
};
use quorate_node::{config::Config, server};

const NODES: u8 = 3;
const KEYS: u64 = 1000;
const VALUE: &[u8] = &[0x5a; 1024];

/// Nodes that find each other take a moment.
const START_MAX: Duration = Duration::from_secs(60);

/// Apart from the tests' and from those of other processes.
fn address(node: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 32 | (high & 0x1f), low, node)
}

fn config(directory: &Path, node: u8) -> Config {
    let mut text = format!(
        "[node]\nid = {node}\ndata = \"node-{node}\"\n\
         [cluster]\nname = \"criterion\"\nsecret = \"the secret of a benchmark\"\npartitions = 64\n\
         replicas = 3\nread_quorum = 2\nwrite_quorum = 2\n"
    );
    for node in 1..=NODES {
        text += &format!("[[cluster.node]]\nid = {node}\naddress = \"{}\"\ncores = 1\n", address(node));
    }
    Config::parse(&text).expect("a sound configuration").relative_to(directory)
}

fn key(number: u64) -> Key {
    Key::new(DEFAULT_BUCKET, format!("key:{:012}", number % KEYS).as_bytes()).expect("a sound key")
}

fn put(client: &mut Client, number: u64, options: &PutOptions) {
    client.put(&key(number), Bytes::from_static(VALUE), options).expect("two of three have it");
}

/// All keys are on all three nodes.
fn filled() -> Client {
    let seeds: Vec<SocketAddr> = (1..=NODES).map(|node| SocketAddr::from((address(node), 7400))).collect();
    let by_all = PutOptions { quorum: NODES, ..PutOptions::default() };
    let deadline = Instant::now() + START_MAX;
    let up = || {
        let mut client = Client::connect(&seeds, ClientOptions::default()).ok()?;
        client.put(&key(0), Bytes::from_static(VALUE), &by_all).ok().map(|_| client)
    };
    let mut client = loop {
        if let Some(client) = up() {
            break client;
        }
        assert!(Instant::now() < deadline, "the nodes do not serve");
        thread::sleep(Duration::from_millis(20));
    };
    (0..KEYS).for_each(|number| put(&mut client, number, &by_all));
    client
}

fn requests(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for node in 1..=NODES {
            let (config, stop) = (config(directory.path(), node), &stop);
            scope.spawn(move || server::run(config, stop, |_| {}, || None).unwrap_or_else(|error| panic!("{error}")));
        }
        let mut client = filled();
        let mut group = criterion.benchmark_group("cluster");
        group.sample_size(20);
        let mut measure = |name: &'static str, request: &mut dyn FnMut(u64)| {
            let (mut tail, mut number) = (Tail::new(name), 0);
            group.bench_function(name, |bench| {
                bench.iter_custom(|iterations| {
                    let repeated = (0..iterations).map(|_| {
                        number += 1;
                        tail.time(|| request(number)).1
                    });
                    repeated.sum()
                });
            });
        };
        measure("get, R = 2", &mut |number| {
            let found = client.get(&key(number), GetOptions::default()).expect("two of three answer");
            assert_eq!(found.values.len(), 1);
        });
        for durability in [Durability::Durable, Durability::Buffered] {
            let name = if durability == Durability::Durable { "put, W = 2, durable" } else { "put, W = 2, buffered" };
            let options = PutOptions { durability, ..PutOptions::default() };
            measure(name, &mut |number| put(&mut client, number, &options));
        }
        group.finish();
        stop.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, requests);
criterion_main!(benches);
