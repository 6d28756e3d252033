//! The command line as a whole: its commands in groups, what is told below them, and how it is read.
//!
//! The rule: each command has examples, which are parsed by a test; each that shows or does something has `--json`, with which
//! nothing but JSON is on the standard output.
//!
//! Not here: the options of a command, which stand with it.

use std::{env, ffi::OsString, iter::once, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    cluster, completions, config, data, dev, doctor, failure::Failure, hints, man, rehome, repair, ring, serve, sim,
    status, tail, tasks, top,
};

/// An always-writable, leaderless key-value store in the line of Amazon's Dynamo.
#[derive(Parser)]
#[command(name = "quorate", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Dev(dev::Args),
    Serve(serve::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Rehome(rehome::Args),
    Status(status::Args),
    Ring(ring::Args),
    Hints(hints::Args),
    Tasks(tasks::Args),
    Tail(tail::Args),
    Top(top::Args),
    Cluster(cluster::Args),
    Repair(repair::Args),
    Get(data::GetArgs),
    Put(data::PutArgs),
    Del(data::DelArgs),
    Bench(Box<quorate_bench::Args>),
    Sim(sim::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// Show the help of a command
    #[command(hide = true)]
    Help {
        /// The command, such as `cluster join`
        #[arg(value_name = "COMMAND")]
        of: Vec<OsString>,
    },
}

/// The commands by what somebody wants, in the order of the help.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start nodes", &["dev", "serve", "config", "doctor", "rehome"]),
    ("Look at a cluster", &["status", "ring", "hints", "tasks", "tail", "top"]),
    ("Change a cluster", &["cluster", "repair"]),
    ("Read and write keys", &["get", "put", "del"]),
    ("Measure and test", &["bench", "sim"]),
    ("Complete the installation", &["completions", "man"]),
];

const EXAMPLES: &str = "\
Examples:
  quorate dev                   # three nodes on this machine, until Ctrl-C
  quorate put greeting hello    # from another terminal
  quorate get greeting
  quorate status                # every node, and what is wrong
  quorate help cluster          # more of one command";

const CONVENTIONS: &str = "\
Exit codes:
  0      It is done, and what was asked for holds.
  1      It failed, or does not hold: no such key (get), replicas that differ (repair --check), a check that failed (doctor),
         a broken property (sim), a lost write (bench --verify). Also when it was interrupted.
  2      It was asked wrongly: nothing was done.
  128+N  It was ended by signal N at once: by a second Ctrl-C, for example.

With --json the standard output is one JSON document (of `dev`, which runs on, one for each event), and an error is
{\"error\": TEXT, \"code\": EXIT CODE} on the standard error. What takes its time shows how much is left, on the standard error, if
that is a terminal; not with --json or --quiet. Colours are for terminals, too, and not where NO_COLOR is set.";

/// What was asked for.
pub(crate) struct Parsed {
    pub(crate) command: Command,
    /// Whether errors are told as JSON.
    pub(crate) json: bool,
}

/// The whole command line.
pub(crate) fn command_line() -> clap::Command {
    let command = Cli::command().after_help(EXAMPLES).after_long_help(format!("{EXAMPLES}\n\n{CONVENTIONS}"));
    let (heading, literal) = (*command.get_styles().get_header(), *command.get_styles().get_literal());
    let width = command.get_subcommands().map(|command| command.get_name().len()).max().unwrap_or(0);
    let mut groups = String::new();
    for (title, names) in GROUPS {
        groups += &format!("{heading}{title}:{heading:#}\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).cloned().unwrap_or_default();
            groups += &format!("  {literal}{name}{literal:#}{:1$}  {about}\n", "", width - name.len());
        }
        groups.push('\n');
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\nStart here: quorate dev\n\n\
         {groups}{heading}Options:{heading:#}\n{{options}}{{after-help}}"
    ))
}

/// Reads the command line. What does not end in a command has been told: an error, a help, the version.
pub(crate) fn parse() -> Result<Parsed, ExitCode> {
    let json = wants_json(env::args_os());
    let parsed = command_line().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(Cli { command }) => Ok(Parsed { command, json }),
        Err(error) => Err(tell(&error, json)),
    }
}

/// `quorate help COMMAND` is `quorate COMMAND --help`.
pub(crate) fn help(of: &[OsString]) -> ExitCode {
    let words = once("quorate".into()).chain(of.iter().cloned()).chain(once("--help".into()));
    command_line().try_get_matches_from(words).err().map_or(ExitCode::SUCCESS, |error| tell(&error, false))
}

/// Known without parsing, as it counts for what cannot be parsed.
fn wants_json(words: impl Iterator<Item = OsString>) -> bool {
    words.take_while(|word| word != "--").any(|word| word == "--json")
}

fn tell(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let text = error.to_string();
        return Failure::Usage(text.trim_start_matches("error: ").trim_end().to_owned()).tell(true);
    }
    // Nobody may be listening.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

#[cfg(test)]
mod tests;
