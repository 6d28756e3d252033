//! What can be wrong with a configuration, in words that say where and how to put it right.
//!
//! The rule: no message holds a secret. Nothing was started when one of these is seen.

use std::fmt;

/// Why a text is not a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// It is not TOML.
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that has no meaning at this place.
    UnknownKey {
        /// Counted from 1.
        line: usize,
        /// As it stands in the file: `[store]`; empty for the top level.
        section: &'static str,
        /// The key.
        key: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
        /// Another section, in which there is such a key.
        elsewhere: Option<&'static str>,
        /// All keys that have a meaning there.
        known: Vec<&'static str>,
    },
    /// A key without which there is no configuration.
    Missing {
        /// The section's line, counted from 1; 0 if the section is not there either.
        line: usize,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A value that cannot be.
    Bad {
        /// Counted from 1; 0 if it is about a default of a section that is not there.
        line: usize,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, message } => write!(f, "{}{message}", At(*line)),
            Self::UnknownKey { line, section, key, nearest, elsewhere, known } => {
                write!(f, "{}unknown key `{key}`{}", At(*line), In(section))?;
                match (nearest, elsewhere) {
                    (Some(nearest), _) => write!(f, "; did you mean `{nearest}`?"),
                    (None, Some(elsewhere)) => write!(f, "; it belongs in {elsewhere}"),
                    (None, None) => write!(f, "; known are {}", Listed(known)),
                }
            }
            Self::Missing { line, section, key } => write!(f, "{}`{key}` is missing{}", At(*line), In(section)),
            Self::Bad { line, section, key, problem } => write!(f, "{}`{key}`{} {problem}", At(*line), In(section)),
        }
    }
}

impl std::error::Error for ConfigError {}

struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "line {}: ", self.0) }
    }
}

struct In(&'static str);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " in {}", self.0) }
    }
}

struct Listed<'a>(&'a [&'static str]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}`{key}`")?;
        }
        Ok(())
    }
}
