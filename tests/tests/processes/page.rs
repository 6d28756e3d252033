//! The page, in a real browser: what an operator sees while a node is away.
//!
//! The rule: the cluster is brought to where it stays as it is, then the browser looks once, by itself, for some rounds of the
//! page; what the page then holds is what a person would see. Nothing of it may fail in silence: the console is read too.
//!
//! `QUORATE_SCREENSHOT=PATH` makes the picture in the documents there, after a minute of load.
//!
//! Not here: what the answers hold that the page is made of (`http`, `repair`).

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use quorate_net::message::{Consistency, Durability, Operation, Put};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    apart::skip,
    cluster::{Cluster, HTTP_PORT},
    harness::{Process, quorate, wait_for, wait_long_for},
    talk::{self, http_get},
};

/// A key that would break a page that took it for markup.
const KEY: &str = "<script>document.title='broken'</script>\"'&amp;";

/// So long the page works, by the browser's own clock, which stands still while an answer is waited for.
const ROUNDS: Duration = Duration::from_secs(9);

/// What a picture of text has at least: one of one colour takes a few kilobytes.
const PICTURE_BYTES_MIN: u64 = 50_000;

struct Browser {
    directory: TempDir,
}

/// What the browser saw.
struct Seen {
    page: String,
    console: String,
}

impl Browser {
    fn new() -> Option<Self> {
        if Command::new("chromium").arg("--version").output().is_err() {
            skip("there is no chromium; apt-get install chromium");
            return None;
        }
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        Some(Self { directory })
    }

    /// Looks at a page, and makes a picture of it if one is wanted.
    fn look(&self, url: &str, picture: Option<&Path>) -> Seen {
        let console = self.directory.path().join("console");
        let mut command = Command::new("chromium");
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-breakpad", "--enable-logging=stderr"])
            .args([
                "--hide-scrollbars",
                "--window-size=1280,1440",
                "--lang=en",
                "--blink-settings=preferredColorScheme=1",
            ])
            .arg(format!("--user-data-dir={}", self.directory.path().join("profile").display()))
            .arg(format!("--virtual-time-budget={}", ROUNDS.as_millis()))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .stderr(File::create(&console).expect("it can be written"));
        match picture {
            Some(picture) => command.arg(format!("--screenshot={}", picture.display())),
            None => command.arg("--dump-dom"),
        };
        let mut process = Process::start(command.arg(url));
        let page = process.read_to_end();
        assert!(process.wait().success(), "{}", fs::read_to_string(&console).unwrap_or_default());
        Seen { page, console: fs::read_to_string(&console).expect("it was written") }
    }
}

impl Seen {
    /// The element of this id, from its first tag to its end.
    fn element(&self, name: &str, id: &str) -> &str {
        let start =
            self.page.find(&format!("<{name} id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {}", self.page));
        let rest = &self.page[start..];
        &rest[..rest.find(&format!("</{name}>")).expect("it is closed")]
    }

    /// The cells of a table, row by row.
    fn table(&self, id: &str) -> Vec<Vec<String>> {
        let rows = self.element("table", id).split("<tr>").skip(1);
        rows.map(|row| row.split("<td").skip(1).map(|cell| text(&format!("<td{cell}"))).collect()).collect()
    }

    /// Fails if the page's own script did, or the page tried anything that is not allowed.
    fn assert_silent(&self) {
        for line in self.console.lines().filter(|line| line.contains("CONSOLE")) {
            assert!(line.contains("ERR_CONNECTION_REFUSED"), "{line}");
        }
    }

    /// Fails if what the nodes said became anything but text.
    fn assert_unharmed(&self) {
        assert_eq!(self.page.matches("<script").count(), 1, "a key became markup: {}", self.page);
        assert!(self.page.contains("<title>Quorate</title>"), "{}", self.page);
    }
}

/// What is written there, without the markup.
fn text(markup: &str) -> String {
    let parts: String = markup.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
    parts.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn number(cell: &str) -> u64 {
    let digits: String = cell.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().unwrap_or_else(|_| panic!("no number: {cell}"))
}

fn ask(cluster: &Cluster, node: u16, topic: &str) -> Vec<Value> {
    let (status, body) = http_get(cluster.address(node, HTTP_PORT), &format!("/v1/{topic}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("it is JSON")
}

/// Three nodes of two cores; two replicas, so that the third node stands in.
fn cluster() -> (Cluster, Vec<Process>) {
    let cluster = Cluster::new();
    for node in 1..=3 {
        cluster.edit(node, "cores = 1", "cores = 2");
        cluster.edit(node, "replicas = 3", "replicas = 2");
    }
    let nodes = cluster.serve_all();
    (cluster, nodes)
}

/// Writes keys of such names through the nodes that stay, blindly, so that siblings come about, until something holds.
fn write_until(cluster: &Cluster, names: &str, mut holds: impl FnMut() -> bool) {
    let mut turn = 0;
    wait_for(names, || {
        turn += 1;
        let put = Put {
            key: talk::key(&format!("{names}{}", turn % 40)),
            value: Some(Bytes::from_static(b"value")),
            context: Some(Bytes::new()),
            quorum: 0,
            durability: Durability::Durable,
            consistency: Consistency::Sloppy,
            token: None,
            wants_context: false,
        };
        for node in [1, 2] {
            // Whether it was done is of no matter here.
            talk::ask(cluster.clients(node), Operation::Put(put.clone()));
        }
        holds().then_some(())
    });
}

fn is_dead(cluster: &Cluster, node: u16) -> bool {
    let members = &ask(cluster, 1, "members")[0];
    let nodes = members["nodes"].as_array().expect("nodes");
    let cores = nodes.iter().filter(|member| member["id"] == node).flat_map(|member| member["cores"].as_array());
    cores.flatten().all(|core| core["liveness"] == "dead")
}

#[test]
fn it_shows_a_dead_node_the_hints_for_it_the_load_and_the_slow_requests() {
    let Some(browser) = Browser::new() else { return };
    let (cluster, mut nodes) = cluster();
    let mut some = 0;
    write_until(&cluster, "some", || {
        some += 1;
        some > 200
    });
    // A frozen node makes requests slow, a dead one has hints kept.
    nodes[2].signal(Signal::STOP);
    let slow =
        |node| ask(&cluster, node, "tail").iter().any(|core| core["slowest"].to_string().contains("document.title"));
    write_until(&cluster, KEY, || slow(1) && slow(2));
    nodes[2].kill();
    let held = |node| ask(&cluster, node, "hints").iter().filter_map(|core| core["held"].as_u64()).sum::<u64>();
    write_until(&cluster, "missed", || held(1) > 0 && held(2) > 0 && is_dead(&cluster, 3));

    let seen = browser.look(&format!("http://{}/", cluster.address(1, HTTP_PORT)), None);
    seen.assert_silent();
    seen.assert_unharmed();
    assert_eq!(text(seen.element("span", "summary")), "node 3 cannot be reached");
    let tiles = text(seen.element("div", "tiles"));
    assert!(tiles.starts_with("2 of 3"), "{tiles}");
    let ring = seen.element("svg", "ring");
    for node in ["node 1", "node 2", "node 3, away"] {
        assert!(ring.contains(&format!("{node}</title>")), "{ring}");
    }
    assert!(text(ring).contains("64partitions, 2 replicas each"), "{}", text(ring));
    let tail = seen.element("svg", "tail");
    let lines: Vec<&str> = tail.split("<polyline points=\"").skip(1).collect();
    assert_eq!(lines.len(), 2, "gets and puts: {tail}");
    assert!(lines[1].starts_with(|c: char| c.is_ascii_digit()), "there were puts: {tail}");

    let cores = seen.table("cores");
    let cores: Vec<&Vec<String>> = cores.iter().filter(|row| !row.is_empty()).collect();
    let names: Vec<&str> = cores.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["1/0", "1/1", "2/0", "2/1", "3/0", "3/1"]);
    for row in &cores {
        let dead = row[0].starts_with('3');
        assert!(if dead { row[2].starts_with("dead for ") } else { row[2] == "alive" }, "{row:?}");
        assert!(dead == (row[9] == "–") && (dead || number(&row[9]) > 0), "it has keys: {row:?}");
    }
    assert_eq!(cores.iter().map(|row| number(&row[3])).sum::<u64>(), 2 * 64, "{cores:?}");
    let shares: u64 = cores.iter().filter(|row| row[4].ends_with('%')).map(|row| number(&row[4])).sum();
    assert!((98..=102).contains(&shares), "{cores:?}");

    let hints = seen.table("hints");
    let hint = hints.iter().find(|row| row.first().is_some_and(|node| node == "node 3"));
    assert!(hint.is_some_and(|row| number(&row[1]) > 0 && row[3].contains("1/")), "{hints:?}");
    let exchanges: Vec<String> = seen.table("exchanges").into_iter().filter_map(|row| row.into_iter().next()).collect();
    assert_eq!(exchanges, ["node 1", "node 2"]);
    assert!(!seen.table("tasks").is_empty());
    let slow = seen.table("slow");
    let slowest = slow.iter().find(|row| row.get(3).is_some_and(|key| key.starts_with(KEY)));
    assert!(slowest.is_some_and(|row| row[5].contains("patience")), "{slow:?}");
    assert!(slow.iter().all(|row| row.is_empty() || row.len() == 6), "{slow:?}");
}

#[test]
fn it_can_be_looked_at() {
    let Some(browser) = Browser::new() else { return };
    let (cluster, mut nodes) = cluster();
    let wanted = std::env::var_os("QUORATE_SCREENSHOT");
    let inside = browser.directory.path().join("page.png");
    let picture = wanted.as_ref().map_or(inside.as_path(), Path::new);
    let mut load = None;
    if wanted.is_some() {
        let options =
            "--kv --workload a --keys 5000 --value-size 1KiB --connections 8 --rate 300 --duration 300s --quiet";
        let servers = cluster.servers();
        let bench = ["bench", "--servers", &servers].into_iter().chain(options.split_whitespace());
        load = Some(Process::start(&mut quorate(&bench.collect::<Vec<_>>())));
        let seconds = |node| ask(&cluster, node, "latencies")[0]["put"].as_array().map_or(0, Vec::len);
        let is_over =
            |most: usize| wait_long_for("the load", Duration::from_secs(400), || (seconds(1) > most).then_some(()));
        is_over(60);
        nodes[2].kill();
        is_over(90);
        nodes[2] = cluster.serve(3);
        is_over(110);
        nodes[1].kill();
        is_over(130);
    } else {
        let mut some = 0;
        write_until(&cluster, "some", || {
            some += 1;
            some > 50
        });
    }
    browser.look(&format!("http://{}/", cluster.address(1, HTTP_PORT)), Some(picture)).assert_silent();
    drop(load);
    let bytes = fs::read(picture).expect("it was made");
    // A PNG begins so, then come its width and height.
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes[16..20] == 1280u32.to_be_bytes(), "no picture");
    assert!(bytes.len() as u64 > PICTURE_BYTES_MIN, "it is blank: {} bytes", bytes.len());
}
