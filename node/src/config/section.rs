//! Typed, checked reading of TOML tables that remembers lines, and what was read.
//!
//! The rule: a section is opened with all the keys that have a meaning in it, and anything else in it is an error at
//! once: a misspelt key is told as such, not as a missing one. Ranges and defaults are those of the table of keys; reading what
//! is not in it is a bug, and asserted.
//!
//! Not here: which keys there are (`keys`).

use std::{cell::RefCell, rc::Rc};

use toml::de::{DeTable, DeValue};

use super::{
    error::ConfigError,
    keys::{self, Fallback, Key, Kind, TABLES, Table},
    nearest::nearest,
    secret::Secret,
    setting::{Setting, Source},
    unit,
    value::Value,
};

/// A whole TOML text.
pub(super) struct Document<'t> {
    text: &'t str,
    table: Option<DeTable<'t>>,
    settings: Rc<RefCell<Vec<Setting>>>,
}

/// One table of a document.
pub(super) struct Section<'t> {
    text: &'t str,
    /// What it may hold; the top level holds but tables.
    scope: Option<&'static Table>,
    /// Of several tables, the `id` of this one, once it was read.
    number: Option<u64>,
    /// Where it starts, counted from 1; 0 when it is not there at all.
    line: usize,
    table: DeTable<'t>,
    /// Keys whose values may be at most this, as others say.
    narrowed: Vec<(&'static str, u64)>,
    /// What was read in all sections.
    settings: Rc<RefCell<Vec<Setting>>>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        Ok(Self { text, table: Some(table.into_inner()), settings: Rc::default() })
    }

    /// The top level. Can be had once.
    pub(super) fn root(&mut self) -> Result<Section<'t>, ConfigError> {
        let table = self.table.take().expect("the root is opened once");
        Section::open(self.text, None, 1, table, self.settings.clone())
    }

    /// What was read, in the order of the table of keys.
    pub(super) fn settings(self) -> Vec<Setting> {
        let mut settings = self.settings.take();
        settings.sort_by_key(Setting::place);
        settings
    }
}

impl<'t> Section<'t> {
    fn open(
        text: &'t str,
        scope: Option<&'static Table>,
        line: usize,
        table: DeTable<'t>,
        settings: Rc<RefCell<Vec<Setting>>>,
    ) -> Result<Self, ConfigError> {
        let known = known(scope);
        let unknown = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        // The first in the file, not in the alphabet.
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            return Err(ConfigError::UnknownKey {
                line: line_of(text, key.span().start),
                section: title(scope),
                key: key.get_ref().to_string(),
                nearest: nearest(key.get_ref(), known.iter().copied()),
                elsewhere: TABLES.iter().find(|table| table.key(key.get_ref()).is_some()).map(|table| table.title),
                known,
            });
        }
        Ok(Self { text, scope, number: None, line, table, narrowed: Vec::new(), settings })
    }

    /// The table `[key]`; an empty one if it is not there.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        let (scope, settings) = (self.inner(key), self.settings.clone());
        let Some((line, value)) = self.take(key) else {
            return Self::open(self.text, Some(scope), 0, DeTable::new(), settings);
        };
        match value {
            DeValue::Table(table) => Self::open(self.text, Some(scope), line, table, settings),
            other => {
                Err(self.bad_at(line, key, format!("must be a table, `{}`, not {}", scope.title, kind_of(&other))))
            }
        }
    }

    /// All tables `[[key]]`, in the file's order.
    pub(super) fn tables(&mut self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        let scope = self.inner(key);
        let not_tables = |line, section: &Self, other: &DeValue<'_>| {
            let problem = format!("must be tables, each under `{}`, not {}", scope.title, kind_of(other));
            section.bad_at(line, key, problem)
        };
        let Some((line, value)) = self.take(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value else { return Err(not_tables(line, self, &value)) };
        let mut sections = Vec::with_capacity(array.len());
        for element in array {
            let line = line_of(self.text, element.span().start);
            match element.into_inner() {
                DeValue::Table(table) => {
                    sections.push(Self::open(self.text, Some(scope), line, table, self.settings.clone())?);
                }
                other => return Err(not_tables(line, self, &other)),
            }
        }
        Ok(sections)
    }

    /// One table `[[key]]` that is not in the file.
    pub(super) fn absent(&self, key: &'static str) -> Self {
        let opened = Self::open(self.text, Some(self.inner(key)), 0, DeTable::new(), self.settings.clone());
        opened.expect("an empty table holds nothing that is not known")
    }

    /// What holds for a key: what is given, or else the default.
    pub(super) fn read<T: TryFrom<Value, Error = Value>>(&mut self, name: &'static str) -> Result<T, ConfigError> {
        let value = self.read_option(name, None)?;
        Ok(value.unwrap_or_else(|| panic!("`{name}` has no default, and is read as if it had")))
    }

    /// The same, where the default follows from other keys.
    pub(super) fn read_or<T>(&mut self, name: &'static str, otherwise: impl Into<Value>) -> Result<T, ConfigError>
    where
        T: TryFrom<Value, Error = Value>,
    {
        Ok(self.read_option(name, Some(otherwise.into()))?.expect("it is this otherwise"))
    }

    /// The same, where nothing may hold.
    pub(super) fn read_option<T>(
        &mut self,
        name: &'static str,
        otherwise: Option<Value>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: TryFrom<Value, Error = Value>,
    {
        let (table, key) = self.key(name);
        let given = self.given_value(name, key)?;
        let source = if given.is_some() { Source::File(self.line_of_key(name)) } else { Source::Default };
        let value = match (given.or(otherwise), &key.fallback) {
            (Some(value), _) => Some(value),
            (None, Fallback::Is(value)) => Some(value.clone()),
            (None, Fallback::Else(..)) => None,
            (None, Fallback::Required(_)) => return Err(self.missing(name)),
        };
        if let (true, "id", Some(Value::Integer(id))) = (table.is_repeated(), name, &value) {
            self.number = Some(*id);
        }
        self.settings.borrow_mut().push(Setting { table, number: self.number, key, value: value.clone(), source });
        Ok(value.map(|value| read_as(name, value)))
    }

    /// What is given, if it is.
    pub(super) fn given<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: TryFrom<Value, Error = Value>,
    {
        let value = self.given_value(name, self.key(name).1)?;
        Ok(value.map(|value| read_as(name, value)))
    }

    /// Whole numbers for this key may be at most `max`, since others say so.
    pub(super) fn narrow(&mut self, name: &'static str, max: u64) {
        self.narrowed.push((name, max));
    }

    /// What was read for a key does not hold, but this, since `why` says so.
    pub(super) fn overrule(&mut self, name: &'static str, value: Option<Value>, why: &'static str) {
        let (table, key) = self.key(name);
        let mut settings = self.settings.borrow_mut();
        let read = settings.iter_mut().rfind(|setting| {
            (setting.table.title, setting.number, setting.key.name) == (table.title, self.number, key.name)
        });
        let setting = read.unwrap_or_else(|| panic!("`{name}` is overruled before it is read"));
        if setting.value != value {
            (setting.value, setting.source) = (value, Source::Overruled(why));
        }
    }

    /// The error that the value at `key` is wrong in the way that `problem` says, which goes on after the key's name.
    pub(super) fn bad(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        self.bad_at(self.line_of_key(key), key, problem)
    }

    /// The error that `key` had to be given.
    pub(super) fn missing(&self, key: &'static str) -> ConfigError {
        ConfigError::Missing { line: self.line, section: title(self.scope), key }
    }

    fn given_value(&self, name: &'static str, key: &Key) -> Result<Option<Value>, ConfigError> {
        let Some(given) = self.table.get(name).map(|value| value.get_ref()) else { return Ok(None) };
        let is_not = |what: &str| self.bad(name, format!("must be {what}, not {}", kind_of(given)));
        let kind = self.narrowed_kind(name, &key.kind);
        let out_of_range = || self.bad(name, format!("must be from {kind}"));
        let value = match &kind {
            Kind::Text(_) | Kind::Secret(_) | Kind::Choice(_) => {
                let DeValue::String(text) = given else { return Err(is_not("text in quotes")) };
                return self.given_text(name, &kind, text).map(Some);
            }
            Kind::Boolean => match given {
                DeValue::Boolean(value) => Value::Boolean(*value),
                _ => return Err(is_not("true or false")),
            },
            Kind::Integer(range) => {
                let DeValue::Integer(integer) = given else { return Err(is_not("a whole number")) };
                let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
                let number = number.and_then(|number| u64::try_from(number).ok());
                Value::Integer(number.filter(|number| range.contains(number)).ok_or_else(out_of_range)?)
            }
            Kind::Number(range) => {
                let number = match given {
                    DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse::<f64>().ok(),
                    DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
                    _ => return Err(is_not("a number")),
                };
                Value::Number(number.filter(|number| range.contains(number)).ok_or_else(out_of_range)?)
            }
            Kind::Size(range) => {
                let bytes = unit::size(self.with_unit(name, given, "64MiB")?).map_err(|error| self.bad(name, error))?;
                Value::Size(Some(bytes).filter(|bytes| range.contains(bytes)).ok_or_else(out_of_range)?)
            }
            Kind::Time(range) => {
                let time =
                    unit::duration(self.with_unit(name, given, "5ms")?).map_err(|error| self.bad(name, error))?;
                Value::Time(Some(time).filter(|time| range.contains(time)).ok_or_else(out_of_range)?)
            }
        };
        Ok(Some(value))
    }

    fn given_text(&self, name: &'static str, kind: &Kind, text: &str) -> Result<Value, ConfigError> {
        match kind {
            // The text itself stays out of the message: it may land in a log.
            Kind::Secret(length) if !length.contains(&text.chars().count()) => {
                Err(self.bad(name, format!("must have {kind}")))
            }
            Kind::Secret(_) => Ok(Value::Secret(Secret::new(text))),
            Kind::Choice(choices) if !choices.contains(&text) => {
                Err(self.bad(name, format!("must be {kind}, not \"{text}\"")))
            }
            _ => Ok(text.to_owned().into()),
        }
    }

    fn narrowed_kind(&self, name: &str, kind: &Kind) -> Kind {
        match (kind, self.narrowed.iter().find(|(narrowed, _)| *narrowed == name)) {
            (Kind::Integer(range), Some((_, max))) => Kind::Integer(*range.start()..=*max),
            _ => kind.clone(),
        }
    }

    fn with_unit<'v>(&self, key: &'static str, given: &'v DeValue<'t>, example: &str) -> Result<&'v str, ConfigError> {
        match given {
            DeValue::String(text) => Ok(text),
            DeValue::Integer(number) => {
                Err(self
                    .bad(key, format!("needs a unit and quotes, such as \"{example}\"; got the bare number {number}")))
            }
            other => Err(self.bad(key, format!("must be text such as \"{example}\", not {}", kind_of(other)))),
        }
    }

    fn bad_at(&self, line: usize, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Bad { line, section: title(self.scope), key, problem: problem.into() }
    }

    fn key(&self, name: &str) -> (&'static Table, &'static Key) {
        let table = self.scope.expect("the top level holds no keys");
        let key = table.key(name);
        (table, key.unwrap_or_else(|| panic!("`{name}` is read in {} but is not in the table of keys", table.title)))
    }

    /// The table of that name within this one.
    fn inner(&self, name: &str) -> &'static Table {
        keys::table(&join(self.scope.map_or("", Table::path), name))
    }

    fn take(&mut self, key: &str) -> Option<(usize, DeValue<'t>)> {
        let (_, value) = self.table.remove_entry(key)?;
        Some((line_of(self.text, value.span().start), value.into_inner()))
    }

    fn line_of_key(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.line, |(key, _)| line_of(self.text, key.span().start))
    }
}

fn read_as<T: TryFrom<Value, Error = Value>>(name: &str, value: Value) -> T {
    T::try_from(value).unwrap_or_else(|value| panic!("`{name}` is read as what it is not: {value:?}"))
}

fn title(scope: Option<&'static Table>) -> &'static str {
    scope.map_or("", |table| table.title)
}

/// All that has a meaning in a table: its keys, and the tables in it.
fn known(scope: Option<&'static Table>) -> Vec<&'static str> {
    let keys = scope.map_or(&[][..], |table| table.keys).iter().map(|key| key.name);
    let path = scope.map_or("", Table::path);
    let inner = TABLES.iter().filter_map(|table| {
        let name = table.path().rsplit('.').next()?;
        (table.path() == join(path, name)).then_some(name)
    });
    keys.chain(inner).collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
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
