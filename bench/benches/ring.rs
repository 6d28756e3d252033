//! The ring: finding a key's owners, and making a ring.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use quorate_net::{id::NodeId, message::MappedNode};
use quorate_node::ring::{Member, Ring};

fn members(nodes: u16) -> Vec<Member> {
    let node =
        |id| MappedNode { id: NodeId(id), address: format!("10.0.0.{id}"), cores: 2, port: 7400, core_port: 7401 };
    (1..=nodes).map(|id| Member { node: node(id), rack: format!("rack {}", id % 3), weight: 1.0 }).collect()
}

fn ring(criterion: &mut Criterion) {
    let ring = Ring::new(1024, 3, members(30)).expect("a sound ring");
    let names: Vec<String> = (0..1024).map(|number| format!("key:{number:012}")).collect();
    let mut next = names.iter().cycle();
    criterion.bench_function("ring/owners of a key", |bencher| {
        bencher.iter(|| {
            let name = next.next().expect("endless");
            black_box(ring.primaries(ring.partition(black_box(name.as_bytes()))));
        });
    });
    for nodes in [3, 30] {
        criterion.bench_function(&format!("ring/make, {nodes} nodes"), |bencher| {
            bencher.iter(|| black_box(Ring::new(1024, 3, black_box(members(nodes))).expect("a sound ring")));
        });
    }
}

criterion_group!(benches, ring);
criterion_main!(benches);
