//! Reads a node's configuration from its file.
//!
//! The rule: paths in the file are meant from the directory that it lies in, so a node starts the same from anywhere.
//!
//! Not here: what may stand in the file (`node/config`).

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use quorate_node::config::{Config, Setting};

use crate::failure::{Failure, failed};

/// No configuration is longer: more is some other file.
const BYTES_MAX: u64 = 1 << 20;

/// The configuration in the file at `path`, its paths made absolute.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    read(path).map(|(config, _)| config)
}

/// The same, and what holds for each key as the file has it.
pub(crate) fn read(path: &Path) -> Result<(Config, Vec<Setting>), Failure> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    let bytes = read.map_err(|error| {
        failed(format!(
            "cannot read the configuration {shown}: {error}; `quorate config example` prints one to start from"
        ))
    })?;
    if bytes as u64 > BYTES_MAX {
        return Err(failed(format!("{shown} is longer than 1MiB: this is no configuration; name the node's own")));
    }
    let (config, settings) = Config::read(&text).map_err(|error| failed(format!("{shown}: {error}")))?;
    Ok((config.relative_to(&directory_of(path)?), settings))
}

/// The absolute directory that the file at `path` lies in.
pub(crate) fn directory_of(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_with_its_path() {
        let error = load(Path::new("/nowhere/config.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/config.toml"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "[nod]\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("config.toml: line 1: unknown key `nod`; did you mean `node`?"), "{error}");
        std::fs::write(&path, "#".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("longer than 1MiB"));
    }
}
