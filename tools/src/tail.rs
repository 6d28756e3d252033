//! `quorate tail`: how long requests took in the last minute, and what the slowest of them waited for.
//!
//! The rule: percentiles of different seconds and cores are never averaged: of those of all seconds the median is told, and the
//! worst. Causes are ranked by what they cost all together.
//!
//! Not here: the recording (`node/recorder`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    nodes::{Common, inquire_all, number},
    table::{aligned, micros},
};

/// So many of the slowest requests are told one by one.
const SLOWEST: usize = 10;

/// Show how slow the slowest requests of the last minute were, and why
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate tail            # percentiles, what the slowest waited for, the slowest one by one, stalls
  quorate tail --json     # all that each core tells, second by second")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.common.connect()?;
    let cores = inquire_all(client.map(), "TAIL", "its requests")?;
    args.common.print(|| json!({"cores": cores}), || describe(&cores));
    Ok(())
}

fn describe(cores: &[Value]) -> String {
    let mut text = format!("Requests of the last minute, on {} cores\n\n{}", cores.len(), aligned(&latencies(cores)));
    let causes = causes(cores);
    if causes.len() > 1 {
        text += "\nWhat the slowest one in a thousand waited for\n\n";
        text += &aligned(&causes);
    }
    let slowest = slowest(cores);
    if !slowest.is_empty() {
        text += "\nThe slowest, with what came when\n\n";
        text += &slowest.join("\n");
        text += "\n";
    }
    let stalls = stalls(cores);
    if stalls.len() > 1 {
        text += "\nWork that kept a core from everything else for over a millisecond, since its start\n\n";
        text += &aligned(&stalls);
    }
    text
}

/// The cores' answers: a list of each, with who gave it.
fn all<'a>(cores: &'a [Value], list: &'a str) -> impl Iterator<Item = (String, &'a Value)> {
    cores.iter().flat_map(move |core| core[list].as_array().into_iter().flatten().map(move |item| (name(core), item)))
}

fn name(endpoint: &Value) -> String {
    format!("{}.{}", number(endpoint, "node"), number(endpoint, "core"))
}

fn latencies(cores: &[Value]) -> Vec<Vec<String>> {
    let titles = ["request", "count", "failed", "p50", "p99", "p99.9", "worst second's", "longest"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for kind in ["get", "put", "forward", "replicate"] {
        let seconds = |core: &'_ Value| core["seconds"][kind].as_array().cloned().unwrap_or_default();
        let busy: Vec<Value> = cores.iter().flat_map(seconds).filter(|second| number(second, "count") > 0).collect();
        let sum = |name| busy.iter().map(|second| number(second, name)).sum::<u64>();
        let sorted = |name| {
            let mut sorted: Vec<u64> = busy.iter().map(|second| number(second, name)).collect();
            sorted.sort_unstable();
            sorted
        };
        let median = |name| micros(sorted(name)[busy.len() / 2]);
        let worst = |name| micros(sorted(name)[busy.len() - 1]);
        if !busy.is_empty() {
            rows.push(vec![
                kind.to_owned(),
                sum("count").to_string(),
                sum("failed").to_string(),
                median("p50_us"),
                median("p99_us"),
                median("p999_us"),
                worst("p999_us"),
                worst("max_us"),
            ]);
        }
    }
    if rows.len() == 1 {
        rows.push(vec!["none: nobody asked for anything".to_owned()]);
    }
    rows
}

fn causes(cores: &[Value]) -> Vec<Vec<String>> {
    #[derive(Default)]
    struct Cost {
        requests: u64,
        waited: u64,
        longest: u64,
    }
    let mut costs: BTreeMap<(String, String), Cost> = BTreeMap::new();
    for (core, cause) in all(cores, "causes") {
        let asked = cause["request"].as_str().unwrap_or_default().to_owned();
        let cost = costs.entry((asked, waited_for(&core, &cause["waited_for"]))).or_default();
        cost.requests += number(cause, "requests");
        cost.waited += number(cause, "waited_us");
        cost.longest = cost.longest.max(number(cause, "longest_us"));
    }
    let total = costs.values().map(|cost| cost.waited).sum::<u64>().max(1);
    let mut ranked: Vec<_> = costs.into_iter().collect();
    ranked.sort_by_key(|(_, cost)| std::cmp::Reverse(cost.waited));
    let row = |((asked, waited_for), cost): ((String, String), Cost)| {
        let share = format!("{:.0} %", cost.waited as f64 * 100.0 / total as f64);
        vec![share, asked, waited_for, cost.requests.to_string(), micros(cost.waited), micros(cost.longest)]
    };
    let titles = ["share", "request", "waited for", "requests", "together", "longest"];
    [titles.map(str::to_owned).to_vec()].into_iter().chain(ranked.into_iter().map(row)).collect()
}

/// What was waited for on `core`, in words.
fn waited_for(core: &str, cause: &Value) -> String {
    match cause["stage"].as_str() {
        Some("queue") => format!("its turn on {core}"),
        Some("actor") => format!("a new actor of {core}"),
        Some("read") => format!("a read from the disk of {core}"),
        Some("commit") => format!("a commit to the disk of {core}"),
        Some("peer") => format!("an answer of {}", name(&cause["core"])),
        Some("patience") => "those who did not answer".to_owned(),
        Some(other) => other.to_owned(),
        None => format!("something else on {core}"),
    }
}

fn slowest(cores: &[Value]) -> Vec<String> {
    let mut slowest: Vec<(String, &Value)> = all(cores, "slowest").collect();
    slowest.sort_by_key(|(_, flight)| std::cmp::Reverse(number(flight, "took_us")));
    let line = |(core, flight): (String, &Value)| {
        let mark = |mark: &Value| {
            let stage = mark["stage"].as_str().unwrap_or_default();
            let what = if stage == "peer" { name(&mark["core"]) } else { stage.to_owned() };
            format!("{what} {}", micros(number(mark, "at_us")))
        };
        let marks: Vec<String> = flight["marks"].as_array().into_iter().flatten().map(mark).collect();
        format!(
            "{:>9}  {} {} on {core}, {} s ago{}: {}",
            micros(number(flight, "took_us")),
            flight["request"].as_str().unwrap_or_default(),
            flight["key"].as_str().unwrap_or("of a replica"),
            number(flight, "seconds_ago"),
            if flight["failed"] == true { ", failed" } else { "" },
            marks.join(", ")
        )
    };
    slowest.into_iter().take(SLOWEST).map(line).collect()
}

fn stalls(cores: &[Value]) -> Vec<Vec<String>> {
    let mut stalls: Vec<(String, &Value)> = all(cores, "stalls").collect();
    stalls.sort_by_key(|(_, stall)| std::cmp::Reverse(number(stall, "total_us")));
    let row = |(core, stall): (String, &Value)| {
        vec![
            core,
            stall["task"].as_str().unwrap_or_default().to_owned(),
            number(stall, "count").to_string(),
            micros(number(stall, "longest_us")),
            micros(number(stall, "total_us")),
            format!("{} s ago", number(stall, "seconds_ago")),
        ]
    };
    let titles = ["core", "task", "times", "longest", "together", "last"];
    [titles.map(str::to_owned).to_vec()].into_iter().chain(stalls.into_iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(node: u64) -> Value {
        let peer = json!({"stage": "peer", "core": {"node": 3, "core": 0}});
        let second = |p999: u64| json!({"count": 1000, "failed": 1, "p50_us": 400, "p99_us": 900, "p999_us": p999, "max_us": 2 * p999});
        json!({
            "node": node, "core": 0,
            "seconds": {"put": [second(5_000), second(1_000), {"count": 0}], "get": []},
            "causes": [{"request": "put", "waited_for": peer, "requests": 3, "waited_us": 9_000, "longest_us": 5_000}, {"request": "put", "waited_for": null, "requests": 1, "waited_us": 2_000, "longest_us": 2_000}],
            "slowest": [{
                "request": "put", "bucket": "default", "key": "k", "partition": 7, "seconds_ago": 3, "took_us": 5_100, "failed": false,
                "marks": [{"stage": "commit", "at_us": 90}, {"stage": "peer", "core": {"node": 3, "core": 0}, "at_us": 5_090}],
            }],
            "stalls": [{"task": "compaction", "count": 2, "total_us": 7_000, "longest_us": 4_000, "seconds_ago": 9}],
        })
    }

    #[test]
    fn a_minute_is_told_with_its_causes_the_greatest_first() {
        let wanted = "\
Requests of the last minute, on 2 cores

request  count  failed  p50     p99     p99.9   worst second's  longest
put      4000   4       400 µs  900 µs  5.0 ms  5.0 ms          10.0 ms

What the slowest one in a thousand waited for

share  request  waited for             requests  together  longest
82 %   put      an answer of 3.0       6         18.0 ms   5.0 ms
9 %    put      something else on 1.0  1         2.0 ms    2.0 ms
9 %    put      something else on 2.0  1         2.0 ms    2.0 ms

The slowest, with what came when

   5.1 ms  put k on 1.0, 3 s ago: commit 90 µs, 3.0 5.1 ms
   5.1 ms  put k on 2.0, 3 s ago: commit 90 µs, 3.0 5.1 ms

Work that kept a core from everything else for over a millisecond, since its start

core  task        times  longest  together  last
1.0   compaction  2      4.0 ms   7.0 ms    9 s ago
2.0   compaction  2      4.0 ms   7.0 ms    9 s ago
";
        assert_eq!(describe(&[core(1), core(2)]), wanted);
        let quiet = json!({"node": 1, "core": 0, "seconds": {}});
        assert!(describe(&[quiet]).contains("nobody asked"));
    }
}
