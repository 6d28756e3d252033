use std::net::{IpAddr, Ipv4Addr};

use super::*;

/// One node, as short as can be; `NODE`, `CLUSTER`, `MEMBER` and `REST` are where a case adds its lines.
const SMALL: &str = r#"
[node]
id = 1
NODE
[cluster]
name = "test"
secret = "0123456789abcdef"
read_quorum = 1
write_quorum = 1
CLUSTER
[[cluster.node]]
id = 1
address = "127.0.0.1"
MEMBER
REST
"#;

fn small(place: &str, lines: &str) -> String {
    let mut text = SMALL.to_owned();
    for name in ["NODE", "CLUSTER", "MEMBER", "REST"] {
        text = text.replace(name, if name == place { lines } else { "" });
    }
    text
}

fn check_bad(text: &str, wanted: &str) {
    match Config::parse(text) {
        Ok(_) => panic!("accepted, but wanted: {wanted}\n{text}"),
        Err(error) => assert!(error.to_string().contains(wanted), "got:    {error}\nwanted: {wanted}"),
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = Config::parse(&small("", "")).unwrap();
    let member = Member {
        id: NodeId(1),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        cores: 1,
        rack: String::new(),
        weight: 1.0,
        port: 7400,
        core_port: 7401,
        peer_port: 7500,
        http_port: 7600,
    };
    assert_eq!(config.member(), &member);
    assert_eq!((config.cluster.partitions, config.cluster.replicas), (1024, 3));
    assert_eq!(config.limits.value, 1 << 20);
    assert_eq!(config.limits.timeout, Duration::from_secs(2));
    let core = &config.cores[0];
    assert_eq!((core.cpu, core.spin_before_park, core.store.capacity), (None, Duration::ZERO, None));
    assert_eq!((core.store.segment, core.store.cache, core.store.commit), (64 << 20, 256 << 20, Commit::Dsync));
    assert_eq!(core.data, Path::new("data/core-0"));
    assert_eq!(config.relative_to(Path::new("/srv/one")).cores[0].data, Path::new("/srv/one/data/core-0"));
}

#[test]
fn what_is_set_is_kept() {
    let text = r#"
[node]
id = 2
data = "/var/lib/quorate"
insecure = true
[cluster]
name = "prod"
secret = "0123456789abcdef"
partitions = 256
replicas = 2
read_quorum = 1
write_quorum = 2
[[cluster.node]]
id = 2
address = "10.0.0.2"
cores = 2
rack = "r1"
weight = 2
[[cluster.node]]
id = 1
address = "10.0.0.1"
port = 1000
[limits]
value = "64KiB"
object = "1MiB"
siblings = 8
timeout = "250ms"
connections = 10
operations = 20
[slo]
p999 = "5ms"
admission = false
[store]
capacity = "1GiB"
segment = "4MiB"
cache = "0B"
commits_in_flight = 4
commit = "fdatasync"
checkpoint_every = "8MiB"
queue = "2MiB"
scrub = "64KiB"
[[core]]
id = 1
cpu = 3
spin_before_park = "50us"
memory = "1MiB"
shares = 64
cache = "1MiB"
capacity = "2GiB"
data = "fast"
"#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.cluster.members.iter().map(|member| member.id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((config.member().weight, config.member().cores), (2.0, 2));
    assert_eq!((config.cluster.read_quorum, config.cluster.write_quorum), (1, 2));
    let limits = Limits {
        value: 64 << 10,
        object: 1 << 20,
        siblings: 8,
        timeout: Duration::from_millis(250),
        connections: 10,
        operations: 20,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.service_level, ServiceLevel { p999: Duration::from_millis(5), admission: false });
    let store = Store {
        capacity: Some(1 << 30),
        segment: 4 << 20,
        cache: 0,
        commits_in_flight: 4,
        commit: Commit::Fdatasync,
        checkpoint_every: 8 << 20,
        queue: 2 << 20,
        scrub: 64 << 10,
    };
    assert_eq!(config.cores[0].store, store);
    assert_eq!(config.cores[1].store, Store { capacity: Some(2 << 30), cache: 1 << 20, ..store });
    assert_eq!((config.cores[1].cpu, config.cores[1].spin_before_park), (Some(3), Duration::from_micros(50)));
    assert_eq!((config.cores[0].memory, config.cores[1].memory), (256 << 10, 1 << 20));
    assert_eq!((config.cores[0].shares, config.cores[1].shares), (128, 64));
    assert_eq!(config.relative_to(Path::new("/etc")).cores[1].data, Path::new("/etc/fast"));
}

#[test]
fn unknown_keys_are_told_with_their_line_and_what_was_meant() {
    let cases = [
        ("REST", "[store]\nsegmnt = \"64MiB\"", "line 16: unknown key `segmnt` in [store]; did you mean `segment`?"),
        ("REST", "[limits]\nvlaue = \"1MiB\"", "unknown key `vlaue` in [limits]; did you mean `value`?"),
        ("REST", "[logging]", "unknown key `logging`; known are `node`, `cluster`, `limits`, `slo`, `store`, `core`"),
        ("NODE", "insecur = true", "unknown key `insecur` in [node]; did you mean `insecure`?"),
        ("CLUSTER", "replica = 3", "unknown key `replica` in [cluster]; did you mean `replicas`?"),
        ("MEMBER", "zone = \"a\"", "unknown key `zone` in [[cluster.node]]; known are"),
        ("REST", "[[core]]\nid = 0\ncpus = 1", "unknown key `cpus` in [[core]]; did you mean `cpu`?"),
        ("NODE", "replicas = 3", "unknown key `replicas` in [node]; it belongs in [cluster]"),
    ];
    for (place, lines, wanted) in cases {
        check_bad(&small(place, lines), wanted);
    }
    // A misspelt key that had to be there is told as misspelt, not as missing.
    check_bad(&small("", "").replace("secret", "secrt"), "unknown key `secrt` in [cluster]; did you mean `secret`?");
}

#[test]
fn units_are_required() {
    let cases = [
        (
            "[limits]\nvalue = 64",
            "line 16: `value` in [limits] needs a unit and quotes, such as \"64MiB\"; got the bare",
        ),
        ("[limits]\nvalue = \"64\"", "`value` in [limits] needs a unit (B, KiB, MiB, GiB, TiB); got \"64\""),
        ("[limits]\nvalue = \"1MB\"", "unknown unit \"MB\"; known are B, KiB, MiB"),
        ("[limits]\nvalue = \"5ms\"", "unknown unit \"ms\""),
        ("[limits]\nvalue = \"1.5MiB\"", "whole number"),
        ("[limits]\ntimeout = 2", "needs a unit and quotes, such as \"5ms\""),
        ("[limits]\ntimeout = 2.0", "must be text such as \"5ms\", not a number"),
        ("[limits]\ntimeout = \"2 s\"", "unknown unit \" s\"; known are us, ms, s"),
        ("[store]\ncache = \"99999999999TiB\"", "too large"),
        ("[[core]]\nid = 0\nspin_before_park = \"1GiB\"", "unknown unit \"GiB\""),
    ];
    for (lines, wanted) in cases {
        check_bad(&small("REST", lines), wanted);
    }
}

#[test]
fn ranges_are_checked() {
    let cases = [
        ("CLUSTER", "partitions = 32", "`partitions` in [cluster] must be from 64 to 16384"),
        ("CLUSTER", "partitions = 32768", "must be from 64 to 16384"),
        ("CLUSTER", "partitions = 1000", "must be a power of two, such as 512 or 1024"),
        ("CLUSTER", "partitions = -64", "must be from 64 to 16384"),
        ("CLUSTER", "replicas = 0", "must be from 1 to 7"),
        ("CLUSTER", "replicas = 8", "must be from 1 to 7"),
        ("CLUSTER", "replicas = \"3\"", "must be a whole number, not text"),
        ("MEMBER", "cores = 0", "must be from 1 to 256"),
        ("MEMBER", "cores = 257", "must be from 1 to 256"),
        ("MEMBER", "weight = 0", "must be from 0.01 to 100"),
        ("MEMBER", "weight = nan", "must be from 0.01 to 100"),
        ("MEMBER", "port = 0", "must be from 1 to 65535"),
        ("MEMBER", "cores = 2\ncore_port = 65535", "must be from 1 to 65534"),
        ("REST", "[limits]\nvalue = \"9MiB\"", "must be from 1B to 8MiB"),
        ("REST", "[limits]\nvalue = \"8MiB\"\nobject = \"8MiB\"", "must be at least 1KiB more than `value`"),
        ("REST", "[limits]\ntimeout = \"1us\"", "must be from 10ms to 1min"),
        ("REST", "[limits]\nsiblings = 0", "must be from 1 to 1024"),
        ("REST", "[store]\nsegment = \"128MiB\"", "must be from 4MiB to 64MiB"),
        ("REST", "[store]\nsegment = \"4194305B\"", "must be a multiple of 128KiB"),
        ("REST", "[store]\nsegment = \"16MiB\"", "must hold 3 of the largest objects"),
        ("REST", "[store]\nqueue = \"1MiB\"", "must hold the largest object"),
        ("REST", "[limits]\nobject = \"22MiB\"", "`segment` in [store] must hold 3 of the largest"),
        ("REST", "[limits]\nobject = \"20MiB\"", "`queue` in [store] must hold the largest object"),
        ("REST", "[store]\ncapacity = \"64MiB\"", "must be 8 to 999999 segments of 64MiB"),
        ("REST", "[store]\ncapacity = \"100TiB\"", "must be 8 to 999999 segments of 64MiB"),
        ("REST", "[store]\ncommits_in_flight = 5", "must be from 1 to 4"),
        ("REST", "[store]\ncommit = \"later\"", "must be \"dsync\" or \"fdatasync\", not \"later\""),
        ("REST", "[[core]]\nid = 1", "`id` in [[core]] must be from 0 to 0"),
        ("REST", "[[core]]\ncpu = 1", "`id` is missing in [[core]]"),
        ("REST", "[[core]]\nid = 0\n[[core]]\nid = 0", "line 18: `id` in [[core]] core 0 is configured twice"),
        ("REST", "[core]\nid = 0", "must be tables, each under `[[core]]`, not a table"),
        ("REST", "store = 1", "unknown key `store` in [[cluster.node]]"),
    ];
    for (place, lines, wanted) in cases {
        check_bad(&small(place, lines), wanted);
    }
}

#[test]
fn two_cores_share_nothing() {
    let two = |rest: &str| small("MEMBER", "cores = 2").replace("\n\n", "\n") + rest;
    assert_eq!(Config::parse(&two("")).unwrap().cores.len(), 2);
    check_bad(&two("[[core]]\nid = 0\ncpu = 1\n[[core]]\nid = 1\ncpu = 1"), "two cores are pinned to CPU 1");
    check_bad(&two("[[core]]\nid = 0\ndata = \"data/core-1\""), "core 1 shares its `data` directory");
}

#[test]
fn the_cluster_must_make_sense() {
    let base = small("", "");
    let cases = [
        (base.replace("id = 1\n\n[cluster]", "id = 2\n[cluster]"), "no [[cluster.node]] has the id 2"),
        (
            base.replace("read_quorum = 1", "read_quorum = 2"),
            "`read_quorum` in [cluster] is 2, but [[cluster.node]] lists 1",
        ),
        (base.replace("write_quorum = 1", ""), "`write_quorum` in [cluster] is 2, but [[cluster.node]] lists 1"),
        (base.replace("write_quorum = 1", "write_quorum = 4"), "must be from 1 to 3"),
        (base.replace("0123456789abcdef", "short"), "`secret` in [cluster] must have 16 to 1024 characters"),
        (base.replace("\"test\"", "\"a b\""), "`name` in [cluster] must be 1 to 64 letters"),
        (base.replace("name = \"test\"", ""), "line 5: `name` is missing in [cluster]"),
        (base.replace("127.0.0.1", "localhost"), "must be an IP address such as"),
        (base.replace("127.0.0.1", "0.0.0.0"), "which other nodes cannot connect to"),
        (base.replace("127.0.0.1", "10.0.0.1"), "neither encrypted nor authenticated"),
        (base.replace("[cluster]", "[cluster"), "line 5: "),
        ("[node]\nid = 1".into(), "`node` is missing in [cluster]"),
        (String::new(), "is missing"),
        ("node = 1".into(), "`node` must be a table, `[node]`, not a number"),
        (base.clone() + "[[cluster.node]]\nid = 1\naddress = \"127.0.0.2\"", "like another node's"),
        (
            base.clone() + "[[cluster.node]]\nid = 2\naddress = \"127.0.0.1\"",
            "takes 127.0.0.1:7400, which `port` of node 1",
        ),
        (small("MEMBER", "peer_port = 7400"), "takes 127.0.0.1:7400, which `port` of this node has already"),
        (small("MEMBER", "cores = 200"), "of this node has already"),
    ];
    for (text, wanted) in cases {
        check_bad(&text, wanted);
    }
    assert!(Config::parse(&base.replace("127.0.0.1", "10.0.0.1").replace("[node]", "[node]\ninsecure = true")).is_ok());
    assert!(Config::parse(&base.replace("127.0.0.1", "::1")).is_ok());
}

#[test]
fn the_secret_is_in_no_message() {
    let config = Config::parse(&small("", "")).unwrap();
    assert_eq!(config.cluster.secret.expose(), "0123456789abcdef");
    assert!(!format!("{config:?}").contains("0123456789"));
    let error = Config::parse(&small("", "").replace("0123456789abcdef", "tooshort")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("tooshort"));
}

#[test]
fn cores_are_pinned_in_the_order_of_the_list() {
    let node = |cores: u16, lines: &str, rest: &str| {
        small("MEMBER", &format!("cores = {cores}")).replace("[node]\n", &format!("[node]\n{lines}\n")) + rest
    };
    let cpus = |text: &str| {
        let cores = Config::parse(text).unwrap().cores;
        cores.into_iter().map(|core| core.cpu).collect::<Vec<_>>()
    };
    assert_eq!(cpus(&node(3, "cpus = \"8,0-3\"", "")), [Some(8), Some(0), Some(1)]);
    // Who names its own takes none of the others'.
    assert_eq!(cpus(&node(3, "cpus = \"0-2\"", "[[core]]\nid = 1\ncpu = 0\n")), [Some(1), Some(0), Some(2)]);
    assert_eq!(cpus(&node(2, "cpus = \"5\"", "[[core]]\nid = 1\ncpu = 9\n")), [Some(5), Some(9)]);
    check_bad(&node(3, "cpus = \"0-1\"", ""), "line 3: `cpus` in [node] has a CPU for 2 of the 3 cores that name none");
    check_bad(&node(2, "cpus = \"0-1\"", "[[core]]\nid = 1\ncpu = 0\n[[core]]\nid = 0\ncpu = 0\n"), "two cores are");
    check_bad(&node(1, "cpus = \"0-x\"", ""), "`cpus` in [node] must be numbers up to 4095 and ranges of them");
    check_bad(&node(1, "cpus = [0]", ""), "`cpus` in [node] must be text in quotes, not a list");

    let spin = "[[core]]\nid = 0\nspin_before_park = \"50us\"\n";
    check_bad(&node(1, "", spin), "`spin_before_park` in [[core]] does nothing for a core that is not pinned");
    let pinned = node(1, "cpus = \"3\"", spin);
    assert_eq!(Config::parse(&pinned).unwrap().cores[0].spin_before_park, Duration::from_micros(50));
    let shared = Config::parse(&pinned.replace("[node]\n", "[node]\noverprovisioned = true\n")).unwrap();
    assert_eq!((shared.cores[0].cpu, shared.cores[0].spin_before_park), (None, Duration::ZERO));
    assert_eq!(Config::parse(&pinned).unwrap().overprovisioned(), shared);
}

#[test]
fn each_setting_is_noted_with_its_line() {
    let (_, settings) = Config::read(&small("REST", "[limits]\nsiblings = 8")).unwrap();
    let of = |path: &str| settings.iter().find(|setting| setting.path() == path).unwrap_or_else(|| panic!("no {path}"));
    let told = |path: &str| (of(path).value.as_ref().map(ToString::to_string), of(path).source);
    assert_eq!(told("limits.siblings"), (Some("8".into()), Source::File(16)));
    assert_eq!(told("limits.value"), (Some("\"1MiB\"".into()), Source::Default));
    assert_eq!(told("cluster.read_quorum"), (Some("1".into()), Source::File(8)));
    assert_eq!(told("cluster.node.1.address"), (Some("\"127.0.0.1\"".into()), Source::File(13)));
    assert_eq!(told("core.0.cache"), (Some("\"256MiB\"".into()), Source::Default));
    assert_eq!(told("core.0.capacity"), (None, Source::Default));
    assert_eq!(told("cluster.secret"), (Some("\"(redacted)\"".into()), Source::File(7)));
    // Each key once, and no other: what is in the table is read.
    let keys: usize = keys::TABLES.iter().map(|table| table.keys.len()).sum();
    assert_eq!(settings.len(), keys);
}

/// Keys, each with another value than the default.
const OTHER: [(&str, &str, &str); 33] = [
    ("data", "[node]", "\"elsewhere\""),
    ("join", "[node]", "true"),
    ("insecure", "[node]", "true"),
    ("cpus", "[node]", "\"0-3\""),
    ("overprovisioned", "[node]", "true"),
    ("partitions", "[cluster]", "512"),
    ("replicas", "[cluster]", "2"),
    ("cores", "[[cluster.node]]", "2"),
    ("rack", "[[cluster.node]]", "\"r\""),
    ("weight", "[[cluster.node]]", "2.0"),
    ("port", "[[cluster.node]]", "1"),
    ("core_port", "[[cluster.node]]", "2"),
    ("peer_port", "[[cluster.node]]", "3"),
    ("http_port", "[[cluster.node]]", "4"),
    ("value", "[limits]", "\"2MiB\""),
    ("object", "[limits]", "\"4MiB\""),
    ("siblings", "[limits]", "5"),
    ("timeout", "[limits]", "\"1s\""),
    ("connections", "[limits]", "6"),
    ("operations", "[limits]", "7"),
    ("p999", "[slo]", "\"1ms\""),
    ("admission", "[slo]", "false"),
    ("capacity", "[store]", "\"1GiB\""),
    ("segment", "[store]", "\"32MiB\""),
    ("cache", "[store]", "\"1MiB\""),
    ("commits_in_flight", "[store]", "2"),
    ("commit", "[store]", "\"fdatasync\""),
    ("checkpoint_every", "[store]", "\"1MiB\""),
    ("queue", "[store]", "\"8MiB\""),
    ("scrub", "[store]", "\"2MiB\""),
    ("memory", "[[core]]", "\"1MiB\""),
    ("shares", "[[core]]", "64"),
    ("cpu", "[[core]]", "9"),
];

/// What a running node takes over is what the table of keys calls live, and nothing else.
#[test]
fn a_running_node_takes_over_the_live_keys_alone() {
    let base = small("REST", "[limits]\n[slo]\n[store]\n[[core]]\nid = 0\n");
    let (config, settings) = Config::read(&base).unwrap();
    for (name, title, value) in OTHER {
        let (after, changed) = Config::read(&base.replacen(title, &format!("{title}\n{name} = {value}"), 1)).unwrap();
        let path = format!("{}.{name}", title.trim_matches(['[', ']']));
        let is_it = |table: &&keys::Table| table.title == title;
        let key = keys::TABLES.iter().find(is_it).and_then(|table| table.key(name)).expect("it is a key");
        let differs = differences(&settings, &changed);
        let told = differs.iter().find(|difference| difference.path.rsplit('.').next() == Some(name));
        assert_eq!(told.map(|difference| difference.live), Some(key.live), "{path}: {differs:?}");
        let taken = config.with_live_keys_of(&after).unwrap();
        assert_eq!(taken != config, key.live, "{path}");
        if key.live {
            assert_eq!(taken, after, "{path}");
        }
    }
    // The rest is given already, or cannot differ by itself.
    let rest = ["id", "name", "secret", "read_quorum", "write_quorum", "address", "spin_before_park"];
    for table in keys::TABLES {
        for key in table.keys {
            let is_tried = OTHER.iter().any(|(name, title, _)| (*name, *title) == (key.name, table.title));
            let of_store = table.title == "[[core]]" && ["cache", "capacity", "data"].contains(&key.name);
            assert!(is_tried || of_store || rest.contains(&key.name), "{} is not tried", table.path_of(key));
        }
    }
}

#[test]
fn what_is_taken_over_fits_what_stays() {
    let node = |store: &str, limits: &str| {
        Config::parse(&small("REST", &format!("[limits]\n{limits}\n[store]\n{store}"))).unwrap()
    };
    let running = node("segment = \"4MiB\"", "object = \"1MiB\"\nvalue = \"64KiB\"");
    let larger = node("segment = \"64MiB\"", "object = \"8MiB\"");
    let error = running.with_live_keys_of(&larger).unwrap_err().to_string();
    assert!(error.contains("`segment` in [store] must hold 3 of the largest objects"), "{error}");
    let mut more = running.clone();
    (more.cluster.replicas, more.cluster.write_quorum) = (7, 5);
    let error = running.with_live_keys_of(&more).unwrap_err().to_string();
    assert!(error.contains("`write_quorum` in [cluster] must be from 1 to 3"), "{error}");
}
