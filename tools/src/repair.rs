//! `quorate repair`: makes the primaries compare their partitions now, or tells whether they are equal.
//!
//! The rule: what is not known to be equal is a failure of `--check` and of `--wait`, so that a script can rely on 0.
//!
//! Not here: how replicas are compared and repaired (`node/anti_entropy`), what of it is seen from outside (`roots`).

use std::{
    thread,
    time::{Duration, Instant},
};

use quorate_bench::Bar;
use quorate_net::{client::Client, message::ClusterMap};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, failed},
    nodes::{Common, ask_cores, inquire, number},
    roots::{self, Comparison},
    table::{aligned, count, listed},
};

/// Between two looks while something is waited for.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What still differs is asked for again after this: a peer may have been busy.
const ASK_PERIOD: Duration = Duration::from_secs(5);

/// Make replicas compare their data now and repair what differs, without waiting for their turn
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate repair --check                  # exit code 1 if any replicas differ, or could not be compared
  quorate repair --wait                   # until none differ
  quorate repair --wait --partition 7     # of one partition")]
pub(crate) struct Args {
    /// Only this partition
    #[arg(long, value_name = "PARTITION")]
    partition: Option<u16>,
    /// Wait until no partition differs
    #[arg(long, conflicts_with = "check")]
    wait: bool,
    /// Change nothing; tell which partitions differ between their primaries, and fail if any does
    #[arg(long)]
    check: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.common.connect()?;
    check_partition(client.map(), args.partition)?;
    let started = Instant::now();
    let asked = if args.check { None } else { Some(ask(client.map(), args.partition)) };
    if let Some(asked) = &asked
        && asked.partitions == 0
    {
        return Err(failed(format!(
            "no core was reached that keeps {}; nothing was changed. `quorate status` shows which nodes answer",
            args.partition.map_or("any partition".to_owned(), |partition| format!("partition {partition}"))
        )));
    }
    let shown = !(args.quiet || args.common.json);
    let found = match (args.check, args.wait) {
        (true, _) => Some(roots::compare(client.map(), args.partition, &Bar::new("comparing", shown))),
        (false, true) => Some(wait(&mut client, args.partition, &Bar::new("repairing", shown))),
        (false, false) => None,
    };
    if args.common.json {
        println!("{}", as_json(asked.as_ref(), found.as_ref(), started.elapsed()));
    } else {
        print(asked.as_ref(), found.as_ref(), started.elapsed());
    }
    match found {
        Some(found) if !found.is_equal() => Err(failed(why_not(&found))),
        _ => Ok(()),
    }
}

/// A partition that there is, or none.
pub(crate) fn check_partition(map: &ClusterMap, partition: Option<u16>) -> Result<(), Failure> {
    let partitions = map.preference.len();
    match partition {
        Some(partition) if usize::from(partition) >= partitions => Err(Failure::Usage(format!(
            "--partition {partition}: the cluster has the partitions 0 to {}",
            partitions - 1
        ))),
        _ => Ok(()),
    }
}

/// What came of asking all cores for a repair.
struct Asked {
    cores: usize,
    cores_silent: usize,
    /// Comparisons with all other primaries that they were asked for.
    partitions: u64,
}

fn ask(map: &ClusterMap, partition: Option<u16>) -> Asked {
    let number_of = partition.map(|partition| partition.to_string());
    let mut words = vec![b"REPAIR".as_slice()];
    words.extend(number_of.as_ref().map(|number| number.as_bytes()));
    let answered = ask_cores(&map.nodes, |node, core| inquire(node, core, &words));
    let answers = || answered.iter().flat_map(|node| node.answers());
    Asked {
        cores: answers().count(),
        cores_silent: answered.iter().map(|node| node.silent().count()).sum(),
        partitions: answers().map(|answer| number(answer, "partitions")).sum(),
    }
}

/// Until nothing differs between those that answer. A partition is done when it was seen to be equal; under load another
/// one may have begun to differ meanwhile, so all are compared once more then.
fn wait(client: &mut Client, partition: Option<u16>, bar: &Bar) -> Comparison {
    let mut asked = Instant::now();
    // That ever differed at once.
    let mut most = 0;
    loop {
        let mut found = roots::compare(client.map(), partition, &Bar::new("comparing", false));
        if found.differing.is_empty() {
            return found;
        }
        while !found.differing.is_empty() {
            let differing = found.differing.len() as u64;
            most = most.max(differing);
            bar.show(most - differing, most, &format!("{} of {most} partitions", most - differing));
            thread::sleep(LOOK_PERIOD);
            if asked.elapsed() >= ASK_PERIOD {
                asked = Instant::now();
                // The old map will do when nobody tells a newer one.
                let _ = client.refresh();
                ask(client.map(), partition);
            }
            found = roots::look_again(client.map(), partition, &found);
        }
    }
}

fn why_not(found: &Comparison) -> String {
    let silent = match found.silent.first() {
        Some((at, error)) => format!("core {at} does not answer: {error}"),
        None => "some cores do not keep what the ring says: it is being changed".to_owned(),
    };
    let (differing, unchecked) = (found.differing.len() as u64, found.unchecked.len() as u64);
    let partitions = |number| count(number, "partition", "partitions");
    match (differing, unchecked) {
        (0, _) => format!(
            "{} could not be compared ({silent}); `quorate status` shows who is down: start it, then try again",
            partitions(unchecked)
        ),
        (_, 0) => format!("{} differ; `quorate repair --wait` repairs them", partitions(differing)),
        _ => format!(
            "{} differ, {} could not be compared ({silent}); `quorate repair --wait` repairs what can be reached",
            partitions(differing),
            partitions(unchecked)
        ),
    }
}

fn as_json(asked: Option<&Asked>, found: Option<&Comparison>, took: Duration) -> Value {
    let asked = asked
        .map(|asked| json!({"cores": asked.cores, "cores_silent": asked.cores_silent, "partitions": asked.partitions}));
    json!({"asked": asked, "comparison": found.map(Comparison::as_json), "seconds": took.as_secs_f64()})
}

fn print(asked: Option<&Asked>, found: Option<&Comparison>, took: Duration) {
    if let Some(Asked { cores, cores_silent, partitions }) = asked {
        let silent = if *cores_silent > 0 { format!("; {cores_silent} did not answer") } else { String::new() };
        println!(
            "{} asked to compare {} with the other primaries{silent}.",
            count(*cores as u64, "core was", "cores were"),
            count(*partitions, "copy of a partition", "copies of partitions")
        );
    }
    match found {
        Some(found) if found.differing.is_empty() => {
            let equal = count(found.compared as u64, "partition is", "partitions are");
            println!("{equal} equal on all primaries, after {:.1} s.", took.as_secs_f64());
        }
        Some(found) => print!("{}", differences(found)),
        None => println!("`quorate repair --check` tells whether they are equal."),
    }
}

/// So many differing partitions are shown one by one.
const SHOWN: usize = 16;

fn differences(found: &Comparison) -> String {
    let mut rows = vec![["partition", "core", "root", "keys"].map(str::to_owned).to_vec()];
    for (partition, copies) in found.differing.iter().take(SHOWN) {
        for (number, (at, copy)) in copies.iter().enumerate() {
            let partition = if number == 0 { partition.to_string() } else { String::new() };
            let [root, keys] = copy.as_ref().map_or(["does not answer".to_owned(), String::new()], |copy| copy.cells());
            rows.push(vec![partition, at.to_string(), root, keys]);
        }
    }
    let mut text = aligned(&rows);
    if found.differing.len() > SHOWN {
        text += &format!("and {} more: {}\n", found.differing.len() - SHOWN, {
            listed(found.differing.keys().skip(SHOWN).copied())
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::roots::tests::{differing, three_nodes};

    #[test]
    fn what_differs_is_shown_with_what_each_has() {
        let wanted = "\
partition  core  root  keys
0          1.0   a     7
           2.0   A     7
";
        assert_eq!(differences(&differing()), wanted);
        let value = as_json(None, Some(&differing()), Duration::from_secs(1));
        assert_eq!((&value["asked"], &value["comparison"]["equal"]), (&Value::Null, &json!(false)));
        assert_eq!(value["comparison"]["differing"][0]["partition"], 0);
        let asked = Asked { cores: 3, cores_silent: 1, partitions: 12 };
        let value = as_json(Some(&asked), None, Duration::ZERO);
        assert_eq!(value["asked"], json!({"cores": 3, "cores_silent": 1, "partitions": 12}));
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let mut found = differing();
        assert!(why_not(&found).starts_with("1 partition differ") && why_not(&found).contains("--wait"));
        found.unchecked = BTreeSet::from([1, 2]);
        assert!(why_not(&found).contains("2 partitions could not be compared"));
        found.differing.clear();
        assert!(why_not(&found).contains("quorate status"));
    }

    #[test]
    fn a_partition_must_be_there() {
        assert!(check_partition(&three_nodes(), Some(3)).is_ok());
        let error = check_partition(&three_nodes(), Some(4)).unwrap_err();
        assert!(matches!(&error, Failure::Usage(text) if text.contains("0 to 3")), "{error}");
    }
}
