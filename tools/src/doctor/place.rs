//! The file systems that the cores' data lies in, and the disks under them.
//!
//! The rule: where a directory is not there yet, the one that it will be made in stands for it.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use quorate_node::config::{Config, SEGMENTS_MIN};
use rustix::fs::{AtFlags, StatxFlags, statvfs, statx};

use super::kernel::{Mount, chosen, read};

/// All files of the store are read and written in multiples of it.
pub(super) const BLOCK_BYTES: usize = 4096;

/// One file system, with all cores whose data lies in it.
pub(super) struct Place {
    /// A directory that is there.
    pub(super) path: PathBuf,
    pub(super) mount: Option<Mount>,
    /// Empty where they cannot be seen.
    pub(super) disks: Vec<Disk>,
    /// Whether a block can be written past the page cache.
    pub(super) direct: io::Result<Alignment>,
    /// Bytes that are free.
    pub(super) free: io::Result<u64>,
    /// Bytes that the stores have already.
    pub(super) stored: u64,
    /// Bytes that the stores may have, if they are all told.
    pub(super) capacity: Option<u64>,
    /// Bytes that they cannot do without.
    pub(super) least: u64,
    pub(super) cores: u64,
}

/// A block device that stands on no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disk {
    pub(super) name: String,
    pub(super) scheduler: Option<String>,
    pub(super) write_cache: Option<String>,
}

/// What direct IO must be a multiple of, in bytes; nothing where the kernel does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Alignment {
    pub(super) memory: Option<u32>,
    pub(super) offset: Option<u32>,
}

impl Place {
    pub(super) fn all(root: &Path, config: &Config, mounts: &[Mount]) -> Vec<Self> {
        let mut by_device: BTreeMap<u64, Self> = BTreeMap::new();
        for core in &config.cores {
            let path = existing(&core.data);
            let device = fs::metadata(&path).map_or(0, |metadata| metadata.dev());
            let place = by_device.entry(device).or_insert_with(|| Self::at(root, path, mounts));
            place.stored += bytes_below(&core.data);
            place.capacity = place.capacity.zip(core.store.capacity).map(|(sum, more)| sum + more);
            place.least += SEGMENTS_MIN * u64::from(core.store.segment);
            place.cores += 1;
        }
        by_device.into_values().collect()
    }

    fn at(root: &Path, path: PathBuf, mounts: &[Mount]) -> Self {
        let mount = fs::canonicalize(&path).ok().and_then(|path| mount_of(&path, mounts));
        Self {
            disks: mount.as_ref().map_or_else(Vec::new, |mount| disks(root, mount)),
            mount,
            direct: try_direct(&path),
            free: statvfs(&path).map(|stat| stat.f_bavail * stat.f_frsize).map_err(io::Error::from),
            stored: 0,
            capacity: Some(0),
            least: 0,
            cores: 0,
            path,
        }
    }
}

/// The directory itself, or the nearest above it that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// What the files below take on the disk.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// Writes one block past the page cache, to a file that is gone afterwards.
fn try_direct(directory: &Path) -> io::Result<Alignment> {
    let open = |path: &Path| {
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_DIRECT).open(path)
    };
    let file = tempfile::Builder::new().prefix(".quorate-doctor-").make_in(directory, open)?;
    let memory = vec![0; 2 * BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    file.as_file().write_all_at(&memory[start..start + BLOCK_BYTES], 0)?;
    let stat = statx(file.as_file(), "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let told = |bytes: u32| (stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && bytes != 0).then_some(bytes);
    Ok(Alignment { memory: told(stat.stx_dio_mem_align), offset: told(stat.stx_dio_offset_align) })
}

/// Of two at the same place the later one is what is seen.
fn mount_of(path: &Path, mounts: &[Mount]) -> Option<Mount> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    around.max_by_key(|mount| mount.point.components().count()).cloned()
}

fn disks(root: &Path, mount: &Mount) -> Vec<Disk> {
    // File systems over several devices have a number of their own; they are known by the name of one.
    let name = Path::new(&mount.source).file_name().unwrap_or_default();
    if mount.device.starts_with("0:") {
        leaves(&root.join("sys/class/block").join(name))
    } else {
        leaves(&root.join("sys/dev/block").join(&mount.device))
    }
}

/// The devices that this one stands on in the end: of a partition its disk, of a volume those that it is made of.
fn leaves(device: &Path) -> Vec<Disk> {
    let Ok(mut device) = fs::canonicalize(device) else { return Vec::new() };
    if device.join("partition").exists() {
        device.pop();
    }
    let under: Vec<_> = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten().collect();
    if !under.is_empty() {
        return under.iter().flat_map(|entry| leaves(&entry.path())).collect();
    }
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let scheduler = read(&device, "queue/scheduler").map(|text| chosen(&text).to_owned());
    vec![Disk { name, scheduler, write_cache: read(&device, "queue/write_cache") }]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{super::kernel::mounts, *};

    const MOUNTS: &str = "\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
23 22 0:40 / /var/lib rw - btrfs /dev/sdb rw
24 22 253:0 / /my\\040data rw,noatime master:2 - xfs /dev/mapper/data rw,nobarrier
25 22 0:41 / /my\\040data/core-0 rw - tmpfs tmpfs rw";

    #[test]
    fn the_innermost_mount_and_of_two_the_later_one_holds() {
        let mounts = mounts(&(MOUNTS.to_owned() + "\n26 22 8:3 / / rw - ext3 /dev/sda3 rw"));
        assert_eq!(mounts.len(), 5);
        let kind = |path: &str| mount_of(Path::new(path), &mounts).unwrap().kind;
        let paths = ["/home", "/var/library", "/var/lib/quorate", "/my data", "/my data/core-0", "/my data/core-01"];
        assert_eq!(paths.map(kind), ["ext3", "ext3", "btrfs", "xfs", "tmpfs", "xfs"]);
    }

    #[test]
    fn partitions_and_volumes_lead_to_their_disks() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for path in ["sys/block/sda/sda2/partition", "sys/block/sdb", "sys/block/dm-0/slaves", "sys/dev/block"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::create_dir_all(at("sys/class/block")).unwrap();
        for disk in ["sda", "sdb"] {
            fs::create_dir_all(at(&format!("sys/block/{disk}/queue"))).unwrap();
            fs::write(at(&format!("sys/block/{disk}/queue/scheduler")), "none [bfq]\n").unwrap();
        }
        symlink("../../block/sda/sda2", at("sys/dev/block/8:2")).unwrap();
        symlink("../../block/dm-0", at("sys/dev/block/253:0")).unwrap();
        symlink("../../block/sdb", at("sys/class/block/sdb")).unwrap();
        symlink("../../sda/sda2", at("sys/block/dm-0/slaves/sda2")).unwrap();
        symlink("../../sdb", at("sys/block/dm-0/slaves/sdb")).unwrap();
        let mounts = mounts(MOUNTS);
        let names = |path: &str| {
            let mount = mount_of(Path::new(path), &mounts).unwrap();
            let mut names: Vec<_> = disks(root.path(), &mount).into_iter().map(|disk| disk.name).collect();
            names.sort();
            names
        };
        assert_eq!(names("/"), ["sda"]);
        assert_eq!(names("/var/lib"), ["sdb"]);
        assert_eq!(names("/my data"), ["sda", "sdb"]);
        assert_eq!(names("/my data/core-0"), [""; 0]);
        let disk = &disks(root.path(), &mounts[0])[0];
        assert_eq!((disk.scheduler.as_deref(), &disk.write_cache), (Some("bfq"), &None));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_looked_at_where_it_will_be() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path();
        assert_eq!(existing(&path.join("a/b")), path);
        assert_eq!(bytes_below(&path.join("a")), 0);
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/file"), vec![1; 10_000]).unwrap();
        fs::File::open(path.join("a/b/file")).unwrap().sync_all().unwrap();
        assert!((10_000..20_000).contains(&bytes_below(&path.join("a"))));
    }

    #[test]
    fn a_block_is_written_and_nothing_stays_behind() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let Alignment { memory, offset } = try_direct(directory.path()).unwrap();
        assert!(memory.is_none_or(|bytes| bytes as usize <= BLOCK_BYTES), "{memory:?}");
        assert!(offset.is_none_or(|bytes| bytes as usize <= BLOCK_BYTES), "{offset:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(try_direct(&directory.path().join("none")).is_err());
    }
}
