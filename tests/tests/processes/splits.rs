//! Networks that are split, in both directions or in one, or that lose packets; each node is on a host of its own.

use std::collections::BTreeMap;

use super::{
    apart::apart,
    cluster::{Cluster, Feature},
    harness::wait_for,
    hosts::{Hosts, PROGRAMS},
    load::Load,
    talk::{get_all, put, put_all},
};

const OPTIONS: &str = "--kv --workload a --keys 500 --value-size 100B --connections 8 --rate 200 --duration 6s";

#[test]
fn a_split_leaves_the_majority_at_work_and_heals() {
    during_a_fault(|hosts| hosts.split(&[1, 2], &[3]), Heard::No);
}

#[test]
fn a_node_that_nobody_hears_is_done_without() {
    during_a_fault(|hosts| hosts.cut(&[3], &[1, 2]), Heard::No);
}

#[test]
fn a_node_that_hears_nobody_is_done_without() {
    during_a_fault(|hosts| hosts.cut(&[1, 2], &[3]), Heard::No);
}

#[test]
fn lost_packets_lose_no_request() {
    during_a_fault(|hosts| hosts.lose(3), Heard::Yes);
}

/// Whether node 3 can ask the others.
#[derive(Clone, Copy, PartialEq)]
enum Heard {
    Yes,
    No,
}

/// Load through nodes 1 and 2 during a fault of the network, which may cut off node 3; then it heals.
fn during_a_fault(fault: impl FnOnce(&Hosts) + Send, heard: Heard) {
    apart(&PROGRAMS, || {
        let cluster = Cluster::on_hosts(3);
        let _nodes = cluster.serve_all();
        let hosts = cluster.hosts();
        let load = Load::start(&cluster.servers_of([1, 2]), OPTIONS);
        wait_for("the load", || (cluster.info(1)["puts"] > 50).then_some(()));
        fault(hosts);
        put_all(cluster.clients(1), &values());
        if heard == Heard::No {
            let failure = put(cluster.clients(3), "alone", "v", None).expect_err("there is no quorum");
            let said = failure.to_string();
            assert!(said.contains("replicas answered") || said.contains("reachable"), "{said}");
        }
        let report = load.end();
        assert_eq!(report.count("failed"), 0);
        if heard == Heard::No {
            report.assert_unharmed();
        }
        assert!(hosts.heal() > 0, "the fault dropped nothing");

        // Once more in both directions, with no patience for a single request but for their whole.
        wait_for("node 3 to be in touch again", || put(cluster.clients(3), "after", "v", None).ok());
        if cluster.can(Feature::AntiEntropy, "all replicas become equal") {
            cluster.wait_until_settled();
            cluster.assert_equal(&values());
        }
        let all = values();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        for (read, (name, value)) in get_all(cluster.clients(3), &names, 2).into_iter().zip(&all) {
            assert_eq!(read.as_deref(), Ok(&[value.clone()][..]), "{name}");
        }
    });
}

fn values() -> BTreeMap<String, String> {
    (0..100).map(|number| (format!("meanwhile-{number}"), format!("value-{number}"))).collect()
}
