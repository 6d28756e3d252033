use super::*;

const ANY: Wanted = Wanted { nodes: None, cores: None, address: None, port_base: None, tune: None };

fn secret(layout: &Layout) -> String {
    layout.cluster().secret.expose().to_owned()
}

#[test]
fn a_new_directory_gets_the_design_s_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::prepare(&directory.path().join("new"), &ANY).unwrap();
    let members = layout.members();
    assert_eq!(
        members.iter().map(|m| m.address.to_string()).collect::<Vec<_>>(),
        ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    );
    assert!(members.iter().all(|m| (m.port, m.core_port, m.peer_port, m.http_port) == (7400, 7401, 7500, 7600)));
    let config = config_file::load(&layout.config(NodeId(2))).unwrap();
    assert_eq!((config.node, &config.cluster), (NodeId(2), layout.cluster()));
    assert_eq!(config.data, layout.directory().join("node-2/data"));
    assert_eq!((config.cluster.replicas, config.cluster.read_quorum, config.cluster.write_quorum), (3, 2, 2));
}

#[test]
fn a_small_cluster_can_meet_its_quorums() {
    for (nodes, wanted) in [(1, (1, 1, 1)), (2, (2, 2, 2)), (3, (3, 2, 2)), (5, (3, 2, 2))] {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(directory.path(), &Wanted { nodes: Some(nodes), ..ANY }).unwrap();
        let cluster = layout.cluster();
        assert_eq!((cluster.replicas, cluster.read_quorum, cluster.write_quorum), wanted, "{nodes} nodes");
    }
}

#[test]
fn a_directory_that_is_there_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let address = Some("127.9.8.7".parse().unwrap());
    let wanted = Wanted { nodes: Some(2), cores: Some(2), address, port_base: Some(9000), tune: None };
    let first = Layout::prepare(directory.path(), &wanted).unwrap();
    let edited = fs::read_to_string(first.config(NodeId(1))).unwrap() + "\n[limits]\nvalue = \"2MiB\"\n";
    let edited = edited.replace("rack = \"\"", "rack = 'a\"\\u{e9}'");
    fs::write(first.config(NodeId(1)), &edited).unwrap();
    fs::remove_file(first.config(NodeId(2))).unwrap();

    let again = Layout::prepare(directory.path(), &ANY).unwrap();
    assert_eq!(secret(&again), secret(&first));
    assert_eq!(again.members()[0].rack, "a\"\\u{e9}");
    assert_eq!(fs::read_to_string(again.config(NodeId(1))).unwrap(), edited);
    assert!(again.config(NodeId(2)).exists());
    assert_eq!(again.members()[1].address.to_string(), "127.9.8.8");
    assert!(Layout::prepare(directory.path(), &wanted).is_ok());
}

#[test]
fn another_shape_than_the_directory_holds_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = Layout::prepare(directory.path(), &ANY).unwrap();
    for (wanted, words) in [
        (Wanted { nodes: Some(5), ..ANY }, "--nodes 5 was asked for, but"),
        (Wanted { cores: Some(2), ..ANY }, "--cores 2 was asked for, but"),
        (Wanted { address: Some("127.0.0.9".parse().unwrap()), ..ANY }, "--address 127.0.0.9 was"),
        (Wanted { port_base: Some(9000), ..ANY }, "--port-base 9000 was"),
        (Wanted { tune: Some(String::new()), ..ANY }, "--tune is for a new cluster"),
    ] {
        let error = Layout::prepare(directory.path(), &wanted).err().expect("it differs").to_string();
        assert!(error.contains(words) && error.contains("--fresh"), "{error}");
    }
    let other = fs::read_to_string(first.config(NodeId(3))).unwrap().replace("weight = 1.0", "weight = 2.0");
    fs::write(first.config(NodeId(3)), other).unwrap();
    let error = Layout::prepare(directory.path(), &ANY).err().expect("the configurations differ").to_string();
    assert!(error.contains("node-3/config.toml: [cluster] differs"), "{error}");
}

#[test]
fn what_tunes_is_in_every_configuration_or_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let tuned = |text: &str| Wanted { nodes: Some(2), tune: Some(text.to_owned()), ..ANY };
    let bad = Layout::prepare(directory.path(), &tuned("[slo]\nadmision = false\n"));
    let failure = bad.err().expect("there is no such key");
    assert!(
        matches!(&failure, Failure::Usage(text) if text.contains("admission") && text.contains("--tune")),
        "{failure}"
    );
    assert!(held(directory.path()).unwrap().is_none());
    let layout = Layout::prepare(directory.path(), &tuned("[slo]\nadmission = false\n")).unwrap();
    for node in [1, 2] {
        assert!(!config_file::load(&layout.config(NodeId(node))).unwrap().service_level.admission);
    }
}

#[test]
fn what_cannot_be_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = Wanted { address: Some("10.0.0.1".parse().unwrap()), ..ANY };
    let failure = Layout::prepare(directory.path(), &foreign).err().expect("not a loopback address");
    assert!(matches!(failure, Failure::Usage(_)), "{failure}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn fresh_removes_what_dev_made_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let first = Layout::prepare(path, &Wanted { nodes: Some(2), ..ANY }).unwrap();
    fs::create_dir_all(path.join("node-1/data/core-0")).unwrap();
    fs::write(path.join("node-1/data/core-0/segment"), "x").unwrap();
    fs::write(path.join("node-1/pid"), "999999999\n").unwrap();
    fs::write(path.join("node-1/log"), "x").unwrap();
    fs::write(path.join("node-2/notes"), "mine").unwrap();
    fs::write(path.join("notes"), "mine").unwrap();
    fs::create_dir(path.join("node-7")).unwrap();
    fs::write(path.join("node-7/config.toml"), "# not made by dev").unwrap();

    remove(path).unwrap();
    assert!(!path.join("node-1").exists());
    assert!(!path.join("node-2/config.toml").exists());
    for kept in ["node-2/notes", "notes", "node-7/config.toml"] {
        assert!(path.join(kept).exists(), "{kept}");
    }
    fs::remove_dir_all(path.join("node-7")).unwrap();
    assert_ne!(secret(&Layout::prepare(path, &ANY).unwrap()), secret(&first));
    assert!(remove(&path.join("nowhere")).is_ok());
}
