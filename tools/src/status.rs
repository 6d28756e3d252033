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

/// What a core says of itself, by name; or why it says nothing.
type Description = Result<BTreeMap<String, String>, String>;

/// A node and what each of its cores says.
struct Described {
    node: MappedNode,
    cores: Vec<Description>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.seeds.connect()?;
    let map = client.map();
    // All at once: a few silent cores shall not add up.
    let nodes: Vec<Described> = thread::scope(|scope| {
        let ask = |node: &MappedNode, core: u16| {
            let node = node.clone();
            scope.spawn(move || describe(&node, core))
        };
        let asked: Vec<(&MappedNode, Vec<_>)> =
            map.nodes.iter().map(|node| (node, (0..node.cores).map(|core| ask(node, core)).collect())).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("asking does not panic");
        let described = |(node, cores): (&MappedNode, Vec<_>)| Described {
            node: node.clone(),
            cores: cores.into_iter().map(join).collect(),
        };
        asked.into_iter().map(described).collect()
    });
    let (partitions, replicas) = (map.preference.len(), map.replicas);
    if args.json {
        let listed: Vec<Value> = nodes.iter().map(as_json).collect();
        println!("{}", json!({"partitions": partitions, "replicas": replicas, "nodes": listed}));
    } else {
        let whole = nodes.iter().filter(|node| node.cores.iter().all(Result::is_ok)).count();
        println!("{whole} of {} nodes answer; {partitions} partitions, N={replicas}\n", nodes.len());
        print!("{}", as_table(&nodes));
    }
    if nodes.iter().all(|node| node.cores.iter().all(Result::is_err)) {
        return Err(failed("no node of the cluster answers"));
    }
    Ok(())
}

fn describe(node: &MappedNode, core: u16) -> Description {
    let address: IpAddr = node.address.parse().map_err(|_| format!("`{}` is no address", node.address))?;
    let port = node.core_port.checked_add(core).ok_or("there is no such port")?;
    let answer = resp::ask(SocketAddr::new(address, port), &[b"INFO", b"everything"], ANSWER_MAX);
    let text = answer.map_err(|error| error.to_string())?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The lines `name:value` of INFO; sections and what is no such line are passed over.
fn parse(info: &str) -> BTreeMap<String, String> {
    let pairs = info.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn as_json(described: &Described) -> Value {
    let Described { node, cores } = described;
    let cores = cores.iter().enumerate().map(|(core, description)| match description {
        Ok(info) => json!({"core": core, "reachable": true, "info": info}),
        Err(error) => json!({"core": core, "reachable": false, "error": error}),
    });
    json!({
        "id": node.id.0,
        "address": node.address,
        "port": node.port,
        "reachable": described.cores.iter().all(Result::is_ok),
        "cores": cores.collect::<Vec<_>>(),
    })
}

fn as_table(nodes: &[Described]) -> String {
    let titles = ["node", "clients", "cores", "version", "up", "keys", "disk", "commits"];
    let mut table = vec![titles.map(str::to_owned).to_vec()];
    for Described { node, cores } in nodes {
        let answering: Vec<&BTreeMap<String, String>> = cores.iter().flatten().collect();
        let mut row = vec![node.id.to_string(), format!("{}:{}", node.address, node.port), node.cores.to_string()];
        if let Some(first) = answering.first() {
            row.push(first.get("quorate_version").cloned().unwrap_or_default());
            row.push(
                first.get("uptime_in_seconds").and_then(|text| text.parse().ok()).map_or_else(String::new, duration),
            );
            row.push(sum(&answering, |core| number(core, "store_keys")));
            let disk: u64 = answering.iter().filter_map(|core| disk_bytes(core)).sum();
            row.push(size(disk));
            row.push(sum(&answering, |core| number(core, "store_commits")));
        }
        table.push(row);
        for (core, description) in cores.iter().enumerate() {
            if let Err(error) = description {
                table.push(vec![String::new(), format!("core {core} does not answer: {error}")]);
            }
        }
    }
    aligned(&table)
}

/// In columns; the last cell of a row that has too few goes on over the columns that it lacks.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table[0].len();
    let width = |column: usize| {
        let rows = table.iter().filter(|row| row.len() == columns || column + 1 < row.len());
        rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn number(info: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    info.get(name)?.parse().ok()
}

fn disk_bytes(info: &BTreeMap<String, String>) -> Option<u64> {
    number(info, "store_segments")?.checked_mul(number(info, "store_segment_bytes")?)
}

fn sum(cores: &[&BTreeMap<String, String>], figure: impl Fn(&BTreeMap<String, String>) -> Option<u64>) -> String {
    let figures: Vec<u64> = cores.iter().filter_map(|core| figure(core)).collect();
    if figures.is_empty() { "-".to_owned() } else { figures.iter().sum::<u64>().to_string() }
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
    fn cores_are_added_up_and_a_silent_one_is_a_line() {
        let info = "# Server\r\nquorate_version:1.2.3\r\nuptime_in_seconds:3700\r\n\r\nstore_keys:12\r\nstore_segments:2\r\n\
                    store_segment_bytes:1024\r\n";
        let nodes = [
            Described { node: node(1), cores: vec![Ok(parse(info)), Ok(parse(info))] },
            Described { node: node(2), cores: vec![Ok(parse(info)), Err("refused".to_owned())] },
            Described { node: node(3), cores: vec![Err("refused".to_owned()), Err("refused".to_owned())] },
        ];
        let wanted = "\
node  clients         cores  version  up     keys  disk     commits
1     127.0.0.1:7400  2      1.2.3    1h 1m  24    4.0 KiB  -
2     127.0.0.2:7400  2      1.2.3    1h 1m  12    2.0 KiB  -
      core 1 does not answer: refused
3     127.0.0.3:7400  2
      core 0 does not answer: refused
      core 1 does not answer: refused
";
        assert_eq!(as_table(&nodes), wanted);
        let value = as_json(&nodes[1]);
        assert_eq!((&value["reachable"], &value["cores"][0]["info"]["store_keys"]), (&json!(false), &json!("12")));
        assert_eq!((&value["cores"][1]["reachable"], &value["cores"][1]["error"]), (&json!(false), &json!("refused")));
    }
}
