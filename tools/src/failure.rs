//! Why a command did not do what it was asked for.
//!
//! The rule: the text says what to do next. With `--json` it is told as `{"error": text, "code": exit code}`, on the standard
//! error as well, so that on the standard output is the result and nothing else.

use std::{fmt, process::ExitCode};

use serde_json::json;

/// What the person reads, and what a script sees.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for failed: exit code 1.
    Failed(String),
    /// It was asked wrongly: exit code 2.
    Usage(String),
}

impl Failure {
    /// Tells it, and with what the program is to end.
    pub(crate) fn tell(&self, as_json: bool) -> ExitCode {
        let code: u8 = match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        };
        if as_json {
            eprintln!("{}", json!({"error": self.to_string(), "code": code}));
        } else {
            eprintln!("error: {self}");
        }
        ExitCode::from(code)
    }
}

/// That something failed, in words that go on after "error: ".
pub(crate) fn failed(message: impl Into<String>) -> Failure {
    Failure::Failed(message.into())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Usage(message) => write!(f, "{message}"),
        }
    }
}
