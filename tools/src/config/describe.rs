//! `quorate config describe`: the table of keys, in words.

use quorate_node::config::{
    keys::{Fallback, Key, Kind, TABLES, Table},
    nearest,
};
use serde_json::{Value, json};

use super::{micros, to_json};
use crate::{
    failure::{Failure, failed},
    table::wrapped,
};

/// Lines are no longer.
const WIDTH: usize = 100;

pub(super) fn run(wanted: Option<&str>, json: bool) -> Result<(), Failure> {
    let found = find(wanted)?;
    if json {
        println!("{}", json!({"keys": found.iter().map(|(table, key)| key_json(table, key)).collect::<Vec<_>>()}));
        return Ok(());
    }
    let mut last = "";
    for (table, key) in found {
        if last != table.title && wanted.is_none_or(|wanted| wanted == table.path() || wanted == table.title) {
            let gap = if last.is_empty() { "" } else { "\n" };
            println!("{gap}{}  {}\n", table.title, table.about);
        }
        last = table.title;
        print!("{}", describe(table, key));
    }
    Ok(())
}

/// All keys; those of a table; or the one that is meant: by its path, or by its name alone if only one table has such a key.
fn find(wanted: Option<&str>) -> Result<Vec<(&'static Table, &'static Key)>, Failure> {
    let all = TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)));
    let Some(wanted) = wanted else { return Ok(all.collect()) };
    let is_meant = |(table, key): &(&Table, &Key)| {
        [table.path(), table.title, key.name].contains(&wanted) || table.path_of(key) == wanted
    };
    let found: Vec<_> = all.clone().filter(is_meant).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let paths: Vec<String> = all.map(|(table, key)| table.path_of(key)).collect();
    let names = TABLES.iter().flat_map(|table| table.keys.iter().map(|key| key.name).chain([table.path()]));
    // Without a table in front only names are near.
    let near =
        if wanted.contains('.') { nearest(wanted, paths.iter().map(String::as_str)) } else { nearest(wanted, names) };
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`quorate config describe` lists all".to_owned(),
    };
    Err(failed(format!("there is no key `{wanted}`; {hint}")))
}

fn describe(table: &Table, key: &Key) -> String {
    let about = wrapped(key.about, WIDTH, "      ");
    let facts = wrapped(&facts(key), WIDTH, "      ");
    format!("  {}\n{about}{facts}", table.path_of(key))
}

/// Its type and range, what holds without it, and whether it is live.
pub(super) fn facts(key: &Key) -> String {
    let kind = match &key.kind {
        Kind::Text(form) => format!("text: {form}"),
        Kind::Boolean | Kind::Choice(_) => key.kind.to_string(),
        other => format!("{}, {other}", type_of(other)),
    };
    let fallback = match &key.fallback {
        Fallback::Is(value) => format!("default {value}"),
        Fallback::Else(what, _) => format!("without it: {what}"),
        Fallback::Required(_) => "must be given".to_owned(),
    };
    let live = if key.live { "; live" } else { "" };
    format!("({kind}; {fallback}{live})")
}

fn type_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text(_) | Kind::Choice(_) => "text",
        Kind::Secret(_) => "secret",
        Kind::Boolean => "boolean",
        Kind::Integer(_) => "whole number",
        Kind::Number(_) => "number",
        Kind::Size(_) => "size",
        Kind::Time(_) => "time",
    }
}

fn key_json(table: &Table, key: &Key) -> Value {
    let (unit, range) = match &key.kind {
        Kind::Integer(range) => (Value::Null, json!([range.start(), range.end()])),
        Kind::Number(range) => (Value::Null, json!([range.start(), range.end()])),
        Kind::Size(range) => (json!("B"), json!([range.start(), range.end()])),
        Kind::Time(range) => (json!("us"), json!([micros(*range.start()), micros(*range.end())])),
        Kind::Choice(choices) => (Value::Null, json!(choices)),
        Kind::Text(_) | Kind::Secret(_) | Kind::Boolean => (Value::Null, Value::Null),
    };
    let (default, otherwise) = match &key.fallback {
        Fallback::Is(value) => (to_json(value), Value::Null),
        Fallback::Else(what, _) => (Value::Null, json!(what)),
        Fallback::Required(_) => (Value::Null, Value::Null),
    };
    json!({
        "key": table.path_of(key),
        "table": table.title,
        "type": type_of(&key.kind),
        "unit": unit,
        "range": range,
        "required": matches!(key.fallback, Fallback::Required(_)),
        "default": default,
        "otherwise": otherwise,
        "live": key.live,
        "about": key.about,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wanted: &str) -> Vec<String> {
        find(Some(wanted)).unwrap().into_iter().map(|(table, key)| table.path_of(key)).collect()
    }

    #[test]
    fn a_key_is_found_by_its_path_its_name_or_its_table() {
        assert_eq!(found("limits.value"), ["limits.value"]);
        assert_eq!(found("weight"), ["cluster.node.weight"]);
        assert_eq!(found("cache"), ["store.cache", "core.cache"]);
        assert_eq!(found("slo"), ["slo.p999", "slo.admission"]);
        assert_eq!(found("[slo]"), found("slo"));
        for (wanted, words) in [
            ("limits.vlaue", "there is no key `limits.vlaue`; did you mean `limits.value`?"),
            ("vlaue", "did you mean `value`?"),
            ("stores", "did you mean `store`?"),
            ("xyzzy", "`quorate config describe` lists all"),
        ] {
            let error = find(Some(wanted)).expect_err("it is unknown").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_key_is_told_with_its_range_its_default_and_whether_it_is_live() {
        for (wanted, words) in [
            ("limits.value", "(size, 1B to 8MiB; default \"1MiB\"; live)"),
            ("limits.timeout", "(time, 10ms to 1min; default \"2s\"; live)"),
            ("store.commit", "(\"dsync\" or \"fdatasync\"; default \"dsync\")"),
            ("store.capacity", "; without it: as much as the disk allows)"),
            ("cluster.secret", "(secret, 16 to 1024 characters; must be given)"),
        ] {
            let (table, key) = find(Some(wanted)).unwrap()[0];
            let text = describe(table, key);
            assert!(text.contains(words), "{text}");
            assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        }
        let (table, key) = find(Some("limits.timeout")).unwrap()[0];
        let told = key_json(table, key);
        assert_eq!(
            (&told["unit"], &told["range"], &told["default"]),
            (&json!("us"), &json!([10_000, 60_000_000]), &json!(2_000_000))
        );
    }
}
