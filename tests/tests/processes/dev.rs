//! `quorate dev`, as a new user meets it.

use std::fs;

use rustix::process::Signal;

use super::{
    cluster::{CORE_PORT, Cluster},
    harness::{Process, is_alive, quorate, run, wait_for},
    talk::{self, Resp, get, put},
};

#[test]
fn one_command_starts_a_cluster_that_answers_everywhere() {
    let cluster = Cluster::empty(3);
    let first = cluster.first_address().to_string();
    let mut command = quorate(&["dev", "--dir", cluster.directory(), "--address", &first]);
    let mut dev = Process::start(&mut command);
    let said = dev.read_until("Stop it:");
    assert!(said.contains("3 nodes of 1 core up (N=3, R=2, W=2)"), "{said}");
    assert!(said.contains(&format!("redis-cli -h {first} -p 7400")), "{said}");
    for node in 1..=3 {
        assert!(said.contains(&cluster.clients(node).to_string()), "{said}");
        assert!(is_alive(cluster.pid(node).expect("serve writes it")));
    }

    // Any node takes any key, at either of its ports, from Redis clients and from native ones.
    let mut one = Resp::connect(cluster.clients(1));
    for number in 0..20 {
        let name = format!("key-{number}");
        assert_eq!(one.command(&[b"SET", name.as_bytes(), b"cola"]), b"+OK\r\n");
        for node in 1..=3 {
            assert_eq!(Resp::connect(cluster.clients(node)).command(&[b"GET", name.as_bytes()]), b"$4\r\ncola\r\n");
            let own = cluster.address(node, CORE_PORT);
            assert_eq!(Resp::connect(own).command(&[b"GET", name.as_bytes()]), b"$4\r\ncola\r\n");
            assert_eq!(get(own, &name).1, ["cola"]);
        }
    }

    dev.signal(Signal::INT);
    dev.read_until("Stopping");
    assert_eq!(dev.wait().code(), Some(0));
    for node in 1..=3 {
        assert!(cluster.pid(node).is_none(), "node {node} left its pid file");
    }
}

#[test]
fn data_and_secret_stay_for_the_next_start_and_go_with_fresh() {
    let cluster = Cluster::new();
    let mut dev = cluster.start_dev();
    let context = put(cluster.clients(1), "k", "old", None).unwrap();
    dev.signal(Signal::TERM);
    assert_eq!(dev.wait().code(), Some(0));

    let mut dev = cluster.start_dev();
    assert_eq!(get(cluster.clients(2), "k").1, ["old"]);
    // A context of before the restart is still understood.
    put(cluster.clients(3), "k", "new", Some(context)).unwrap();
    assert_eq!(get(cluster.clients(1), "k").1, ["new"]);
    dev.signal(Signal::INT);
    dev.wait();

    let other = run(&mut quorate(&["dev", "--dir", cluster.directory(), "--nodes", "5"]));
    other.assert_failed(&["--nodes 5 was asked for, but", "--fresh"]);
    // These configurations are the test's, not `dev`'s: they and their data stay even then.
    let fresh = run(&mut quorate(&["dev", "--dir", cluster.directory(), "--nodes", "5", "--fresh"]));
    fresh.assert_failed(&["--nodes 5 was asked for, but"]);
    assert!(cluster.node_directory(1).join("data").exists());
}

#[test]
fn a_node_that_dies_is_told_and_neither_restarted_nor_followed() {
    let cluster = Cluster::new();
    let mut dev = cluster.start_dev();
    put(cluster.clients(1), "before", "1", None).unwrap();

    cluster.kill(2);
    let said = dev.read_until("serve --config");
    assert!(said.contains("Node 2 died of signal 9"), "{said}");
    assert!(said.contains(cluster.config(2).to_str().unwrap()), "{said}");
    // The others go on: with N=3 and W=2 nothing is missing.
    wait_for("the others to go on", || put(cluster.clients(1), "during", "2", None).ok());
    for node in [1, 3] {
        assert_eq!(get(cluster.clients(node), "before").1, ["1"]);
        assert_eq!(get(cluster.clients(node), "during").1, ["2"]);
    }

    let mut by_hand = cluster.serve(2);
    wait_for("the returned node to serve", || put(cluster.clients(2), "after", "3", None).ok());
    assert_eq!(get(cluster.clients(2), "before").1, ["1"]);

    // What was started by hand is stopped as well.
    dev.signal(Signal::INT);
    assert_eq!(by_hand.wait().code(), Some(0));
    assert_eq!(dev.wait().code(), Some(0));
}

#[test]
fn nodes_die_with_dev_but_those_that_were_started_by_hand_do_not() {
    let cluster = Cluster::new();
    let mut dev = cluster.start_dev();
    let children = [1, 2, 3].map(|node| cluster.pid(node).unwrap());
    cluster.kill(3);
    dev.read_until("serve --config");
    let by_hand = cluster.serve(3);

    dev.kill();
    for pid in [children[0], children[1]] {
        wait_for("a child's end", || (!is_alive(pid)).then_some(()));
    }
    assert!(is_alive(by_hand.pid()));
    assert!(talk::is_up(cluster.clients(3)));
    // A new `dev` would meet it: it says so and starts nothing.
    run(&mut quorate(&["dev", "--dir", cluster.directory()])).assert_failed(&["is served already, by process"]);
    assert!(cluster.pid(1).is_none_or(|pid| !is_alive(pid)));
}

#[test]
fn a_port_in_use_is_told_before_anything_starts() {
    let cluster = Cluster::new();
    let taken = std::net::TcpListener::bind(cluster.address(2, super::cluster::PEER_PORT)).unwrap();
    let said = run(&mut quorate(&["dev", "--dir", cluster.directory()]));
    said.assert_failed(&[&taken.local_addr().unwrap().to_string(), "`peer_port` of node 2", "is in use"]);
    assert!(!cluster.log(1).exists(), "nothing was started");
}

#[test]
fn a_node_that_cannot_start_ends_dev_with_its_reason() {
    let cluster = Cluster::new();
    // A file where its data should be.
    fs::write(cluster.node_directory(3).join("data"), "").unwrap();
    let said = run(&mut quorate(&["dev", "--dir", cluster.directory()]));
    said.assert_failed(&["node 3 ended with exit code 1 at its start", "data"]);
    for node in 1..=3 {
        assert!(cluster.pid(node).is_none_or(|pid| !is_alive(pid)), "node {node} still runs");
    }
}
