//! SIGHUP to a node: it reads its configuration again.
//!
//! The rule: a file that is wrong changes nothing. What a running node can take over it takes over, and the log names it;
//! what it cannot keeps its value until the next start, and the log names that too.
//!
//! Not here: which keys can (`node/config/keys`), the cores that take them over (`node/runtime`).

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quorate_node::config::{Config, Difference, Setting, Value, differences};

use crate::{
    config_file,
    failure::Failure,
    signals::{self, SIGHUP},
};

/// What a node runs by, and the wish to read its file again.
pub(crate) struct Reload {
    wished: Arc<AtomicBool>,
    path: PathBuf,
    config: Config,
    settings: Vec<Setting>,
}

impl Reload {
    /// The node runs by `config`, which the file at `path` gave with these settings.
    pub(crate) fn new(path: PathBuf, config: Config, settings: Vec<Setting>) -> Result<Self, Failure> {
        Ok(Self { wished: signals::flag(SIGHUP)?, path, config, settings })
    }

    /// What holds from now on, if that was wished for and the file is sound.
    pub(crate) fn poll(&mut self) -> Option<Config> {
        if !self.wished.swap(false, Ordering::Relaxed) {
            return None;
        }
        match self.read() {
            Ok(lines) => lines.iter().for_each(|line| self.say(line)),
            Err(failure) => {
                self.say(&format!("refused, nothing was changed: {failure}"));
                return None;
            }
        }
        Some(self.config.clone())
    }

    /// Takes over what can be, and says what that is.
    fn read(&mut self) -> Result<Vec<String>, Failure> {
        let (read, settings) = config_file::read(&self.path)?;
        let with_what_stays = |error| {
            Failure::Failed(format!(
                "{error}, and what is to stay until the next start does not fit: start the node again"
            ))
        };
        self.config = self.config.with_live_keys_of(&read).map_err(with_what_stays)?;
        let lines = told(&differences(&self.settings, &settings));
        // What stays differs from the file next time as well.
        let (live, _): (Vec<_>, Vec<_>) = settings.into_iter().partition(|setting| setting.key.live);
        self.settings.retain(|setting| !setting.key.live);
        self.settings.extend(live);
        Ok(lines)
    }

    fn say(&self, what: &dyn Display) {
        drop(writeln!(io::stderr(), "{}: {what}", self.path.display()));
    }
}

/// A line for each key that differs.
fn told(differences: &[Difference]) -> Vec<String> {
    fn shown(value: Option<&Value>) -> String {
        value.map_or("not set".to_owned(), ToString::to_string)
    }
    let mut lines: Vec<String> = Vec::new();
    for Difference { path, live, before, after } in differences {
        let (before, after) = (shown(before.as_ref()), shown(after.as_ref()));
        lines.push(if *live {
            format!("{path} is now {after}, it was {before}")
        } else {
            format!("{path} needs a restart: {after} in the file, {before} until then")
        });
    }
    if lines.is_empty() {
        lines.push("read again, nothing differs".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FILE: &str = "[node]\nid = 1\n[cluster]\nname = \"test\"\nsecret = \"0123456789abcdef\"\nreplicas = 1\n\
                        [[cluster.node]]\nid = 1\naddress = \"127.0.0.1\"\n\
                        [limits]\nobject = \"1MiB\"\nvalue = \"64KiB\"\n[store]\nsegment = \"4MiB\"\n";

    /// A node that runs by `FILE` and finds `text` in its file: what it says then, and what it runs by.
    fn reloaded(text: &str) -> (Result<Vec<String>, String>, Config) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, FILE).unwrap();
        let (config, settings) = config_file::read(&path).unwrap();
        let mut reload = Reload { wished: Arc::default(), path, config, settings };
        fs::write(&reload.path, text).unwrap();
        let said = reload.read().map_err(|failure| failure.to_string());
        (said, reload.config)
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_told_to_need_a_restart() {
        let text = FILE.replace("value = \"64KiB\"", "value = \"128KiB\"\nconnections = 5")
            + "scrub = \"0B\"\ncache = \"1MiB\"\n[slo]\nadmission = false\n";
        let (said, config) = reloaded(&text);
        assert_eq!(
            said.unwrap(),
            [
                "limits.value is now \"128KiB\", it was \"64KiB\"",
                "limits.connections needs a restart: 5 in the file, 10000 until then",
                "slo.admission is now false, it was true",
                "store.cache needs a restart: \"1MiB\" in the file, \"256MiB\" until then",
                "store.scrub is now \"0B\", it was \"1MiB\"",
                "core.0.cache needs a restart: \"1MiB\" in the file, \"256MiB\" until then",
            ]
        );
        assert_eq!((config.limits.value, config.limits.connections), (128 << 10, 10_000));
        assert_eq!((config.service_level.admission, config.cores[0].store.scrub), (false, 0));
        assert_eq!(config.cores[0].store.cache, 256 << 20);
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let larger = FILE.replace("4MiB", "64MiB").replace("object = \"1MiB\"", "object = \"16MiB\"");
        for (text, words) in [
            (FILE.replace("64KiB", "64KB"), "config.toml: line 12: `value` in [limits] has the unknown unit"),
            (FILE.replace("value", "vlaue"), "did you mean `value`?"),
            (larger, "start the node again"),
            (FILE.replace("replicas = 1", "replicas = 2"), "no request could ever succeed"),
        ] {
            let before = reloaded(FILE).1;
            let (said, config) = reloaded(&text);
            assert!(said.as_ref().is_err_and(|error| error.contains(words)), "{said:?}");
            // The directory is another one each time.
            assert_eq!((&config.limits, &config.cluster), (&before.limits, &before.cluster));
        }
        assert_eq!(reloaded(FILE).0.unwrap(), ["read again, nothing differs"]);
    }

    #[test]
    fn a_new_secret_is_told_but_not_shown() {
        let (said, _) = reloaded(&FILE.replace("0123456789abcdef", "fedcba9876543210"));
        let said = said.unwrap().join("\n");
        assert!(said.contains("cluster.secret needs a restart"), "{said}");
        assert!(!said.contains("0123") && !said.contains("3210"), "{said}");
    }
}
