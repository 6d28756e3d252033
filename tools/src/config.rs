//! `quorate config`: what may stand in a node's configuration, whether a file is sound, and what holds by it.
//!
//! The rule: all of it is told from the table of keys that the readers themselves go by, so it cannot differ from what a node
//! does. No file is changed.
//!
//! Not here: the table (`node/config/keys`), a running node that reads its file again (`reload`).

mod check;
mod describe;
mod effective;
mod example;

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use quorate_node::config::Value;
use serde_json::json;

use crate::failure::Failure;

/// Explain, check and show configurations
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate config example > quorate.toml       # one with all keys, to start from
  quorate config describe limits.value        # what a key does
  quorate config check quorate.toml           # what is wrong with it, or what it would run
  quorate config effective quorate.toml       # what holds for each key, and where that comes from")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what keys do, their ranges and defaults, and whether a running node takes them over
    #[command(after_help = "\
Examples:
  quorate config describe                           # all keys
  quorate config describe limits                    # those of a table
  quorate config describe store.commit --json       # one of them, for a program")]
    Describe {
        /// One key, such as limits.value, or all of a table, such as limits
        key: Option<String>,
        /// Print JSON: sizes in bytes, times in microseconds
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with a configuration, or what it would run
    #[command(after_help = "\
Examples:
  quorate config check quorate.toml
  quorate config check quorate.toml --json && systemctl reload quorate    # exit code 1 if it is wrong")]
    Check {
        /// A node's configuration
        file: PathBuf,
        /// Print JSON: sizes in bytes
        #[arg(long)]
        json: bool,
    },
    /// Show what holds for every key, and where that comes from
    #[command(after_help = "\
Examples:
  quorate config effective quorate.toml
  quorate config effective quorate.toml --json | jq '.keys[] | select(.from == \"file\")'    # what the file sets")]
    Effective {
        /// A node's configuration
        file: PathBuf,
        /// Print JSON: sizes in bytes, times in microseconds
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration with all keys, explained, to start from
    #[command(after_help = "\
Examples:
  quorate config example > quorate.toml")]
    Example,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Describe { key, json } => describe::run(key.as_deref(), *json),
        Command::Check { file, json } => check::run(file, *json),
        Command::Effective { file, json } => effective::run(file, *json),
        Command::Example => {
            print!("{}", example::text());
            Ok(())
        }
    }
}

/// The bare value.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => json!(text),
        Value::Secret(_) => json!("(redacted)"),
        Value::Boolean(value) => json!(value),
        Value::Integer(value) | Value::Size(value) => json!(value),
        Value::Number(value) => json!(value),
        Value::Time(time) => json!(micros(*time)),
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
