//! `quorate sim --planted`: how the simulator finds bugs that were planted.
//!
//! The rule: a bug that no seed finds in time fails the run: it is a hole in the simulator.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use quorate_bench::Bar;
use quorate_engine::planted::Bug;
use quorate_tests::planted::{Hunt, SURVIVES, bug, hunt};
use serde_json::json;

use super::{Args, Failure, failed};

/// A bug that is not found by then counts as not found.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if !SURVIVES {
        let how = "this program ends at the first assertion; build it with --profile planted";
        return Err(Failure::Usage(how.to_owned()));
    }
    let bugs = match &args.bug {
        None => Bug::ALL.to_vec(),
        Some(word) => vec![bug(word).ok_or_else(|| Failure::Usage(unknown(word)))?],
    };
    if !args.json {
        println!("{:<26} {:<7} {:>6} {:>6}  found by", "bug", "hazard", "seed", "s");
    }
    let done = AtomicUsize::new(0);
    let look = || {
        let (done, all) = (done.load(Ordering::Relaxed), bugs.len());
        let now = bugs.get(done).map_or("", |bug| bug.word());
        (done as u64, all as u64, format!("{done} of {all} bugs, now {now}"))
    };
    let hunts: Vec<Hunt> = Bar::during("hunting", args.shows_progress(), look, |bar| {
        let one = |bug: &Bug| {
            let hunt = hunt(*bug, args.first, args.threads(), LIMIT);
            if !args.json {
                bar.beside(|| println!("{}", line(&hunt)));
            }
            done.fetch_add(1, Ordering::Relaxed);
            hunt
        };
        bugs.iter().map(one).collect()
    });
    if args.json {
        println!("{}", serde_json::Value::Array(hunts.iter().map(as_json).collect()));
    }
    let missed: Vec<_> = hunts.iter().filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.bug.word()).collect();
    if missed.is_empty() {
        Ok(())
    } else {
        Err(failed(format!("not found: {}; the simulator has a hole there", missed.join(", "))))
    }
}

fn line(hunt: &Hunt) -> String {
    let (seed, property) = match &hunt.found {
        Some(found) => (found.seed.to_string(), found.property.clone()),
        None => ("-".to_owned(), format!("nothing, in {} seeds", hunt.seeds)),
    };
    let seconds = hunt.elapsed.as_secs_f64();
    format!("{:<26} {:<7} {seed:>6} {seconds:>6.1}  {property}", hunt.bug.word(), hunt.bug.hazard())
}

fn as_json(hunt: &Hunt) -> serde_json::Value {
    let found = hunt.found.as_ref();
    json!({
        "bug": hunt.bug.word(),
        "what": hunt.bug.what(),
        "hazard": hunt.bug.hazard(),
        "seed": found.map(|found| found.seed),
        "property": found.map(|found| &found.property),
        "detail": found.map(|found| &found.detail),
        "seeds": hunt.seeds,
        "seconds": hunt.elapsed.as_secs_f64(),
    })
}

fn unknown(word: &str) -> String {
    let words: Vec<_> = Bug::ALL.iter().map(|bug| bug.word()).collect();
    format!("no planted bug is called '{word}'; there are {}", words.join(", "))
}
