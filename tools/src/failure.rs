//! Why a command did not do what it was asked for.

use std::{fmt, process::ExitCode};

/// What the person reads, and what a script sees.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for failed: exit code 1.
    Failed(String),
    /// It was asked wrongly: exit code 2.
    Usage(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        })
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
