//! A node whose machine has another address than before: only its own configuration says so.
//!
//! The rule: whether the others connect to it or it to them, all find each other, and keep the new address when they start
//! again.

use std::{collections::BTreeMap, net::IpAddr};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    cluster::Cluster,
    harness::{Process, quorate, run, wait_for},
    talk::{Resp, get_all, put_all},
};

/// The address of a node, and whether it is avoided, as the node at this place knows it.
fn known(cluster: &Cluster, place: u16, node: u16) -> (IpAddr, bool) {
    let said = Resp::connect(cluster.clients(place)).text(&[b"QUORATE", b"MEMBERS"]);
    let members: Value = serde_json::from_str(&said).unwrap();
    let entry = members["nodes"].as_array().unwrap().iter().find(|entry| entry["id"] == node).unwrap();
    (entry["address"].as_str().unwrap().parse().unwrap(), entry["cores"][0]["avoided"] == true)
}

/// Where clients of the node at this place are sent for another node.
fn mapped(cluster: &Cluster, place: u16, node: u16) -> IpAddr {
    let said = run(&mut quorate(&["ring", "--json", "--node", &cluster.clients(place).to_string()]));
    let ring: Value = serde_json::from_str(&said.assert_ok().out).unwrap();
    let entry = ring["nodes"].as_array().unwrap().iter().find(|entry| entry["id"] == node).unwrap();
    entry["address"].as_str().unwrap().parse().unwrap()
}

/// Stops a node, and starts it with the address of another place.
fn restart_at(cluster: &Cluster, node: u16, process: &mut Process, (from, to): (u16, u16)) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    let [from, at] = [from, to].map(|place| cluster.clients(place).ip());
    cluster.edit(node, &format!("\"{from}\""), &format!("\"{at}\""));
    *process = cluster.begin_serve(node);
    cluster.wait_until_up(to);
}

#[test]
fn a_node_with_another_address_is_found() {
    let cluster = Cluster::new();
    let mut nodes = cluster.serve_all();
    let values: BTreeMap<String, String> = (0..100).map(|number| (format!("key-{number}"), "v".to_owned())).collect();
    put_all(cluster.clients(1), &values);
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    // The last waits for the others to connect to it, the first connects to them. And back, so that one of the two addresses
    // is the lesser.
    for (node, others, moves) in [(3, [1, 2], [(3, 4), (4, 3)]), (1, [2, 3], [(1, 5), (5, 1)])] {
        for (from, to) in moves {
            restart_at(&cluster, node, &mut nodes[usize::from(node) - 1], (from, to));
            let found = (cluster.clients(to).ip(), false);
            wait_for("the others to find it", || {
                others.iter().all(|&at| known(&cluster, at, node) == found).then_some(())
            });
            wait_for("it to find the others", || others.iter().all(|&at| !known(&cluster, to, at).1).then_some(()));
            for place in others.into_iter().chain([to]) {
                assert_eq!(mapped(&cluster, place, node), found.0);
                let read = get_all(cluster.clients(place), &names, 3);
                assert!(read.iter().all(Result::is_ok), "{from} to {to}: {:?}", read.iter().find(|read| read.is_err()));
            }
        }
    }
    // What they were told counts for more than what their configurations say.
    restart_at(&cluster, 3, &mut nodes[2], (3, 4));
    let found = (cluster.clients(4).ip(), false);
    wait_for("the others to find it", || [1, 2].iter().all(|&at| known(&cluster, at, 3) == found).then_some(()));
    restart_at(&cluster, 1, &mut nodes[0], (1, 1));
    wait_for("it to find who has moved", || (known(&cluster, 1, 3) == found).then_some(()));
}
