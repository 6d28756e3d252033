//! `quorate bench compare`, with the peers that this machine has.

use std::{fs, process::Stdio};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    apart::skip,
    harness::{Process, is_alive, quorate, run, wait_for},
};

/// Whether `program` is in `PATH`; if not, says that the test is skipped.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|place| place.join(program).is_file());
    if !found {
        skip(&format!("there is no `{program}`"));
    }
    found
}

/// On a real disk, as a comparison wants it.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

/// What a comparison with tiny numbers says.
fn compare(peer: &str, options: &str) -> Value {
    let directory = directory();
    let place = directory.path().to_str().expect("it is text");
    let mut command = quorate(&["bench", "compare", "--peer", peer, "--dir", place, "--quiet", "--json"]);
    command.args("--rounds 1 --duration 1s --warmup 1s --keys 300 --value-size 100B --connections 4".split(' '));
    let said = run(command.args(options.split_whitespace()));
    let report: Value = serde_json::from_str(&said.assert_ok().out).expect("it prints JSON");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?} was left");
    report
}

/// Fails unless the peer was compared, nothing failed, and there are these figures.
fn check(report: &Value, peer: &str, figures: &[&str]) {
    assert_eq!(report["peers"][0]["peer"], peer, "{report:#}");
    for side in ["ours", "theirs"] {
        let run = &report["peers"][0]["rounds"][0][side];
        for count in ["failed", "absent"] {
            assert_eq!(run[count], 0, "{side}: {report:#}");
        }
        assert!(run["operations"].as_u64() > Some(0), "{side}: {report:#}");
    }
    for name in figures {
        let all = report["peers"][0]["figures"].as_array().expect("a peer has figures");
        let figure = all.iter().find(|figure| figure["name"] == *name);
        let figure = figure.unwrap_or_else(|| panic!("no {name} in {report:#}"));
        let ratio = |end: &str| figure["ratio"][end].as_f64();
        assert!(ratio("median").is_some_and(|median| median > 0.0), "{name}: {figure:#}");
        // There was one round.
        assert_eq!(ratio("least"), ratio("most"), "{name}: {figure:#}");
    }
}

const PUTS: [&str; 4] = ["operations/s", "update p50", "update p99", "update p99.9"];

#[test]
fn puts_are_set_beside_those_of_redis() {
    if has("redis-server") {
        check(&compare("redis-always", ""), "redis-always", &PUTS);
    }
}

#[test]
fn gets_and_puts_at_a_fixed_rate_are_set_beside_those_of_memcached() {
    if has("memcached") {
        let report = compare("memcached", "--workload mix --rate 20 --target resp");
        check(&report, "memcached", &[&PUTS[..], &["read p50"]].concat());
    }
}

#[test]
fn gets_and_puts_are_set_beside_those_of_etcd() {
    if has("etcd") {
        check(&compare("etcd", "--workload mix"), "etcd", &[&PUTS[..], &["read p50"]].concat());
    }
}

#[test]
fn without_a_peer_it_says_what_to_install() {
    let directory = directory();
    let mut command = quorate(&["bench", "compare"]);
    // Nobody is found there.
    command.env("PATH", directory.path());
    run(&mut command).assert_failed(&[
        "redis-always: there is no `redis-server`",
        "apt-get install memcached",
        "garage",
    ]);
}

#[test]
fn what_was_started_ends_with_it() {
    if !has("redis-server") {
        return;
    }
    let directory = directory();
    let place = directory.path().to_str().expect("it is text");
    for signal in [Signal::TERM, Signal::KILL] {
        let mut command = quorate(&["bench", "compare", "--peer", "redis-always", "--dir", place, "--quiet"]);
        command.args(["--keys", "300", "--duration", "60s"]).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        let children = wait_for("both sides", || {
            let children = descendants(process.pid());
            // `dev`, its three nodes, and redis-server.
            (children.len() == 5).then_some(children)
        });
        process.signal(signal);
        wait_for("the end of all that it started", || (!children.iter().any(|child| is_alive(*child))).then_some(()));
        if signal == Signal::TERM {
            assert_eq!(process.wait().code(), Some(1));
            assert!(fs::read_dir(directory.path()).expect("it is there").next().is_none(), "files were left");
        }
    }
}

/// The processes that this one started, and those that they started.
fn descendants(parent: Pid) -> Vec<Pid> {
    let of = |parent: Pid| {
        let path = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>()
    };
    let children = of(parent);
    let grandchildren = children.iter().flat_map(|child| of(*child)).collect::<Vec<_>>();
    children.into_iter().chain(grandchildren).collect()
}
