//! `quorate status`: every node of the cluster, as it describes itself and as the others see it, how far a change of the ring
//! is, and what is wrong.
//!
//! The rule: a node that does not answer is a line of the listing, not a failure of it. What is wrong is said in words, with
//! what to do about it.
//!
//! Not here: whether replicas are equal (`roots`), what is told of a change (`cluster/progress`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_bench::Bar;
use quorate_net::message::{ClusterMap, MappedNode};
use serde_json::{Value, json};

use crate::{
    cluster::progress::{self, Progress},
    failure::{Failure, failed},
    nodes::{Answered, Common, ask_core, ask_cores, inquire},
    roots::{self, Comparison},
    table::{aligned, count, duration, listed, size},
};

/// Show every node of the cluster, and what is wrong with it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate status                                    # of the cluster that 127.0.0.1 belongs to
  quorate status --node 10.0.0.1,10.0.0.2           # asks the second if the first is down
  quorate status --json | jq '.problems'            # what is wrong, for a program")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

/// What a core says of itself, by name, and of the others.
struct Description {
    info: BTreeMap<String, String>,
    /// Nothing when it is of a version that does not tell.
    members: Value,
}

/// How the others see a node: their cores times its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    alive: u64,
    suspect: u64,
    dead: u64,
    /// Those of them that send it no requests, whatever the reason.
    avoided: u64,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.common.connect()?;
    // A cluster of which nobody tells its changes has other news.
    let changes = progress::look(&mut client).ok();
    let map = client.map();
    let nodes = ask_cores(&map.nodes, describe);
    let data = roots::compare(map, None, &Bar::new("comparing", !args.common.json));
    let problems = problems(&nodes, &data);
    let changes = changes.as_ref();
    args.common.print(
        || as_json(map, &nodes, &data, changes, &problems),
        || {
            let (table, blank) = (as_table(&nodes), if problems.is_empty() { "" } else { "\n" });
            let problems: String = problems.iter().map(|problem| format!("! {problem}\n")).collect();
            summary(map, &nodes, &data, changes) + "\n" + &table + blank + &problems
        },
    );
    if nodes.iter().all(|node| node.answers().next().is_none()) {
        return Err(failed(
            "no node of the cluster answers: start one by `quorate serve --config FILE`, or read the nodes' logs",
        ));
    }
    Ok(())
}

/// The first lines.
fn summary(map: &ClusterMap, nodes: &[Answered<Description>], data: &Comparison, changes: Option<&Progress>) -> String {
    let whole = nodes.iter().filter(|node| node.cores.iter().all(Result::is_ok)).count();
    let (partitions, replicas, data) = (map.preference.len(), map.replicas, in_words(data));
    let changes = changes.map_or_else(String::new, Progress::news);
    format!("{whole} of {} nodes answer; {partitions} partitions, N={replicas}; {data}\n{changes}", nodes.len())
}

fn describe(node: &MappedNode, core: u16) -> Result<Description, String> {
    let info = parse(&ask_core(node, core, &[b"INFO", b"everything"])?);
    Ok(Description { info, members: inquire(node, core, &[b"MEMBERS"]).unwrap_or(Value::Null) })
}

/// The lines `name:value` of INFO; sections and what is no such line are passed over.
fn parse(info: &str) -> BTreeMap<String, String> {
    let pairs = info.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

impl Description {
    fn number(&self, name: &str) -> Option<u64> {
        self.info.get(name)?.parse().ok()
    }

    /// What it says of a node's cores.
    fn claims(&self, node: u16) -> impl Iterator<Item = &Value> {
        let nodes = self.members["nodes"].as_array().into_iter().flatten();
        // Of machines that had this id before, it lists no cores.
        nodes.filter(move |entry| entry["id"] == node).filter_map(|entry| entry["cores"].as_array()).flatten()
    }
}

/// A core's figure: since when the oldest tombstone waits that is not proven to be everywhere.
const OLDEST: &str = "tombstones_oldest_seconds_now";

/// Whoever is there has said so twice by then.
const UNPROVEN_SECONDS: u64 = 600;

/// The sum of a figure over the cores that tell it.
fn sum(node: &Answered<Description>, figure: impl Fn(&Description) -> Option<u64>) -> Option<u64> {
    let figures: Vec<u64> = node.answers().filter_map(figure).collect();
    (!figures.is_empty()).then(|| figures.iter().sum())
}

fn total(node: &Answered<Description>, name: &str) -> u64 {
    sum(node, |core| core.number(name)).unwrap_or(0)
}

fn disk_bytes(core: &Description) -> Option<u64> {
    core.number("store_segments")?.checked_mul(core.number("store_segment_bytes")?)
}

fn seen(nodes: &[Answered<Description>], node: &MappedNode) -> Seen {
    let mut seen = Seen::default();
    let others = nodes.iter().filter(|other| other.node.id != node.id).flat_map(Answered::answers);
    for claim in others.flat_map(|other| other.claims(node.id.0)) {
        match claim["liveness"].as_str() {
            Some("suspect") => seen.suspect += 1,
            Some("dead") => seen.dead += 1,
            _ => seen.alive += 1,
        }
        seen.avoided += u64::from(claim["avoided"] == true);
    }
    seen
}

impl Seen {
    fn in_words(self) -> String {
        let Self { alive, suspect, dead, avoided } = self;
        match alive + suspect + dead {
            0 => "-".to_owned(),
            all if dead > 0 => format!("dead {dead}/{all}"),
            all if suspect > 0 => format!("suspect {suspect}/{all}"),
            all if avoided > 0 => format!("avoided {avoided}/{all}"),
            _ => "alive".to_owned(),
        }
    }
}

fn in_words(data: &Comparison) -> String {
    if data.is_equal() {
        return "all replicas are equal".to_owned();
    }
    let mut parts = Vec::new();
    if !data.differing.is_empty() {
        parts.push(count(data.differing.len() as u64, "partition differs", "partitions differ"));
    }
    if !data.unchecked.is_empty() {
        parts.push(count(data.unchecked.len() as u64, "partition", "partitions") + " could not be compared");
    }
    parts.join(", ")
}

fn problems(nodes: &[Answered<Description>], data: &Comparison) -> Vec<String> {
    let mut problems: Vec<String> = nodes.iter().flat_map(|node| problems_of(node, seen(nodes, &node.node))).collect();
    let held: u64 = nodes.iter().map(|node| total(node, "hints_held")).sum();
    if held > 0 {
        problems.push(format!(
            "{} for owners that could not be reached: they go there by themselves; `quorate hints` shows how far they are",
            count(held, "hint is kept", "hints are kept")
        ));
    }
    let oldest = nodes.iter().flat_map(Answered::answers).filter_map(|core| core.number(OLDEST)).max().unwrap_or(0);
    if oldest >= UNPROVEN_SECONDS {
        let tombstones: u64 = nodes.iter().map(|node| total(node, "store_tombstones")).sum();
        problems.push(format!(
            "{} and cannot be dropped, the oldest for {}: all nodes have to be there, with no hint left",
            count(tombstones, "tombstone is kept", "tombstones are kept"),
            duration(oldest)
        ));
    }
    let dropped: u64 = nodes.iter().map(|node| total(node, "clock_entries_dropped")).sum();
    if dropped > 0 {
        problems.push(format!(
            "{} of clocks that had reached their limit: a node that has been away since before may bring back, as siblings, \
             values that were replaced meanwhile; clocks are shortened by themselves while all nodes are there",
            count(dropped, "entry was dropped", "entries were dropped")
        ));
    }
    let unfit: u64 = nodes.iter().map(|node| total(node, "objects_unfit")).sum();
    if unfit > 0 {
        problems.push(format!(
            "{} refused by replicas since their start, as no record holds it beside their own siblings: the nodes' logs name the \
             key; get it, and put what its values come to with the context",
            count(unfit, "object was", "objects were")
        ));
    }
    if !data.differing.is_empty() {
        problems.push(format!(
            "{} between primaries ({}): the nodes compare each once a minute; `quorate repair --wait` does it now",
            count(data.differing.len() as u64, "partition differs", "partitions differ"),
            listed(data.differing.keys().copied())
        ));
    }
    if !data.unchecked.is_empty() && data.silent.is_empty() {
        problems.push(format!(
            "{} not kept by all who should by the ring: it is being changed; `quorate repair --check` tells when it is done",
            count(data.unchecked.len() as u64, "partition is", "partitions are")
        ));
    }
    let digest = |core: &Description| core.members["digest"].as_str().map(str::to_owned);
    let digests: BTreeSet<String> = nodes.iter().flat_map(Answered::answers).filter_map(digest).collect();
    if digests.len() > 1 {
        problems.push(
            "not all nodes know the same members and ring: the gossip needs a moment; if it stays so, check the network \
             between them"
                .to_owned(),
        );
    }
    problems
}

fn problems_of(node: &Answered<Description>, seen: Seen) -> Vec<String> {
    let (id, mut problems) = (node.node.id, Vec::new());
    let silent: Vec<_> = node.silent().collect();
    if let Some((_, error)) = silent.first()
        && silent.len() == node.cores.len()
    {
        problems.push(format!(
            "node {id} does not answer ({error}): start it again; what it misses comes to it by itself then"
        ));
    } else {
        for (core, error) in silent {
            problems.push(format!(
                "core {core} of node {id} does not answer ({error}): if it stays so, read the node's log and start it again"
            ));
        }
        let not_alive = seen.dead + seen.suspect;
        if not_alive.max(seen.avoided) > 0 {
            problems.push(format!(
                "node {id} answers here, but not the other nodes ({}): check the network between them, to port {} and up",
                seen.in_words(),
                peer_port(node)
            ));
        }
    }
    let (lost, damaged) = (total(node, "store_lost") + total(node, "hints_lost"), total(node, "store_damaged"));
    if lost > 0 {
        problems.push(format!(
            "{} of node {id} cannot be read: the other replicas have them, `quorate repair --wait` brings them back now",
            count(lost, "record", "records")
        ));
    }
    if damaged + total(node, "hints_damaged") > 0 {
        problems.push(format!(
            "node {id} has found its files damaged, {} since its start: check its disk, and replace it if it goes on",
            count(damaged + total(node, "hints_damaged"), "time", "times")
        ));
    }
    if total(node, "store_full") > 0 {
        problems.push(format!("the disk of node {id} is full, it takes no more writes: give it room, or delete keys"));
    }
    problems
}

/// Where the other nodes reach it, as far as it tells.
fn peer_port(node: &Answered<Description>) -> String {
    let entries = node.answers().filter_map(|core| core.members["nodes"].as_array()).flatten();
    let port = entries.filter(|entry| entry["id"] == node.node.id.0).find_map(|entry| entry["peer_port"].as_u64());
    port.map_or("`peer_port`".to_owned(), |port| port.to_string())
}

fn as_json(
    map: &ClusterMap,
    nodes: &[Answered<Description>],
    data: &Comparison,
    changes: Option<&Progress>,
    problems: &[String],
) -> Value {
    let listed: Vec<Value> = nodes.iter().map(|node| node_as_json(node, seen(nodes, &node.node))).collect();
    json!({
        "partitions": map.preference.len(),
        "replicas": map.replicas,
        "nodes": listed,
        "data": data.as_json(),
        "changes": changes.map(Progress::as_json),
        "problems": problems,
    })
}

fn node_as_json(node: &Answered<Description>, seen: Seen) -> Value {
    let cores = node.cores.iter().enumerate().map(|(core, description)| match description {
        Ok(Description { info, members }) => json!({"core": core, "reachable": true, "info": info, "members": members}),
        Err(error) => json!({"core": core, "reachable": false, "error": error}),
    });
    json!({
        "id": node.node.id.0,
        "address": node.node.address,
        "port": node.node.port,
        "reachable": node.cores.iter().all(Result::is_ok),
        "seen": {"alive": seen.alive, "suspect": seen.suspect, "dead": seen.dead, "avoided": seen.avoided},
        "hints_held": total(node, "hints_held"),
        "tombstones_held": total(node, "store_tombstones"),
        "tombstones_dropped": total(node, "tombstones_dropped"),
        "clocks_shortened": total(node, "clocks_shortened"),
        "clock_entries_dropped": total(node, "clock_entries_dropped"),
        "tombstones_oldest_seconds": node.answers().filter_map(|core| core.number(OLDEST)).max(),
        "records_lost": total(node, "store_lost") + total(node, "hints_lost"),
        "records_damaged": total(node, "store_damaged") + total(node, "hints_damaged"),
        "peers_avoided": total(node, "peers_avoided"),
        "cores": cores.collect::<Vec<_>>(),
    })
}

fn as_table(nodes: &[Answered<Description>]) -> String {
    let titles = ["node", "clients", "cores", "seen", "version", "up", "keys", "hints", "disk", "commits"];
    let mut table = vec![titles.map(str::to_owned).to_vec()];
    for described in nodes {
        let node = &described.node;
        let mut row = vec![node.id.to_string(), format!("{}:{}", node.address, node.port), node.cores.to_string()];
        row.push(seen(nodes, node).in_words());
        if let Some(first) = described.answers().next() {
            let shown = |name| sum(described, |core| core.number(name)).map_or("-".to_owned(), |sum| sum.to_string());
            row.push(first.info.get("quorate_version").cloned().unwrap_or_default());
            row.push(first.number("uptime_in_seconds").map_or_else(String::new, duration));
            row.push(shown("store_keys"));
            row.push(shown("hints_held"));
            row.push(sum(described, disk_bytes).map_or("-".to_owned(), size));
            row.push(shown("store_commits"));
        }
        table.push(row);
        for (core, error) in described.silent() {
            table.push(vec![String::new(), format!("core {core} does not answer: {error}")]);
        }
    }
    aligned(&table)
}

#[cfg(test)]
mod tests {
    use quorate_net::id::NodeId;

    use super::*;
    use crate::{cluster::progress::tests::changing, roots::tests::differing};

    fn node(id: u16) -> MappedNode {
        MappedNode { id: NodeId(id), address: format!("127.0.0.{id}"), cores: 2, port: 7400, core_port: 7401 }
    }

    /// A core that holds this many hints, and says this of node 3.
    fn core(hints: u64, liveness: &str) -> Result<Description, String> {
        let info = format!(
            "# Server\r\nquorate_version:1.2.3\r\nuptime_in_seconds:3700\r\n\r\nstore_keys:12\r\nstore_segments:2\r\n\
             store_segment_bytes:1024\r\nhints_held:{hints}\r\n"
        );
        let claim = |liveness: &str| json!({"liveness": liveness, "avoided": liveness == "dead"});
        let claims = |liveness: &str| json!([claim(liveness), claim(liveness)]);
        let entry = |id: u16, liveness: &str| json!({"id": id, "peer_port": 7500, "cores": claims(liveness)});
        let nodes = [entry(1, "alive"), entry(2, "alive"), entry(3, liveness), json!({"id": 3, "cores": []})];
        Ok(Description { info: parse(&info), members: json!({"digest": "d", "nodes": nodes}) })
    }

    fn refused() -> Result<Description, String> {
        Err("refused".to_owned())
    }

    fn node_down() -> [Answered<Description>; 3] {
        [
            Answered { node: node(1), cores: vec![core(5, "dead"), core(0, "dead")] },
            Answered { node: node(2), cores: vec![core(2, "suspect"), refused()] },
            Answered { node: node(3), cores: vec![refused(), refused()] },
        ]
    }

    #[test]
    fn cores_are_added_up_and_a_silent_one_is_a_line() {
        let wanted = "\
node  clients         cores  seen   version  up     keys  hints  disk     commits
1     127.0.0.1:7400  2      alive  1.2.3    1h 1m  24    5      4.0 KiB  -
2     127.0.0.2:7400  2      alive  1.2.3    1h 1m  12    2      2.0 KiB  -
      core 1 does not answer: refused
3     127.0.0.3:7400  2      dead 4/6
      core 0 does not answer: refused
      core 1 does not answer: refused
";
        assert_eq!(as_table(&node_down()), wanted);
    }

    #[test]
    fn json_tells_how_the_others_see_a_node() {
        let nodes = node_down();
        let value = as_json(&roots::tests::three_nodes(), &nodes, &differing(), Some(&changing()), &["p".to_owned()]);
        let (two, three) = (&value["nodes"][1], &value["nodes"][2]);
        assert_eq!((&two["reachable"], &two["cores"][0]["info"]["store_keys"]), (&json!(false), &json!("12")));
        assert_eq!((&two["cores"][1]["reachable"], &two["cores"][1]["error"]), (&json!(false), &json!("refused")));
        assert_eq!(three["seen"], json!({"alive": 0, "suspect": 2, "dead": 4, "avoided": 4}));
        assert_eq!((&value["nodes"][0]["hints_held"], &value["problems"]), (&json!(5), &json!(["p"])));
        assert_eq!((&value["data"]["equal"], &value["partitions"]), (&json!(false), &json!(4)));
        assert_eq!(value["changes"]["change"]["copies_done"], 12);
    }

    #[test]
    fn a_change_is_told_first() {
        let said =
            |changes: Option<&Progress>| summary(&roots::tests::three_nodes(), &node_down(), &differing(), changes);
        let quiet = "1 of 3 nodes answer; 4 partitions, N=2; 1 partition differs\n";
        assert_eq!((said(None).as_str(), said(Some(&Progress::default())).as_str()), (quiet, quiet));
        let changing = said(Some(&changing()));
        assert!(changing.starts_with(&format!("{quiet}The ring is changing (term 4): 12 of 48")), "{changing}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let wanted = [
            "core 1 of node 2 does not answer (refused): if it stays so, read the node's log and start it again",
            "node 3 does not answer (refused): start it again; what it misses comes to it by itself then",
            "7 hints are kept for owners that could not be reached: they go there by themselves; `quorate hints` shows how \
             far they are",
            "1 partition differs between primaries (0): the nodes compare each once a minute; `quorate repair --wait` does \
             it now",
        ];
        assert_eq!(problems(&node_down(), &differing()), wanted);

        let mut nodes = node_down();
        nodes[2].cores = vec![core(0, "alive"), core(0, "alive")];
        if let Ok(core) = &mut nodes[2].cores[0] {
            core.info
                .extend(["store_lost", "store_damaged", "store_full"].map(|name| (name.to_owned(), "3".to_owned())));
            core.members["digest"] = json!("another");
        }
        let said = problems(&nodes, &Comparison::default()).join("\n");
        for wanted in [
            "node 3 answers here, but not the other nodes (dead 4/6): check the network between them, to port 7500",
            "3 records of node 3 cannot be read",
            "node 3 has found its files damaged, 3 times",
            "the disk of node 3 is full",
            "not all nodes know the same members",
        ] {
            assert!(said.contains(wanted), "{wanted}\n{said}");
        }
    }

    #[test]
    fn a_healthy_cluster_has_no_problems() {
        let node = |id| Answered { node: node(id), cores: vec![core(0, "alive"), core(0, "alive")] };
        let nodes = [node(1), node(2), node(3)];
        assert!(problems(&nodes, &Comparison::default()).is_empty());
        assert_eq!(in_words(&Comparison::default()), "all replicas are equal");
        assert_eq!(seen(&nodes, &nodes[0].node).in_words(), "alive");
    }
}
