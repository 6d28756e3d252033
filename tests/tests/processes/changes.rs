//! Nodes that join, leave, die for good and are replaced, as an operator does it; and what is refused.
//!
//! The rule: after each change every value that was acknowledged is there, all replicas are equal, and every node has its
//! share of the partitions.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path, time::Duration};

use quorate_net::{
    frame,
    id::{CoreId, Endpoint, NodeId},
    message::{ArchivedMessage, Hello, Message, PROTOCOL, gossip::NodeIdentity},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    apart::apart,
    cluster::{Cluster, PEER_PORT},
    filesystem::{Filesystem, PROGRAMS},
    harness::{Process, Said, quorate, run, wait_for, wait_long_for},
    load::Load,
    talk::{Resp, get_all, put, put_all, send_and_read_to_end},
};

/// Load that takes place while the ring changes.
const OPTIONS: &str = "--kv --workload a --keys 500 --value-size 100B --connections 4 --rate 200 --duration 10s";

/// Partitions are compared with all primaries before they count as moved, and that on a machine that is busy.
const CHANGE_MAX: Duration = Duration::from_secs(180);

/// Partitions of the clusters here.
const PARTITIONS: u64 = 64;

/// A command of an operator, asked of node `via`.
fn operate_at(cluster: &Cluster, via: u16, words: &[&str]) -> Said {
    run(quorate(words).args(["--node", &cluster.clients(via).to_string(), "--json"]))
}

fn operate(cluster: &Cluster, words: &[&str]) -> Said {
    operate_at(cluster, 1, words)
}

fn json_of(said: &Said) -> Value {
    serde_json::from_str(&said.assert_ok().out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
}

fn status(cluster: &Cluster) -> Value {
    json_of(&operate(cluster, &["cluster", "status"]))
}

fn plan(cluster: &Cluster) -> Value {
    json_of(&operate(cluster, &["cluster", "plan"]))
}

fn id_of(plan: &Value) -> &str {
    plan["plan"].as_str().expect("a plan has an id")
}

fn commit(cluster: &Cluster, plan: &Value) {
    operate(cluster, &["cluster", "commit", id_of(plan)]).assert_ok();
}

/// Waits until no change is under way, nothing is staged, and what moved away is dropped.
fn wait_until_changed(cluster: &Cluster) {
    wait_long_for("the end of the change", CHANGE_MAX, || {
        let status = status(cluster);
        let over = status["change"].is_null() && status["staged"] == json!([]) && status["partitions_to_drop"] == 0;
        over.then_some(())
    });
}

/// Values enough that they take a while to move.
fn values() -> BTreeMap<String, String> {
    (0..2000).map(|number| (format!("key-{number}"), format!("{number:0>1000}"))).collect()
}

/// What `quorate cluster status` tells of a paused change, `quorate status` and `quorate ring` tell too.
fn assert_told_everywhere(cluster: &Cluster, paused: &Value) {
    let owners = &paused["change"]["owners_to_be"];
    assert_eq!((owners.as_array().unwrap().len(), &owners[0]["node"]), (1, &json!(4)), "{paused}");
    let partitions: Vec<u64> = serde_json::from_value(owners[0]["partitions"].clone()).unwrap();
    assert_eq!(json!(partitions.len()), paused["change"]["copies"], "{paused}");
    for words in [&["status"][..], &["ring"]] {
        let told = &json_of(&operate(cluster, words))["changes"];
        assert_eq!((&told["change"]["paused"], &told["change"]["owners_to_be"]), (&json!(true), owners), "{told}");
        assert_eq!(told["staged"], paused["staged"]);
        let text = run(quorate(words).args(["--node", &cluster.clients(1).to_string()])).assert_ok().out.clone();
        for wanted in ["The ring is changing", "It is paused", "node 4", "Node 4 is to keep 48 partitions more"] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
    for partition in 0..PARTITIONS {
        let told = json_of(&operate(cluster, &["ring", "--partition", &partition.to_string()]));
        let wanted = if partitions.contains(&partition) { json!([4]) } else { json!([]) };
        assert_eq!(told["owners_to_be"], wanted, "partition {partition}");
    }
}

/// Partitions by node, as clients see them.
fn shares(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let ring = json_of(&operate(cluster, &["ring"]));
    let nodes = ring["nodes"].as_array().expect("a list").iter();
    nodes.map(|node| (node["id"].as_u64().unwrap(), node["partitions"].as_u64().unwrap())).collect()
}

/// All replicas are equal, and through each of these nodes every value is read.
fn check(cluster: &Cluster, nodes: impl IntoIterator<Item = u16>, expected: &BTreeMap<String, String>) {
    let repaired = json_of(&operate(cluster, &["repair", "--wait"]));
    assert_eq!(repaired["comparison"]["compared"], PARTITIONS, "{repaired}");
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    for node in nodes {
        for (read, (name, value)) in get_all(cluster.clients(node), &names, 3).into_iter().zip(expected) {
            assert_eq!(read.as_deref(), Ok(&[value.clone()][..]), "{name} through node {node}");
        }
    }
}

/// Starts one more node, and waits until the cluster knows it.
fn join(cluster: &Cluster, node: u16) -> Process {
    cluster.add(node);
    let process = cluster.serve(node);
    let address = cluster.clients(node).to_string();
    let said = json_of(&operate(cluster, &["cluster", "join", &address, "--timeout", "60"]));
    assert_eq!((&said["id"], &said["status"]), (&json!(node), &json!("joining")));
    process
}

/// Load that begins before `change` and goes on while it is made.
fn under_load(cluster: &Cluster, servers: &str, change: impl FnOnce()) {
    let before = cluster.total("puts");
    let load = Load::start(servers, OPTIONS);
    wait_for("the load", || (cluster.total("puts") > before + 50).then_some(()));
    change();
    let report = load.end();
    report.assert_none_failed();
    println!("{} errors were met, the slowest request took {} s", report.errors(), report.slowest());
}

#[test]
fn a_fourth_node_joins_under_load() {
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    put_all(cluster.clients(1), &values());
    let mut four = None;
    under_load(&cluster, &cluster.servers(), || {
        four = Some(join(&cluster, 4));
        assert_eq!(shares(&cluster).get(&4), None, "nothing moves before a commit");
        let plan = plan(&cluster);
        // Of three copies of each partition a quarter has to go to the new node.
        let least = PARTITIONS * 3 / 4;
        assert_eq!(plan["moves"].as_array().unwrap().len() as u64, least, "{plan}");
        assert_eq!((&plan["balance_before"], &plan["balance_after"]), (&json!(1.0), &json!(1.0)), "{plan}");
        let bytes = plan["bytes_estimated"].as_u64().unwrap();
        assert!((1_400_000..2_500_000).contains(&bytes), "{bytes} bytes are to move");
        commit(&cluster, &plan);
        wait_until_changed(&cluster);
    });
    assert_eq!(shares(&cluster), (1..=4).map(|node| (node, PARTITIONS * 3 / 4)).collect());
    check(&cluster, 1..=4, &values());
    let info = cluster.info(4);
    println!("received {} bytes for {} keys", info["exchange_received_bytes"], info["store_keys"]);
    // Each key once; what was written meanwhile came by itself.
    let most = info["store_keys"] * 1200 * 11 / 10;
    assert!(info["exchange_received_bytes"] <= most, "{} of {most}", info["exchange_received_bytes"]);
    drop(four);
}

#[test]
fn a_node_leaves_under_load() {
    let cluster = Cluster::with_nodes(4);
    let mut nodes = cluster.serve_all();
    put_all(cluster.clients(1), &values());
    let stays = cluster.servers_of(1..=3);
    under_load(&cluster, &stays, || {
        operate(&cluster, &["cluster", "leave", "4"]).assert_ok();
        let plan = plan(&cluster);
        assert_moves_only_from(&plan, 4);
        assert_eq!(plan["without_source"], json!([]), "{plan}");
        commit(&cluster, &plan);
        wait_until_changed(&cluster);
    });
    assert_eq!(shares(&cluster), (1..=3).map(|node| (node, PARTITIONS)).collect());
    // It has nothing to do any more, and knows it.
    wait_for("the node to know that it has left", || refused(&cluster, 4).filter(|why| why.contains("was removed")));
    nodes[3].signal(Signal::TERM);
    assert_eq!(nodes[3].wait().code(), Some(0));
    check(&cluster, 1..=3, &values());
}

/// As many copies are made as the node has that goes: no fewer can be.
fn assert_moves_only_from(plan: &Value, node: u64) {
    let moves = plan["moves"].as_array().unwrap();
    let held = plan["nodes"].as_array().unwrap().iter().find(|of| of["id"] == node).unwrap()["before"].as_u64();
    assert!(moves.iter().all(|of| of["from"] == node), "{plan}");
    assert_eq!(Some(moves.len() as u64), held, "{plan}");
}

/// Why the cluster does not listen to a node, as the node itself tells.
fn refused(cluster: &Cluster, node: u16) -> Option<String> {
    let said = Resp::connect(cluster.clients(node)).text(&[b"QUORATE", b"CLUSTER", b"STATUS"]);
    serde_json::from_str::<Value>(&said).unwrap()["refused"].as_str().map(str::to_owned)
}

#[test]
fn a_dead_node_is_removed_and_refused_when_it_comes_back() {
    let cluster = Cluster::with_nodes(4);
    let mut nodes = cluster.serve_all();
    put_all(cluster.clients(1), &values());
    let said = operate(&cluster, &["cluster", "remove", "4"]);
    said.assert_failed(&["node 4 answers, nothing was changed: `quorate cluster leave 4`", "--force"]);
    assert_eq!(status(&cluster)["staged"], json!([]));

    nodes[3].kill();
    operate(&cluster, &["cluster", "remove", "4"]).assert_ok();
    let plan = plan(&cluster);
    assert_moves_only_from(&plan, 4);
    commit(&cluster, &plan);
    wait_until_changed(&cluster);
    assert_eq!(shares(&cluster), (1..=3).map(|node| (node, PARTITIONS)).collect());
    check(&cluster, 1..=3, &values());

    // Nobody connects to it, as it was the last of all; and its disk says that it belongs.
    let before = digest(&cluster);
    nodes[3] = cluster.serve(4);
    let why = wait_for("the node to know that it was removed", || refused(&cluster, 4));
    assert!(why.contains("was removed") && why.contains("`join = true`"), "{why}");
    let log = std::fs::read_to_string(cluster.log(4)).unwrap();
    assert!(log.contains("this node was removed from the cluster"), "{log}");
    let failure = put(cluster.clients(4), "key-1", "another", None).expect_err("it does not belong");
    assert!(failure.to_string().contains("was removed"), "{failure}");
    let said = Resp::connect(cluster.clients(4)).text(&[b"QUORATE", b"CLUSTER", b"REMOVE", b"1"]);
    assert!(said.starts_with("REFUSED this node was removed"), "{said}");
    assert_eq!(digest(&cluster), before, "what it says counts for nothing");
    let problems = status(&cluster)["problems"].to_string();
    assert!(problems.contains("hung up on node 4") && problems.contains("was removed"), "{problems}");
    check(&cluster, 1..=3, &values());
}

/// What tells states of the cluster apart, as node 1 knows it.
fn digest(cluster: &Cluster) -> Value {
    let said = Resp::connect(cluster.clients(1)).text(&[b"QUORATE", b"MEMBERS"]);
    serde_json::from_str::<Value>(&said).unwrap()["digest"].clone()
}

#[test]
fn a_dead_node_is_replaced() {
    let cluster = Cluster::new();
    let mut nodes = cluster.serve_all();
    put_all(cluster.clients(1), &values());
    nodes[2].kill();
    nodes.push(join(&cluster, 4));
    operate(&cluster, &["cluster", "remove", "3"]).assert_ok();
    operate(&cluster, &["cluster", "replace", "3", "4"]).assert_ok();
    let plan = plan(&cluster);
    let moves = plan["moves"].as_array().unwrap();
    // All of the one goes to the other, and nothing else moves.
    assert_moves_only_from(&plan, 3);
    assert!(moves.iter().all(|of| of["to"] == 4), "{plan}");
    commit(&cluster, &plan);
    wait_until_changed(&cluster);
    assert_eq!(shares(&cluster), [1, 2, 4].map(|node| (node, PARTITIONS)).into());
    check(&cluster, [1, 2, 4], &values());
}

#[test]
fn a_joiner_that_is_killed_goes_on_and_a_paused_change_waits() {
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    // So much that it does not move in a moment.
    let values: BTreeMap<String, String> =
        (0..6000).map(|number| (format!("key-{number}"), format!("{number:0>4000}"))).collect();
    put_all(cluster.clients(1), &values);
    let mut four = join(&cluster, 4);
    commit(&cluster, &plan(&cluster));
    let keys = |cluster: &Cluster| cluster.info(4)["store_keys"];
    wait_for("the first keys to move", || (keys(&cluster) > 0).then_some(()));
    four.kill();
    let during = status(&cluster);
    assert_eq!(during["change"]["waits_for"], json!(["4.0"]), "{during}");
    operate(&cluster, &["cluster", "pause"]).assert_ok();
    operate(&cluster, &["cluster", "pause"]).assert_failed(&["is paused; nothing was changed: resume it first"]);

    four = cluster.serve(4);
    wait_for("the joiner to know that it is paused", || {
        let said = Resp::connect(cluster.clients(4)).text(&[b"QUORATE", b"CLUSTER", b"STATUS"]);
        let here: Value = serde_json::from_str(&said).unwrap();
        (here["change"]["paused"] == true && here["behind"] == json!([])).then_some(())
    });
    let paused = status(&cluster);
    assert_told_everywhere(&cluster, &paused);
    assert_eq!((&paused["change"]["paused"], &paused["change"]["copies"]), (&json!(true), &json!(48)), "{paused}");
    operate(&cluster, &["cluster", "status", "--wait"]).assert_failed(&["quorate cluster resume"]);
    operate(&cluster, &["cluster", "plan"]).assert_failed(&["a change of the ring is under way", "abort"]);
    let moved = keys(&cluster);
    assert!(moved < 4000, "{moved} keys have moved before it was paused: too many to tell");
    // In the time that these writes take, much more would move.
    for number in 0..500 {
        put(cluster.clients(1), &format!("meanwhile-{number}"), "v", None).unwrap();
    }
    let most = moved + 500;
    assert!(keys(&cluster) <= most, "{} keys of {most} came while it was paused", keys(&cluster));

    operate(&cluster, &["cluster", "resume"]).assert_ok();
    operate(&cluster, &["cluster", "resume"]).assert_failed(&["is not paused; nothing was changed"]);
    wait_until_changed(&cluster);
    assert_eq!(shares(&cluster), (1..=4).map(|node| (node, PARTITIONS * 3 / 4)).collect());
    check(&cluster, 1..=4, &values);
    drop(four);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    let before = digest(&cluster);
    for (words, wanted) in [
        (&["leave", "9"][..], "the cluster has no node 9; nothing was changed"),
        (&["stay", "1"], "node 1 is a member; nothing was changed: it can leave"),
        (&["remove", "9"], "the cluster has no node 9; nothing was changed"),
        (&["replace", "1", "2"], "node 2 is a member; nothing was changed"),
        (&["replace", "9", "1"], "nothing was changed"),
        (&["plan"], "there is nothing to plan, nothing was changed: stage a join, leave, remove or replace first"),
        (&["commit", "0123456789abcdef"], "there is nothing to plan, nothing was changed"),
        (&["commit", "xyz"], "16 hexadecimal digits"),
        (&["abort"], "no change of the ring is under way; nothing was changed"),
        (&["pause"], "no change of the ring is under way; nothing was changed"),
        (&["resume"], "no change of the ring is under way; nothing was changed"),
        (&["join", "127.0.0.1:1"], "start it first, by `quorate serve --config FILE` with `join = true`"),
    ] {
        operate(&cluster, &[&["cluster"], words].concat()).assert_failed(&[wanted]);
    }
    assert_eq!(operate(&cluster, &["cluster", "leave", "0"]).code(), Some(2));
    assert_eq!(digest(&cluster), before);

    let four = join(&cluster, 4);
    let shown = plan(&cluster);
    operate(&cluster, &["cluster", "leave", "3"]).assert_ok();
    let changed = digest(&cluster);
    let stale = operate(&cluster, &["cluster", "commit", id_of(&shown)]);
    stale.assert_failed(&["the plan has changed, nothing was committed: look at it again: `quorate cluster plan`"]);
    assert_eq!((digest(&cluster), &status(&cluster)["change"]), (changed, &Value::Null));
    // The same plan again once the same is staged.
    operate(&cluster, &["cluster", "stay", "3"]).assert_ok();
    assert_eq!(id_of(&plan(&cluster)), id_of(&shown));
    commit(&cluster, &shown);
    operate(&cluster, &["cluster", "commit", id_of(&shown)]).assert_failed(&["a change of the ring is under way"]);
    operate(&cluster, &["cluster", "abort"]).assert_ok();
    let aborted = status(&cluster);
    assert_eq!((&aborted["change"], &aborted["staged"][0]["id"]), (&Value::Null, &json!(4)), "{aborted}");
    // Another term, another plan.
    operate(&cluster, &["cluster", "commit", id_of(&shown)]).assert_failed(&["the plan has changed"]);
    drop(four);
}

/// A node that the cluster cannot let in says why in its log, `quorate cluster join` says it too, and nothing has changed.
#[test]
fn a_node_that_does_not_fit_is_not_let_in() {
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    let before = digest(&cluster);
    let own = |id: u16| format!("id = {id}\naddress = \"{}\"", cluster.clients(4).ip());
    let third = format!("[[cluster.node]]\nid = 3\naddress = \"{}\"\ncores = 1\n", cluster.clients(3).ip());
    // What is edited, what the operator is told, what the node logs.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        (
            &[("a secret of this test", "another secret of a test")],
            "`name` and `secret` of [cluster]",
            "belongs to another cluster",
        ),
        (&[("name = \"test\"", "name = \"other\"")], "`name` and `secret` of [cluster]", "belongs to another cluster"),
        (&[("partitions = 64", "partitions = 128")], "its ring has 128 partitions", "its ring has 64 partitions"),
        (&[("replicas = 3", "replicas = 2")], "and 2 replicas, the cluster's", "and 3 replicas, this one"),
        (
            &[(&third, ""), ("id = 4\njoin", "id = 3\njoin"), (&own(4), &own(3))],
            "node id 3 belongs to the machine at",
            "node id 3 belongs to the machine at",
        ),
    ];
    for (edits, said, logged) in cases {
        cluster.add(4);
        edits.iter().for_each(|(from, to)| cluster.edit(4, from, to));
        let mut four = cluster.serve(4);
        let address = cluster.clients(4).to_string();
        let joined = operate(&cluster, &["cluster", "join", &address, "--timeout", "60"]);
        joined.assert_failed(&["nothing was changed", said]);
        wait_for("the node to log it", || {
            std::fs::read_to_string(cluster.log(4)).unwrap().contains(logged).then_some(())
        });
        let status = status(&cluster);
        assert_eq!(status["staged"], json!([]), "{status}");
        if logged != said {
            assert!(status["problems"].to_string().contains("hung up on node 4"), "{status}");
        }
        assert_eq!(digest(&cluster), before);
        four.kill();
        std::fs::remove_dir_all(cluster.node_directory(4)).unwrap();
    }
}

/// A peer of another version is told this one's, hung up on, and seen by an operator.
#[test]
fn a_peer_of_another_version_is_not_let_in() {
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    let before = digest(&cluster);
    let hello = Hello {
        protocol: PROTOCOL + 1,
        cluster: 1,
        from: Endpoint::new(NodeId(4), CoreId(0)),
        to: Endpoint::new(NodeId(1), CoreId(0)),
        partitions: 64,
        replicas: 3,
        identity: NodeIdentity(4),
    };
    let mut newer = Vec::new();
    frame::encode(&Message::Hello(hello), &mut newer).unwrap();
    let mut other_frames = newer.clone();
    other_frames[2] = frame::VERSION + 1;
    for (bytes, wanted) in [
        (newer, format!("it speaks protocol {}, this node {PROTOCOL}: upgrade the older one", PROTOCOL + 1)),
        (other_frames, format!("frame of version {}, this node speaks {}", frame::VERSION + 1, frame::VERSION)),
    ] {
        let said = send_and_read_to_end(cluster.address(1, PEER_PORT), &bytes, 1);
        let heard = frame::decode(&said, usize::MAX).unwrap().expect("it says who it is");
        assert!(matches!(heard.access().unwrap(), ArchivedMessage::Hello(hello) if hello.protocol == PROTOCOL));
        let problems = status(&cluster)["problems"].to_string();
        assert!(problems.contains(&wanted), "{problems}");
        let log = std::fs::read_to_string(cluster.log(1)).unwrap();
        assert!(log.contains(&wanted), "{log}");
    }
    assert_eq!(digest(&cluster), before);
}

/// Has node 1 make a change, by the word of a person at its port.
fn order(cluster: &Cluster, words: &[&str]) -> String {
    let command: Vec<&[u8]> = ["QUORATE", "CLUSTER"].iter().chain(words).map(|word| word.as_bytes()).collect();
    Resp::connect(cluster.clients(1)).text(&command)
}

#[test]
fn a_change_that_was_acknowledged_survives_a_power_cut() {
    apart(&PROGRAMS, || {
        let filesystem = Filesystem::new(384 << 20);
        let cluster = Cluster::in_directory(&filesystem.path(), 3);
        filesystem.sync();
        let mut nodes = cluster.serve_all();
        for (word, staged) in [("LEAVE", 1), ("STAY", 0), ("LEAVE", 1)] {
            let said = order(&cluster, &[word, "3"]);
            filesystem.cut_power();
            assert!(said.starts_with('{'), "{said}");
            nodes.iter_mut().for_each(Process::kill);
            filesystem.restart();
            nodes = cluster.serve_all();
            // Others may be asked first, who knew of nothing yet.
            wait_for("what was staged", || (status(&cluster)["staged"].as_array()?.len() == staged).then_some(()));
        }
    });
}

#[test]
fn a_change_that_cannot_be_stored_is_not_acknowledged_and_not_told() {
    apart(&PROGRAMS, || {
        let filesystem = Filesystem::new(256 << 20);
        let cluster = Cluster::in_directory(&filesystem.path(), 3);
        let _nodes = cluster.serve_all();
        let ballast = filesystem.path().join("ballast");
        fill(&ballast);
        let said = operate(&cluster, &["cluster", "leave", "3"]);
        said.assert_failed(&["core 1.0 cannot store the change on its disk", "`quorate cluster status`"]);
        let members = |node| Resp::connect(cluster.clients(node)).text(&[b"QUORATE", b"MEMBERS"]);
        assert!(!members(2).contains("leaving"), "what may be forgotten is not told");
        std::fs::remove_file(&ballast).unwrap();
        wait_for("the change to be told, as there is room", || members(2).contains("leaving").then_some(()));
    });
}

/// Leaves no room on the file system.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    for bytes in [1 << 20, 4096] {
        while file.write_all(&vec![1; bytes]).and_then(|()| file.sync_data()).is_ok() {}
    }
}
