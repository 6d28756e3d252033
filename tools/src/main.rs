//! The one binary, `quorate`: a module for each command.
//!
//! The rule: a command parses, calls and prints. It exits with 0, with 1 when what was asked for failed, with 2 when it
//! was asked wrongly, and an error says what to do next.
//!
//! Not here: logic that others need, which lives in the crates that the commands call; the command line as a whole, its
//! help and its examples (`command_line`).

mod bench;
mod cluster;
mod command_line;
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

use std::{
    panic,
    process::{self, ExitCode},
};

use command_line::{Command, Parsed};

/// What a shell tells of a program whose reader has gone: 128 and SIGPIPE.
const NOBODY_READS: i32 = 141;

fn main() -> ExitCode {
    end_when_nobody_reads();
    let Parsed { command, json } = match command_line::parse() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let done = match command {
        Command::Dev(args) => dev::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Rehome(args) => rehome::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ring(args) => ring::run(&args),
        Command::Hints(args) => hints::run(&args),
        Command::Tasks(args) => tasks::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Get(args) => data::get(&args),
        Command::Put(args) => data::put(&args),
        Command::Del(args) => data::del(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Help { of } => return command_line::help(&of),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(json),
    }
}

/// Who reads may have seen enough, as in `quorate config describe | head`: that is no bug to tell of.
fn end_when_nobody_reads() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            process::exit(NOBODY_READS);
        }
        tell(panic);
    }));
}
