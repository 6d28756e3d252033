//! The clients that people use, for real: redis-py, ioredis, node-redis, redis-cli, redis-benchmark.
//!
//! The rule: what a client is to see is said in a script in its own language, beside this file; it ends with an error at the
//! first answer that is not the expected one.
//!
//! Not here: where the clients come from (`installed`), `curl` (`http`).

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use quorate_net::resp::write_command;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cluster::{CORE_PORT, Cluster},
    harness::{Process, Said, run},
    installed::{node, python, redis_tool},
    talk::Resp,
};

const NODES: u16 = 3;
const CORES: u16 = 2;

/// Three nodes of two cores, each core with a port of its own.
fn cluster() -> (Cluster, Vec<Process>) {
    let cluster = Cluster::with_nodes(NODES);
    for node in 1..=NODES {
        cluster.edit(node, "cores = 1", &format!("cores = {CORES}"));
        // On a machine that is busy with other tests.
        cluster.edit(node, "[limits]\n", "[limits]\ntimeout = \"30s\"\n");
    }
    let nodes = cluster.serve_all();
    (cluster, nodes)
}

/// Requests that came to another core than the one that they are for.
fn forwarded(cluster: &Cluster) -> u64 {
    let of_core = |node, core| {
        let info = Resp::connect(cluster.address(node, CORE_PORT + core)).text(&[b"INFO", b"quorate"]);
        let line = info.lines().find_map(|line| line.strip_prefix("forwarded:").map(str::to_owned));
        line.and_then(|number| number.parse::<u64>().ok()).expect("each core tells how many it forwarded")
    };
    (1..=NODES).flat_map(|node| (0..CORES).map(move |core| (node, core))).map(|(node, core)| of_core(node, core)).sum()
}

/// Runs a script for a cluster, where it must find nothing wrong.
fn check(script: Option<Command>) {
    let Some(mut script) = script else { return };
    let (cluster, _nodes) = cluster();
    run(script.args(cluster.servers().split(','))).assert_ok();
}

#[test]
fn redis_py() {
    check(python("plain.py"));
}

#[test]
fn redis_py_with_deep_pipelines() {
    check(python("pipelines.py"));
}

#[test]
fn ioredis() {
    check(node("ioredis.js"));
}

#[test]
fn node_redis() {
    check(node("node-redis.js"));
}

#[test]
fn redis_py_for_clusters_goes_on_without_a_node() {
    let Some(mut script) = python("cluster.py") else { return };
    let (cluster, mut nodes) = cluster();
    let before = forwarded(&cluster);
    let mut client = Process::start(script.arg(cluster.clients(1).to_string()));
    client.read_until("as asked 0 times");
    let mut write_and_read_all = |times: u32| {
        client.signal(Signal::USR1);
        client.read_until(&format!("as asked {times} times"));
    };
    write_and_read_all(1);
    assert_eq!(forwarded(&cluster), before, "each request came to a core that it is for");
    nodes[1].kill();
    write_and_read_all(2);
    nodes[1] = cluster.serve(2);
    write_and_read_all(3);
    cluster.wait_until_joined();
    write_and_read_all(4);
    client.signal(Signal::TERM);
    let said = client.read_to_end();
    assert!(client.wait().success() && said.contains("nothing is lost"), "{said}");
}

/// `redis-cli` of a node with these arguments.
fn redis_cli(cluster: &Cluster, node: u16, arguments: &[&str]) -> Command {
    let mut command = redis_tool("redis-cli").expect("it was there a moment ago");
    let address = cluster.clients(node);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(arguments);
    command.stdin(Stdio::null());
    command
}

/// What it prints, and whether it succeeds.
fn says(cluster: &Cluster, arguments: &[&str]) -> Said {
    run(redis_cli(cluster, 1, arguments).stderr(Stdio::piped()))
}

#[test]
fn redis_cli_asks() {
    if redis_tool("redis-cli").is_none() {
        return;
    }
    let (cluster, _nodes) = cluster();
    for (arguments, out) in [
        (&["ping"][..], "PONG\n"),
        (&["set", "greeting", "hello"], "OK\n"),
        (&["get", "greeting"], "hello\n"),
        (&["-3", "get", "greeting"], "hello\n"),
        (&["-c", "get", "greeting"], "hello\n"),
        (&["-n", "0", "strlen", "greeting"], "5\n"),
        (&["--csv", "mget", "greeting", "absent"], "\"hello\",NULL\n"),
        (&["--json", "mget", "greeting", "absent"], "[\"hello\",null]\n"),
        (&["-3", "--json", "config", "get", "save"], "{\"save\":\"\"}\n"),
        (&["-r", "2", "exists", "greeting", "absent"], "1\n1\n"),
        (&["--no-auth-warning", "-a", "secret", "--user", "default", "ping"], "PONG\n"),
        (&["--no-raw", "kv.get", "absent", "r", "2"], "(empty array)\n"),
    ] {
        let said = says(&cluster, arguments);
        assert!(said.assert_ok().out.ends_with(out), "{arguments:?}: {}", said.out);
    }
    for (arguments, words) in [
        (&["monitor"][..], "ERR unknown command 'monitor'"),
        (&["keys", "*"], "listing keys is not supported"),
        (&["--scan"], "listing keys is not supported"),
        (&["--bigkeys"], "listing keys is not supported"),
        (&["--memkeys"], "listing keys is not supported"),
        (&["-n", "1", "ping"], "DB index is out of range"),
        (&["--no-auth-warning", "-a", "secret", "ping"], "without any password configured"),
        (&["eval", "return 1", "0"], "ERR unknown command 'eval'"),
        (&["multi"], "MULTI is not supported"),
        (&["shutdown"], "unknown command 'shutdown'"),
    ] {
        let said = says(&cluster, arguments);
        assert!((said.out.clone() + &said.error).contains(words), "{arguments:?}: {}{}", said.out, said.error);
    }
}

/// A file that lies in a directory of its own.
fn file(directory: &TempDir, name: &str, bytes: &[u8]) -> File {
    let path = directory.path().join(name);
    fs::write(&path, bytes).expect("it can be written");
    File::open(path).expect("it is there")
}

#[test]
fn redis_cli_inserts_in_mass_and_measures() {
    if redis_tool("redis-cli").is_none() {
        return;
    }
    const KEYS: usize = 5000;
    let (cluster, _nodes) = cluster();
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let mut commands = Vec::new();
    for number in 0..KEYS {
        write_command(&mut commands, &[b"SET", format!("mass-{number}").as_bytes(), b"a value\r\n\0"]);
    }
    let mut pipe = redis_cli(&cluster, 1, &["--pipe"]);
    let said = run(pipe.stdin(file(&directory, "commands", &commands)));
    assert!(said.assert_ok().out.contains(&format!("errors: 0, replies: {KEYS}")), "{}", said.out);
    // Each answer, in order; a cluster's client asks the owners.
    let gets: String = (0..KEYS).step_by(10).map(|number| format!("strlen mass-{number}\n")).collect();
    for arguments in [&[][..], &["-c"], &["-3"]] {
        let mut typed = redis_cli(&cluster, 2, arguments);
        let said = run(typed.stdin(file(&directory, "gets", gets.as_bytes())));
        assert_eq!(said.assert_ok().out, "10\n".repeat(KEYS / 10));
    }
    let any_bytes: Vec<u8> = (0..=255).collect();
    let mut whole = redis_cli(&cluster, 3, &["-x", "set", "from a file"]);
    run(whole.stdin(file(&directory, "any", &any_bytes))).assert_ok();
    assert_eq!(says(&cluster, &["strlen", "from a file"]).out, "256\n");

    // Smallest, largest, mean, in milliseconds; how many.
    let latency = says(&cluster, &["--latency", "--raw", "-i", "1"]).assert_ok().out.clone();
    let figures: Vec<f64> = latency.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    assert!(figures.len() == 4 && figures[3] > 1.0, "{latency}");
    let called = says(&cluster, &["--cluster", "call", &cluster.clients(1).to_string(), "ping"]);
    assert_eq!(called.out.matches(": PONG").count(), usize::from(NODES * CORES), "{}", called.out);
    let checked = says(&cluster, &["--cluster", "check", &cluster.clients(1).to_string()]);
    assert!(checked.assert_ok().out.contains("[OK] All 16384 slots covered."), "{}", checked.out);
}

#[test]
fn redis_benchmark() {
    const TESTS: [&str; 5] = ["PING_INLINE", "PING_MBULK", "SET", "GET", "MSET (10 keys)"];
    if redis_tool("redis-benchmark").is_none() {
        return;
    }
    let (cluster, _nodes) = cluster();
    let (host, port) = (cluster.clients(1).ip().to_string(), CORE_PORT.to_string());
    for options in [&[][..], &["--threads", "2"], &["--cluster"], &["--cluster", "--threads", "2"]] {
        let mut benchmark = redis_tool("redis-benchmark").expect("it was there a moment ago");
        benchmark.args(["-h", &host, "-p", &port, "-q", "-t", "ping,set,get,mset"]);
        benchmark.args(["-n", "2000", "-r", "1000", "-d", "100", "-c", "20", "-P", "16"]).args(options);
        let said = run(&mut benchmark);
        said.assert_ok();
        // Between the results it writes over what it wrote before.
        let results = said.out.split(['\n', '\r']).filter_map(|line| line.split_once(" requests per second"));
        let results: Vec<_> = results.filter_map(|(result, _)| result.rsplit_once(": ")).collect();
        let tests: Vec<&str> = results.iter().map(|(test, _)| *test).collect();
        assert_eq!(tests, TESTS, "{options:?}: {}", said.out);
        assert!(results.iter().all(|(_, rate)| rate.parse::<f64>().is_ok_and(|rate| rate > 0.0)), "{}", said.out);
        assert!(!(said.out.clone() + &said.error).to_lowercase().contains("error"), "{}{}", said.out, said.error);
    }
}
