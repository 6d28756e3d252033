//! `quorate tasks`: what background work is at, how much of its core it gets, and why not more.
//!
//! The rule: while something is under way, two looks a moment apart tell how long it will take; without, one will do.
//!
//! Not here: who decides (`node/admission`).

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    nodes::{Common, inquire_all, number},
    table::{aligned, duration, micros},
};

/// Over this time the rate is taken.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Show what each core does in the background
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate tasks          # what is under way, how far it is, how long it will take
  quorate tasks --all    # idle work too")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Show idle work too
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.common.connect()?;
    let look = || inquire_all(client.map(), "TASKS", "its background work");
    let before = look()?;
    let is_busy = |core: &Value| tasks(core).any(|task| !task["all"].is_null());
    let cores = if before.iter().any(is_busy) {
        let begun = Instant::now();
        thread::sleep(RATE_OVER);
        with_time_left(&before, look()?, begun.elapsed())
    } else {
        before
    };
    args.common.print(|| json!({"cores": cores}), || describe(&cores, args.all));
    Ok(())
}

fn tasks(core: &Value) -> impl Iterator<Item = &Value> {
    core["tasks"].as_array().into_iter().flatten()
}

/// Adds to each task that got on how many seconds it will take.
fn with_time_left(before: &[Value], mut after: Vec<Value>, over: Duration) -> Vec<Value> {
    for core in &mut after {
        let same = |earlier: &&Value| (&earlier["node"], &earlier["core"]) == (&core["node"], &core["core"]);
        let earlier = before.iter().find(same).cloned().unwrap_or_default();
        for (at, task) in core["tasks"].as_array_mut().into_iter().flatten().enumerate() {
            let (done, all) = (number(task, "done"), number(task, "all"));
            let got_on = done.saturating_sub(number(&earlier["tasks"][at], "done"));
            if !task["all"].is_null() && got_on > 0 && number(&earlier["tasks"][at], "all") > 0 {
                task["seconds_left"] = json!((all - done.min(all)) as f64 * over.as_secs_f64() / got_on as f64);
            }
        }
    }
    after
}

fn describe(cores: &[Value], all: bool) -> String {
    let titles = ["core", "task", "done", "left", "rests"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let mut text = String::new();
    for core in cores {
        let name = format!("{}.{}", number(core, "node"), number(core, "core"));
        text += &format!("{name}: {}\n", admission(core));
        for task in tasks(core) {
            let busy = !task["all"].is_null();
            if busy || all || number(task, "stretch") > 1 {
                rows.push(vec![
                    name.clone(),
                    task["task"].as_str().unwrap_or_default().to_owned(),
                    if busy { done(task) } else { "idle".to_owned() },
                    task["seconds_left"].as_f64().map_or("-".to_owned(), |left| duration(left.ceil() as u64)),
                    format!("{}x", number(task, "stretch")),
                ]);
            }
        }
    }
    if rows.len() == 1 {
        return text + "\nNothing is under way\n";
    }
    text + "\n" + &aligned(&rows)
}

/// How much of it is done.
fn done(task: &Value) -> String {
    format!("{:.0} %", number(task, "done") as f64 * 100.0 / number(task, "all").max(1) as f64)
}

/// Why background work gets what it gets.
fn admission(core: &Value) -> String {
    let (requests, slow) = (number(core, "requests"), number(core, "slow"));
    let level = micros(number(core, "service_level_us"));
    let fared = match requests {
        0 => "nobody asked for anything lately".to_owned(),
        _ => format!("{slow} of the last {requests} requests took over {level}, where one in a thousand may"),
    };
    match core["held_back"].as_f64().unwrap_or(0.0) {
        _ if core["admission"] == false => format!("background work is never held back ([slo] `admission`); {fared}"),
        _ if core["futile"] == true => {
            format!("background work is let go, since holding it back did not help; {fared}")
        }
        0.0 => format!("background work is not held back; {fared}"),
        held => format!("background work is held back by {:.0} %; {fared}", held * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(done: u64) -> Value {
        json!({
            "node": 1, "core": 0, "service_level_us": 10_000, "admission": true, "held_back": 0.5, "requests": 2000, "slow": 7,
            "tasks": [
                {"task": "compaction", "stretch": 8, "done": done, "all": 1000},
                {"task": "scrub", "stretch": 1, "done": null, "all": null},
            ],
        })
    }

    #[test]
    fn what_is_under_way_is_told_with_its_share_and_the_time_that_is_left() {
        let cores = with_time_left(&[core(100)], vec![core(200)], Duration::from_secs(1));
        let wanted = "\
1.0: background work is held back by 50 %; 7 of the last 2000 requests took over 10.0 ms, where one in a thousand may

core  task        done  left  rests
1.0   compaction  20 %  8s    8x
";
        assert_eq!(describe(&cores, false), wanted);
        assert!(describe(&cores, true).contains("scrub       idle  -     1x"));
        let stuck = with_time_left(&[core(100)], vec![core(100)], Duration::from_secs(1));
        assert!(stuck[0]["tasks"][0]["seconds_left"].is_null());
    }
}
