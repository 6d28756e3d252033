//! Nodes that are away for a while, killed or frozen: the others answer as if nothing were, and bring them up to date.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use quorate_net::{
    client::PipelinedConnection,
    message::{Failure, Outcome, Request},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Feature},
    harness::{PATIENCE, Process, quorate, run, wait_for},
    load::Load,
    talk::{self, get_all, put_all},
};

/// Operations per second: few, since the tests share their machine with each other.
const RATE: u64 = 200;

/// How long a frozen node stays frozen.
const FROZEN: Duration = Duration::from_secs(8);

#[test]
fn clients_of_the_others_do_not_notice_that_a_node_is_killed() {
    let seconds = 8;
    while_one_is_away(
        seconds,
        |cluster, node| {
            node.kill();
            wait_for_load(cluster, 3);
        },
        |cluster, node| *node = cluster.serve(3),
    );
}

#[test]
fn clients_of_the_others_do_not_notice_that_a_node_is_frozen() {
    let seconds = FROZEN.as_secs() + 6;
    while_one_is_away(
        seconds,
        |cluster, node| {
            node.signal(Signal::STOP);
            wait_for_load(cluster, FROZEN.as_secs());
        },
        |cluster, node| {
            node.signal(Signal::CONT);
            cluster.wait_until_up(3);
        },
    );
}

/// Load through nodes 1 and 2 while node 3 goes away and comes back.
fn while_one_is_away(
    seconds: u64,
    go: impl FnOnce(&Cluster, &mut Process),
    come_back: impl FnOnce(&Cluster, &mut Process),
) {
    let cluster = Cluster::new();
    let mut nodes = cluster.serve_all();
    let options = format!("--kv --workload a --keys 500 --value-size 100B --connections 8 --rate {RATE}");
    let load = Load::start(&cluster.servers_of([1, 2]), &format!("{options} --duration {seconds}s"));
    wait_for_load(&cluster, 1);
    go(&cluster, &mut nodes[2]);
    put_all(cluster.clients(1), &values("meanwhile"));
    come_back(&cluster, &mut nodes[2]);
    load.end().assert_unharmed();

    if cluster.can(Feature::HintedHandoff, "what the node missed is handed to it") {
        wait_for("hints to be handed off", || (cluster.total("hints_held") == 0).then_some(()));
    }
    if cluster.can(Feature::AntiEntropy, "all replicas become equal") {
        cluster.wait_until_settled();
        cluster.assert_equal(&values("meanwhile"));
    }
    // Whatever the server can do: a quorum knows.
    for (read, (name, value)) in
        get_all(cluster.clients(3), &names(&values("meanwhile")), 2).into_iter().zip(values("meanwhile"))
    {
        assert_eq!(read, Ok(vec![value]), "{name}");
    }
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
            let mut context = String::new();
            if dead > 0 {
                let read: Value = serde_json::from_str(&client(&["get", name, "--json"])).unwrap();
                let before = format!("value-{}", dead - 1);
                assert_eq!(read["values"], json!([before]), "{name} with node {} dead", dead + 1);
                read["context"].as_str().unwrap().clone_into(&mut context);
            }
            // The same token for each attempt: one that was told to have failed may have been done.
            let token = format!("{name}{dead}");
            client(&["put", name, &value, "--context", &context, "--id", &token]);
            assert_eq!(client(&["get", name]), value, "{name} with node {} dead", dead + 1);
        }
        *node = cluster.serve(dead as u16 + 1);
    }
}

/// Its sender was told that it failed, and may have put it elsewhere; others may have gone on from there.
#[test]
fn what_a_frozen_node_reads_too_late_is_not_done() {
    let cluster = Cluster::with_nodes(1);
    let node = cluster.serve(1);
    let connect = || PipelinedConnection::connect(cluster.clients(1), PATIENCE).expect("the node listens");
    let send = |connection: &mut PipelinedConnection, id, timeout_ms: u32, name: &str, value: &str| {
        let operation = talk::put_of(name, value, None);
        let request = Request { id, timeout_us: timeout_ms * 1000, hops: 0, operation };
        connection.queue(request).expect("it is small enough");
        connection.flush().expect("it can be sent");
    };
    let receive = |connection: &mut PipelinedConnection| {
        let reply = connection.receive(Instant::now() + PATIENCE).expect("the node answers");
        (reply.id, reply.outcome)
    };
    let mut known = connect();
    send(&mut known, 1, 60_000, "key", "before");
    assert!(matches!(receive(&mut known), (1, Outcome::Written { .. })));
    node.signal(Signal::STOP);
    wait_for("all its threads to stand still", || node.stands_still().then_some(()));
    let mut connections = [known, connect()];
    for (connection, name) in connections.iter_mut().zip(["one", "two"]) {
        send(connection, 2, 200, "key", "too late");
        send(connection, 3, 60_000, name, "waited for");
    }
    // It must stand still for longer than the sender waits.
    std::thread::sleep(Duration::from_secs(2));
    node.signal(Signal::CONT);
    for connection in &mut connections {
        let outcomes: BTreeMap<u64, Outcome> = [receive(connection), receive(connection)].into();
        assert!(matches!(outcomes[&2], Outcome::Failed(Failure::Timeout { .. })), "{outcomes:?}");
        assert!(matches!(outcomes[&3], Outcome::Written { .. }), "{outcomes:?}");
    }
    assert_eq!(talk::get(cluster.clients(1), "key").1, ["before"]);
    // What comes then is not late, whoever sends it.
    let [known, _] = &mut connections;
    for connection in [known, &mut connect()] {
        send(connection, 4, 1500, "key", "after");
        assert!(matches!(receive(connection), (4, Outcome::Written { .. })));
    }
}

/// The load goes on for so many seconds: its own operations are the clock.
fn wait_for_load(cluster: &Cluster, seconds: u64) {
    let done = || cluster.info(1)["gets"] + cluster.info(2)["gets"] + cluster.info(1)["puts"] + cluster.info(2)["puts"];
    let goal = done() + RATE * seconds;
    wait_for("the load", || (done() >= goal).then_some(()));
}

#[test]
fn with_two_of_five_nodes_dead_every_sloppy_write_is_accepted_and_reaches_its_primaries() {
    let cluster = Cluster::with_nodes(5);
    let mut nodes = cluster.serve_all();
    put_all(cluster.clients(1), &values("before"));
    if !cluster.can(Feature::HintedHandoff, "all of it") {
        return;
    }
    nodes[3].kill();
    nodes[4].kill();
    let options = "--kv --sloppy --workload put --keys 500 --value-size 100B --connections 8 --rate 200 --duration 5s";
    Load::start(&cluster.servers_of([1, 2, 3]), options).end().assert_unharmed();
    for node in 4..=5 {
        nodes[usize::from(node) - 1] = cluster.serve(node);
    }
    wait_for("hints to be handed off", || (cluster.total("hints_held") == 0).then_some(()));
    let (accepted, ended) =
        (cluster.total("hints_accepted"), cluster.total("hints_delivered") + cluster.total("hints_dropped"));
    assert!(accepted > 0, "two dead nodes and no hint");
    assert_eq!(accepted, ended, "accepted = delivered + held + dropped");
    cluster.wait_until_settled();
    cluster.assert_equal(&values("before"));
}

fn values(prefix: &str) -> BTreeMap<String, String> {
    (0..100).map(|number| (format!("{prefix}-{number}"), format!("value-{number}"))).collect()
}

fn names(values: &BTreeMap<String, String>) -> Vec<&str> {
    values.keys().map(String::as_str).collect()
}
