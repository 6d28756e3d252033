//! What `quorate config` says, and a running node that reads its file again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorate_net::message::Failure;
use rustix::process::Signal;

use super::{
    cluster::{Cluster, VALUE_MAX},
    harness::{Process, Said, quorate, run, wait_for},
    talk::{Resp, get, put},
};

fn config(arguments: &[&str]) -> Said {
    run(&mut quorate(&[&["config"], arguments].concat()))
}

fn path(cluster: &Cluster) -> String {
    cluster.config(1).to_str().expect("it is text").to_owned()
}

/// Tells a node to read its file again, and waits until it says so.
fn reload(cluster: &Cluster, node: &Process, words: &str) -> String {
    let log: PathBuf = cluster.log(1);
    let before = fs::read_to_string(&log).expect("it has a log").len();
    node.signal(Signal::HUP);
    wait_for("a node to read its file again", || {
        let said = fs::read_to_string(&log).expect("it has a log")[before..].to_owned();
        (said.contains(words) && said.ends_with('\n')).then_some(said)
    })
}

#[test]
fn keys_are_described_and_an_unknown_one_gets_the_nearest() {
    let said = config(&["describe", "limits.value"]);
    assert!(said.assert_ok().out.contains("1B to 8MiB; default \"1MiB\"; live"), "{}", said.out);
    config(&["describe", "limits.vlaue"]).assert_failed(&["no key `limits.vlaue`", "did you mean `limits.value`?"]);
    let said = config(&["describe", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said.assert_ok().out).expect("it is JSON");
    let keys = told["keys"].as_array().expect("a list of keys");
    assert!(keys.len() > 40 && keys.iter().all(|key| key["about"].as_str().is_some_and(|about| about.len() > 3)));
}

#[test]
fn a_file_is_checked_without_a_node() {
    let cluster = Cluster::with_nodes(1);
    let said = config(&["check", &path(&cluster)]);
    for words in ["is sound", "1 node in cluster \"test\": 64 partitions", "clients 7400, of one core 7401"] {
        assert!(said.assert_ok().out.contains(words), "{}", said.out);
    }
    cluster.edit(1, "segment", "segmnt");
    let wanted = ["config.toml: line 14: unknown key `segmnt` in [store]; did you mean `segment`?"];
    config(&["check", &path(&cluster)]).assert_failed(&wanted);
    config(&["effective", &path(&cluster)]).assert_failed(&wanted);
    config(&["check", "/nowhere/config.toml"]).assert_failed(&["/nowhere/config.toml", "No such file"]);
    assert_eq!(fs::read_dir(cluster.node_directory(1)).unwrap().count(), 1, "only the configuration is there");
}

#[test]
fn what_holds_is_told_with_where_it_comes_from() {
    let cluster = Cluster::with_nodes(1);
    let said = config(&["effective", &path(&cluster), "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said.assert_ok().out).expect("it is JSON");
    let keys = told["keys"].as_array().expect("a list of keys");
    let of = |path: &str| keys.iter().find(|key| key["key"] == path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!((&of("limits.value")["value"], &of("limits.value")["from"]), (&VALUE_MAX.into(), &"file".into()));
    assert_eq!((&of("slo.p999")["value"], &of("slo.p999")["from"]), (&10_000.into(), &"default".into()));
    let text = config(&["effective", &path(&cluster)]);
    assert!(text.assert_ok().out.contains("p999 = \"10ms\""), "{}", text.out);
    for said in [&said.out, &text.out] {
        assert!(said.contains("(redacted)") && !said.contains("a secret of this test"), "{said}");
    }
}

#[test]
fn the_example_is_sound() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("node.toml");
    fs::write(&file, config(&["example"]).assert_ok().out.as_bytes()).expect("it can be written");
    let said = config(&["check", file.to_str().expect("it is text")]);
    assert!(said.assert_ok().out.contains("1 of 3 nodes in cluster \"dev\""), "{}", said.out);
}

/// A larger value is refused, then accepted, then refused again, by the same process and on the same connection.
#[test]
fn a_running_node_takes_over_new_limits() {
    let cluster = Cluster::with_nodes(1);
    let mut node = cluster.serve(1);
    let value = "v".repeat(VALUE_MAX + 1);
    let mut resp = Resp::connect(cluster.clients(1));
    let set = |resp: &mut Resp| resp.text(&[b"SET", b"by-resp", value.as_bytes()]);
    let limit = VALUE_MAX as u32;
    assert_eq!(put(cluster.clients(1), "k", &value, None), Err(Failure::TooLarge { limit }));
    assert!(set(&mut resp).starts_with("ERR the value has"));

    cluster.edit(1, "value = \"256KiB\"", "value = \"512KiB\"\nconnections = 99");
    let said = reload(&cluster, &node, "limits.connections");
    assert!(said.contains("limits.value is now \"512KiB\", it was \"256KiB\""), "{said}");
    assert!(said.contains("limits.connections needs a restart: 99 in the file, 10000 until then"), "{said}");
    wait_for("a larger value to be taken", || put(cluster.clients(1), "k", &value, None).ok());
    assert_eq!(get(cluster.clients(1), "k").1, std::slice::from_ref(&value));
    assert_eq!(set(&mut resp), "OK");

    // A file that is wrong changes nothing.
    cluster.edit(1, "512KiB", "512KB");
    let said = reload(&cluster, &node, "refused");
    assert!(said.contains("nothing was changed") && said.contains("unknown unit \"KB\""), "{said}");
    put(cluster.clients(1), "k2", &value, None).expect("the limit is as it was");

    cluster.edit(1, "512KB", "256KiB");
    reload(&cluster, &node, "limits.value is now \"256KiB\"");
    wait_for("a larger value to be refused", || {
        (put(cluster.clients(1), "k3", &value, None) == Err(Failure::TooLarge { limit })).then_some(())
    });
    assert!(set(&mut resp).starts_with("ERR the value has"));
    assert!(node.is_running());
    // What is there stays readable.
    assert_eq!(get(cluster.clients(1), "k").1, [value]);
}

/// Cores that are pinned run on their CPUs, and where the CPUs are shared they do not.
#[test]
fn cores_run_where_they_are_pinned_to() {
    let cluster = Cluster::with_nodes(1);
    cluster.edit(1, "[node]\n", "[node]\ncpus = \"0\"\n");
    let field = |status: &Path, name: &str| {
        let status = fs::read_to_string(status).unwrap_or_default();
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned())).unwrap_or_default()
    };
    let allowed = |node: &Process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", node.pid().as_raw_nonzero())).expect("it runs");
        let statuses = tasks.flatten().map(|task| task.path().join("status"));
        let of_core: Vec<_> = statuses.filter(|status| field(status, "Name:").starts_with("core-0")).collect();
        of_core.iter().map(|status| field(status, "Cpus_allowed_list:")).collect::<Vec<_>>()
    };
    let mut node = cluster.serve(1);
    // Its threads for what blocks go by the same name.
    assert!(allowed(&node).contains(&"0".to_owned()), "{:?}", allowed(&node));
    node.signal(Signal::TERM);
    node.wait();
    cluster.edit(1, "[node]\n", "[node]\noverprovisioned = true\n");
    let node = cluster.serve(1);
    let all = field(Path::new("/proc/self/status"), "Cpus_allowed_list:");
    assert!(allowed(&node).iter().all(|cpus| *cpus == all), "{:?} of {all}", allowed(&node));
    drop(node);

    cluster.edit(1, "overprovisioned = true\ncpus = \"0\"", "cpus = \"4095\"");
    let config = path(&cluster);
    run(&mut quorate(&["serve", "--config", &config])).assert_failed(&["pinned to CPU 4095", "--overprovisioned"]);
}
