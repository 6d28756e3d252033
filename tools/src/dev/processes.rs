//! The `serve` processes of a local cluster.
//!
//! The rule: a process is signalled only while it is surely a node of this cluster: a child that was not waited for, or
//! one whose command line says so.

use std::{
    fs::OpenOptions,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use quorate_net::id::NodeId;
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::layout::Layout;
use crate::failure::{Failure, failed};

/// A clean stop writes what is in memory and a checkpoint.
const STOP_MAX: Duration = Duration::from_secs(20);

const TICK: Duration = Duration::from_millis(20);

/// All nodes that this process started.
pub(super) struct Processes {
    program: PathBuf,
    children: Vec<(NodeId, Option<Child>)>,
}

/// A child that has ended.
pub(super) struct Ended {
    pub(super) node: NodeId,
    /// In words that go on after "node I".
    pub(super) how: String,
}

impl Processes {
    /// Starts every node of the layout. Must be called by a thread that lives as long as they shall: they stop with it.
    pub(super) fn start(layout: &Layout) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|error| failed(format!("cannot find the running program: {error}")))?;
        let mut processes = Self { program, children: Vec::new() };
        for member in layout.members() {
            match start(&processes.program, layout, member.id) {
                Ok(child) => processes.children.push((member.id, Some(child))),
                Err(error) => {
                    let _ = processes.stop(layout);
                    return Err(failed(format!("cannot start node {}: {error}", member.id)));
                }
            }
        }
        Ok(processes)
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The children that ended since the last call.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (node, slot) in &mut self.children {
            if let Some(child) = slot
                && let Ok(Some(status)) = child.try_wait()
            {
                *slot = None;
                ended.push(Ended { node: *node, how: describe(status) });
            }
        }
        ended
    }

    /// Stops all that still runs, also what was started by hand; kills what does not stop in time.
    pub(super) fn stop(&mut self, layout: &Layout) -> Result<(), Failure> {
        let deadline = Instant::now() + STOP_MAX;
        let mut told = Vec::new();
        let mut killed = Vec::new();
        loop {
            self.ended();
            // Asked anew each time: one that was just started by hand may write its file only now.
            let running = self.running(layout);
            if running.is_empty() {
                break;
            }
            for (node, pid) in running {
                if !told.contains(&pid) {
                    told.push(pid);
                    let _ = kill_process(pid, Signal::TERM);
                } else if Instant::now() > deadline && !killed.contains(&(node, pid)) {
                    killed.push((node, pid));
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            thread::sleep(TICK);
        }
        if killed.is_empty() {
            return Ok(());
        }
        let nodes: Vec<String> = killed.iter().map(|(node, _)| node.to_string()).collect();
        Err(failed(format!(
            "node {} did not stop within {} s and was killed; nothing that was acknowledged as durable is lost",
            nodes.join(", "),
            STOP_MAX.as_secs()
        )))
    }

    fn running(&self, layout: &Layout) -> Vec<(NodeId, Pid)> {
        let by_hand = self.children.iter().filter_map(|(node, _)| Some((*node, layout.running(*node)?)));
        let own = self.children.iter().filter_map(|(node, child)| {
            let child = child.as_ref()?;
            Some((*node, Pid::from_raw(i32::try_from(child.id()).ok()?)?))
        });
        let mut running: Vec<(NodeId, Pid)> = by_hand.chain(own).collect();
        running.sort_by_key(|(node, pid)| (*node, pid.as_raw_nonzero()));
        running.dedup();
        running
    }
}

fn start(program: &Path, layout: &Layout, node: NodeId) -> std::io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(layout.log(node))?;
    Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(layout.config(node))
        .arg("--stop-with-parent")
        .arg(getpid().as_raw_nonzero().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal reaches `dev` alone, which then stops them in its way.
        .process_group(0)
        .spawn()
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("died of signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}
