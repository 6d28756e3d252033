//! `quorate ring`: who keeps which partitions, by the map that the cluster gives to its clients.
//!
//! The rule: what is shown is what any client routes by. While the ring changes, who is to keep what is told beside it.
//!
//! Not here: how a ring comes about or is changed (`node/ring`).

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use quorate_net::{
    message::{ClusterMap, MappedNode},
    slot,
};
use serde_json::{Value, json};

use crate::{
    cluster::progress::{self, Progress},
    failure::Failure,
    nodes::Common,
    repair::check_partition,
    roots::owner,
    table::aligned,
};

/// Show which nodes keep which partitions
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate ring                     # each node's share, and how even that is
  quorate ring --key greeting      # the primaries and fallbacks of one key
  quorate ring --partition 7       # of one partition")]
pub(crate) struct Args {
    /// Show who keeps this partition
    #[arg(long, value_name = "PARTITION", conflicts_with = "key")]
    partition: Option<u16>,
    /// Show who keeps this key
    #[arg(long, value_name = "KEY")]
    key: Option<OsString>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.common.connect()?;
    // It has to be told by the nodes themselves: without an answer there is still the map.
    let changes = progress::look(&mut client).ok();
    let (map, changes) = (client.map(), changes.as_ref());
    check_partition(map, args.partition)?;
    let of_key = args.key.as_ref().map(|key| partition_of(map, key.as_bytes()));
    match args.partition.or(of_key) {
        Some(partition) => {
            let next = changes.map_or_else(Vec::new, |changes| changes.owners_to_be(partition));
            args.common
                .print(|| partition_as_json(map, partition, &next), || partition_as_table(map, partition, &next));
        }
        None => args.common.print(|| as_json(map, changes), || as_table(map, changes)),
    }
    Ok(())
}

fn partition_of(map: &ClusterMap, key: &[u8]) -> u16 {
    let partitions = u16::try_from(map.preference.len()).expect("a map's bounds are checked");
    slot::partition(slot::slot(key), partitions)
}

/// What one node keeps.
struct Share {
    /// Partitions that it is a primary of.
    partitions: usize,
    /// Of these, those whose preference list it heads.
    first: usize,
    /// Partitions by core.
    cores: Vec<usize>,
}

fn shares(map: &ClusterMap) -> Vec<Share> {
    let empty = |cores: u16| Share { partitions: 0, first: 0, cores: vec![0; cores.into()] };
    let mut shares: Vec<Share> = map.nodes.iter().map(|node| empty(node.cores)).collect();
    for (partition, list) in (0..).zip(&map.preference) {
        for (place, &node) in list.iter().take(map.replicas.into()).enumerate() {
            let (_, core) = owner(map, partition, node);
            let share = &mut shares[usize::from(node)];
            share.partitions += 1;
            share.first += usize::from(place == 0);
            share.cores[usize::from(core)] += 1;
        }
    }
    shares
}

/// Mean over maximum: 1 when all have the same. The fuller a node, the more the others idle; nodes that are meant to have
/// nothing do not count.
fn balance(counts: impl Iterator<Item = usize> + Clone) -> f64 {
    let counts = counts.filter(|&count| count > 0);
    let (sum, number) = (counts.clone().sum::<usize>(), counts.clone().count());
    counts.max().map_or(1.0, |max| sum as f64 / number as f64 / max as f64)
}

fn as_json(map: &ClusterMap, changes: Option<&Progress>) -> Value {
    let shares = shares(map);
    let node = |(node, share): (&MappedNode, &Share)| {
        json!({
            "id": node.id.0,
            "address": node.address,
            "port": node.port,
            "partitions": share.partitions,
            "first": share.first,
            "cores": share.cores,
        })
    };
    json!({
        "partitions": map.preference.len(),
        "replicas": map.replicas,
        "balance": balance(shares.iter().map(|share| share.partitions)),
        "nodes": map.nodes.iter().zip(&shares).map(node).collect::<Vec<_>>(),
        "changes": changes.map(Progress::as_json),
    })
}

fn as_table(map: &ClusterMap, changes: Option<&Progress>) -> String {
    let shares = shares(map);
    let copies: usize = shares.iter().map(|share| share.partitions).sum();
    let mut rows = vec![["node", "clients", "partitions", "share", "first", "by core"].map(str::to_owned).to_vec()];
    for (node, share) in map.nodes.iter().zip(&shares) {
        let cores: Vec<String> = share.cores.iter().map(usize::to_string).collect();
        rows.push(vec![
            node.id.to_string(),
            format!("{}:{}", node.address, node.port),
            share.partitions.to_string(),
            format!("{:.1} %", share.partitions as f64 * 100.0 / copies.max(1) as f64),
            share.first.to_string(),
            cores.join(" "),
        ]);
    }
    format!(
        "{} partitions, N={}; balance {:.3} (mean/max of the nodes' partitions)\n{}\n{}",
        map.preference.len(),
        map.replicas,
        balance(shares.iter().map(|share| share.partitions)),
        changes.map_or_else(String::new, Progress::news),
        aligned(&rows)
    )
}

/// The preference list of a partition: whether primary, node, core, and where clients reach that.
fn preference(map: &ClusterMap, partition: u16) -> Vec<(bool, u16, u16, String)> {
    let list = map.preference[usize::from(partition)].iter().enumerate();
    list.map(|(place, &index)| {
        let (at, core) = owner(map, partition, index);
        let node = &map.nodes[usize::from(index)];
        let address = format!("{}:{}", node.address, u32::from(node.core_port) + u32::from(core));
        (place < usize::from(map.replicas), at.node.0, core, address)
    })
    .collect()
}

fn partition_as_json(map: &ClusterMap, partition: u16, owners_to_be: &[u64]) -> Value {
    let entry =
        |(_, node, core, address): (bool, u16, u16, String)| json!({"node": node, "core": core, "address": address});
    let (primaries, fallbacks): (Vec<_>, Vec<_>) =
        preference(map, partition).into_iter().partition(|(primary, ..)| *primary);
    json!({
        "partition": partition,
        "primaries": primaries.into_iter().map(entry).collect::<Vec<_>>(),
        "fallbacks": fallbacks.into_iter().map(entry).collect::<Vec<_>>(),
        "owners_to_be": owners_to_be,
    })
}

fn partition_as_table(map: &ClusterMap, partition: u16, owners_to_be: &[u64]) -> String {
    let mut rows = vec![["place", "node", "core", "clients"].map(str::to_owned).to_vec()];
    for (primary, node, core, address) in preference(map, partition) {
        let place = if primary { "primary" } else { "fallback" };
        rows.push(vec![place.to_owned(), node.to_string(), core.to_string(), address]);
    }
    let next: String =
        owners_to_be.iter().map(|node| format!("Node {node} is to keep it when the ring has changed.\n")).collect();
    format!("Partition {partition} of {}, N={}\n{next}\n{}", map.preference.len(), map.replicas, aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::progress::tests::changing, roots::tests::three_nodes};

    #[test]
    fn shares_and_balance_follow_from_the_map() {
        let wanted = "\
4 partitions, N=2; balance 0.889 (mean/max of the nodes' partitions)

node  clients         partitions  share   first  by core
1     127.0.0.1:7400  3           37.5 %  2      3
2     127.0.0.2:7400  3           37.5 %  1      3
3     127.0.0.3:7400  2           25.0 %  1      2
";
        assert_eq!(as_table(&three_nodes(), None), wanted);
        let value = as_json(&three_nodes(), None);
        assert_eq!((&value["partitions"], &value["replicas"]), (&json!(4), &json!(2)));
        assert_eq!(value["nodes"][2]["partitions"], 2);
        assert!((value["balance"].as_f64().unwrap() - 8.0 / 9.0).abs() < 1e-9);
        // Who is meant to have nothing does not make it worse.
        assert_eq!(balance([4, 4, 0].into_iter()), 1.0);
        assert_eq!(balance([].into_iter()), 1.0);
    }

    #[test]
    fn a_change_is_told_beside_the_ring() {
        let text = as_table(&three_nodes(), Some(&changing()));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("4 partitions, N=2") && lines[1].starts_with("The ring is changing"), "{text}");
        let heading = lines.iter().position(|line| line.starts_with("node  clients")).unwrap();
        assert_eq!(lines[heading - 2..heading], ["Node 4 is to keep 2 partitions more: 1, 2.", ""]);
        let value = as_json(&three_nodes(), Some(&changing()));
        assert_eq!(value["changes"], changing().as_json());
        let text = partition_as_table(&three_nodes(), 1, &[4]);
        assert!(
            text.starts_with("Partition 1 of 4, N=2\nNode 4 is to keep it when the ring has changed.\n\n"),
            "{text}"
        );
        assert_eq!(partition_as_json(&three_nodes(), 1, &[4])["owners_to_be"], json!([4]));
    }

    #[test]
    fn a_partition_has_primaries_and_fallbacks_in_order() {
        let wanted = "\
Partition 1 of 4, N=2

place     node  core  clients
primary   2     0     127.0.0.2:7401
primary   3     0     127.0.0.3:7401
fallback  1     0     127.0.0.1:7401
";
        assert_eq!(partition_as_table(&three_nodes(), 1, &[]), wanted);
        let value = partition_as_json(&three_nodes(), 1, &[]);
        assert_eq!(value["primaries"][0], json!({"node": 2, "core": 0, "address": "127.0.0.2:7401"}));
        assert_eq!(value["fallbacks"].as_array().unwrap().len(), 1);
        // Slot 12182 of 16384 lies in the third quarter.
        assert_eq!((partition_of(&three_nodes(), b"foo"), partition_of(&three_nodes(), b"{foo}x")), (2, 2));
    }
}
