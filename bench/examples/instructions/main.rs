//! How many instructions the hot paths take, beside what they took when the baselines were written. Times are noisy and
//! instructions are not, so this finds in CI what a clock would not.
//!
//! `cargo run --release -p quorate-bench --example instructions [-- --renew]`; wants valgrind.
//!
//! The rule: callgrind counts a whole process, so each path runs twice, with few and with many operations; the difference is
//! the operations' alone, without what was made for them.
//!
//! Not here: what is counted (`paths`), what it may be (`baselines`), times (`benches/`).

#[cfg(test)]
mod allocations;
mod baselines;
mod cluster;
mod paths;

use std::{
    env,
    process::{Command, ExitCode},
};

use baselines::Baselines;
use clap::Parser;
use paths::{PATHS, Path};

/// Counts the instructions of the hot paths, and compares with `bench/instructions.txt`.
#[derive(Parser)]
struct Args {
    /// Only these paths.
    paths: Vec<String>,
    /// Write what is counted as the new baselines.
    #[arg(long, conflicts_with = "paths")]
    renew: bool,
    /// So many percent more fail.
    #[arg(long, default_value_t = 5.0)]
    tolerance: f64,
    /// Do so many operations of one path, to be counted.
    #[arg(long, hide = true)]
    operations: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let unknown = args.paths.iter().find(|name| !PATHS.iter().any(|path| path.name == **name));
    if let Some(name) = unknown {
        let known: Vec<&str> = PATHS.iter().map(|path| path.name).collect();
        eprintln!("error: there is no path '{name}'; there are: {}", known.join(" "));
        return ExitCode::from(2);
    }
    let chosen = PATHS.iter().filter(|path| args.paths.is_empty() || args.paths.iter().any(|name| name == path.name));
    if let Some(operations) = args.operations {
        chosen.for_each(|path| (path.run)(operations));
        return ExitCode::SUCCESS;
    }
    let counted = chosen.map(|path| Ok((path.name, path.what, count(path)?)));
    match counted.collect::<Result<Vec<_>, String>>().and_then(|counted| judge(&args, &counted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn judge(args: &Args, counted: &[(&str, &str, u64)]) -> Result<(), String> {
    if args.renew {
        return Baselines::of(counted).write();
    }
    let (text, verdict) = Baselines::read()?.compare(counted, args.tolerance);
    print!("{text}");
    verdict
}

/// Instructions of one operation.
fn count(path: &Path) -> Result<u64, String> {
    let (few, many) = path.operations;
    let (least, most) = (count_process(path.name, few)?, count_process(path.name, many)?);
    let between = most.checked_sub(least).ok_or_else(|| format!("{}: more operations took less", path.name))?;
    Ok((between + (many - few) / 2) / (many - few))
}

fn count_process(path: &str, operations: u64) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, "--operations", &operations.to_string()])
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}; apt-get install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match total {
        Some(total) if output.status.success() => Ok(total),
        _ => Err(format!("{path} failed under valgrind ({}):\n{said}", output.status)),
    }
}
