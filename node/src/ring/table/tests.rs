//! What a change of the table promises, for clusters of many shapes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::ring::{
    Ring,
    placement::shares,
    tests::{efficiency, equal, member, members},
};

fn founded(partitions: u16, replicas: u8, members: &[Member]) -> Table {
    Table::founded(partitions, replicas, members).unwrap()
}

fn ideals(members: &[Member], table: &Table) -> BTreeMap<NodeId, f64> {
    let mut members = members.to_vec();
    members.sort_by_key(|member| member.node.id);
    let copies = f64::from(table.partitions()) * f64::from(table.copies());
    let shares = shares(&members, table.replicas());
    members.iter().zip(shares).map(|(member, share)| (member.node.id, share * copies)).collect()
}

fn count(counts: &BTreeMap<NodeId, usize>, node: NodeId) -> usize {
    counts.get(&node).copied().unwrap_or(0)
}

/// Holds for every table of these members: distinct nodes, as many and on as many racks as can be.
fn check_places(table: &Table, members: &[Member]) {
    let owning: Vec<&Member> = members.iter().filter(|member| member.weight > 0.0).collect();
    let racks = owning.iter().map(|member| &member.rack).collect::<BTreeSet<_>>().len();
    assert_eq!(usize::from(table.copies()), members.len().min(table.replicas().into()));
    for row in table.rows() {
        let own: Vec<&&Member> = owning.iter().filter(|member| row.contains(&member.node.id)).collect();
        assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), row.len(), "{row:?}");
        assert_eq!(own.len(), owning.len().min(table.replicas().into()), "{row:?} of {members:?}");
        let met = own.iter().map(|member| &member.rack).collect::<BTreeSet<_>>().len();
        assert_eq!(met, racks.min(table.replicas().into()), "{row:?} of {members:?}");
        assert!(members.iter().filter(|member| row.contains(&member.node.id)).count() == row.len(), "only members");
    }
}

/// Each has its share, within one, of the copies and of the tokens.
fn check_shares(table: &Table, members: &[Member]) {
    let counts = table.counts();
    if members.iter().filter(|member| member.weight > 0.0).count() <= table.replicas().into() {
        return;
    }
    for (node, ideal) in ideals(members, table) {
        let has = count(&counts, node) as f64;
        assert!((has - ideal).abs() < 1.0 + 1e-4, "{node} has {has} for {ideal}: {members:?}");
    }
}

fn check_tokens(table: &Table, members: &[Member]) {
    for (node, ideal) in ideals(members, table) {
        let owns = table.rows().filter(|row| row[0] == node).count() as f64;
        let ideal = ideal / f64::from(table.copies());
        assert!((owns - ideal).abs() < 1.0 + 1e-4, "{node} owns {owns} for {ideal}: {members:?}");
    }
}

/// How many copies somebody has to gain at the least: what members lack of their shares, and what those had who are gone.
fn least_moves(from: &Table, to: &Table, members: &[Member]) -> usize {
    let counts = from.counts();
    let gains = |(node, ideal): (NodeId, f64)| ((ideal + 1e-4) as usize).saturating_sub(count(&counts, node));
    let ideals = ideals(members, to);
    let gone = counts.iter().filter(|(node, _)| !ideals.contains_key(node)).map(|(_, count)| count).sum::<usize>();
    let gone = if from.copies() > to.copies() { 0 } else { gone };
    ideals.into_iter().map(gains).sum::<usize>().max(gone)
}

/// One that joins, one that goes, one of another weight: what a member list turns into.
fn changes() -> impl Strategy<Value = Vec<(u16, Option<f64>)>> {
    prop::collection::vec((0..500_u16, prop::option::weighted(0.7, 0.3..4.0)), 1..4)
}

fn changed(members: &[Member], changes: &[(u16, Option<f64>)], racks: u16) -> Vec<Member> {
    let mut members = members.to_vec();
    for (number, weight) in changes {
        match weight {
            Some(weight) if number % 3 == 0 && !members.is_empty() => {
                let at = usize::from(*number) % members.len();
                members[at].weight = *weight;
            }
            Some(weight) => members.push(member(500 + number, *weight, &format!("r{}", number % racks))),
            None if members.len() > 1 => drop(members.remove(usize::from(*number) % members.len())),
            None => {}
        }
    }
    members.sort_by_key(|member| member.node.id);
    members.dedup_by_key(|member| member.node.id);
    if members.iter().all(|member| member.weight == 0.0) {
        members[0].weight = 1.0;
    }
    members
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_of_changes_keeps_what_a_table_promises(
        members in members(),
        steps in prop::collection::vec((changes(), 1..6_u16), 1..4),
        replicas in 1..6_u8,
        log_partitions in 6..10_u32,
    ) {
        let (mut members, mut table) = (members.clone(), founded(1 << log_partitions, replicas, &members));
        for (changes, racks) in steps {
            members = changed(&members, &changes, racks);
            let next = table.moved_to(&members).unwrap();
            check_places(&next, &members);
            check_shares(&next, &members);
            let mut shuffled = members.clone();
            shuffled.reverse();
            prop_assert_eq!(&table.moved_to(&shuffled).unwrap(), &next, "the order of the members does not matter");
            prop_assert_eq!(&next.moved_to(&members).unwrap(), &next, "what is done stays");
            prop_assert!(next.suits(&members).unwrap());
            prop_assert_eq!(Table::unpack(&next.pack()), Some(next.clone()));
            table = next;
        }
    }

    #[test]
    fn little_moves_when_racks_ask_for_nothing(
        weights in prop::collection::vec(prop_oneof![3 => Just(1.0), 1 => 0.5..3.0], 1..16),
        changes in prop::collection::vec(changes(), 1..4),
        replicas in 1..6_u8,
    ) {
        let mut members: Vec<Member> = (0..).zip(weights).map(|(id, weight)| member(id, weight, "")).collect();
        let mut table = founded(256, replicas, &members);
        for changes in changes {
            let old = members.clone();
            members = changed(&members, &changes, 1);
            members.iter_mut().for_each(|member| member.rack = String::new());
            let next = table.moved_to(&members).unwrap();
            let (moved, least) = (table.moves(&next).len(), least_moves(&table, &next, &members));
            // A member that has to be in every other partition leaves no choice where others go.
            let crowded = |table: &Table, members: &[Member]| ideals(members, table).values().any(|copies| *copies > 128.0);
            let factor = if crowded(&table, &old) || crowded(&next, &members) { 2.0 } else { 1.1 };
            // What rounding leaves open is one copy of each member at the most.
            let most = (factor * least as f64) as usize + members.len();
            prop_assert!(moved <= most, "{moved} moved, {least} must, {members:?}");
            check_shares(&next, &members);
            table = next;
        }
    }

    #[test]
    fn moves_lead_from_one_table_to_the_next(members in members(), changes in changes(), replicas in 1..6_u8) {
        let next_members = changed(&members, &changes, 3);
        let table = founded(64, replicas, &members);
        let next = table.moved_to(&next_members).unwrap();
        let mut sets: Vec<BTreeSet<NodeId>> = table.rows().map(|row| row.iter().copied().collect()).collect();
        for Move { partition, gains, loses } in table.moves(&next) {
            let set = &mut sets[usize::from(partition)];
            prop_assert!(set.insert(gains));
            prop_assert!(loses.is_none_or(|loses| set.remove(&loses)));
        }
        for (set, row) in sets.iter().zip(next.rows()) {
            prop_assert!(row.iter().all(|node| set.contains(node)));
        }
    }
}

#[test]
fn joins_and_leaves_of_equal_nodes() {
    println!("nodes  racks   N   moved/least  primaries  tokens  whole blocks  taken over");
    for (nodes, racks, replicas, to) in [
        (1, 1, 3, 2),
        (2, 2, 3, 3),
        (3, 3, 3, 4),
        (4, 4, 3, 5),
        (4, 4, 3, 3),
        (5, 5, 3, 6),
        (6, 3, 3, 7),
        (8, 4, 3, 12),
        (10, 10, 3, 11),
        (12, 12, 3, 10),
        (30, 5, 3, 31),
        (30, 30, 5, 29),
    ] {
        let (before, after) = (equal(nodes, racks), equal(to, if racks == nodes { to } else { racks }));
        let table = founded(1024, replicas, &before);
        let next = table.moved_to(&after).unwrap();
        let (moved, least) = (table.moves(&next).len(), least_moves(&table, &next, &after));
        let all: BTreeMap<u16, usize> = next.counts().into_iter().map(|(node, count)| (node.0, count)).collect();
        let mut tokens: BTreeMap<u16, usize> = (0..to).map(|node| (node, 0)).collect();
        next.rows().for_each(|row| *tokens.get_mut(&row[0].0).unwrap() += 1);
        let firsts: Vec<NodeId> = next.rows().map(|row| row[0]).collect();
        let blocks = firsts.chunks_exact(to.into());
        let whole = |block: &&[NodeId]| block.iter().collect::<BTreeSet<_>>().len() == usize::from(to);
        let whole = blocks.clone().filter(whole).count() as f64 / blocks.len() as f64;
        let (balance, first, taken) = (efficiency(&all), efficiency(&tokens), takeover(&next, &after));
        println!(
            "{nodes:3}→{to:<3} {racks:5}  {replicas:2}   {moved:5}/{least:<5}  {balance:.3}      {first:.3}   {whole:.3}         {taken:.3}"
        );
        assert!(moved as f64 <= 1.1 * least as f64, "{moved} of {least}");
        check_shares(&next, &after);
        check_tokens(&next, &after);
        if racks == nodes && (5..=12).contains(&to) {
            assert!(taken >= 0.3 && whole >= 0.1, "{taken}, {whole}");
        }
    }
}

/// When one node is dead, the first fallback of each of its partitions takes its place: the mean over the largest of what
/// each other node takes, for the worst dead node.
fn takeover(table: &Table, members: &[Member]) -> f64 {
    let ring = Ring::of(table, None, members.to_vec());
    let worst = |dead: NodeId| {
        let others = members.iter().filter(|member| member.node.id != dead);
        let mut taken: BTreeMap<u16, usize> = others.map(|member| (member.node.id.0, 0)).collect();
        for partition in 0..table.partitions() {
            if table.row(partition).contains(&dead)
                && let Some(first) = ring.fallbacks(partition).first()
            {
                *taken.get_mut(&first.node.0).unwrap() += 1;
            }
        }
        if taken.values().all(|taken| *taken == 0) { 1.0 } else { efficiency(&taken) }
    };
    members.iter().map(|member| worst(member.node.id)).fold(1.0, f64::min)
}

#[test]
fn a_large_table_is_changed_in_time_and_fits() {
    let before = equal(60, 6);
    let table = founded(1 << 14, 7, &before);
    let next = table.moved_to(&equal(61, 6)).unwrap();
    let (moved, least) = (table.moves(&next).len(), least_moves(&table, &next, &equal(61, 6)));
    println!("{moved} moved, {least} must");
    assert!(moved as f64 <= 1.1 * least as f64, "{moved} of {least}");
    assert!(next.pack().len() <= gossip::TABLE_BYTES_MAX);
}

#[test]
fn a_replaced_node_gives_all_its_places() {
    let table = founded(64, 3, &equal(5, 5));
    let next = table.replaced(NodeId(2), NodeId(9));
    let moves = table.moves(&next);
    assert_eq!(moves.len(), table.counts()[&NodeId(2)]);
    assert!(moves.iter().all(|m| (m.gains, m.loses) == (NodeId(9), Some(NodeId(2)))));
    let back = |node: &NodeId| if *node == NodeId(9) { NodeId(2) } else { *node };
    assert!(table.rows().zip(next.rows()).all(|(a, b)| a.iter().copied().eq(b.iter().map(back))), "in their order");
}

#[test]
fn racks_are_mended_by_moving_what_is_in_the_way() {
    // All in one rack, and then two of them turn out to be in another.
    let before = equal(6, 1);
    let table = founded(256, 3, &before);
    let after = equal(6, 3);
    assert!(!table.suits(&after).unwrap());
    let next = table.moved_to(&after).unwrap();
    check_places(&next, &after);
    check_shares(&next, &after);
    // A row of three out of three racks of two is broken unless it met each of them; no more than the broken ones move.
    let broken = |row: &&[NodeId]| row.iter().map(|node| node.0 % 3).collect::<BTreeSet<_>>().len() < 3;
    let broken = table.rows().filter(broken).count();
    assert!(table.moves(&next).len() <= 2 * broken, "{} for {broken}", table.moves(&next).len());
}

#[test]
fn balance_is_by_weight() {
    let members = [member(1, 1.0, ""), member(2, 2.0, ""), member(3, 1.0, ""), member(4, 0.0, "")];
    let table = founded(64, 1, &members);
    assert!((table.balance(&members) - 1.0).abs() < 1e-9, "{}", table.balance(&members));
    let others = [member(1, 1.0, ""), member(2, 1.0, ""), member(3, 1.0, "")];
    assert!((table.balance(&others) - 2.0 / 3.0).abs() < 1e-9, "{}", table.balance(&others));
}

#[test]
fn the_ring_of_a_change_names_who_gains_and_who_loses() {
    let (before, after) = (equal(3, 3), equal(4, 4));
    let table = founded(64, 3, &before);
    let next = table.moved_to(&after).unwrap();
    let ring = Ring::of(&table, Some(&next), after.clone());
    let plain = Ring::of(&table, None, before);
    assert!(ring.is_changing() && !plain.is_changing());
    let nodes = |list: &[quorate_net::id::Endpoint]| list.iter().map(|endpoint| endpoint.node).collect::<Vec<_>>();
    for partition in 0..64 {
        assert_eq!(nodes(ring.primaries(partition)), table.row(partition));
        assert_eq!(nodes(ring.next_primaries(partition)), next.row(partition));
        assert_eq!(nodes(ring.fallbacks(partition)), [NodeId(3)]);
        let gaining: Vec<_> = ring.gaining(partition).collect();
        let losing: Vec<_> = ring.losing(partition).collect();
        assert_eq!(gaining.len(), losing.len());
        assert_eq!(gaining.is_empty(), !next.row(partition).contains(&NodeId(3)));
        assert_eq!(plain.next_primaries(partition), plain.primaries(partition));
        assert_eq!((plain.gaining(partition).count(), plain.losing(partition).count()), (0, 0));
    }
    // Who keeps a partition and is no member any more leaves its place empty.
    let without: Vec<Member> = equal(3, 3).into_iter().filter(|member| member.node.id != NodeId(1)).collect();
    let ring = Ring::of(&table, None, without);
    assert!((0..64).all(|partition| ring.primaries(partition).len() == 2 && ring.fallbacks(partition).is_empty()));
}
