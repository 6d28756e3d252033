//! `CLUSTER`: who owns what, so that any Redis Cluster client sends a key to the very core that owns it (section 6.4).
//!
//! The rule: each core of each node is one "node" of Redis Cluster, with its own port and its own id; all 16384 slots
//! are covered; a slot's first is the owning core of its first primary, its replicas those of the other primaries, without
//! those that are away, so that a client that lost its node goes on with the next one. Since any core serves any key,
//! nothing is ever redirected.
//!
//! Not here: the ring itself (`ring`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use quorate_net::{
    id::{CoreId, Endpoint, NodeId},
    message::ClusterMap,
    resp::{Command, Writer},
    slot::{self, SLOTS},
};

use super::{
    NodeView,
    client::{Client, subcommand, write_help},
    data::argument,
    server::core_port,
};

const SUBCOMMANDS: [(&str, i32); 8] = [
    ("help", 2),
    ("info", 2),
    ("keyslot", 3),
    ("myid", 2),
    ("myshardid", 2),
    ("nodes", 2),
    ("shards", 2),
    ("slots", 2),
];

pub(super) fn cluster(_: &mut Client, command: Command<'_>, node: &dyn NodeView, writer: &mut Writer<'_>) {
    let (own, core) = node.endpoint();
    match subcommand("cluster", &SUBCOMMANDS, command) {
        Err(refusal) => writer.error(&refusal),
        Ok("keyslot") => writer.integer(i64::from(slot::slot(argument(command, 2)))),
        Ok("myid" | "myshardid") => writer.bulk(core_id(node.cluster_id(), own, core).as_bytes()),
        Ok("info") => writer.verbatim(&info(&node.map())),
        Ok("slots") => write_slots(node, writer),
        Ok("shards") => write_shards(node, writer),
        Ok("nodes") => writer.verbatim(&nodes(node)),
        Ok(_) => write_help("cluster", &SUBCOMMANDS, writer),
    }
}

/// The forty hexadecimal digits that stand for a core: the same on all nodes, and after any restart.
pub(super) fn core_id(cluster: u64, node: NodeId, core: CoreId) -> String {
    format!("{cluster:016x}{:012x}{:012x}", node.0, core.0)
}

/// A core as clients reach it: its node's index in the map, and its number there.
type Owner = (usize, CoreId);

/// The owners of a run of slots, the first primary that is not away first.
struct Range {
    first: u16,
    last: u16,
    owners: Vec<Owner>,
}

/// The cores that this one cannot reach.
fn away(node: &dyn NodeView) -> BTreeSet<Owner> {
    let map = node.map();
    let cores =
        map.nodes.iter().enumerate().flat_map(|(index, of)| (0..of.cores).map(move |core| (index, CoreId(core))));
    cores.filter(|&(index, core)| node.is_away(Endpoint::new(map.nodes[index].id, core))).collect()
}

/// All slots in order; adjacent partitions with the same owners are one range. Where all primaries are away, a fallback
/// owns the slots, and where all of those are, the first primary.
fn ranges(map: &ClusterMap, away: &BTreeSet<Owner>) -> Vec<Range> {
    let width = usize::from(SLOTS) / map.preference.len();
    let mut ranges: Vec<Range> = Vec::new();
    for (partition, list) in map.preference.iter().enumerate() {
        let owner = |&index: &u16| {
            let node = usize::from(index);
            (node, ClusterMap::core(map.spread[partition], map.nodes[node].cores))
        };
        let is_there = |owner: &Owner| !away.contains(owner);
        let mut owners: Vec<Owner> = list.iter().take(usize::from(map.replicas)).map(owner).filter(is_there).collect();
        if owners.is_empty() {
            owners.extend(list.iter().map(owner).find(is_there).or(list.first().map(owner)));
        }
        let last = ((partition + 1) * width - 1) as u16;
        match ranges.last_mut() {
            Some(range) if range.owners == owners => range.last = last,
            _ => ranges.push(Range { first: (partition * width) as u16, last, owners }),
        }
    }
    ranges
}

fn write_slots(node: &dyn NodeView, writer: &mut Writer<'_>) {
    let map = node.map();
    let ranges = ranges(&map, &away(node));
    // There are as many ranges as partitions, and few owners: each is spelled once.
    let mut spelled = BTreeMap::<Owner, String>::new();
    writer.array(ranges.len());
    for range in ranges {
        writer.array(2 + range.owners.len());
        writer.integer(i64::from(range.first));
        writer.integer(i64::from(range.last));
        for (index, core) in range.owners {
            let id =
                spelled.entry((index, core)).or_insert_with(|| core_id(node.cluster_id(), map.nodes[index].id, core));
            writer.array(4);
            writer.bulk(map.nodes[index].address.as_bytes());
            writer.integer(i64::from(core_port(&map, index, core.0)));
            writer.bulk(id.as_bytes());
            writer.array(0);
        }
    }
}

/// Ranges with the same owners, in the same order, are one shard.
fn write_shards(node: &dyn NodeView, writer: &mut Writer<'_>) {
    let map = node.map();
    let mut shards = BTreeMap::<Vec<Owner>, Vec<(u16, u16)>>::new();
    for range in ranges(&map, &away(node)) {
        shards.entry(range.owners).or_default().push((range.first, range.last));
    }
    writer.array(shards.len());
    for (owners, slots) in shards {
        writer.map(2);
        writer.bulk(b"slots");
        writer.array(2 * slots.len());
        slots.iter().flat_map(|&(first, last)| [first, last]).for_each(|slot| writer.integer(i64::from(slot)));
        writer.bulk(b"nodes");
        writer.array(owners.len());
        for (place, (index, core)) in owners.into_iter().enumerate() {
            let address = map.nodes[index].address.as_bytes();
            writer.map(7);
            writer.bulk(b"id");
            writer.bulk(core_id(node.cluster_id(), map.nodes[index].id, core).as_bytes());
            writer.bulk(b"port");
            writer.integer(i64::from(core_port(&map, index, core.0)));
            for key in [b"ip".as_slice(), b"endpoint"] {
                writer.bulk(key);
                writer.bulk(address);
            }
            writer.bulk(b"role");
            writer.bulk(if place == 0 { b"master" } else { b"replica" });
            writer.bulk(b"replication-offset");
            writer.integer(0);
            writer.bulk(b"health");
            writer.bulk(b"online");
        }
    }
}

/// One line for each core: all are masters, of the slots that they own first.
fn nodes(node: &dyn NodeView) -> String {
    let map = node.map();
    let away = away(node);
    let ranges = ranges(&map, &away);
    let mut text = String::new();
    for (index, mapped) in map.nodes.iter().enumerate() {
        for core in (0..mapped.cores).map(CoreId) {
            let myself = if node.endpoint() == (mapped.id, core) { "myself," } else { "" };
            let (failed, link) =
                if away.contains(&(index, core)) { (",fail", "disconnected") } else { ("", "connected") };
            let _ = write!(
                text,
                "{} {}:{}@0 {myself}master{failed} - 0 0 1 {link}",
                core_id(node.cluster_id(), mapped.id, core),
                mapped.address,
                core_port(&map, index, core.0),
            );
            let own = ranges.iter().filter(|range| range.owners.first() == Some(&(index, core)));
            for range in merged(own.map(|range| (range.first, range.last))) {
                let _ = match range {
                    (first, last) if first == last => write!(text, " {first}"),
                    (first, last) => write!(text, " {first}-{last}"),
                };
            }
            text.push('\n');
        }
    }
    text
}

/// Adjacent runs as one: here only the first owner counts.
fn merged(runs: impl Iterator<Item = (u16, u16)>) -> Vec<(u16, u16)> {
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in runs {
        match merged.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn info(map: &ClusterMap) -> String {
    let cores: u32 = map.nodes.iter().map(|node| u32::from(node.cores)).sum();
    format!(
        "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{cores}\r\ncluster_size:{cores}\r\n\
         cluster_current_epoch:1\r\ncluster_my_epoch:1\r\n"
    )
}
