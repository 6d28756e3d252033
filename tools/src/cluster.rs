//! `quorate cluster`: nodes that join, leave, are removed or replaced; each change is staged, planned, and then committed.
//!
//! The rule: nothing moves before a plan was shown and that very plan was committed. A change is told as done when it is on
//! disk where it was made; what is refused has changed nothing, and says what to do instead.
//!
//! Not here: what a change does (`node/membership/state`), who transfers what (`node/transfer`).

mod join;
mod plan;
pub(crate) mod progress;
mod view;

use std::net::SocketAddr;

use clap::Subcommand;
use serde_json::{Value, json};

use self::view::View;
use crate::{
    failure::{Failure, failed},
    nodes::{Common, number},
};

/// Add nodes to the cluster, take them out, replace them
#[derive(clap::Args)]
#[command(after_help = "\
A change takes three steps: stage it (join, leave, remove, replace), look at what it would move (plan), and do it (commit). \
Several changes can be staged and are then done together.

Examples:
  quorate serve --config node-4.toml                # with `join = true` in [node], on the new machine
  quorate cluster join 127.0.0.4                    # the cluster has heard of it
  quorate cluster plan                              # which partitions move, how much that is, and the plan's id
  quorate cluster commit 3f2a9c0d5e6b7a81 --wait    # does just that
  quorate cluster leave 2                           # a node that works hands over its partitions
  quorate cluster remove 3                          # a node that is gone for good
  quorate cluster replace 3 5                       # node 5, which asks to join, takes the places of node 3
  quorate cluster status --wait")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Show no progress
    #[arg(long, global = true)]
    quiet: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    /// Wait until the cluster knows a node that was started with `join = true`, or say why it does not
    #[command(after_help = "\
Examples:
  quorate cluster join 127.0.0.4                                  # of the cluster that 127.0.0.1 belongs to
  quorate cluster join 10.0.0.4 --node 10.0.0.1 --timeout 60      # waits for a minute")]
    Join {
        /// The new node's ADDRESS or ADDRESS:PORT
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// Stage that a node hands over its partitions and goes
    #[command(after_help = "\
Examples:
  quorate cluster leave 2    # then: quorate cluster plan
  quorate cluster stay 2     # takes it back")]
    Leave {
        /// Its id
        #[arg(value_name = "NODE", value_parser = node_id())]
        id: u16,
    },
    /// Stage that a node stays after all that was to leave or to be removed
    #[command(after_help = "\
Examples:
  quorate cluster stay 2")]
    Stay {
        /// Its id
        #[arg(value_name = "NODE", value_parser = node_id())]
        id: u16,
    },
    /// Stage that a node is given up that is gone for good: nobody waits for it, and it is refused should it come back
    #[command(after_help = "\
Examples:
  quorate cluster remove 3            # then: quorate cluster plan
  quorate cluster remove 3 --force    # although it answers: what only it has is lost")]
    Remove {
        /// Its id
        #[arg(value_name = "NODE", value_parser = node_id())]
        id: u16,
        /// Also if it answers: what only it has is lost
        #[arg(long)]
        force: bool,
    },
    /// Stage that a node which has joined takes the places of another one, which goes
    #[command(after_help = "\
If the old node is gone for good, `quorate cluster remove` it first: else the change waits for what it has to hand over.

Examples:
  quorate cluster replace 3 5    # then: quorate cluster plan")]
    Replace {
        /// The id of the node that goes
        #[arg(value_name = "OLD", value_parser = node_id())]
        old: u16,
        /// The id of the node that takes its places
        #[arg(value_name = "NEW", value_parser = node_id())]
        new: u16,
    },
    /// Show what a commit of all that is staged would do, and the plan's id
    #[command(after_help = "\
Examples:
  quorate cluster plan
  quorate cluster plan --json | jq -r .plan    # the id alone")]
    Plan,
    /// Do what a plan has shown
    #[command(after_help = "\
Examples:
  quorate cluster commit 3f2a9c0d5e6b7a81           # `quorate cluster status` shows how far it is
  quorate cluster commit 3f2a9c0d5e6b7a81 --wait    # until all has moved")]
    Commit {
        /// The plan's id, as `quorate cluster plan` shows it
        #[arg(value_name = "PLAN")]
        plan: String,
        /// Wait until all has moved
        #[arg(long)]
        wait: bool,
    },
    /// Give up the change that is under way; what was staged stays so
    #[command(after_help = "\
Examples:
  quorate cluster abort")]
    Abort,
    /// Let nothing more move until it is resumed
    #[command(after_help = "\
Examples:
  quorate cluster pause     # while the machines have other work
  quorate cluster resume")]
    Pause,
    /// Let the change go on
    #[command(after_help = "\
Examples:
  quorate cluster resume")]
    Resume,
    /// Show how far a change is, and what is staged
    #[command(after_help = "\
Examples:
  quorate cluster status
  quorate cluster status --wait    # until no change is under way")]
    Status {
        /// Wait until no change is under way
        #[arg(long)]
        wait: bool,
    },
}

fn node_id() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (common, shown) = (&args.common, !(args.quiet || args.common.json));
    match &args.command {
        Command::Join { address } => join::run(common, address, shown),
        Command::Leave { id } => {
            stage(common, &["LEAVE", &id.to_string()], &format!("Node {id} is to hand over its partitions and go."))
        }
        Command::Stay { id } => stage(common, &["STAY", &id.to_string()], &format!("Node {id} stays.")),
        Command::Remove { id, force } => remove(common, *id, *force),
        Command::Replace { old, new } => stage(
            common,
            &["REPLACE", &old.to_string(), &new.to_string()],
            &format!("Node {new} is to take the places of node {old}."),
        ),
        Command::Plan => plan::run(common),
        Command::Commit { plan, wait } => commit(common, plan, wait.then_some(shown)),
        Command::Abort => order(
            common,
            &["ABORT"],
            "The change is given up; what was staged stays so: `quorate cluster plan` shows it.",
        ),
        Command::Pause => order(common, &["PAUSE"], "The change is paused: `quorate cluster resume` lets it go on."),
        Command::Resume => order(common, &["RESUME"], "The change goes on: `quorate cluster status` shows it."),
        Command::Status { wait } => progress::run(common, wait.then_some(shown)),
    }
}

/// Has the cluster make a change, and tells that it is made.
fn order(common: &Common, words: &[&str], said: &str) -> Result<(), Failure> {
    let mut client = common.connect()?;
    let answer = View::look(&mut client).order(words)?;
    tell(common, &answer, said);
    Ok(())
}

/// The same of what becomes true only by a commit.
fn stage(common: &Common, words: &[&str], said: &str) -> Result<(), Failure> {
    order(common, words, &format!("{said} {NOTHING_MOVES}"))
}

const NOTHING_MOVES: &str = "Nothing moves yet: `quorate cluster plan` shows what would.";

fn tell(common: &Common, answer: &Value, said: &str) {
    common.print(|| answer.clone(), || format!("{said}\n"));
}

/// What answers should leave, not be removed: others wait for it then, and nothing that only it has is lost.
fn remove(common: &Common, id: u16, force: bool) -> Result<(), Failure> {
    let mut client = common.connect()?;
    let view = View::look(&mut client);
    let answers = |at: SocketAddr| crate::resp::ask(at, &[b"PING"], view::ANSWER_MAX).is_ok();
    let member = view.foremost()?.2["nodes"].as_array().into_iter().flatten().find(|node| {
        number(node, "id") == u64::from(id) && matches!(node["status"].as_str(), Some("member" | "leaving"))
    });
    if !force && member.and_then(view::clients).is_some_and(answers) {
        return Err(failed(format!(
            "node {id} answers, nothing was changed: `quorate cluster leave {id}` has it hand over its partitions first. If it \
             shall go at once all the same, add --force: what only it has is lost"
        )));
    }
    let answer = view.order(&["REMOVE", &id.to_string()])?;
    let said = match member {
        Some(_) => format!("Node {id} is given up: nobody waits for it any more. {NOTHING_MOVES}"),
        None => format!("Node {id} is not let in, and is refused from now on."),
    };
    tell(common, &answer, &said);
    Ok(())
}

/// `wait`: whether the progress is shown meanwhile.
fn commit(common: &Common, plan: &str, wait: Option<bool>) -> Result<(), Failure> {
    let mut client = common.connect()?;
    let answer = View::look(&mut client).order(&["COMMIT", &plan.to_ascii_lowercase()])?;
    let Some(shown) = wait else {
        tell(common, &answer, "The change is under way: `quorate cluster status` shows how far it is.");
        return Ok(());
    };
    let took = progress::wait(&mut client, shown)?;
    tell(common, &json!({"done": true, "seconds": took.as_secs_f64()}), &progress::done(took));
    Ok(())
}

#[cfg(test)]
mod tests;
