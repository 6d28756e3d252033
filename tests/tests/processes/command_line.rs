//! What all commands have in common: how they fail, what they tell programs, and how far they are.
//!
//! Not here: that each has its help and its examples, which the command line's own tests look at.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    apart::skip,
    cluster::Cluster,
    harness::{Process, Said, program, quorate, run},
};
fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `quorate` with the words of this line.
fn say(line: &str) -> Said {
    run(&mut quorate(&line.split_whitespace().collect::<Vec<_>>()))
}

/// What a command prints to a terminal, on whichever of its outputs; `None` where there is no terminal to be had.
fn on_terminal(line: &str) -> Option<String> {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &format!("'{}' {line}", program().display()), "/dev/null"]);
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        skip("there is no `script`");
        return None;
    }
    let said = run(script.stdin(Stdio::null()));
    Some(said.assert_ok().out.clone())
}

/// A directory on a disk.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

#[test]
fn errors_say_what_to_do_next_and_are_json_where_that_was_asked_for() {
    // Of a test of its own: nobody listens there.
    let nobody = Cluster::empty(1).clients(1);
    for (line, code, words) in [
        (format!("status --node {nobody}"), 1, "Start a cluster with `quorate dev`, or name a running node by --node"),
        (
            format!("bench --node {nobody}"),
            1,
            "`quorate dev` starts a cluster on this machine, --servers names another",
        ),
        (format!("bench --target native --node {nobody}"), 1, "--servers names another"),
        ("serve --config /nowhere/config.toml".to_owned(), 1, "`quorate config example` prints one to start from"),
        ("ring --node 999.0.0.1".to_owned(), 2, "such as 127.0.0.2 or [::1]:7400"),
        ("ring --timeout 0".to_owned(), 2, "must be more than 0"),
        ("rnig".to_owned(), 2, "'ring'"),
        ("help rnig".to_owned(), 2, "'ring'"),
    ] {
        let said = say(&line);
        assert_eq!((said.code(), said.out.as_str()), (Some(code), ""), "{line}: {}", said.error);
        assert!(said.error.starts_with("error: ") && said.error.contains(words), "{line}: {}", said.error);
        if ["status", "bench", "ring"].iter().any(|command| line.starts_with(command)) {
            let said = say(&(line.clone() + " --json"));
            let told = as_json(&said.error);
            assert_eq!((said.code(), said.out.as_str(), &told["code"]), (Some(code), "", &json!(code)), "{line}");
            assert!(told["error"].as_str().unwrap().contains(words), "{line}: {told}");
        }
    }
}

/// Its address still takes connections.
#[test]
fn a_frozen_node_is_told_and_that_another_one_may_be_asked() {
    let cluster = Cluster::with_nodes(1);
    let node = cluster.serve(1);
    node.signal(Signal::STOP);
    for command in ["get k", "put k v", "status"] {
        let said = say(&format!("{command} --node {} --timeout 500ms", cluster.clients(1)));
        said.assert_failed(&["no answer in time; name another node by --node ADDRESS:PORT"]);
    }
}

#[test]
fn help_is_there_however_it_is_asked_for() {
    let help = say("cluster join --help").assert_ok().out.clone();
    assert!(help.contains("Examples:\n  quorate cluster join"), "{help}");
    assert_eq!(say("help cluster join").assert_ok().out, help);
    let help = say("help").assert_ok().out.clone();
    assert!(help.contains("Start here: quorate dev") && help.contains("\nExit codes:\n"), "{help}");
    assert_eq!(say("--help").assert_ok().out, help);
}

#[test]
fn a_key_that_is_not_there_is_a_failure_and_null() {
    let cluster = Cluster::with_nodes(1);
    let _node = cluster.serve(1);
    let node = cluster.clients(1);
    let said = say(&format!("get nothing --node {node}"));
    assert_eq!((said.code(), said.out.as_str()), (Some(1), ""));
    assert_eq!(said.error, "error: there is no key nothing: `quorate put nothing VALUE` makes it\n");
    let said = say(&format!("get nothing --node {node} --json"));
    assert_eq!((said.code(), &as_json(&said.error)["code"]), (Some(1), &json!(1)));
    assert_eq!((&as_json(&said.out)["value"], &as_json(&said.out)["values"]), (&Value::Null, &json!([])));
    say(&format!("put something else --node {node} --timeout 500ms")).assert_ok();
    assert_eq!(as_json(&say(&format!("get something --node {node} --json")).assert_ok().out)["value"], "else");

    // A load tells its report in the same way.
    let line = format!("bench --node {node} --keys 10 --operations 20 --warmup 0s --prepare --value-size 10B --json");
    let said = say(&line);
    assert_eq!((&as_json(&said.assert_ok().out)["operations"], said.error.as_str()), (&json!(20), ""));
}

#[test]
fn dev_tells_programs_what_happens() {
    let cluster = Cluster::empty(2);
    let first = cluster.first_address().to_string();
    let arguments = ["dev", "--nodes", "2", "--dir", cluster.directory(), "--address", &first, "--json"];
    let mut dev = Process::start(&mut quorate(&arguments));
    let up = as_json(&dev.read_until("event"));
    assert_eq!((&up["event"], &up["replicas"], &up["temporary"]), (&json!("up"), &json!(2), &json!(false)), "{up}");
    let node = &up["nodes"][1];
    let told = json!([node["id"], node["address"], node["port"], node["core_port"]]);
    assert_eq!(told, json!([2, cluster.clients(2).ip(), 7400, 7401]));
    assert_eq!(node["pid"], json!(cluster.pid(2).unwrap().as_raw_nonzero().get()));
    cluster.kill(2);
    let ended = as_json(&dev.read_until("event"));
    assert_eq!(
        (&ended["event"], &ended["node"], &ended["how"]),
        (&json!("ended"), &json!(2), &json!("died of signal 9"))
    );
    dev.signal(Signal::INT);
    assert_eq!(as_json(&dev.read_until("event")), json!({"event": "stopping"}));
    assert_eq!(dev.wait().code(), Some(0));
}

/// Commands that take three seconds by what they are asked for: a bar is there after one.
fn slow_commands(directory: &TempDir) -> [(&'static str, String); 2] {
    let place = directory.path().display();
    [("simulating ", "sim --minutes 0.05".to_owned()), ("disk ", format!("bench disk '{place}' --duration 1s"))]
}

#[test]
fn on_a_terminal_it_is_told_how_much_is_left() {
    let directory = directory();
    for (doing, line) in slow_commands(&directory) {
        let Some(seen) = on_terminal(&line) else { return };
        let bar = seen.split(['\r', '\n']).find(|drawn| drawn.contains(doing) && drawn.contains(" left"));
        assert!(bar.is_some_and(|bar| bar.contains("about ") || bar.contains("unknown")), "{line}: {seen:?}");
        assert!(!on_terminal(&format!("{line} --quiet")).unwrap().contains(" left"), "{line}");
        as_json(&on_terminal(&format!("{line} --json")).unwrap());
    }
}

#[test]
fn without_a_terminal_no_bar_is_drawn() {
    let directory = directory();
    for (_, line) in slow_commands(&directory) {
        let said = say(&line.replace('\'', ""));
        assert_eq!(said.assert_ok().error, "", "{line}");
    }
}
