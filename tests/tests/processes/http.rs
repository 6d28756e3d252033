//! HTTP, by the real `curl`: health, metrics, what operators ask, keys with their contexts, and who may not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    cluster::{Cluster, HTTP_PORT},
    harness::{PATIENCE, wait_for},
};

/// What a node answered.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn context(&self) -> String {
        self.header("x-quorate-context").expect("an answer brings the context").to_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn assert_status(self, wanted: u16) -> Self {
        assert_eq!(self.status, wanted, "{}", self.text());
        self
    }
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: there is no curl; apt-get install curl");
    }
    found
}

/// `curl` of a path on a node; `input` is the body.
fn curl(node: SocketAddr, path: &str, options: &[&str], input: &[u8]) -> Answer {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--include", "--http1.1", "--path-as-is"])
        .args(options)
        .arg(format!("http://{node}{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl starts");
    // It may not want all of it.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    let output = child.wait_with_output().expect("curl ends");
    assert!(output.status.success(), "curl {path}: {}", output.status);
    let mut rest = output.stdout.as_slice();
    loop {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        rest = &rest[end + 4..];
        if status == 100 {
            continue;
        }
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        return Answer { status, headers: lines.filter_map(header).collect(), body: rest.to_vec() };
    }
}

/// The answer to a value of so many bytes, more than fit between the two, by a client that sends all of it before it listens.
fn send_all_first(node: SocketAddr, bytes: usize) -> String {
    let mut stream = TcpStream::connect(node).expect("the node is there");
    write!(stream, "PUT /v1/data/key HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n")
        .and_then(|()| stream.write_all(&vec![b'x'; bytes]))
        .expect("it is heard out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn get(node: SocketAddr, path: &str) -> Answer {
    curl(node, path, &[], b"")
}

const PUT: &[&str] = &["--request", "PUT", "--data-binary", "@-"];

fn put(node: SocketAddr, path: &str, context: Option<&str>, value: &[u8]) -> Answer {
    // An empty header is written with a semicolon.
    let header = context.map(|context| match context {
        "" => "x-quorate-context;".to_owned(),
        context => format!("x-quorate-context: {context}"),
    });
    let mut options = PUT.to_vec();
    if let Some(header) = &header {
        options.extend(["--header", header]);
    }
    curl(node, path, &options, value)
}

#[test]
fn health_metrics_and_what_operators_ask() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::new();
    let nodes = cluster.serve_all();
    let node = cluster.address(1, HTTP_PORT);
    assert_eq!(get(node, "/healthz").assert_status(200).text(), "ok\n");
    wait_for("a node to be ready", || (get(node, "/readyz").status == 200).then_some(()));
    put(node, "/v1/data/counted", None, b"value").assert_status(204);
    get(node, "/v1/data/counted").assert_status(200);
    wait_for("metrics of that", || {
        let metrics = get(node, "/metrics").assert_status(200);
        assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
        let text = metrics.text();
        let puts = text.lines().find_map(|line| line.strip_prefix("quorate_puts_total{core=\"0\"} "));
        // Another core may have coordinated them.
        let told = puts.is_some_and(|puts| puts.parse::<f64>().is_ok());
        (told && text.contains("quorate_partitions_without_quorum")).then_some(())
    });
    for path in [
        "members",
        "ring",
        "figures",
        "latencies",
        "tail",
        "tasks",
        "keys",
        "hints",
        "exchanges",
        "roots",
        "cluster/status",
    ] {
        let answer = get(node, &format!("/v1/{path}")).assert_status(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let cores = answer.json();
        assert_eq!((&cores[0]["node"], &cores[0]["core"]), (&1.into(), &0.into()), "{path}: {cores}");
    }
    let repaired = curl(node, "/v1/repair", &["--request", "POST"], b"").assert_status(200).json();
    assert!(repaired[0]["partitions"].as_u64().is_some_and(|partitions| partitions > 0), "{repaired}");

    let (second, third) = (&nodes[1], &nodes[2]);
    second.signal(Signal::KILL);
    third.signal(Signal::KILL);
    wait_for("a node without its peers to be not ready", || {
        let ready = get(node, "/readyz");
        (ready.status == 503 && ready.text().contains("lack a quorum")).then_some(())
    });
    assert_eq!(get(node, "/healthz").status, 200, "it runs all the same");
}

#[test]
fn siblings_are_made_and_resolved() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::new();
    let _nodes = cluster.serve_all();
    let (one, other) = (cluster.address(1, HTTP_PORT), cluster.address(2, HTTP_PORT));
    let absent = get(one, "/v1/data/cart").assert_status(404);
    absent.context();
    let first = put(one, "/v1/data/cart", None, b"milk").assert_status(204).context();
    let found = get(other, "/v1/data/cart").assert_status(200);
    assert_eq!(found.body, b"milk");
    // Two that have seen the same, and not each other.
    put(one, "/v1/data/cart", Some(&first), b"milk, bread").assert_status(204);
    put(other, "/v1/data/cart", Some(&first), &[0xff, 0]).assert_status(204);
    let siblings = get(one, "/v1/data/cart?r=3").assert_status(300);
    let context = siblings.context();
    let values = siblings.json()["siblings"].as_array().cloned().unwrap_or_default();
    assert_eq!(values.len(), 2, "{values:?}");
    assert!(values.iter().any(|sibling| sibling["value"] == "milk, bread"));
    assert!(values.iter().any(|sibling| sibling["base64"] == "/wA="));
    put(other, "/v1/data/cart?w=3", Some(&context), b"milk, bread, eggs").assert_status(204);
    assert_eq!(get(one, "/v1/data/cart?r=3&strict").assert_status(200).body, b"milk, bread, eggs");
    // Who has seen nothing makes a sibling.
    put(one, "/v1/data/cart?w=3", Some(""), b"wine").assert_status(204);
    let context = get(one, "/v1/data/cart?r=3").assert_status(300).context();
    let delete = ["--request", "DELETE", "--header", &format!("x-quorate-context: {context}")];
    curl(one, "/v1/data/cart?w=3", &delete, b"").assert_status(204);
    get(other, "/v1/data/cart?r=3").assert_status(404);
    // Any bytes make a key, and a bucket is a space of its own.
    put(one, "/v1/data/a%2Fb%00?bucket=other", None, b"1").assert_status(204);
    assert_eq!(get(other, "/v1/data/a%2Fb%00?bucket=other").assert_status(200).body, b"1");
    get(other, "/v1/data/a%2Fb%00").assert_status(404);
}

#[test]
fn what_is_not_understood_changes_nothing() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::with_nodes(1);
    let _node = cluster.serve(1);
    let node = cluster.address(1, HTTP_PORT);
    for (path, options, status, words) in [
        ("/nothing", &[][..], 404, "/v1/data/KEY"),
        ("/v1/nothing", &[], 400, "MEMBERS"),
        ("/v1/help", &[], 400, "MEMBERS"),
        ("/v1/metrics", &[], 404, "see /metrics"),
        ("/v1/cluster/leave/x", &["--request", "POST"], 400, "a node's id is a number"),
        ("/v1/cluster/leave/1", &[], 405, "only by POST"),
        ("/v1/members", &["--request", "POST"], 405, "only by GET"),
        ("/metrics", &["--request", "POST"], 405, "only by GET"),
        ("/v1/data/key", &["--request", "PATCH"], 405, "PUT"),
        ("/v1/data/", &[], 400, "nothing was done"),
        ("/v1/data/key?r=9", &[], 400, "r must be a number from 1 to 1"),
        ("/v1/data/key?R=1", &[], 400, "'R' is not known"),
        ("/v1/data/key?durability=maybe", &[], 400, "must be durable, one or buffered"),
    ] {
        let answer = curl(node, path, options, b"");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let large = vec![b'x'; 2 << 20];
    put(node, "/v1/data/key", None, &large).assert_status(413);
    assert!(send_all_first(node, 12 << 20).starts_with("HTTP/1.1 413 "));
    assert_eq!(put(node, "/v1/data/key", Some("rubbish"), b"1").assert_status(400).json()["code"], "BADCONTEXT");
    get(node, "/v1/data/key").assert_status(404);
    // A browser names the site whose page asks.
    let foreign = ["--request", "PUT", "--header", "Origin: http://elsewhere.example", "--data-binary", "@-"];
    curl(node, "/v1/data/key", &foreign, b"1").assert_status(403);
    let looks = ["--header", "Origin: http://elsewhere.example"];
    assert_eq!(curl(node, "/v1/members", &looks, b"").header("access-control-allow-origin"), None);
    get(node, "/v1/data/key").assert_status(404);
    // What is no HTTP at all, and a head without an end, harm nobody.
    for rubbish in [&b"\x00\xff\xfe\r\n\r\n"[..], &[b'a'; 100_000]] {
        let mut stream = TcpStream::connect(node).unwrap();
        let _ = stream.write_all(rubbish);
    }
    assert_eq!(get(node, "/healthz").status, 200);
}

#[test]
fn a_page_of_a_member_may_look_and_each_core_is_asked() {
    if !has_curl() {
        return;
    }
    let cluster = Cluster::with_nodes(2);
    cluster.edit(1, "cores = 1", "cores = 2");
    cluster.edit(2, "cores = 1", "cores = 2");
    let _nodes = cluster.serve_all();
    let (one, other) = (cluster.address(1, HTTP_PORT), cluster.address(2, HTTP_PORT));
    let origin = format!("http://{other}");
    let options = ["--header".to_owned(), format!("Origin: {origin}")];
    let options = options.each_ref().map(String::as_str);
    let tasks = curl(one, "/v1/tasks", &options, b"").assert_status(200);
    assert_eq!(tasks.header("access-control-allow-origin"), Some(origin.as_str()));
    let cores: Vec<Value> = tasks.json().as_array().cloned().unwrap_or_default();
    let numbers: Vec<_> = cores.iter().map(|core| core["core"].as_u64()).collect();
    assert_eq!(numbers, [Some(0), Some(1)]);
    // What is in the store is for no page but the node's own.
    let data = curl(one, "/v1/data/key", &options, b"");
    assert_eq!((data.status, data.header("access-control-allow-origin")), (404, None));
    let page = get(one, "/").assert_status(200);
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    assert!(page.text().contains("<title>Quorate</title>"));
}

#[test]
fn a_node_that_stops_answers_what_is_under_way_and_ends_idle_connections() {
    let cluster = Cluster::with_nodes(1);
    let mut node = cluster.serve(1);
    let connect = || {
        let stream = TcpStream::connect(cluster.address(1, HTTP_PORT)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let read = |stream: &mut TcpStream| {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let (mut idle, mut silent, mut busy) = (connect(), connect(), connect());
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n").unwrap();
    assert!(read(&mut idle).starts_with("HTTP/1.1 200 OK"));
    busy.write_all(b"PUT /v1/data/late HTTP/1.1\r\nhost: node\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        .unwrap();
    assert_eq!(read(&mut busy), "HTTP/1.1 100 Continue\r\n\r\n");

    node.signal(Signal::TERM);
    assert_eq!((read(&mut idle), read(&mut silent)), (String::new(), String::new()), "they end");
    busy.write_all(b"value").unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
    assert_eq!(node.wait().code(), Some(0));
}
