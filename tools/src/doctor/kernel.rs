//! What the kernel says in /proc and /sys, and how to read it.
//!
//! The rule: what is not there, or has another form, is absent and no error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use quorate_node::config;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// Of file system: `ext4`.
    pub(super) kind: String,
    /// Those of the mount and those of the file system.
    pub(super) options: Vec<String>,
    /// Its numbers: `8:1`.
    pub(super) device: String,
    pub(super) source: String,
}

/// What a file of /proc or /sys holds, without the end of its line.
pub(super) fn read(root: &Path, path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

/// The CPUs in a list such as `0-3,8`.
pub(super) fn cpus_in(list: &str) -> Vec<usize> {
    config::cpus(list).unwrap_or_default()
}

/// Of settings such as `always [madvise] never` the one that holds.
pub(super) fn chosen(text: &str) -> &str {
    let marked = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    marked.map_or(text, |(chosen, _)| chosen)
}

/// What is mounted, in the order in which it was.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, system) = line.split_once(" - ")?;
        let [_, _, device, _, point, own, ..] = place.split(' ').collect::<Vec<_>>()[..] else { return None };
        let [kind, source, all] = system.split(' ').collect::<Vec<_>>()[..] else { return None };
        let options = own.split(',').chain(all.split(',')).map(str::to_owned).collect();
        let (kind, device, source) = (kind.to_owned(), device.to_owned(), unescaped(source));
        Some(Mount { point: unescaped(point).into(), kind, options, device, source })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// The kernel writes what would end a field in octal.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |field, (escape, character)| field.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_choices_are_read() {
        assert_eq!(cpus_in("0-2,8,10-11"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(cpus_in(""), [0; 0]);
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("none"), "none");
    }

    #[test]
    fn mounts_are_read_with_blanks_in_their_names() {
        let text = "22 1 8:2 / / rw,relatime shared:1 master:2 - ext4 /dev/sda2 rw,nobarrier\nno mount\n\
                    23 22 0:40 / /my\\040data rw - btrfs /dev/sdb rw";
        let [first, second] = &mounts(text)[..] else { panic!("two are mounted") };
        assert_eq!(first.options, ["rw", "relatime", "rw", "nobarrier"]);
        assert_eq!((&*first.kind, &*first.device, &*first.source), ("ext4", "8:2", "/dev/sda2"));
        assert_eq!(second.point, Path::new("/my data"));
    }
}
