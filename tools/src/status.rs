//! `quorate status`: every node of the cluster, as it describes itself.
//!
//! The rule: a node that does not answer is a line of the listing, not a failure of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use quorate_net::message::MappedNode;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, failed},
    nodes::Seeds,
    resp,
};

/// A node that takes longer to describe itself is told as silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Show every node of the cluster
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    seeds: Seeds,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a node says of itself, by name; or why it says nothing.
type Description = Result<BTreeMap<String, String>, String>;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.seeds.connect()?;
    let map = client.map();
    // All at once: a few silent nodes shall not add up.
    let descriptions: Vec<Description> = thread::scope(|scope| {
        let asked: Vec<_> = map.nodes.iter().map(|node| scope.spawn(|| describe(node))).collect();
        asked.into_iter().map(|thread| thread.join().expect("a node's description does not panic")).collect()
    });
    let (partitions, replicas) = (map.preference.len(), map.replicas);
    let rows: Vec<(&MappedNode, Description)> = map.nodes.iter().zip(descriptions).collect();
    if args.json {
        println!("{}", json!({"partitions": partitions, "replicas": replicas, "nodes": as_json(&rows)}));
    } else {
        let reachable = rows.iter().filter(|(_, description)| description.is_ok()).count();
        println!("{reachable} of {} nodes answer; {partitions} partitions, N={replicas}\n", rows.len());
        print!("{}", as_table(&rows));
    }
    if rows.iter().all(|(_, description)| description.is_err()) {
        return Err(failed("no node of the cluster answers"));
    }
    Ok(())
}

fn describe(node: &MappedNode) -> Description {
    let address: IpAddr = node.address.parse().map_err(|_| format!("`{}` is no address", node.address))?;
    let answer = resp::ask(SocketAddr::new(address, node.port), &[b"INFO"], ANSWER_MAX);
    let text = answer.map_err(|error| error.to_string())?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The lines `name:value` of INFO; sections and what is no such line are passed over.
fn parse(info: &str) -> BTreeMap<String, String> {
    let pairs = info.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn as_json(rows: &[(&MappedNode, Description)]) -> Value {
    let nodes = rows.iter().map(|(node, description)| {
        let mut value = json!({
            "id": node.id.0,
            "address": node.address,
            "port": node.port,
            "cores": node.cores,
            "reachable": description.is_ok(),
        });
        match description {
            Ok(info) => value["info"] = json!(info),
            Err(error) => value["error"] = json!(error),
        }
        value
    });
    Value::Array(nodes.collect())
}

fn as_table(rows: &[(&MappedNode, Description)]) -> String {
    let mut table = vec![COLUMNS.map(|(title, _)| title.to_owned()).to_vec()];
    for (node, description) in rows {
        let mut row = vec![node.id.to_string(), format!("{}:{}", node.address, node.port), node.cores.to_string()];
        match description {
            Ok(info) => row.extend(COLUMNS[3..].iter().map(|(_, names)| cell(info, names))),
            Err(error) => row.push(format!("does not answer: {error}")),
        }
        table.push(row);
    }
    // An error goes on over the columns that are missing for it.
    let width = |column: usize| {
        let rows = table.iter().filter(|row| row.len() == COLUMNS.len() || column < row.len() - 1);
        rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in table {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// The title of each column, and INFO's names for it, of which the first that is there is shown.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("node", &[]),
    ("clients", &[]),
    ("cores", &[]),
    ("version", &["quorate_version"]),
    ("up", &["uptime_in_seconds"]),
    ("keys", &["keys"]),
    ("disk", &["disk_bytes"]),
    ("commits", &["commits"]),
];

fn cell(info: &BTreeMap<String, String>, names: &[&str]) -> String {
    let value = names.iter().find_map(|name| info.get(*name));
    let Some(value) = value else { return "-".to_owned() };
    match (names[0], value.parse::<u64>()) {
        ("disk_bytes", Ok(bytes)) => size(bytes),
        ("uptime_in_seconds", Ok(seconds)) => duration(seconds),
        _ => value.clone(),
    }
}

fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use quorate_net::id::NodeId;

    use super::*;

    fn node(id: u16) -> MappedNode {
        MappedNode { id: NodeId(id), address: format!("127.0.0.{id}"), cores: 2, port: 7400, core_port: 7401 }
    }

    #[test]
    fn a_silent_node_is_a_line() {
        let info =
            parse("# Server\r\nquorate_version:1.2.3\r\nuptime_in_seconds:3700\r\n\r\nkeys:12\r\ndisk_bytes:2048\r\n");
        let (first, second) = (node(1), node(2));
        let rows = [(&first, Ok(info)), (&second, Err("refused".to_owned()))];
        let table = as_table(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "node  clients         cores  version  up     keys  disk     commits");
        assert_eq!(lines[1], "1     127.0.0.1:7400  2      1.2.3    1h 1m  12    2.0 KiB  -");
        assert_eq!(lines[2], "2     127.0.0.2:7400  2      does not answer: refused");
        let value = as_json(&rows);
        assert_eq!((&value[0]["reachable"], &value[0]["info"]["keys"]), (&json!(true), &json!("12")));
        assert_eq!((&value[1]["reachable"], &value[1]["error"]), (&json!(false), &json!("refused")));
    }
}
