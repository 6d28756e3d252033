//! The value of a key, and how it is written.

use std::{borrow::Cow, fmt, time::Duration};

use super::{
    keys::Kind,
    secret::Secret,
    unit::{Size, Time},
};

/// The value of a key. It is shown as TOML writes it; a secret is not.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// Text that is not shown.
    Secret(Secret),
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(u64),
    /// A number that may have a fraction.
    Number(f64),
    /// Bytes.
    Size(u64),
    /// Time.
    Time(Duration),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // JSON's strings are TOML's, too.
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(&**text)),
            Self::Secret(_) => write!(f, "\"(redacted)\""),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value:?}"),
            Self::Size(bytes) => write!(f, "\"{}\"", Size(*bytes)),
            Self::Time(time) => write!(f, "\"{}\"", Time(*time)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(form) => write!(f, "{form}"),
            Self::Secret(length) => write!(f, "{} to {} characters", length.start(), length.end()),
            Self::Choice(choices) => {
                let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
                write!(f, "{}", quoted.join(" or "))
            }
            Self::Boolean => write!(f, "true or false"),
            Self::Integer(range) => write!(f, "{} to {}", range.start(), range.end()),
            Self::Number(range) => write!(f, "{} to {}", range.start(), range.end()),
            Self::Size(range) => write!(f, "{} to {}", Size(*range.start()), Size(*range.end())),
            Self::Time(range) => write!(f, "{} to {}", Time(*range.start()), Time(*range.end())),
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A value as what it is read as; another one comes back.
macro_rules! read_as {
    ($($type:ty: $pattern:pat => $read:expr,)*) => {$(
        impl TryFrom<Value> for $type {
            type Error = Value;

            fn try_from(value: Value) -> Result<Self, Value> {
                match value {
                    $pattern => Ok($read),
                    other => Err(other),
                }
            }
        }
    )*};
}

read_as! {
    String: Value::Text(text) => text.into_owned(),
    Secret: Value::Secret(secret) => secret,
    bool: Value::Boolean(value) => value,
    f64: Value::Number(value) => value,
    Duration: Value::Time(time) => time,
    u8: Value::Integer(value) => u8::try_from(value).expect(FITS),
    u16: Value::Integer(value) => u16::try_from(value).expect(FITS),
    u32: Value::Integer(value) | Value::Size(value) => u32::try_from(value).expect(FITS),
    u64: Value::Integer(value) | Value::Size(value) => value,
    usize: Value::Integer(value) | Value::Size(value) => usize::try_from(value).expect(FITS),
}

const FITS: &str = "the range of the key fits what it is read as";
