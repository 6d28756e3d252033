//! What holds for each key of one configuration, and where it comes from.
//!
//! The rule: it is noted as it is read, so it cannot differ from what the node does.

use super::{
    keys::{Key, TABLES, Table},
    value::Value,
};

/// What holds for one key.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The key's table.
    pub table: &'static Table,
    /// Of several tables, the `id` of this one.
    pub number: Option<u64>,
    /// The key.
    pub key: &'static Key,
    /// Its value; where there is none, what the key's fallback says.
    pub value: Option<Value>,
    /// Where that comes from.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// This line of the file, counted from 1.
    File(usize),
    /// The key was not given.
    Default,
    /// Another key, which is told here, has the last word.
    Overruled(&'static str),
}

/// A key whose value is another one in another configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// As [`Setting::path`] tells it.
    pub path: String,
    /// A running node takes it over.
    pub live: bool,
    /// The value in the one; where there is none, none holds.
    pub before: Option<Value>,
    /// The value in the other.
    pub after: Option<Value>,
}

impl Setting {
    /// Such as `limits.value`, or `core.3.cpu`.
    #[must_use]
    pub fn path(&self) -> String {
        let (table, key) = (self.table.path(), self.key.name);
        self.number.map_or_else(|| format!("{table}.{key}"), |number| format!("{table}.{number}.{key}"))
    }

    /// Where it stands among others: as the table of keys has it.
    pub(super) fn place(&self) -> (Option<usize>, Option<u64>, Option<usize>) {
        let table = TABLES.iter().position(|table| table.title == self.table.title);
        (table, self.number, self.table.keys.iter().position(|key| key.name == self.key.name))
    }
}

/// The keys whose values differ, those that only one of the two configurations has among them.
#[must_use]
pub fn differences(before: &[Setting], after: &[Setting]) -> Vec<Difference> {
    fn value_in(settings: &[Setting], place: &Setting) -> Option<Value> {
        settings.iter().find(|setting| setting.place() == place.place()).and_then(|setting| setting.value.clone())
    }
    let is_new = |setting: &&Setting| !before.iter().any(|other| other.place() == setting.place());
    let all = before.iter().chain(after.iter().filter(is_new));
    let difference = |setting: &Setting| Difference {
        path: setting.path(),
        live: setting.key.live,
        before: value_in(before, setting),
        after: value_in(after, setting),
    };
    all.map(difference).filter(|difference| difference.before != difference.after).collect()
}
