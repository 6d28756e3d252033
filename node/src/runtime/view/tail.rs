//! What `QUORATE TAIL`, `LATENCIES`, `KEYS` and `TASKS` are answered: how long requests took, why, for which keys most are, and what
//! background work is at beside them.
//!
//! The rule: the present second is not told, it is not over; times are in microseconds.
//!
//! Not here: what is kept (`recorder`), what is made of it (the tools).

use std::time::Duration;

use quorate_engine::disk::Disk;
use serde_json::{Value, json};

use super::{
    super::{shell::Shell, stalls::micros},
    inquiry::{as_json, from_here},
};
use crate::{
    clock::Instant,
    core::{Background, Core},
    recorder::{Cause, Flight, HotKey, Kind, Recorder, Second, Stage},
};

/// Causes and flights of so long are told.
const TOLD: Duration = Duration::from_secs(60);

/// So many of the slowest are told one by one.
const FLIGHTS_TOLD: usize = 20;

/// So many keys are told.
const KEYS_TOLD: usize = 50;

pub(super) fn tail(shell: &Shell) -> Value {
    let now = shell.instant();
    let stalls = shell.stalls().describe();
    shell.look(|core| {
        let recorder = core.recorder();
        let since = Instant(now.0.saturating_sub(TOLD.as_nanos() as u64));
        let mut flights: Vec<&Flight> = recorder.flights(since).collect();
        flights.sort_by_key(|flight| std::cmp::Reverse(flight.took));
        flights.truncate(FLIGHTS_TOLD);
        let kinds: serde_json::Map<String, Value> =
            Kind::ALL.iter().map(|&kind| (kind.name().to_owned(), seconds(recorder, kind))).collect();
        let told = json!({
            "over_seconds": TOLD.as_secs(),
            "seconds": kinds,
            "causes": recorder.causes(since).iter().map(cause).collect::<Vec<_>>(),
            "slowest": flights.iter().map(|flight| one(flight, now)).collect::<Vec<_>>(),
            "stalls": stalls,
        });
        from_here(core, told)
    })
}

/// The last seconds of one kind of request, the latest last.
fn seconds(recorder: &Recorder, kind: Kind) -> Value {
    let seconds: Vec<&Second> = recorder.latencies(kind).seconds().rev().take(TOLD.as_secs() as usize).collect();
    let told = |second: &&Second| {
        json!({
            "count": second.count,
            "failed": second.failed,
            "p50_us": micros(second.p50),
            "p99_us": micros(second.p99),
            "p999_us": micros(second.p999),
            "max_us": micros(second.max),
        })
    };
    seconds.iter().rev().map(told).collect()
}

/// How long gets and puts took in each of the last seconds, the latest last: how many there were, then the times that half of
/// them, 99 of a hundred and 999 of a thousand took at most, and the longest.
pub(super) fn latencies<D: Disk>(core: &Core<D>) -> Value {
    let told = |second: &Second| {
        json!([second.count, micros(second.p50), micros(second.p99), micros(second.p999), micros(second.max)])
    };
    let seconds = |kind| core.recorder().latencies(kind).seconds().map(told).collect::<Vec<_>>();
    from_here(core, json!({"get": seconds(Kind::Get), "put": seconds(Kind::Put)}))
}

fn cause(cause: &Cause) -> Value {
    json!({
        "request": cause.kind.name(),
        "waited_for": cause.stage.map_or(Value::Null, stage),
        "requests": cause.flights,
        "waited_us": micros(cause.waited),
        "longest_us": micros(cause.longest),
    })
}

fn stage(stage: Stage) -> Value {
    match stage {
        Stage::Peer(peer) => json!({"stage": stage.name(), "core": as_json(peer)}),
        _ => json!({"stage": stage.name()}),
    }
}

fn one(flight: &Flight, now: Instant) -> Value {
    let marks: Vec<Value> = flight
        .trace
        .marks()
        .map(|(mark, at)| {
            let mut told = stage(mark);
            told["at_us"] = json!(micros(at));
            told
        })
        .collect();
    let [bucket, key] = flight.key.as_ref().map(|(_, key)| names(key)).map_or([None, None], |names| names.map(Some));
    json!({
        "request": flight.kind.name(),
        "bucket": bucket,
        "key": key,
        "partition": flight.key.as_ref().map(|(partition, _)| partition),
        "seconds_ago": now.since(flight.ended).as_secs(),
        "took_us": micros(flight.took),
        "failed": flight.failed,
        "marks": marks,
    })
}

/// A bucket and a key as people write them, as far as they are known: a long one was cut.
fn names(encoded: &[u8]) -> [String; 2] {
    let (length, rest) = encoded.split_first().map_or((0, encoded), |(&length, rest)| (length.into(), rest));
    let (bucket, name) = rest.split_at(rest.len().min(length));
    [bucket, name].map(|part| String::from_utf8_lossy(part).into_owned())
}

pub(super) fn keys<D: Disk>(core: &Core<D>) -> Value {
    let hottest = core.recorder().hot_keys().hottest(KEYS_TOLD);
    let told = |hot: &HotKey| {
        let [bucket, key] = names(&hot.key);
        json!({"bucket": bucket, "key": key, "gets": hot.gets, "puts": hot.puts, "error": hot.error})
    };
    from_here(core, json!({"keys": hottest.iter().map(told).collect::<Vec<_>>()}))
}

pub(super) fn tasks<D: Disk>(core: &Core<D>) -> Value {
    let task = |task: &Background| {
        json!({
            "task": task.work.name(),
            "stretch": task.stretch,
            "done": task.progress.map(|progress| progress.done),
            "all": task.progress.map(|progress| progress.all),
        })
    };
    let recent = core.admission().recent();
    let told = json!({
        "service_level_us": micros(core.settings().service_level),
        "admission": core.settings().admission,
        "held_back": core.admission().held_back(),
        "futile": core.admission().is_futile(),
        "requests": recent.requests,
        "slow": recent.slow,
        "tasks": core.background().iter().map(task).collect::<Vec<_>>(),
    });
    from_here(core, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_cut_has_a_name_too() {
        assert_eq!(names(b"\x03bigname"), ["big", "name"]);
        assert_eq!(names(b"\xffbig"), ["big", ""]);
        assert_eq!(names(b""), ["", ""]);
    }
}
