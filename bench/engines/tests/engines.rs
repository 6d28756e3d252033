//! The whole program on a small scale.

use serde_json::Value;
use std::{env, fs, process::Command};

#[test]
fn every_engine_does_every_work_and_keeps_what_was_durable() {
    // Not in /tmp, which may be memory: O_DIRECT is wanted.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let json = dir.path().join("report.json");
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_engines"))
        .args(["--keys", "3000", "--operations", "1000", "--value-size", "500", "--rounds", "1", "--durable"])
        .arg("--dir")
        .arg(&data)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "something stays behind");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let engines = report["plan"]["engines"].as_array().unwrap().len();
    // Put, get, put, get and put, get.
    assert_eq!(report["summary"].as_array().unwrap().len(), 6 * engines, "{text}");
    for round in report["rounds"].as_array().unwrap() {
        assert!(round["acknowledged"].as_u64().unwrap() > 0, "{round}");
        assert_eq!((&round["reopened"]["lost"], &round["reopened"]["wrong"]), (&0.into(), &0.into()), "{round}");
        let load = &round["works"][0];
        let (user, written) = (load["user_bytes"].as_u64().unwrap(), load["written_bytes"].as_u64().unwrap());
        assert_eq!(user, 3000 * 516);
        assert!(written >= user, "{round}");
    }
}
