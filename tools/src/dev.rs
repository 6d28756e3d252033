//! `quorate dev`: a local cluster of real `serve` processes.
//!
//! The rule: it starts and it stops, and nothing else. A node that died is not started again, and the others go on
//! without it, so that what happens then can be watched. No node outlives it but those that were started by hand.
//!
//! Not here: where the files lie (`layout`), the processes themselves (`processes`).

mod layout;
mod processes;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use layout::{Layout, Wanted};
use processes::{Ended, Processes};
use quorate_bench::Bar;
use quorate_node::config::Member;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, failed},
    pid_file, ports, resp,
    signals::{self, SIGHUP, SIGINT, SIGTERM},
};

/// A large data directory may take a while to open.
const START_MAX: Duration = Duration::from_secs(60);

/// A node that takes longer is asked again.
const INFO_MAX: Duration = Duration::from_secs(1);

/// How often the nodes are looked at. Nothing waits for this but a person.
const TICK: Duration = Duration::from_millis(50);

/// Start a local cluster of real processes; Ctrl-C stops it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate dev                                      # three nodes of one core, gone with their data at the end
  quorate dev --nodes 5 --cores 2 --dir data       # five, whose data stays in ./data for the next start
  quorate dev --dir data --tune slo.toml --fresh   # anew, with more in each configuration
  quorate dev --json                               # a line when all are up, with addresses and pids, and for each that dies")]
pub(crate) struct Args {
    /// How many nodes, on 127.0.0.1, .2, .3 … [default: 3, or as many as DIR holds]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    /// How many cores each node runs [default: 1, or as many as in DIR]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    cores: Option<u16>,
    /// Where the nodes' files lie; they stay for the next start. Without it: a temporary directory, removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Remove what an earlier `quorate dev` left in DIR first
    #[arg(long, requires = "dir")]
    fresh: bool,
    /// The address of the first node; the others follow it [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// The shared client port; cores and peers are at +1 and +100 [default: 7400]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65000))]
    port_base: Option<u16>,
    /// TOML that every node's configuration gets besides, such as [slo] or [store]
    #[arg(long, value_name = "FILE")]
    tune: Option<PathBuf>,
    /// Print JSON: a line for each event, `up`, `ended` (a node died) or `stopping`
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = signals::stop_flag(&[SIGINT, SIGTERM, SIGHUP])?;
    let temporary = if args.dir.is_none() { Some(temporary_directory()?) } else { None };
    let directory = match (&args.dir, &temporary) {
        (Some(directory), _) => directory.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => unreachable!("without --dir there is a temporary directory"),
    };
    if args.fresh {
        layout::remove(directory)?;
    }
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("--tune {}: {error}", path.display())))
    };
    let wanted = Wanted {
        nodes: args.nodes,
        cores: args.cores,
        address: args.address,
        port_base: args.port_base,
        tune: args.tune.as_ref().map(read).transpose()?,
    };
    let layout = Layout::prepare(directory, &wanted)?;
    for member in layout.members() {
        pid_file::check_not_running(&layout.config(member.id))?;
        ports::check(member)?;
    }
    let mut processes = Processes::start(&layout)?;
    let up = wait_until_up(&layout, &mut processes, &stop, &Bar::new("starting", !(args.quiet || args.json)));
    if matches!(up, Ok(true)) {
        if args.json {
            println!("{}", ready_as_json(&layout, temporary.is_some()));
        } else {
            print_ready(&layout, temporary.is_some());
        }
        watch(&mut processes, &layout, &stop, args.json);
    }
    if args.json {
        println!("{}", json!({"event": "stopping"}));
    } else {
        println!("Stopping …");
    }
    let stopped = processes.stop(&layout);
    if let Some(temporary) = temporary {
        let path = temporary.path().to_owned();
        temporary.close().map_err(|error| failed(format!("cannot remove {}: {error}", path.display())))?;
    }
    up?;
    stopped
}

/// On a real disk if there is one by convention: `/tmp` is often in memory.
fn temporary_directory() -> Result<tempfile::TempDir, Failure> {
    let parent = match std::env::var_os("TMPDIR") {
        Some(directory) => PathBuf::from(directory),
        None if Path::new("/var/tmp").is_dir() => PathBuf::from("/var/tmp"),
        None => std::env::temp_dir(),
    };
    let made = tempfile::Builder::new().prefix("quorate-dev-").tempdir_in(&parent);
    made.map_err(|error| failed(format!("cannot make a directory in {}: {error}; give one by --dir", parent.display())))
}

/// True when all nodes serve and have found each other; false when it was told to stop before that.
fn wait_until_up(layout: &Layout, processes: &mut Processes, stop: &AtomicBool, bar: &Bar) -> Result<bool, Failure> {
    let deadline = Instant::now() + START_MAX;
    let mut silent: Vec<_> =
        layout.members().iter().flat_map(|member| client_addresses(member).map(|at| (member.id, at))).collect();
    let all = silent.len();
    while !stop.load(Ordering::Relaxed) {
        if let Some(Ended { node, how }) = processes.ended().into_iter().next() {
            let log = layout.log(node);
            return Err(failed(format!(
                "node {node} {how} at its start. The end of {}:\n{}",
                log.display(),
                layout::tail(&log)
            )));
        }
        silent.retain(|(_, address)| !is_up(*address));
        let Some((node, address)) = silent.first() else { return Ok(true) };
        if Instant::now() > deadline {
            let log = layout.log(*node);
            return Err(failed(format!(
                "node {node} does not answer at {address} after {} s. The end of {}:\n{}",
                START_MAX.as_secs(),
                log.display(),
                layout::tail(&log)
            )));
        }
        let up = all - silent.len();
        bar.show(up as u64, all as u64, &format!("{up} of {all} listeners answer, node {node} does not yet"));
        thread::sleep(TICK);
    }
    Ok(false)
}

/// Whether the core at `address` serves, has found all its peers, and knows that they are as new where it is new itself: until
/// then it may lack a quorum.
fn is_up(address: SocketAddr) -> bool {
    let answer = resp::ask(address, &[b"INFO", b"quorate"], INFO_MAX);
    answer.is_ok_and(|info| {
        let info = String::from_utf8_lossy(&info);
        ["peers_down:0", "copies_unhealed:0"].into_iter().all(|wanted| info.lines().any(|line| line == wanted))
    })
}

fn client_addresses(member: &Member) -> impl Iterator<Item = SocketAddr> {
    member.listeners().into_iter().filter(|(setting, _)| ["port", "core_port"].contains(setting)).map(|(_, at)| at)
}

fn ready_as_json(layout: &Layout, temporary: bool) -> Value {
    let cluster = layout.cluster();
    let node = |member: &Member| {
        json!({
            "id": member.id.0,
            "address": member.address,
            "port": member.port,
            "cores": member.cores,
            "core_port": member.core_port,
            "peer_port": member.peer_port,
            "http_port": member.http_port,
            "pid": layout.running(member.id).map(|pid| pid.as_raw_nonzero().get()),
            "config": layout.config(member.id),
            "log": layout.log(member.id),
        })
    };
    json!({
        "event": "up",
        "replicas": cluster.replicas,
        "read_quorum": cluster.read_quorum,
        "write_quorum": cluster.write_quorum,
        "directory": layout.directory(),
        "temporary": temporary,
        "nodes": layout.members().iter().map(node).collect::<Vec<_>>(),
    })
}

fn print_ready(layout: &Layout, temporary: bool) {
    let (cluster, members) = (layout.cluster(), layout.members());
    let first = &members[0];
    println!(
        "Quorate: {} of {} up (N={}, R={}, W={}).\n",
        counted(members.len(), "node"),
        counted(first.cores.into(), "core"),
        cluster.replicas,
        cluster.read_quorum,
        cluster.write_quorum
    );
    println!("  node  clients               cores        peers        pid");
    for member in members {
        let range = |first: u16| match member.cores {
            1 => first.to_string(),
            cores => format!("{first}-{}", first + cores - 1),
        };
        let clients = format!("{}:{}", member.address, member.port);
        let pid = layout.running(member.id).map_or(String::new(), |pid| pid.as_raw_nonzero().to_string());
        println!(
            "  {:<4}  {clients:<20}  {:<11}  {:<11}  {pid}",
            member.id.0,
            range(member.core_port),
            range(member.peer_port)
        );
    }
    println!("\nTalk to it:   redis-cli -h {} -p {}", first.address, first.port);
    println!("              quorate put greeting hello --node {}:{}", first.address, first.port);
    let kept = if temporary { "temporary: removed at the end" } else { "kept for the next start" };
    println!("Its files:    {} ({kept})", layout.directory().display());
    println!("Stop it:      Ctrl-C");
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Tells of nodes that died, until it is told to stop.
fn watch(processes: &mut Processes, layout: &Layout, stop: &AtomicBool, as_json: bool) {
    while !stop.load(Ordering::Relaxed) {
        for Ended { node, how } in processes.ended() {
            if as_json {
                println!("{}", json!({"event": "ended", "node": node.0, "how": how, "config": layout.config(node)}));
                continue;
            }
            println!("Node {node} {how}; the others go on. Start it again with:");
            println!("  {} serve --config {}", processes.program().display(), layout.config(node).display());
        }
        thread::sleep(TICK);
    }
}
