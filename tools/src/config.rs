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
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell what keys do, their ranges and defaults, and whether a running node takes them over
    Describe {
        /// One key, such as limits.value, or all of a table, such as limits
        key: Option<String>,
        /// Print JSON: sizes in bytes, times in microseconds
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with a configuration, or what it would run
    Check {
        /// A node's configuration
        file: PathBuf,
    },
    /// Show what holds for every key, and where that comes from
    Effective {
        /// A node's configuration
        file: PathBuf,
        /// Print JSON: sizes in bytes, times in microseconds
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration with all keys, explained, to start from
    Example,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Describe { key, json } => describe::run(key.as_deref(), *json),
        Command::Check { file } => check::run(file),
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
