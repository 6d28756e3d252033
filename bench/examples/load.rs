//! `quorate bench` alone, for machines that only drive load: it builds without the server.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use quorate_bench::{Args, Error};

fn main() -> ExitCode {
    match quorate_bench::run(&Args::parse(), &Arc::default()) {
        Ok(outcome) => {
            print!("{outcome}");
            if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}
