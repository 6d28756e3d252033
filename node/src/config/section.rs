//! Typed, checked reading of TOML tables that remembers lines.
//!
//! The rule: a section is opened with all the keys that have a meaning in it, and anything else in it is an error at
//! once: a misspelt key is told as such, not as a missing one. Reading a key that was not named is a bug, and asserted.
//!
//! Not here: which keys there are.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    error::ConfigError,
    unit::{self, Size, Time},
};

/// A whole TOML text.
pub(super) struct Document<'t> {
    text: &'t str,
    table: Option<DeTable<'t>>,
}

/// One table of a document.
pub(super) struct Section<'t> {
    text: &'t str,
    /// As people see it: `[store]`, empty for the top level.
    title: &'static str,
    /// Where it starts, counted from 1; 0 when it is not there at all.
    line: usize,
    keys: &'static [&'static str],
    table: DeTable<'t>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        Ok(Self { text, table: Some(table.into_inner()) })
    }

    /// The top level. Can be had once.
    pub(super) fn root(&mut self, keys: &'static [&'static str]) -> Result<Section<'t>, ConfigError> {
        let table = self.table.take().expect("the root is opened once");
        Section::open(self.text, "", 1, keys, table)
    }
}

impl<'t> Section<'t> {
    fn open(
        text: &'t str,
        title: &'static str,
        line: usize,
        keys: &'static [&'static str],
        table: DeTable<'t>,
    ) -> Result<Self, ConfigError> {
        let unknown = table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
        // The first in the file, not in the alphabet.
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            return Err(ConfigError::UnknownKey {
                line: line_of(text, key.span().start),
                section: title,
                key: key.get_ref().to_string(),
                nearest: nearest(key.get_ref(), keys),
                known: keys,
            });
        }
        Ok(Self { text, title, line, keys, table })
    }

    /// The table `[key]`; an empty one if it is not there.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        keys: &'static [&'static str],
    ) -> Result<Section<'t>, ConfigError> {
        let Some((line, value)) = self.take(key) else {
            return Section::open(self.text, title(key), 0, keys, DeTable::new());
        };
        match value {
            DeValue::Table(table) => Section::open(self.text, title(key), line, keys, table),
            other => Err(self.bad_at(line, key, format!("must be a table, `{}`, not {}", title(key), kind(&other)))),
        }
    }

    /// All tables `[[key]]`, in the file's order.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        keys: &'static [&'static str],
    ) -> Result<Vec<Section<'t>>, ConfigError> {
        let not_tables = |line, section: &Self, other: &DeValue<'_>| {
            section.bad_at(line, key, format!("must be tables, each under `{}`, not {}", titles(key), kind(other)))
        };
        let Some((line, value)) = self.take(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value else { return Err(not_tables(line, self, &value)) };
        let mut sections = Vec::with_capacity(array.len());
        for element in array {
            let line = line_of(self.text, element.span().start);
            match element.into_inner() {
                DeValue::Table(table) => sections.push(Section::open(self.text, titles(key), line, keys, table)?),
                other => return Err(not_tables(line, self, &other)),
            }
        }
        Ok(sections)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.peek(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(other) => Err(self.bad(key, format!("must be text in quotes, not {}", kind(other)))),
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.peek(key) {
            None => Ok(None),
            Some(DeValue::Boolean(value)) => Ok(Some(*value)),
            Some(other) => Err(self.bad(key, format!("must be true or false, not {}", kind(other)))),
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let value = match self.peek(key) {
            None => return Ok(None),
            Some(DeValue::Integer(integer)) => i128::from_str_radix(integer.as_str(), integer.radix()).ok(),
            Some(other) => return Err(self.bad(key, format!("must be a whole number, not {}", kind(other)))),
        };
        let value = value.and_then(|value| u64::try_from(value).ok());
        match value {
            Some(value) if range.contains(&value) => Ok(Some(value)),
            _ => Err(self.out_of_range(key, &range.start(), &range.end())),
        }
    }

    /// A number with or without a fraction.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Result<Option<f64>, ConfigError> {
        let value = match self.peek(key) {
            None => return Ok(None),
            Some(DeValue::Integer(integer)) if integer.radix() == 10 => integer.as_str().parse::<f64>().ok(),
            Some(DeValue::Float(float)) => float.as_str().parse::<f64>().ok(),
            Some(other) => return Err(self.bad(key, format!("must be a number, not {}", kind(other)))),
        };
        match value {
            Some(value) if range.contains(&value) => Ok(Some(value)),
            _ => Err(self.out_of_range(key, &range.start(), &range.end())),
        }
    }

    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.with_unit(key, "64MiB")? else { return Ok(None) };
        let bytes = unit::size(&text).map_err(|problem| self.bad(key, problem))?;
        if range.contains(&bytes) {
            return Ok(Some(bytes));
        }
        Err(self.out_of_range(key, &Size(*range.start()), &Size(*range.end())))
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.with_unit(key, "5ms")? else { return Ok(None) };
        let duration = unit::duration(&text).map_err(|problem| self.bad(key, problem))?;
        if range.contains(&duration) {
            return Ok(Some(duration));
        }
        Err(self.out_of_range(key, &Time(*range.start()), &Time(*range.end())))
    }

    /// The error that the value at `key` is wrong in the way that `problem` says, which goes on after the key's name.
    pub(super) fn bad(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        self.bad_at(self.line_of_key(key), key, problem)
    }

    /// The error that `key` had to be given.
    pub(super) fn missing(&self, key: &'static str) -> ConfigError {
        ConfigError::Missing { line: self.line, section: self.title, key }
    }

    fn with_unit(&mut self, key: &'static str, example: &str) -> Result<Option<String>, ConfigError> {
        match self.peek(key) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(DeValue::Integer(number)) => {
                Err(self
                    .bad(key, format!("needs a unit and quotes, such as \"{example}\"; got the bare number {number}")))
            }
            Some(other) => Err(self.bad(key, format!("must be text such as \"{example}\", not {}", kind(other)))),
        }
    }

    fn out_of_range(&self, key: &'static str, start: &dyn Display, end: &dyn Display) -> ConfigError {
        self.bad(key, format!("must be from {start} to {end}"))
    }

    fn bad_at(&self, line: usize, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Bad { line, section: self.title, key, problem: problem.into() }
    }

    fn peek(&self, key: &'static str) -> Option<&DeValue<'t>> {
        assert!(self.keys.contains(&key), "`{key}` is read in `{}` but not declared", self.title);
        self.table.get(key).map(|value| value.get_ref())
    }

    fn take(&mut self, key: &'static str) -> Option<(usize, DeValue<'t>)> {
        assert!(self.keys.contains(&key), "`{key}` is read in `{}` but not declared", self.title);
        let (_, value) = self.table.remove_entry(key)?;
        Some((line_of(self.text, value.span().start), value.into_inner()))
    }

    fn line_of_key(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.line, |(key, _)| line_of(self.text, key.span().start))
    }
}

/// How a table is written in the file.
fn title(key: &str) -> &'static str {
    match key {
        "node" => "[node]",
        "cluster" => "[cluster]",
        "limits" => "[limits]",
        "slo" => "[slo]",
        "store" => "[store]",
        _ => unreachable!("`{key}` is no table"),
    }
}

/// How one of several tables is written in the file.
fn titles(key: &str) -> &'static str {
    match key {
        "node" => "[[cluster.node]]",
        "core" => "[[core]]",
        _ => unreachable!("`{key}` is no list of tables"),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// The known key that is at most a third of its letters away.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let (distance, nearest) = known.iter().map(|candidate| (edits(key, candidate), *candidate)).min()?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}

/// How many letters must be put in, taken out, replaced or swapped with their neighbour to make `a` of `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
