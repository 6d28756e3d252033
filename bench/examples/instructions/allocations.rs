//! What the machines allocate: a get that is answered from RAM nothing, on all three cores; a put a bounded number of times.
//!
//! Not here: what sockets and files take.

use quorate_net::message::{Operation, Request};

use crate::cluster::{Cluster, get, put};

const KEYS: u64 = 64;
const OPERATIONS: u64 = 2_000;

/// Lists of what is under way grow now and then, as no deadline is looked at here.
const GROWTH: u64 = 30;

/// By a put: its object, the frames of three logs, what is under way, and what its replicas compare.
const OF_A_PUT: u64 = 10;

/// Of that many, after as many have made room for what stays.
fn allocations(cluster: &mut Cluster, request: impl Fn(u64) -> Request) -> u64 {
    (0..OPERATIONS).for_each(|number| cluster.ask(request(number)));
    let before = cluster.allocations;
    (0..OPERATIONS).for_each(|number| cluster.ask(request(number)));
    cluster.allocations - before
}

#[test]
fn gets_allocate_nothing_and_puts_little() {
    let mut cluster = Cluster::new();
    (0..KEYS).for_each(|number| cluster.ask(put(number, 0)));
    let made = allocations(&mut cluster, |number| {
        let mut request = get(number % KEYS);
        if let Operation::Get(get) = &mut request.operation {
            get.wants_context = false;
        }
        request
    });
    assert!(made <= GROWTH, "{made} allocations for {OPERATIONS} gets");
    let made = allocations(&mut cluster, |number| {
        let mut request = put(number % KEYS, number);
        if let Operation::Put(put) = &mut request.operation {
            put.wants_context = false;
        }
        request
    });
    assert!(made <= OF_A_PUT * OPERATIONS, "{made} allocations for {OPERATIONS} puts");
}
