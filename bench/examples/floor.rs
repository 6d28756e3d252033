//! Prints what this machine can do with nothing around it: a group commit, a 4 KiB read, a round trip over loopback.
//!
//! `cargo run --release -p quorate-bench --example floor [DIR] [--duration 3s] [--json]`

use std::process::ExitCode;

use clap::Parser;
use quorate_bench::{DiskArgs, floor};

fn main() -> ExitCode {
    match floor(&DiskArgs::parse()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
