//! What an operator sees of a node that is away, and does about it when it is back.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    cluster::{CORE_PORT, Cluster, SETTLING_MAX},
    harness::{Process, Said, quorate, run, wait_for, wait_long_for},
    talk::{Resp, put},
};

/// A command of an operator, asked of node 1.
fn operate(cluster: &Cluster, words: &[&str]) -> Said {
    run(quorate(words).args(["--node", &cluster.clients(1).to_string(), "--json"]))
}

fn json_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}\nout: {}\nerror: {}", said.out, said.error))
}

fn status(cluster: &Cluster) -> Value {
    json_of(operate(cluster, &["status"]).assert_ok())
}

#[test]
fn a_node_that_was_away_is_seen_and_repaired() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Process> = (1..=3).map(|node| cluster.serve(node)).collect();
    for number in 0..100 {
        put(cluster.clients(1), &format!("before-{number}"), "v", None).unwrap();
    }
    // A strict write that did not reach a node which was still connecting waits for the next comparison.
    let before = wait_long_for("replicas that are equal", SETTLING_MAX, || {
        Some(status(&cluster)).filter(|all| all["data"]["equal"] == true)
    });
    assert_eq!(before["problems"], json!([]), "{before}");
    assert_eq!(before["nodes"][2]["seen"], json!({"alive": 2, "suspect": 0, "dead": 0, "avoided": 0}), "{before}");

    nodes[2].signal(Signal::KILL);
    nodes[2].wait();
    for number in 0..200 {
        // Strict writes leave no hints: only anti-entropy brings them.
        wait_for("a write while a node is down", || put(cluster.clients(1), &format!("away-{number}"), "v", None).ok());
    }
    // The gossip takes a moment; whom requests do not get through to is avoided at once.
    let down =
        wait_for("the others to see it", || Some(status(&cluster)).filter(|all| all["nodes"][2]["seen"]["dead"] == 2));
    let node = &down["nodes"][2];
    assert_eq!((&node["reachable"], &node["seen"]["avoided"]), (&json!(false), &json!(2)), "{down}");
    assert_eq!(
        (&down["nodes"][0]["reachable"], &down["nodes"][0]["peers_avoided"]),
        (&json!(true), &json!(1)),
        "{down}"
    );
    assert_eq!(down["data"]["unchecked"].as_array().unwrap().len(), 64, "{down}");
    assert!(down["problems"][0].as_str().unwrap().contains("node 3 does not answer"), "{down}");
    let check = operate(&cluster, &["repair", "--check"]);
    check.assert_failed(&["64 partitions could not be compared", "quorate status"]);
    operate(&cluster, &["repair", "--wait"]).assert_failed(&["64 partitions could not be compared"]);

    nodes[2] = cluster.serve(3);
    // It heals by itself too, so it may be equal by now.
    let check = operate(&cluster, &["repair", "--check"]);
    let comparison = &json_of(&check)["comparison"];
    let (equal, differing) = (&comparison["equal"], comparison["differing"].as_array().unwrap());
    assert_eq!((equal == &json!(true), differing.is_empty()), (check.code() == Some(0), check.code() == Some(0)));
    assert_eq!(comparison["compared"], 64, "{comparison}");

    let repaired = json_of(operate(&cluster, &["repair", "--wait"]).assert_ok());
    assert_eq!(repaired["asked"], json!({"cores": 3, "cores_silent": 0, "partitions": 192}), "{repaired}");
    assert_eq!((&repaired["comparison"]["equal"], &repaired["comparison"]["compared"]), (&json!(true), &json!(64)));
    operate(&cluster, &["repair", "--check"]).assert_ok();
    let after = wait_for("nothing to be wrong", || Some(status(&cluster)).filter(|all| all["problems"] == json!([])));
    let keys = |node: usize| after["nodes"][node]["cores"][0]["info"]["store_keys"].clone();
    assert_eq!([keys(0), keys(1), keys(2)], ["300", "300", "300"], "{after}");
}

/// Everybody's answer to each question of an operator has the names that tools rely on.
#[test]
fn every_core_tells_how_it_stands() {
    let cluster = Cluster::new();
    let _nodes: Vec<Process> = (1..=3).map(|node| cluster.serve(node)).collect();
    put(cluster.clients(1), "k", "v", None).unwrap();
    let names: [(&[&[u8]], &[&str]); 5] = [
        (&[b"ROOTS"], &["keys", "tombstones", "lost", "partitions"]),
        (&[b"HINTS"], &["held", "underway", "accepted", "delivered", "dropped", "partitions"]),
        (&[b"EXCHANGES"], &["underway", "exchanges", "differences", "keys_sent", "keys_received"]),
        (&[b"MEMBERS"], &["epoch", "digest", "refused", "nodes"]),
        (&[b"REPAIR", b"63"], &["partitions"]),
    ];
    for node in 1..=3 {
        let mut resp = Resp::connect(cluster.address(node, CORE_PORT));
        for (words, names) in names {
            let command: Vec<&[u8]> = [b"QUORATE".as_slice()].iter().chain(words).copied().collect();
            let answer: Value = serde_json::from_str(&resp.text(&command)).unwrap();
            assert_eq!((&answer["node"], &answer["core"]), (&json!(node), &json!(0)), "{answer}");
            for name in names {
                assert!(answer.get(name).is_some(), "no {name}: {answer}");
            }
        }
        let answer: Value = serde_json::from_str(&resp.text(&[b"QUORATE", b"MEMBERS"])).unwrap();
        let me = &answer["nodes"].as_array().unwrap().iter().find(|entry| entry["id"] == node).unwrap();
        assert_eq!(
            (&me["status"], &me["weight"], &me["cores"][0]["liveness"]),
            (&json!("member"), &json!(1.0), &json!("alive"))
        );
        let info = resp.text(&[b"INFO", b"quorate"]);
        for name in ["hints_held", "hints_accepted", "peers_dead", "exchange_differences", "store_lost", "strangers"] {
            assert!(info.contains(&format!("\r\n{name}:")), "no {name}: {info}");
        }
        assert!(
            resp.text(&[b"QUORATE", b"REPAIR", b"64"]).starts_with("ERR the partition must be a number from 0 to 63")
        );
    }

    let ring = json_of(operate(&cluster, &["ring"]).assert_ok());
    assert_eq!((&ring["balance"], &ring["nodes"][0]["partitions"]), (&json!(1.0), &json!(64)), "{ring}");
    let of_key = json_of(operate(&cluster, &["ring", "--key", "k"]).assert_ok());
    assert_eq!((of_key["primaries"].as_array().unwrap().len(), &of_key["fallbacks"]), (3, &json!([])), "{of_key}");
    assert_eq!(operate(&cluster, &["ring", "--partition", "64"]).code(), Some(2));
    assert_eq!(operate(&cluster, &["repair", "--partition", "64"]).code(), Some(2));
    let hints = json_of(operate(&cluster, &["hints"]).assert_ok());
    assert_eq!((&hints["held"], hints["cores"].as_array().unwrap().len()), (&json!(0), 3), "{hints}");
    let one = json_of(operate(&cluster, &["repair", "--partition", "5"]).assert_ok());
    assert_eq!((&one["asked"]["partitions"], &one["comparison"]), (&json!(3), &Value::Null), "{one}");
}
