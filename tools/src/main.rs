//! The one binary, `quorate`: a module for each command.
//!
//! The rule: a command parses, calls and prints. It exits with 0, with 1 when what was asked for failed, with 2 when it
//! was asked wrongly, and an error says what to do next.
//!
//! Not here: logic that others need, which lives in the crates that the commands call.

mod bench;
mod cluster;
mod completions;
mod config;
mod config_file;
mod data;
mod dev;
mod doctor;
mod failure;
mod hints;
mod man;
mod nodes;
mod pid_file;
mod ports;
mod probe;
mod rehome;
mod reload;
mod repair;
mod resp;
mod ring;
mod roots;
mod serve;
mod signals;
mod sim;
mod status;
mod table;
mod tail;
mod tasks;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An always-writable, leaderless key-value store in the line of Amazon's Dynamo.
#[derive(Parser)]
#[command(name = "quorate", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(serve::Args),
    Config(config::Args),
    Rehome(rehome::Args),
    Doctor(doctor::Args),
    Status(status::Args),
    Ring(ring::Args),
    Cluster(cluster::Args),
    Hints(hints::Args),
    Repair(repair::Args),
    Tail(tail::Args),
    Tasks(tasks::Args),
    Top(top::Args),
    Get(data::GetArgs),
    Put(data::PutArgs),
    Del(data::DelArgs),
    Bench(Box<quorate_bench::Args>),
    Sim(sim::Args),
    Completions(completions::Args),
    Man(man::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dev(args) => dev::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Rehome(args) => rehome::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ring(args) => ring::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Hints(args) => hints::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Tasks(args) => tasks::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Get(args) => data::get(&args),
        Command::Put(args) => data::put(&args),
        Command::Del(args) => data::del(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
