//! `quorate cluster plan`: what a commit would move, what that costs, and the id that a commit has to name.
//!
//! The rule: the cluster says what moves; how many bytes that is and how long it takes is estimated here, and told as such.
//!
//! Not here: how a plan comes about (`node/membership/state/plan`).

use std::collections::BTreeMap;

use quorate_net::client::Client;
use serde_json::{Value, json};

use super::view::View;
use crate::{
    failure::{Failure, failed},
    nodes::{Common, ask_cores, inquire, number},
    table::{aligned, count, duration, listed, size},
};

/// What one core takes in, in bytes a second: a bound on what is under way paces it. Measured with 1 KiB values and three
/// nodes on two shared CPUs that were busy.
const RATE: f64 = 3e6;

/// So many copies one core compares in a second; measured likewise.
const COPIES_RATE: f64 = 150.0;

/// What a change takes at the least: the news must reach all cores, differences are looked at twice, all confirm.
const SECONDS_MIN: f64 = 3.0;

pub(super) fn run(common: &Common) -> Result<(), Failure> {
    let mut client = common.connect()?;
    let shown = Shown::ask(&mut client)?;
    common.print(|| shown.as_json(), || shown.as_text());
    Ok(())
}

/// A plan, and what it costs.
struct Shown {
    plan: Value,
    /// N.
    replicas: u64,
    /// By node: its cores.
    cores: BTreeMap<u64, u64>,
    /// Bytes that each partition has, as far as one of its primaries answers.
    partition_bytes: BTreeMap<u64, f64>,
}

impl Shown {
    fn ask(client: &mut Client) -> Result<Self, Failure> {
        let view = View::look(client);
        let (node, core, state) = view.foremost()?;
        let plan = inquire(node, core, &[b"CLUSTER", b"PLAN"])
            .map_err(|error| failed(error.strip_prefix("ERR ").unwrap_or(&error).to_owned()))?;
        let entries = state["nodes"].as_array().into_iter().flatten();
        let cores = entries.map(|entry| (number(entry, "id"), number(entry, "cores").max(1))).collect();
        let roots = ask_cores(&view.map.nodes, |node, core| inquire(node, core, &[b"ROOTS"]));
        let mut partition_bytes: BTreeMap<u64, f64> = BTreeMap::new();
        for (roots, state) in roots.iter().zip(&view.cores) {
            for (roots, state) in roots.cores.iter().zip(&state.cores) {
                let (Ok(roots), Ok(state)) = (roots, state) else { continue };
                let mean = mean_bytes(state);
                for partition in roots["partitions"].as_array().into_iter().flatten() {
                    let most = partition_bytes.entry(number(partition, "partition")).or_default();
                    *most = most.max(number(partition, "keys") as f64 * mean);
                }
            }
        }
        Ok(Self { plan, replicas: view.map.replicas.into(), cores, partition_bytes })
    }

    fn moves(&self) -> impl Iterator<Item = &Value> {
        self.plan["moves"].as_array().into_iter().flatten()
    }

    fn bytes_to(&self, node: Option<u64>) -> f64 {
        let meant = |of: &&Value| node.is_none_or(|node| number(of, "to") == node);
        self.moves().filter(meant).filter_map(|of| self.partition_bytes.get(&number(of, "partition"))).sum()
    }

    /// Copies whose size nobody tells.
    fn of_unknown_size(&self) -> usize {
        self.moves().filter(|of| !self.partition_bytes.contains_key(&number(of, "partition"))).count()
    }

    /// The one who has most to take in is last.
    fn seconds(&self) -> f64 {
        let cores = |node| self.cores.get(&node).copied().unwrap_or(1) as f64;
        let mut copies: BTreeMap<u64, f64> = BTreeMap::new();
        self.moves().for_each(|of| *copies.entry(number(of, "to")).or_default() += 1.0);
        let each = copies
            .iter()
            .map(|(&node, copies)| (self.bytes_to(Some(node)) / RATE + copies / COPIES_RATE) / cores(node));
        SECONDS_MIN + each.fold(0.0, f64::max)
    }

    fn as_json(&self) -> Value {
        let mut shown = self.plan.clone();
        shown["bytes_estimated"] = json!(self.bytes_to(None).round() as u64);
        shown["copies_of_unknown_size"] = json!(self.of_unknown_size());
        shown["seconds_estimated"] = json!(self.seconds().ceil());
        shown
    }

    fn as_text(&self) -> String {
        let plan = &self.plan;
        let mut text = format!("{}\n\n{}", self.summary(), self.nodes());
        text += &format!(
            "\nBalance {:.3} before, {:.3} after (mean/max of the nodes' partitions by weight).\n",
            plan["balance_before"].as_f64().unwrap_or(0.0),
            plan["balance_after"].as_f64().unwrap_or(0.0)
        );
        if self.moves().next().is_some() {
            text += &format!("\n{}", self.moved());
        }
        let lost: Vec<u16> = plan["without_source"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|partition| u16::try_from(partition.as_u64()?).ok())
            .collect();
        if !lost.is_empty() {
            text += &format!(
                "\n! All nodes that keep {} ({}) are given up: what nobody else has of it is lost.\n",
                count(lost.len() as u64, "partition", "partitions"),
                listed(lost)
            );
        }
        let left =
            plan["nodes"].as_array().into_iter().flatten().filter(|node| number(node, "after") > 0).count() as u64;
        if left < self.replicas {
            text += &format!(
                "\n! Only {} would be left, so each partition has {left} and not {} copies. Let others join first.\n",
                count(left, "node", "nodes"),
                self.replicas
            );
        }
        text += &format!("\nTo do this: quorate cluster commit {}\n", plan["plan"].as_str().unwrap_or_default());
        text
    }

    fn summary(&self) -> String {
        let copies = count(self.moves().count() as u64, "copy of a partition is made", "copies of partitions are made");
        let unknown = match self.of_unknown_size() {
            0 => String::new(),
            unknown => format!(", and {} whose size nobody tells", count(unknown as u64, "copy", "copies")),
        };
        format!(
            "Plan {}: {copies}, about {}{unknown}, in about {} (estimates).",
            self.plan["plan"].as_str().unwrap_or_default(),
            size(self.bytes_to(None).round() as u64),
            duration(self.seconds().ceil() as u64)
        )
    }

    fn nodes(&self) -> String {
        let titles = ["node", "is", "partitions", "after", "gets", "gives", "about"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        for node in self.plan["nodes"].as_array().into_iter().flatten() {
            let figure = |name| number(node, name).to_string();
            rows.push(vec![
                figure("id"),
                node["status"].as_str().unwrap_or("gone").to_owned(),
                figure("before"),
                figure("after"),
                figure("gains"),
                figure("loses"),
                size(self.bytes_to(Some(number(node, "id"))).round() as u64),
            ]);
        }
        aligned(&rows)
    }

    fn moved(&self) -> String {
        let mut between: BTreeMap<(Option<u64>, u64), Vec<u64>> = BTreeMap::new();
        for of in self.moves() {
            between.entry((of["from"].as_u64(), number(of, "to"))).or_default().push(number(of, "partition"));
        }
        let mut rows = vec![["from", "to", "copies", "partitions"].map(str::to_owned).to_vec()];
        for ((from, to), partitions) in between {
            let from = from.map_or("-".to_owned(), |from| from.to_string());
            rows.push(vec![from, to.to_string(), partitions.len().to_string(), ranges(&partitions)]);
        }
        aligned(&rows)
    }
}

/// What a record of a core takes, on average.
pub(super) fn mean_bytes(state: &Value) -> f64 {
    number(state, "live_bytes") as f64 / number(state, "keys").max(1) as f64
}

/// "0-3, 7, 9-10": of numbers in order; the first few of them.
fn ranges(numbers: &[u64]) -> String {
    const SHOWN: usize = 16;
    let mut found: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => found.push((number, number)),
        }
    }
    let shown = |(first, last): &(u64, u64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let text = found.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join(", ");
    let more: u64 = found.iter().skip(SHOWN).map(|(first, last)| last - first + 1).sum();
    if more == 0 { text } else { format!("{text} and {more} more, which --json lists") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        let node = |id: u64, status: &str, before: u64, after: u64, gains: u64, loses: u64| json!({"id": id, "status": status, "before": before, "after": after, "gains": gains, "loses": loses});
        let moved =
            |partition: u64, from: Option<u64>, to: u64| json!({"partition": partition, "from": from, "to": to});
        let plan = json!({
            "plan": "00000000000000ab",
            "balance_before": 1.0,
            "balance_after": 0.95,
            "without_source": [7],
            "nodes": [node(1, "member", 4, 2, 0, 2), node(4, "joining", 0, 3, 3, 0)],
            "moves": [moved(0, Some(1), 4), moved(1, Some(1), 4), moved(7, None, 4)],
        });
        let partition_bytes = BTreeMap::from([(0, 1024.0), (1, 2048.0)]);
        Shown { plan, replicas: 3, cores: BTreeMap::from([(1, 1), (4, 2)]), partition_bytes }
    }

    #[test]
    fn a_plan_is_shown_with_what_it_costs_and_how_to_commit_it() {
        let wanted = "\
Plan 00000000000000ab: 3 copies of partitions are made, about 3.0 KiB, and 1 copy whose size nobody tells, in about 4s \
(estimates).

node  is       partitions  after  gets  gives  about
1     member   4           2      0     2      0 B
4     joining  0           3      3     0      3.0 KiB

Balance 1.000 before, 0.950 after (mean/max of the nodes' partitions by weight).

from  to  copies  partitions
-     4   1       7
1     4   2       0-1

! All nodes that keep 1 partition (7) are given up: what nobody else has of it is lost.

! Only 2 nodes would be left, so each partition has 2 and not 3 copies. Let others join first.

To do this: quorate cluster commit 00000000000000ab
";
        assert_eq!(shown().as_text(), wanted);
        let value = shown().as_json();
        assert_eq!((&value["bytes_estimated"], &value["copies_of_unknown_size"]), (&json!(3072), &json!(1)));
        assert_eq!((&value["plan"], value["moves"].as_array().unwrap().len()), (&json!("00000000000000ab"), 3));
    }

    #[test]
    fn the_time_is_that_of_who_has_most_to_take_in() {
        let mut shown = shown();
        shown.partition_bytes = BTreeMap::from([(0, 2.0 * RATE), (1, 18.0 * RATE)]);
        let seconds = shown.seconds() - SECONDS_MIN - 3.0 / COPIES_RATE / 2.0;
        assert!((seconds - 10.0).abs() < 1e-6, "two cores share 20 seconds of work: {seconds}");
    }

    #[test]
    fn numbers_in_a_row_are_a_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[]), "");
        let odd: Vec<u64> = (0..40).filter(|number| number % 2 == 1).collect();
        assert!(ranges(&odd).ends_with("31 and 4 more, which --json lists"), "{}", ranges(&odd));
    }
}
