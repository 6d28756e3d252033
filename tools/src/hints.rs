//! `quorate hints`: what each core keeps for owners that could not be reached, for whom, and how fast it goes there.
//!
//! The rule: while hints are held, two looks a moment apart tell the rate; without, one will do.
//!
//! Not here: the handoff (`node/hinted_handoff`).

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use quorate_net::message::ClusterMap;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, failed},
    nodes::{Answered, Common, ask_cores, inquire, number},
    table::{aligned, count, size},
};

/// Over this time the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Show the hints that nodes keep for others
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate hints                            # by core: how many, for whom, and how fast they go there
  quorate hints --node 127.0.0.2 --json    # of the cluster that this node belongs to, for a program")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.common.connect()?;
    let before = look(client.map());
    let held =
        |nodes: &[Answered<Value>]| nodes.iter().flat_map(|node| node.answers()).any(|core| number(core, "held") > 0);
    let (nodes, before) = if held(&before) {
        let started = Instant::now();
        thread::sleep(RATE_OVER);
        (look(client.map()), Some((before, started.elapsed())))
    } else {
        (before, None)
    };
    let cores = rated(&nodes, before.as_ref().map(|(nodes, over)| (nodes.as_slice(), *over)));
    let total: u64 = cores.iter().map(|core| number(core, "held")).sum();
    args.common
        .print(|| json!({"held": total, "cores": cores}), || format!("{}\n\n{}", summary(total), as_table(&cores)));
    if nodes.iter().all(|node| node.answers().next().is_none()) {
        return Err(failed("no core tells of its hints; `quorate status` shows which nodes answer"));
    }
    Ok(())
}

fn look(map: &ClusterMap) -> Vec<Answered<Value>> {
    ask_cores(&map.nodes, |node, core| inquire(node, core, &[b"HINTS"]))
}

fn summary(held: u64) -> String {
    match held {
        0 => "No hints are held: every write that is known here has reached its owners".to_owned(),
        held => format!(
            "{} held for owners that could not be reached; they go there by themselves",
            count(held, "hint is", "hints are")
        ),
    }
}

/// What each core says, with whom it owes its hints and how many it delivers in a second; or why it says nothing.
fn rated(nodes: &[Answered<Value>], before: Option<(&[Answered<Value>], Duration)>) -> Vec<Value> {
    let mut cores = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        for (core, answer) in node.cores.iter().enumerate() {
            let mut shown = json!({"node": node.node.id.0, "core": core, "reachable": answer.is_ok()});
            match answer {
                Ok(answer) => {
                    let earlier =
                        before.and_then(|(nodes, over)| Some((nodes[place].cores[core].as_ref().ok()?, over)));
                    let rate = earlier.map_or(0.0, |(earlier, over)| {
                        let delivered = number(answer, "delivered").saturating_sub(number(earlier, "delivered"));
                        delivered as f64 / over.as_secs_f64()
                    });
                    for (name, figure) in answer.as_object().into_iter().flatten() {
                        shown[name] = figure.clone();
                    }
                    shown["owed"] = json!(owed(answer));
                    shown["delivered_per_second"] = json!(rate);
                }
                Err(error) => shown["error"] = json!(error),
            }
            cores.push(shown);
        }
    }
    cores
}

/// To whom hints may be owed: cores with the number of partitions, and of hints in these.
fn owed(answer: &Value) -> Vec<Value> {
    let mut owed: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    for partition in answer["partitions"].as_array().into_iter().flatten() {
        for to in partition["owed_to"].as_array().into_iter().flatten() {
            let (partitions, hints) = owed.entry((number(to, "node"), number(to, "core"))).or_default();
            *partitions += 1;
            *hints += number(partition, "held");
        }
    }
    let shown = |((node, core), (partitions, hints))| json!({"node": node, "core": core, "partitions": partitions, "hints": hints});
    owed.into_iter().map(shown).collect()
}

fn as_table(cores: &[Value]) -> String {
    let titles = ["core", "held", "may lack them", "delivered", "per second", "dropped", "live", "log"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for core in cores {
        let name = format!("{}.{}", number(core, "node"), number(core, "core"));
        if let Some(error) = core["error"].as_str() {
            rows.push(vec![name, format!("does not answer: {error}")]);
            continue;
        }
        let to = |to: &Value| format!("{}.{}", number(to, "node"), number(to, "core"));
        let owed: Vec<String> = core["owed"].as_array().into_iter().flatten().map(to).collect();
        rows.push(vec![
            name,
            number(core, "held").to_string(),
            if owed.is_empty() { "-".to_owned() } else { owed.join(" ") },
            number(core, "delivered").to_string(),
            format!("{:.0}", core["delivered_per_second"].as_f64().unwrap_or(0.0)),
            number(core, "dropped").to_string(),
            size(number(core, "live_bytes")),
            size(number(core, "log_bytes")),
        ]);
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::tests::three_nodes;

    fn core(held: u64, delivered: u64) -> Value {
        let to = |node| json!({"node": node, "core": 0});
        json!({
            "node": 1, "core": 0, "held": held, "delivered": delivered, "dropped": 0, "live_bytes": 1024, "log_bytes": 4096,
            "partitions": [
                {"partition": 1, "held": 3, "owed_to": [to(3)]},
                {"partition": 2, "held": 2, "owed_to": [to(2), to(3)]},
            ],
        })
    }

    #[test]
    fn what_is_owed_is_told_with_its_rate_and_a_silent_core_is_a_line() {
        let node = |at: usize, answer| Answered { node: three_nodes().nodes[at].clone(), cores: vec![answer] };
        let before = [node(0, Ok(core(9, 10))), node(1, Err("refused".to_owned()))];
        let after = [node(0, Ok(core(5, 14))), node(1, Err("refused".to_owned()))];
        let cores = rated(&after, Some((&before, Duration::from_secs(2))));
        let wanted = "\
core  held  may lack them  delivered  per second  dropped  live     log
1.0   5     2.0 3.0        14         2           0        1.0 KiB  4.0 KiB
2.0   does not answer: refused
";
        assert_eq!(as_table(&cores), wanted);
        let wanted = json!([
            {"node": 2, "core": 0, "partitions": 1, "hints": 2},
            {"node": 3, "core": 0, "partitions": 2, "hints": 5},
        ]);
        assert_eq!((&cores[0]["owed"], &cores[0]["reachable"]), (&wanted, &json!(true)));
        assert_eq!(cores[1], json!({"node": 2, "core": 0, "reachable": false, "error": "refused"}));
        assert_eq!(rated(&after, None)[0]["delivered_per_second"], 0.0);
    }
}
