//! The baselines that are checked in, and what is said of what was counted.
//!
//! The rule: more than a baseline and the tolerance fails, less than that is told: both mean that it must be renewed.

use std::{env, fmt::Write, fs, process::Command};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
const RENEW: &str = "cargo run --release -p quorate-bench --example instructions -- --renew";

pub(crate) struct Baselines {
    /// What they were counted with.
    by: String,
    /// By name.
    instructions: Vec<(String, u64)>,
}

impl Baselines {
    pub(crate) fn of(counted: &[(&str, &str, u64)]) -> Self {
        let instructions = counted.iter().map(|&(name, _, count)| (name.to_owned(), count)).collect();
        Self { by: compiler(), instructions }
    }

    pub(crate) fn read() -> Result<Self, String> {
        let text =
            fs::read_to_string(FILE).map_err(|error| format!("cannot read {FILE}: {error}; make it: {RENEW}"))?;
        Self::parse(&text).ok_or_else(|| format!("{FILE} is not what it should be; make it anew: {RENEW}"))
    }

    pub(crate) fn write(&self) -> Result<(), String> {
        fs::write(FILE, self.print()).map_err(|error| format!("cannot write {FILE}: {error}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let by = text.lines().find_map(|line| line.strip_prefix("by "))?.to_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("by "));
        let pair = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        Some(Self { by, instructions: lines.map(pair).collect::<Option<_>>()? })
    }

    fn print(&self) -> String {
        let mut text = format!(
            "# Instructions of one operation of each hot path, as callgrind counts them. Renew them by\n# {RENEW}\n"
        );
        let _ = writeln!(text, "by {}", self.by);
        for (name, count) in &self.instructions {
            let _ = writeln!(text, "{name:<16}{count:>8}");
        }
        text
    }

    /// A table, and an error if something takes more than it may.
    pub(crate) fn compare(&self, counted: &[(&str, &str, u64)], tolerance: f64) -> (String, Result<(), String>) {
        let mut table = format!("{:<16}{:>9}{:>10}{:>9}   instructions of\n", "", "baseline", "now", "");
        let (mut worse, mut better) = (Vec::new(), Vec::new());
        for &(name, what, now) in counted {
            let Some((_, before)) = self.instructions.iter().find(|(known, _)| known == name) else {
                let _ = writeln!(table, "{name:<16}{:>9}{now:>10}{:>9}   {what}", "none", "");
                worse.push(name);
                continue;
            };
            let percent = (now as f64 / *before as f64 - 1.0) * 100.0;
            let _ = writeln!(table, "{name:<16}{before:>9}{now:>10}{percent:>+8.1}%   {what}");
            if percent > tolerance {
                worse.push(name);
            } else if percent < -tolerance {
                better.push(name);
            }
        }
        if !better.is_empty() {
            let _ = writeln!(table, "{} got better: keep it by\n  {RENEW}", better.join(", "));
        }
        if worse.is_empty() {
            return (table, Ok(()));
        }
        let mut text = format!("more instructions than the baseline allows (+{tolerance} %): {}", worse.join(", "));
        if self.by != compiler() {
            let _ = write!(text, "\nThe baselines are by {}, this is {}: that may be all.", self.by, compiler());
        }
        let _ = write!(text, "\nIf it is meant, renew the baselines, and say in the commit what they buy:\n  {RENEW}");
        (table, Err(text))
    }
}

/// Another compiler makes other instructions of the same program.
fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let version = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{version}, {}", env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_were_written() {
        let printed = Baselines::of(&[("a", "an a", 5), ("long-name", "b", 123_456)]).print();
        assert_eq!(Baselines::parse(&printed).unwrap().print(), printed);
        for text in ["", "by me\na", "by me\na b"] {
            assert!(Baselines::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn more_than_the_tolerance_fails_and_says_what_to_do() {
        let baselines = Baselines::of(&[("a", "", 1000), ("b", "", 1000)]);
        let compare = |a, b| baselines.compare(&[("a", "an a", a), ("b", "a b", b)], 5.0);
        assert_eq!(compare(1049, 960).1, Ok(()));
        let (table, verdict) = compare(1060, 900);
        let text = verdict.unwrap_err();
        assert!(text.contains("(+5 %): a\n") && text.contains("--renew"), "{text}");
        assert!(table.contains("+6.0%   an a") && table.contains("b got better"), "{table}");
        // What has no baseline would never fail.
        assert!(baselines.compare(&[("c", "", 1)], 5.0).1.is_err());
    }
}
