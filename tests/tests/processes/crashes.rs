//! Crashes of all nodes at once, again and again: kill -9, and power cuts that take what was not synced.

use super::{
    apart::apart,
    cluster::Cluster,
    filesystem::{Filesystem, PROGRAMS},
    harness::{Process, times, wait_for},
    load::Load,
    talk::{get_all, put},
};

const FILESYSTEM_BYTES: u64 = 512 << 20;

#[test]
fn kills_of_all_nodes_lose_nothing() {
    let cluster = Cluster::new();
    crash_again_and_again(&cluster, times("QUORATE_KILLS", 4), |nodes| nodes.iter_mut().for_each(Process::kill));
}

#[test]
fn power_cuts_lose_nothing() {
    apart(&PROGRAMS, || {
        let filesystem = Filesystem::new(FILESYSTEM_BYTES);
        let cluster = Cluster::in_directory(&filesystem.path(), 3);
        // The configurations are not the nodes' business.
        filesystem.sync();
        crash_again_and_again(&cluster, times("QUORATE_POWER_CUTS", 4), |nodes| {
            filesystem.cut_power();
            nodes.iter_mut().for_each(Process::kill);
            filesystem.restart();
        });
    });
}

/// Under load that verifies; and each time, what was acknowledged just before the crash is there after it.
fn crash_again_and_again(cluster: &Cluster, count: usize, mut crash: impl FnMut(&mut Vec<Process>)) {
    let servers = cluster.servers();
    let options = "--target native --workload a --keys 2000 --value-size 100B-2KiB --connections 8 --timeout 1s --warmup 0s --duration 10s";
    let start_load = || {
        let before = cluster.total("gets");
        let load = Load::start(&servers, options);
        // What asks a cluster for its map finds it up.
        wait_for("the load", || (cluster.total("gets") > before).then_some(()));
        load
    };
    let mut nodes = cluster.serve_all();
    let mut load = start_load();
    let (mut acknowledged, mut failed) = (0, 0);
    for round in 0..count {
        // A crash comes at another moment of the store's work each time.
        let writes = 50 + round * 37 % 200;
        let mut names = Vec::new();
        while names.len() < writes {
            let name = format!("round-{round}-{}", names.len());
            // Nodes that have just started may not have found each other yet.
            if put(cluster.clients(1 + (names.len() % 3) as u16), &name, "kept", None).is_ok() {
                names.push(name);
            }
        }
        crash(&mut nodes);
        nodes = cluster.serve_all();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let reads = wait_for("a quorum", || {
            let reads = get_all(cluster.clients(1 + (round % 3) as u16), &names, 2);
            reads.into_iter().collect::<Result<Vec<_>, _>>().ok()
        });
        for (name, read) in names.iter().zip(reads) {
            assert_eq!(read, ["kept"], "{name}, acknowledged before crash {round}");
        }
        if !load.is_running() {
            let report = std::mem::replace(&mut load, start_load()).end();
            (acknowledged, failed) = (acknowledged + report.count("operations"), failed + report.errors());
        }
    }
    let report = load.end();
    (acknowledged, failed) = (acknowledged + report.count("operations"), failed + report.errors());
    println!(
        "{count} crashes of all nodes: {acknowledged} operations succeeded, {failed} requests met an error, nothing was lost"
    );
    assert!(failed > 0, "the load has seen no crash");
}
