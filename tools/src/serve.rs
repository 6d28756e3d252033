//! `quorate serve`: one node.
//!
//! The rule: what can be known to be wrong is told before the node's data is touched.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use quorate_node::server::{self, Stage};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use sd_notify::NotifyState;

use crate::{
    config_file,
    failure::{Failure, failed},
    pid_file::PidFile,
    ports, probe,
    reload::Reload,
    signals::{self, SIGINT, SIGTERM},
};

/// Run one node until SIGTERM or Ctrl-C; SIGHUP has it read its configuration again
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate config example > quorate.toml                   # to start from: give it an id, a secret, the nodes' addresses
  quorate serve --config quorate.toml                     # in the foreground; its log goes to the standard error
  quorate serve --config quorate.toml --overprovisioned   # beside other programs, on a machine that is not its own")]
pub(crate) struct Args {
    /// The node's configuration (TOML); `quorate config example` explains it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Other processes share the CPUs: pin no core and let none poll, whatever the configuration says
    #[arg(long)]
    overprovisioned: bool,
    /// Stop when the process that started this one is gone, which has this id
    #[arg(long, value_name = "PID", hide = true)]
    stop_with_parent: Option<i32>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    signals::survive_file_size_limit()?;
    // It ends at once after the second signal, which loses nothing that was acknowledged.
    let stop = signals::stop_flag(&[SIGTERM, SIGINT])?;
    if let Some(parent) = args.stop_with_parent {
        stop_with(parent)?;
    }
    let (mut config, settings) = config_file::read(&args.config)?;
    if args.overprovisioned {
        config = config.overprovisioned();
    }
    let mut reload = Reload::new(args.config.clone(), config.clone(), settings)?;
    let _pid_file = PidFile::claim(&args.config)?;
    probe::check(&config.cores).map_err(|problem| failed(problem.to_string()))?;
    ports::check(config.member())?;
    let member = config.member();
    let (node, address, port) = (member.id, member.address, member.port);
    let tell = |stage| match stage {
        Stage::Serves => {
            tell_manager(NotifyState::Ready);
            // Nobody may be listening, which must not stop a node.
            drop(writeln!(io::stdout(), "node {node} serves clients at {address}:{port}"));
        }
        Stage::Stops => tell_manager(NotifyState::Stopping),
    };
    server::run(config, &stop, tell, || reload.poll()).map_err(|error| failed(error.to_string()))
}

/// Tells the service manager, if one started this node and wants to know.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        drop(writeln!(io::stderr(), "cannot tell the service manager: {error}"));
    }
}

fn stop_with(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| failed(format!("cannot watch process {parent}: {error}")))?;
    // It may have gone before the kernel was asked to watch it.
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(failed(format!("process {parent}, which started this node, is gone")))
    }
}
