//! What a check found, and how it is shown.

use serde::Serialize;

use crate::table::{aligned, count};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// The same words on every machine.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) measured: String,
    pub(super) wanted: String,
    pub(super) why: &'static str,
    /// What to type or to change; nothing when all is well.
    pub(super) fix: Option<String>,
}

/// How well it is, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// A node runs, but not as well as it could.
    Warn,
    /// A node does not run, or loses what it was given.
    Fail,
}

impl Finding {
    /// All is well, unless [`Self::warn_if`] or [`Self::fail_if`] say otherwise.
    pub(super) fn new(
        check: &'static str,
        measured: impl Into<String>,
        wanted: impl Into<String>,
        why: &'static str,
    ) -> Self {
        Self { check, verdict: Verdict::Ok, measured: measured.into(), wanted: wanted.into(), why, fix: None }
    }

    pub(super) fn warn_if(self, wrong: bool, fix: impl Into<String>) -> Self {
        self.judge(wrong, Verdict::Warn, fix)
    }

    pub(super) fn fail_if(self, wrong: bool, fix: impl Into<String>) -> Self {
        self.judge(wrong, Verdict::Fail, fix)
    }

    /// The worst verdict stands.
    fn judge(mut self, wrong: bool, verdict: Verdict, fix: impl Into<String>) -> Self {
        if wrong && verdict > self.verdict {
            (self.verdict, self.fix) = (verdict, Some(fix.into()));
        }
        self
    }
}

/// For people: a line for each, and under what is not well why it matters and what mends it.
pub(super) fn describe(findings: &[Finding]) -> String {
    let mut rows = vec![["", "check", "measured", "wanted"].map(str::to_owned).to_vec()];
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let Finding { check, measured, wanted, why, fix, .. } = finding;
        rows.push(vec![verdict.to_owned(), (*check).to_owned(), measured.clone(), wanted.clone()]);
        if let Some(fix) = fix {
            rows.push(vec![String::new(), format!("  why: {why}")]);
            rows.push(vec![String::new(), format!("  fix: {fix}")]);
        }
    }
    let number = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    let (warnings, failures) = (number(Verdict::Warn), number(Verdict::Fail));
    let checks = count(findings.len() as u64, "check", "checks");
    let summary = format!("{checks}: {}, {failures} failed", count(warnings, "warning", "warnings"));
    format!("{}\n{summary}\n", aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_told_with_why_and_what_mends_it() {
        let finding = |check| Finding::new(check, "2", "1", "of this");
        let findings = [
            finding("a"),
            finding("b").warn_if(true, "mend b").fail_if(false, "never"),
            finding("c").fail_if(true, "mend c").warn_if(true, "never"),
        ];
        let wanted = "      check  measured  wanted\n\
                      ok    a      2         1\n\
                      warn  b      2         1\n\
                      \x20       why: of this\n\
                      \x20       fix: mend b\n\
                      FAIL  c      2         1\n\
                      \x20       why: of this\n\
                      \x20       fix: mend c\n\n\
                      3 checks: 1 warning, 1 failed\n";
        assert_eq!(describe(&findings), wanted);
    }
}
