//! `quorate bench outage`, in a few seconds.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{quorate, run};

/// What is told of a short outage, and its picture.
fn outage(how: &str) -> (Value, String) {
    // On a real disk, as durable writes want it.
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let picture = directory.path().join("picture.svg");
    let line = "bench outage --before 1s --away 2s --after 1s --rate 200 --keys 300 --quiet --json --how";
    let mut command = quorate(&line.split(' ').chain([how]).collect::<Vec<_>>());
    command.arg("--out").arg(&picture).arg("--dir").arg(directory.path());
    let said = run(&mut command);
    let report = serde_json::from_str(&said.assert_ok().out).expect("it prints JSON");
    (report, fs::read_to_string(picture).expect("it draws a picture"))
}

/// The node was away, the others answered, and all copies became equal.
fn check(how: &str, labels: [&str; 2]) -> Value {
    let (report, picture) = outage(how);
    let parts = report["parts"].as_array().expect("it has parts");
    assert_eq!(
        parts.iter().map(|part| part["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["before", "away", "after"]
    );
    assert!(parts.iter().all(|part| part["operations"].as_u64() > Some(0)), "{report:#}");
    assert_eq!(report["verdict"]["lost_writes"], 0, "{report:#}");
    assert!(report["equal_after_seconds"].as_f64() > Some(0.0), "{report:#}");
    assert!(picture.starts_with("<svg") && labels.iter().all(|label| picture.contains(label)), "{picture}");
    report
}

#[test]
fn a_node_that_is_killed_comes_back() {
    let report = check("kill", ["kill -9", "started again"]);
    let errors = report["errors"].as_object().expect("they are told by class");
    assert!(errors.keys().any(|class| class.starts_with("connection")), "nobody met the dead node: {report:#}");
}

#[test]
fn a_node_that_is_frozen_comes_back() {
    let report = check("freeze", ["frozen", "thawed"]);
    let slowest = |part: &Value| part["max_us"].as_f64().expect("it is a time");
    let slowest = report["parts"].as_array().expect("it has parts").iter().map(slowest).fold(0.0, f64::max);
    assert!(slowest > 1e6, "nobody waited for the frozen node: {report:#}");
}

#[test]
fn an_outage_that_would_not_show_is_refused() {
    let said = run(&mut quorate(&["bench", "outage", "--away", "10ms"]));
    assert!(said.code() == Some(2) && said.error.contains("--away"), "{}", said.error);
}
