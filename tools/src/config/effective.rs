//! `quorate config effective`: what holds for each key by a file.
//!
//! The rule: what is printed is a configuration itself, except for the secret, which is not told.

use std::path::Path;

use quorate_node::config::{Setting, Source, keys::Fallback};
use serde_json::{Value, json};

use super::to_json;
use crate::{config_file, failure::Failure};

/// Where what is said about a line begins, if the line leaves room.
const COLUMN: usize = 40;

pub(super) fn run(file: &Path, json: bool) -> Result<(), Failure> {
    let (_, settings) = config_file::read(file)?;
    if json {
        println!("{}", json!({"keys": settings.iter().map(setting_json).collect::<Vec<_>>()}));
    } else {
        print!("{}", text(&settings));
    }
    Ok(())
}

fn text(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut last = None;
    for setting in settings {
        let place = (setting.table.title, setting.number);
        if last.is_some_and(|last| last != place) {
            text.push('\n');
        }
        if last != Some(place) {
            text += &format!("{}\n", setting.table.title);
        }
        last = Some(place);
        let line = match &setting.value {
            Some(value) => format!("{} = {value}", setting.key.name),
            None => format!("# {}", setting.key.name),
        };
        text += &format!("{line:<COLUMN$}  # {}\n", origin(setting));
    }
    text
}

fn origin(setting: &Setting) -> String {
    match (setting.source, &setting.key.fallback) {
        (Source::File(line), _) => format!("line {line}"),
        (Source::Default, Fallback::Else(what, _)) => format!("default: {what}"),
        (Source::Default, _) => "default".to_owned(),
        (Source::Overruled(by), _) => format!("by {by}"),
    }
}

fn setting_json(setting: &Setting) -> Value {
    let (source, line) = match setting.source {
        Source::File(line) => ("file", json!(line)),
        Source::Default => ("default", Value::Null),
        Source::Overruled(_) => ("overruled", Value::Null),
    };
    let value = setting.value.as_ref().map_or(Value::Null, to_json);
    json!({"key": setting.path(), "value": value, "from": source, "line": line, "live": setting.key.live})
}

#[cfg(test)]
mod tests {
    use quorate_node::config::Config;

    use super::*;

    const FILE: &str = "[node]\nid = 1\noverprovisioned = true\n[cluster]\nname = \"test\"\nsecret = \"0123456789abcdef\"\n\
                        replicas = 1\n[[cluster.node]]\nid = 1\naddress = \"127.0.0.1\"\ncores = 2\n\
                        [limits]\ntimeout = \"250ms\"\n[[core]]\nid = 1\ncpu = 3\ncache = \"1GiB\"\n";

    #[test]
    fn each_value_is_told_with_where_it_comes_from() {
        let text = text(&Config::read(FILE).unwrap().1);
        for (line, origin) in [
            ("replicas = 1", "line 7"),
            ("read_quorum = 1", "default: a majority of `replicas`"),
            ("timeout = \"250ms\"", "line 13"),
            ("value = \"1MiB\"", "default"),
            ("# capacity", "default: as much as the disk allows"),
            ("# cpu", "by [node] `overprovisioned`"),
            ("cache = \"1GiB\"", "line 17"),
            ("data = \"data/core-0\"", "default: core-ID in [node] `data`"),
            ("secret = \"(redacted)\"", "line 6"),
        ] {
            let is_it = |found: &str| {
                found.split_once("  # ").is_some_and(|(value, why)| (value.trim_end(), why) == (line, origin))
            };
            assert!(text.lines().any(is_it), "{line}: {origin} is not in\n{text}");
        }
        assert!(!text.contains("0123456789"));
    }

    #[test]
    fn what_is_told_is_a_configuration_that_says_the_same() {
        let (config, settings) = Config::read(FILE).unwrap();
        let again = text(&settings).replace("(redacted)", "0123456789abcdef");
        assert_eq!(Config::parse(&again).unwrap(), config);
    }

    #[test]
    fn json_has_bare_numbers_and_no_secret() {
        let (_, settings) = Config::read(FILE).unwrap();
        let told: Vec<Value> = settings.iter().map(setting_json).collect();
        let of =
            |path: &str| told.iter().find(|key| key["key"] == path).unwrap_or_else(|| panic!("{path} is not there"));
        assert_eq!(of("core.1.cache")["value"], 1_u64 << 30);
        assert_eq!((&of("limits.timeout")["value"], &of("limits.timeout")["line"]), (&json!(250_000), &json!(13)));
        assert_eq!((&of("core.1.cpu")["value"], &of("core.1.cpu")["from"]), (&Value::Null, &json!("overruled")));
        assert_eq!(of("cluster.node.1.port")["from"], "default");
        assert!(!json!(told).to_string().contains("0123456789"));
    }
}
