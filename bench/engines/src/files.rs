//! A directory's files as the operating system sees them: their bytes on the disk, and how to get them out of the page
//! cache without being root.
//!
//! Not here: what is in them.

use rustix::fs::{Advice, fadvise};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// All files below `dir`.
fn walk(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(walk(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// What is missing was removed by a compaction meanwhile.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes that the files below `dir` take on the disk: holes take none, space that is reserved counts.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in walk(dir)? {
        bytes += unless_gone(fs::metadata(path))?.map_or(0, |metadata| metadata.blocks() * 512);
    }
    Ok(bytes)
}

/// Takes the files below `dir` out of the page cache; pages that a process has mapped stay.
pub(crate) fn drop_page_cache(dir: &Path) -> io::Result<()> {
    for path in walk(dir)? {
        if let Some(file) = unless_gone(File::open(path))? {
            // What is dirty could not be dropped.
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
