//! Disks that are full, and disks that were lost.

use std::{collections::BTreeMap, fs};

use rustix::process::Signal;

use super::{
    apart::apart,
    cluster::{Cluster, Feature},
    filesystem::{Filesystem, PROGRAMS},
    harness::wait_for,
    talk::{get, get_all, put, put_all},
};

#[test]
fn a_full_disk_is_told_and_reads_go_on_until_there_is_room_again() {
    apart(&PROGRAMS, || {
        let filesystem = Filesystem::new(160 << 20);
        let cluster = Cluster::in_directory(&filesystem.path(), 3);
        let ballast = filesystem.path().join("ballast");
        fs::write(&ballast, vec![1; 64 << 20]).unwrap();
        let mut nodes = cluster.serve_all();
        let value = |number: usize| format!("{number:0>60000}");
        let mut acknowledged = Vec::new();
        let failure = loop {
            let number = acknowledged.len();
            assert!(number < 5000, "the disk does not become full");
            match put(cluster.clients(1 + (number % 3) as u16), &format!("key-{number}"), &value(number), None) {
                Ok(_) => acknowledged.push(number),
                Err(failure) => break failure,
            }
        };
        let said = failure.to_string();
        assert!(said.contains("disk is full") || said.contains("replicas answered"), "{said}");
        wait_for("a node that says what is the matter", || {
            let said = (1..=3).map(|node| put(cluster.clients(node), "more", &value(0), None).err());
            said.flatten().find(|failure| failure.to_string().contains("disk is full"))
        });
        let check = |cluster: &Cluster| {
            for &number in &acknowledged {
                let name = format!("key-{number}");
                assert_eq!(get(cluster.clients(1 + (number % 3) as u16), &name).1, [value(number)], "{name}");
            }
        };
        check(&cluster);
        assert!(nodes.iter_mut().all(|node| node.is_running()), "a full disk ends no node");

        fs::remove_file(&ballast).unwrap();
        for node in 1..=3 {
            wait_for("a node that takes writes again", || {
                put(cluster.clients(node), &format!("after-{node}"), &value(1), None).ok()
            });
        }
        check(&cluster);
        for node in &mut nodes {
            node.signal(Signal::TERM);
            assert_eq!(node.wait().code(), Some(0));
        }
        nodes = cluster.serve_all();
        check(&cluster);
        drop(nodes);
    });
}

#[test]
fn a_lost_disk_gives_no_wrong_answer_and_fills_up_again() {
    let cluster = Cluster::new();
    let mut nodes = cluster.serve_all();
    let all: BTreeMap<String, String> =
        (0..2000).map(|number| (format!("key-{number}"), format!("{number:0>1000}"))).collect();
    put_all(cluster.clients(1), &all);
    wait_for("all copies", || (cluster.info(3)["store_keys"] == 2000).then_some(()));

    nodes[2].kill();
    fs::remove_dir_all(cluster.node_directory(3).join("data")).unwrap();
    nodes[2] = cluster.serve(3);
    if cluster.can(Feature::AntiEntropy, "the disk fills up again without reads of clients") {
        wait_for("all keys to come back", || (cluster.info(3)["store_keys"] == 2000).then_some(()));
        cluster.wait_until_settled();
        cluster.assert_equal(&all);
    }
    // What is coordinated by the node that knows nothing is right, too.
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    for (read, (name, value)) in get_all(cluster.clients(3), &names, 2).into_iter().zip(&all) {
        assert_eq!(read.as_deref(), Ok(&[value.clone()][..]), "{name}");
    }
}
