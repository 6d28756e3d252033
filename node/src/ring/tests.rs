//! What the placement promises, for clusters of many shapes.

use super::{
    placement::{shares, tokens},
    *,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn member(id: u16, weight: f64, rack: &str) -> Member {
    let address = format!("127.0.0.{id}");
    let node = MappedNode { id: NodeId(id), address, cores: 1 + id % 4, port: 7400, core_port: 7401 };
    Member { node, rack: rack.to_owned(), weight }
}

/// Nodes of weight 1, node i in rack i mod `racks`.
pub(super) fn equal(nodes: u16, racks: u16) -> Vec<Member> {
    (0..nodes).map(|id| member(id, 1.0, &format!("r{}", id % racks))).collect()
}

fn ring(partitions: u16, replicas: u8, members: &[Member]) -> Ring {
    Ring::new(partitions, replicas, members.to_vec()).unwrap()
}

fn nodes(list: &[Endpoint]) -> Vec<u16> {
    list.iter().map(|endpoint| endpoint.node.0).collect()
}

/// For each node, how many of the lists it is in.
fn counts<'a>(ring: &Ring, lists: impl Iterator<Item = &'a [Endpoint]>) -> BTreeMap<u16, usize> {
    let mut counts = ring.members().iter().map(|member| (member.node.id.0, 0)).collect::<BTreeMap<_, _>>();
    for list in lists {
        for node in nodes(list) {
            *counts.get_mut(&node).unwrap() += 1;
        }
    }
    counts
}

fn primaries_by_node(ring: &Ring) -> BTreeMap<u16, usize> {
    counts(ring, (0..ring.partitions()).map(|partition| ring.primaries(partition)))
}

/// The mean over the largest: 1 is perfect balance.
pub(super) fn efficiency(counts: &BTreeMap<u16, usize>) -> f64 {
    let mean = counts.values().sum::<usize>() as f64 / counts.len() as f64;
    mean / *counts.values().max().unwrap() as f64
}

pub(super) fn members() -> impl Strategy<Value = Vec<Member>> {
    let weight = prop_oneof![4 => Just(1.0), 2 => 0.2..5.0, 1 => Just(0.0)];
    (prop::collection::btree_map(0..500_u16, (weight, 0..6_u16), 1..24), 1..6_u16)
        .prop_map(|(nodes, racks)| {
            let make = |(id, (weight, rack)): (u16, (f64, u16))| member(id, weight, &format!("r{}", rack % racks));
            nodes.into_iter().map(make).collect::<Vec<_>>()
        })
        .prop_filter("somebody owns something", |members| members.iter().any(|member| member.weight > 0.0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_partition_has_its_distinct_owners(members in members(), replicas in 1..6_u8, log_partitions in 6..11_u32) {
        let ring = ring(1 << log_partitions, replicas, &members);
        let owning = members.iter().filter(|member| member.weight > 0.0).collect::<Vec<_>>();
        let racks = owning.iter().map(|member| &member.rack).collect::<BTreeSet<_>>().len();
        let rack_of = members.iter().map(|m| (m.node.id.0, &m.rack)).collect::<BTreeMap<_, _>>();
        let is_owning = |node: &u16| owning.iter().any(|member| member.node.id.0 == *node);
        for partition in 0..ring.partitions() {
            let list = nodes(ring.preference(partition));
            let distinct = list.iter().collect::<BTreeSet<_>>();
            prop_assert_eq!((list.len(), distinct.len()), (members.len(), members.len()), "each node is in it once");
            let primaries = nodes(ring.primaries(partition));
            prop_assert_eq!(primaries.len(), members.len().min(replicas.into()));
            // A node that owns nothing is asked only when all the others are.
            let owners = primaries.iter().filter(|node| is_owning(node)).count();
            prop_assert_eq!(owners, owning.len().min(replicas.into()));
            let racks_met = primaries.iter().filter(|n| is_owning(n)).map(|n| rack_of[n]).collect::<BTreeSet<_>>().len();
            prop_assert_eq!(racks_met, racks.min(replicas.into()), "{:?} of {:?}", primaries, members);
            prop_assert_eq!([ring.primaries(partition), ring.fallbacks(partition)].concat(), ring.preference(partition));
            for endpoint in ring.preference(partition) {
                let node = ring.members().iter().find(|member| member.node.id == endpoint.node).unwrap();
                prop_assert_eq!(endpoint.core, core_of(partition, node.node.cores));
                prop_assert!(endpoint.core.0 < node.node.cores);
            }
        }
    }

    #[test]
    fn tokens_in_a_row_are_of_distinct_nodes_and_racks(members in members(), replicas in 1..6_u8) {
        let owning = members.iter().filter(|member| member.weight > 0.0).collect::<Vec<_>>();
        let racks = owning.iter().map(|member| &member.rack).collect::<BTreeSet<_>>().len();
        let copies = owning.len().min(replicas.into());
        for row in tokens(512, replicas, &members).windows(copies) {
            prop_assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), copies, "{:?}", row);
            let met = row.iter().map(|node| &members[*node].rack).collect::<BTreeSet<_>>().len();
            prop_assert_eq!(met, racks.min(copies), "{:?} of {:?}", row, members);
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(members in members().prop_shuffle(), replicas in 1..5_u8) {
        let given = ring(256, replicas, &members);
        let mut sorted = members;
        sorted.sort_by_key(|member| member.node.id);
        let sorted = ring(256, replicas, &sorted);
        for partition in 0..256 {
            prop_assert_eq!(given.preference(partition), sorted.preference(partition));
        }
    }

    #[test]
    fn each_block_is_a_permutation_when_weights_are_equal(nodes in 1..40_u16, replicas in 1..6_u8, apart in any::<bool>()) {
        // Alone in its rack, or in racks of the same size, as many as there are replicas at least.
        let racks = if apart && nodes % 2 == 0 && nodes / 2 >= u16::from(replicas) { nodes / 2 } else { nodes };
        let members = equal(nodes, racks);
        let tokens = tokens(1024, replicas, &members);
        for block in tokens.chunks_exact(nodes.into()) {
            prop_assert_eq!(block.iter().collect::<BTreeSet<_>>().len(), usize::from(nodes), "{:?}", block);
        }
    }

    #[test]
    fn shares_follow_the_weights(
        weights in prop::collection::vec(0.25..4.0, 7..24),
        racks in 5..24_u16,
        replicas in 1..4_u8,
    ) {
        let member = |(id, weight): (u16, &f64)| member(id, *weight, &format!("r{}", id % racks));
        let members = (0..).zip(&weights).map(member).collect::<Vec<_>>();
        let ring = ring(4096, replicas, &members);
        let counts = primaries_by_node(&ring);
        for (id, expected) in (0..).zip(shares(&members, replicas)) {
            let share = counts[&id] as f64 / (4096.0 * f64::from(replicas));
            prop_assert!((share / expected - 1.0).abs() < 0.05, "{id} has {share:.4} for {expected:.4}, {weights:?}");
        }
    }
}

#[test]
fn shares_are_what_distinct_nodes_and_racks_allow() {
    let check = |members: &[(f64, &str)], replicas, expected: &[f64]| {
        let members = (0..).zip(members).map(|(id, (weight, rack))| member(id, *weight, rack)).collect::<Vec<_>>();
        let shares = shares(&members, replicas);
        assert!(shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{shares:?}, expected {expected:?}");
        let ring = ring(4096, replicas, &members);
        let copies = 4096.0 * f64::from(replicas).min(expected.iter().filter(|share| **share > 0.0).count() as f64);
        for (id, expected) in (0..).zip(expected) {
            let owned = primaries_by_node(&ring)[&id] as f64 / copies;
            assert!((owned - expected).abs() <= 0.02 * expected, "{id}: {owned}, expected {expected}");
        }
    };
    check(&[(1.0, "a"), (3.0, "b")], 1, &[0.25, 0.75]);
    // A copy is on two nodes, so neither has more than half.
    check(&[(1.0, "a"), (3.0, "b")], 2, &[0.5, 0.5]);
    check(
        &[(1.0, "a"), (9.0, "b"), (1.0, "c"), (1.0, "d"), (0.0, "e")],
        3,
        &[2.0 / 9.0, 1.0 / 3.0, 2.0 / 9.0, 2.0 / 9.0, 0.0],
    );
    check(&[(1.0, "a"), (9.0, "a"), (1.0, "a"), (1.0, "a")], 2, &[1.0 / 6.0, 0.5, 1.0 / 6.0, 1.0 / 6.0]);
    // Three racks for three copies: each rack has one, whatever it weighs.
    check(&[(1.0, "a"), (1.0, "a"), (1.0, "b"), (1.0, "c")], 3, &[1.0 / 6.0, 1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0]);
    // Two racks for three copies: the small one has one of them.
    check(
        &[(1.0, "a"), (1.0, "a"), (1.0, "a"), (1.0, "a"), (1.0, "b")],
        3,
        &[1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 3.0],
    );
}

#[test]
fn balance_of_equal_nodes() {
    println!(
        "nodes  racks   N   mean/max of primaries, of first primaries, of what a dead node's neighbours take over"
    );
    for (nodes, racks, replicas) in [
        (3, 3, 3),
        (4, 4, 3),
        (5, 5, 3),
        (6, 3, 3),
        (8, 4, 3),
        (10, 10, 3),
        (12, 4, 3),
        (30, 30, 3),
        (30, 5, 3),
        (30, 30, 5),
        (100, 10, 3),
    ] {
        let members = equal(nodes, racks);
        let ring = ring(1024, replicas, &members);
        let firsts = counts(&ring, (0..1024).map(|partition| &ring.primaries(partition)[..1]));
        let (all, first) = (efficiency(&primaries_by_node(&ring)), efficiency(&firsts));
        let taken_over = takeover(&members, replicas);
        println!("{nodes:5}  {racks:5}  {replicas:2}   {all:.3}  {first:.3}  {taken_over:.3}");
        // The paper's figure 8 has .86 to .99 for its strategy 3.
        let bound = if nodes <= 30 { 0.96 } else { 0.90 };
        assert!(all >= bound, "{all} for {nodes} nodes");
        // One token more than the mean is 1 / (Q / S) more.
        assert!(first >= 1.0 / (1.0 + f64::from(nodes) / 1024.0) - 1e-9, "{first} for {nodes} nodes");
        if (5..=12).contains(&nodes) && racks == nodes {
            assert!(taken_over >= 0.6, "{taken_over} for {nodes} nodes");
        }
    }
}

/// When one node is dead, the first fallback of each of its partitions takes its place: the mean over the largest of what
/// each other node takes, for the worst dead node.
fn takeover(members: &[Member], replicas: u8) -> f64 {
    let ring = ring(1024, replicas, members);
    let worst = |dead: u16| {
        let mut taken = members.iter().map(|member| (member.node.id.0, 0)).collect::<BTreeMap<_, _>>();
        taken.remove(&dead);
        for partition in 0..1024 {
            if nodes(ring.primaries(partition)).contains(&dead)
                && let Some(first) = ring.fallbacks(partition).first()
            {
                *taken.get_mut(&first.node.0).unwrap() += 1;
            }
        }
        if taken.values().all(|taken| *taken == 0) { 1.0 } else { efficiency(&taken) }
    };
    members.iter().map(|member| worst(member.node.id.0)).fold(1.0, f64::min)
}

#[test]
fn partitions_of_a_node_spread_over_its_cores() {
    for cores in [1, 2, 3, 4, 7, 8, 16, 32] {
        // All partitions, and those that one of several nodes owns.
        for (nodes_count, replicas) in [(3, 3), (5, 3), (10, 3), (12, 2)] {
            let members = equal(nodes_count, nodes_count);
            let ring = ring(1024, replicas, &members);
            for node in 0..nodes_count {
                let mut counts = vec![0; usize::from(cores)];
                let owned = (0..1024).filter(|partition| nodes(ring.primaries(*partition)).contains(&node));
                owned.for_each(|partition| counts[usize::from(core_of(partition, cores).0)] += 1);
                let mean = counts.iter().sum::<usize>() as f64 / f64::from(cores);
                let max = *counts.iter().max().unwrap() as f64;
                // A node that has all partitions spreads them evenly, one that has some no worse than by chance.
                let most = if nodes_count == 3 { mean + 2.0 } else { mean + 4.5 * mean.sqrt() };
                assert!(max <= most, "{cores} cores of node {node} of {nodes_count}: {counts:?}");
            }
        }
    }
}

#[test]
fn the_walk_goes_round() {
    // The last partition's owners are found at the start of the ring.
    let members = equal(5, 5);
    let ring = ring(64, 3, &members);
    let tokens = tokens(64, 3, &members);
    let mut expected = vec![tokens[63] as u16];
    for token in &tokens {
        if !expected.contains(&(*token as u16)) {
            expected.push(*token as u16);
        }
    }
    assert_eq!(nodes(ring.preference(63)), expected);
}

#[test]
fn a_ring_stays_as_it_is() {
    // A change of these lists moves the data of every cluster that runs.
    let ring = ring(64, 3, &equal(5, 5));
    let lists = (0..64).flat_map(|partition| nodes(ring.preference(partition)));
    let hash = lists.fold(0_u64, |hash, node| hash.wrapping_mul(31).wrapping_add(u64::from(node) + 1));
    assert_eq!(hash, STABLE, "the first is {:?}", ring.preference(0));
}

const STABLE: u64 = 9_292_778_326_989_857_088;

#[test]
fn impossible_rings_are_refused() {
    let two = equal(2, 2);
    let error = |partitions, members: &[Member]| Ring::new(partitions, 3, members.to_vec()).unwrap_err();
    for partitions in [0, 1, 32, 100, 1023, 32768] {
        assert_eq!(error(partitions, &two), RingError::Partitions(partitions));
    }
    assert_eq!(error(64, &[]), RingError::NoMembers);
    assert_eq!(error(64, &[member(1, 0.0, "")]), RingError::NoMembers);
    assert_eq!(error(64, &[member(1, 1.0, ""), member(1, 1.0, "")]), RingError::Twice(NodeId(1)));
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(error(64, &[member(1, 1.0, ""), member(2, weight, "")]), RingError::Weight(NodeId(2)));
    }
}
