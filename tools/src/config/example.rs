//! `quorate config example`: a configuration with every key, and the file `quorate.example.toml` with it.
//!
//! The rule: a key whose line is commented out shows what holds without it; `#` with nothing behind it is such a line, `# ` is
//! what people read.

use quorate_node::config::keys::{Fallback, Key, TABLES, Table};

use super::describe::facts;
use crate::table::wrapped;

/// Lines are no longer.
const WIDTH: usize = 100;

const HEAD: &str = "\
# One node's configuration, with every key. Start the node with: quorate serve --config FILE
# A key behind a # shows what holds without it, or, where that is no plain value, one that may stand
# there. Live: a node that runs takes a change over when it is sent SIGHUP.
# See also: quorate config check FILE, quorate config effective FILE, quorate config describe KEY
";

/// The other nodes: three make a cluster that survives the loss of one.
const OTHERS: &str = "
[[cluster.node]]
id = 2
address = \"127.0.0.2\"

[[cluster.node]]
id = 3
address = \"127.0.0.3\"
";

pub(super) fn text() -> String {
    let mut text = HEAD.to_owned();
    for table in TABLES {
        text += &format!("\n\n{}{}\n", wrapped(table.about, WIDTH, "# "), title(table));
        text.extend(table.keys.iter().map(|key| entry(table, key)));
        if table.path() == "cluster.node" {
            text += OTHERS;
        }
    }
    text
}

/// No node needs a `[[core]]`.
fn is_optional(table: &Table) -> bool {
    table.path() == "core"
}

fn title(table: &Table) -> String {
    format!("{}{}", if is_optional(table) { "#" } else { "" }, table.title)
}

fn entry(table: &Table, key: &Key) -> String {
    let (Fallback::Is(value) | Fallback::Else(_, value) | Fallback::Required(value)) = &key.fallback;
    let is_needed = matches!(key.fallback, Fallback::Required(_)) && !is_optional(table);
    let hash = if is_needed { "" } else { "#" };
    let (about, facts) = (wrapped(key.about, WIDTH, "# "), wrapped(&facts(key), WIDTH, "# "));
    format!("\n{about}{facts}{hash}{} = {value}\n", key.name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quorate_node::config::{Config, Source};

    use super::*;

    fn file() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../quorate.example.toml");
        std::fs::read_to_string(path).unwrap()
    }

    /// With the lines of keys that `is_wanted` names, by table and key.
    fn uncommented(text: &str, is_wanted: impl Fn(&str, &str) -> bool) -> String {
        let mut title = "";
        let mut lines = Vec::new();
        for line in text.lines() {
            let bare = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
            let content = bare.unwrap_or(line);
            if content.starts_with('[') {
                title = content;
            }
            let name = content.split(" = ").next().unwrap_or_default();
            lines.push(if bare.is_some() && is_wanted(title, name) { content } else { line });
        }
        lines.join("\n")
    }

    #[test]
    fn the_file_is_what_the_command_prints() {
        assert!(
            file() == text(),
            "quorate.example.toml is out of date; make it anew: quorate config example > quorate.example.toml"
        );
    }

    #[test]
    fn every_key_is_in_it_and_can_be_set() {
        let (_, settings) = Config::read(&uncommented(&file(), |_, _| true)).unwrap();
        for table in TABLES {
            for key in table.keys {
                let of_key = settings.iter().find(|setting| setting.table.path_of(setting.key) == table.path_of(key));
                let setting = of_key.unwrap_or_else(|| panic!("{} was never read", table.path_of(key)));
                assert!(matches!(setting.source, Source::File(_)), "{} is not in the example", setting.path());
                let (Fallback::Is(value) | Fallback::Else(_, value) | Fallback::Required(value)) = &key.fallback;
                assert_eq!(setting.value.as_ref().map(ToString::to_string), Some(shown(key, &value.to_string())));
            }
        }
    }

    /// A secret is not shown where it was read.
    fn shown(key: &Key, value: &str) -> String {
        if key.name == "secret" { "\"(redacted)\"".to_owned() } else { value.to_owned() }
    }

    #[test]
    fn a_line_that_shows_a_default_changes_nothing() {
        let bare = Config::parse(&file()).unwrap();
        assert_eq!(bare.cluster.members.len(), 3);
        let is_default = |title: &str, name: &str| {
            let table = TABLES.iter().find(|table| table.title == title).expect("it is a table");
            let key = table.keys.iter().find(|key| key.name == name);
            !is_optional(table) && key.is_some_and(|key| matches!(key.fallback, Fallback::Is(_)))
        };
        let text = uncommented(&file(), is_default);
        assert!(text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() > 30);
        assert_eq!(Config::parse(&text).unwrap(), bare);
    }
}
