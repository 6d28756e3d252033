//! kill -9 under load: nothing that was acknowledged may be lost.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    harness::{Process, quorate, run, wait_for},
    talk::{get, put},
};

/// Rounds of killing all nodes at once.
const ROUNDS: usize = 5;

#[test]
fn five_kills_of_all_nodes_under_load_lose_nothing() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Process> = (1..=3).map(|node| cluster.serve(node)).collect();
    let report = cluster.node_directory(1).join("report.json");
    let servers = cluster.servers();
    let mut load = Process::start(
        quorate(&["bench", "--target", "native", "--servers", &servers, "--workload", "a", "--keys", "2000"])
            .args(["--value-size", "100B", "--connections", "8", "--timeout", "1s", "--duration", "20s"])
            .args(["--verify", "--allow-stale", "--verify-wait", "60s", "--quiet", "--json"])
            .arg(&report)
            .stderr(Stdio::inherit()),
    );
    for round in 0..ROUNDS {
        // Writes of this round, each acknowledged before the kill.
        let written = Instant::now();
        let mut number = 0;
        while written.elapsed() < Duration::from_secs(1) {
            let name = format!("round-{round}-{number}");
            if put(cluster.clients(1 + number % 3), &name, "kept", None).is_ok() {
                number += 1;
            }
        }
        for node in &mut nodes {
            node.kill();
        }
        nodes = (1..=3).map(|node| cluster.begin_serve(node)).collect();
        for node in 1..=3 {
            cluster.wait_until_up(node);
        }
        for number in 0..number {
            let name = format!("round-{round}-{number}");
            assert_eq!(get(cluster.clients(1 + (number + 1) % 3), &name).1, ["kept"], "{name}");
        }
    }
    let said = load.read_until("operations/s");
    assert_eq!(load.wait().code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert!(report["operations"].as_u64().unwrap() > 1000, "{report}");
    assert!(report["failed"].as_u64().unwrap() > 0, "the load has seen no kill: {report}");
}

#[test]
fn with_any_one_node_dead_every_key_is_read_and_written() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Process> = (1..=3).map(|node| cluster.serve(node)).collect();
    let servers = cluster.servers();
    // A node that came back a moment ago may not have been found by the others yet, when the next one dies.
    let client = |arguments: &[&str]| {
        wait_for("a quorum", || {
            let said = run(quorate(arguments).args(["--node", &servers]));
            (said.code() == Some(0)).then_some(said.out)
        })
    };
    for (dead, node) in nodes.iter_mut().enumerate() {
        let value = format!("value-{dead}");
        node.kill();
        // Enough keys for each node to be the first owner of some.
        for name in ["a", "b", "c", "d", "e", "f"] {
            // A quorum has seen the last write, though this or that node has not: what is read is what is replaced.
            let read: Value = serde_json::from_str(&client(&["get", name, "--json"])).unwrap();
            let before: Vec<String> = (dead > 0).then(|| format!("value-{}", dead - 1)).into_iter().collect();
            assert_eq!(read["values"], json!(before), "{name} with node {} dead", dead + 1);
            // The same token for each attempt: one that was told to have failed may have been done.
            let (context, token) = (read["context"].as_str().unwrap(), format!("{name}{dead}"));
            client(&["put", name, &value, "--context", context, "--id", &token]);
            assert_eq!(client(&["get", name]), value, "{name} with node {} dead", dead + 1);
        }
        *node = cluster.serve(dead as u16 + 1);
    }
}
