//! A small ext4 in a file, to be filled up and to have its power cut.
//!
//! The rule: it is mounted where only the test and its children see it (`apart`), and its loop device goes with it.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{apart::command, harness::wait_for};

/// Programs that [`Filesystem`] needs (Debian: e2fsprogs, mount).
pub(crate) const PROGRAMS: [&str; 3] = ["mkfs.ext4", "mount", "umount"];

/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: as it is, the journal included.
static NO_FLUSH: u32 = 2;

pub(crate) struct Filesystem {
    directory: TempDir,
}

impl Filesystem {
    pub(crate) fn new(bytes: u64) -> Self {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        let this = Self { directory };
        File::create(this.image()).and_then(|file| file.set_len(bytes)).expect("a sparse file can be made");
        command("mkfs.ext4", &format!("-q -m 0 -E lazy_itable_init=0 {}", this.image().display()));
        fs::create_dir(this.path()).expect("a directory can be made");
        this.mount();
        this
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// What was written is on the disk.
    pub(crate) fn sync(&self) {
        command("sync", &format!("--file-system {}", self.path().display()));
    }

    /// What is not on the disk now never will be, and whoever uses the file system gets errors.
    pub(crate) fn cut_power(&self) {
        let file = File::open(self.path()).expect("it is mounted");
        #[expect(unsafe_code, reason = "there is no safe call for it")]
        // SAFETY: the kernel reads one u32, which lives until the call returns.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const NO_FLUSH) };
        assert_eq!(result, 0, "ext4 cannot be shut down: {}", std::io::Error::last_os_error());
    }

    /// As a machine does that starts again. Nobody may use it.
    pub(crate) fn restart(&self) {
        self.unmount();
        self.mount();
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn mount(&self) {
        command("mount", &format!("-t ext4 -o loop {} {}", self.image().display(), self.path().display()));
    }

    fn unmount(&self) {
        // The kernel ends the IO of a process that was killed only after the process.
        wait_for("the file system to be free", || {
            Command::new("umount").arg(self.path()).output().is_ok_and(|output| output.status.success()).then_some(())
        });
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // Else its directory could not be removed. A failed test may have left processes for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

/// Every file below, in a fixed order.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
