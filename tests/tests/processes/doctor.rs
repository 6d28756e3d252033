//! `quorate doctor` on machines that are set up badly, and then well: this one, as far as a test may change it, and others of
//! which it is shown a /proc and a /sys.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::Command,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    apart::{apart, skip},
    cluster::{Cluster, PEER_PORT},
    filesystem::{Filesystem, PROGRAMS},
    harness::{program, quorate, run},
    start::without_io_uring,
};

/// A machine of four CPUs that lacks nothing.
const MACHINE: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.8.0-31-generic"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/swaps", "Filename Type Size Used Priority"),
    ("proc/self/status", "Name:\tquorate\nCpus_allowed_list:\t0-3\nSeccomp:\t0"),
    ("proc/self/cgroup", "0::/system.slice/quorate.service"),
    ("proc/self/mountinfo", EXT4),
    ("sys/fs/cgroup/system.slice/quorate.service/cpu.max", "max 100000"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2"),
    ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3"),
    ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2"),
    ("sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "1,3"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
    ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "performance"),
    ("sys/block/sda/sda1/partition", "1"),
    ("sys/block/sda/queue/scheduler", "none [mq-deadline] kyber bfq"),
    ("sys/block/sda/queue/write_cache", "write back"),
];

const EXT4: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";

/// What may be wrong with it: a file, what it holds then, the check that finds it, how bad it is, and words of what was
/// measured and of the fix.
const WRONG: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("proc/sys/kernel/osrelease", "5.4.0-200-generic", "kernel", "fail", "5.4.0", "apt install linux-image"),
    ("proc/sys/kernel/io_uring_disabled", "2", "kernel.io_uring_disabled", "fail", "2", "sysctl --system"),
    ("proc/sys/kernel/io_uring_disabled", "1", "kernel.io_uring_disabled", "warn", "1", "sysctl --system"),
    ("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2", "swap", "warn", "/dev/sda2, vm.swappiness=60", "swapoff -a"),
    (
        "sys/fs/cgroup/system.slice/cpu.max",
        "50000 100000",
        "CPU quota",
        "warn",
        "0.5 CPUs",
        "echo max | sudo tee /sys/fs/cgroup/system.slice/cpu.max",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet",
        "clock source",
        "warn",
        "hpet",
        "echo tsc | sudo tee /sys/devices/system/clocksource",
    ),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
        "huge pages",
        "warn",
        "always",
        "echo madvise | sudo tee",
    ),
    (
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor",
        "powersave",
        "CPU frequency",
        "warn",
        "performance, powersave",
        "echo performance | sudo tee",
    ),
    ("proc/self/mountinfo", "22 1 0:7 / / rw - overlay overlay rw", "file system", "warn", "overlay at", "set `data`"),
    ("proc/self/mountinfo", "22 1 0:7 / / rw - nfs4 server:/home rw", "file system", "warn", "nfs4", "set `data`"),
    ("proc/self/mountinfo", "22 1 0:7 / / rw - tmpfs tmpfs rw", "file system", "fail", "tmpfs", "findmnt -t ext4,xfs"),
    (
        "proc/self/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw,nobarrier",
        "disk cache",
        "fail",
        "sda: write back; mounted so that it is not flushed",
        "sudo mount -o remount,barrier=1 /`",
    ),
    (
        "sys/block/sda/queue/scheduler",
        "none mq-deadline [bfq]",
        "disk scheduler",
        "warn",
        "sda: bfq",
        "echo none | sudo tee /sys/block/sda/queue/scheduler",
    ),
];

/// A machine as its files tell it, and a node's configuration.
struct Machine {
    root: TempDir,
    cluster: Cluster,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap(), cluster: Cluster::with_nodes(1) };
        MACHINE.iter().for_each(|(path, text)| machine.write(path, text));
        fs::create_dir_all(machine.root.path().join("sys/dev/block")).unwrap();
        symlink("../../block/sda/sda1", machine.root.path().join("sys/dev/block/8:1")).unwrap();
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// As it was made.
    fn mend(&self, path: &str) {
        match MACHINE.iter().find(|(of, _)| *of == path) {
            Some((_, text)) => self.write(path, text),
            None => fs::remove_file(self.root.path().join(path)).unwrap(),
        }
    }

    fn doctor(&self) -> Command {
        doctor(&self.cluster, self.root.path())
    }
}

/// A checkup that measures nothing, which would take a second.
fn doctor(cluster: &Cluster, root: &Path) -> Command {
    let (config, root) = (cluster.config(1), root.to_str().unwrap());
    quorate(&["doctor", "--json", "--root", root, "--config", config.to_str().unwrap()])
}

/// A checkup of this machine by a shell that has set its limits first.
fn limited(cluster: &Cluster, limits: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")]).arg(program());
    command.args(["doctor", "--json", "--root", "/", "--config"]).arg(cluster.config(1));
    command
}

/// What a checkup says of one thing. Its exit code goes with its worst verdict.
fn finding(command: &mut Command, check: &str) -> Value {
    let said = run(command);
    let told: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.error));
    assert_eq!(said.code(), Some(i32::from(told["verdict"] == "fail")), "{}", said.error);
    let findings = told["findings"].as_array().unwrap();
    let found: Vec<_> = findings.iter().filter(|finding| finding["check"] == check).collect();
    assert_eq!(found.len(), 1, "{check}: {told:#}");
    found[0].clone()
}

fn assert_ok(command: &mut Command, check: &str) {
    let found = finding(command, check);
    assert!(found["verdict"] == "ok" && found["fix"].is_null(), "{found:#}");
}

fn assert_found(command: &mut Command, check: &str, verdict: &str, measured: &str, fix: &str) {
    let found = finding(command, check);
    assert_eq!(found["verdict"], verdict, "{found:#}");
    for (field, words) in [("measured", measured), ("fix", fix)] {
        assert!(found[field].as_str().unwrap().contains(words), "wanted {words} in {found:#}");
    }
    assert!(!found["wanted"].as_str().unwrap().is_empty() && !found["why"].as_str().unwrap().is_empty());
}

#[test]
fn what_the_kernel_tells_is_judged() {
    let machine = Machine::new();
    run(&mut machine.doctor()).assert_ok();
    for (path, text, check, verdict, measured, fix) in WRONG {
        machine.write(path, text);
        assert_found(&mut machine.doctor(), check, verdict, measured, fix);
        machine.mend(path);
        assert_ok(&mut machine.doctor(), check);
    }
    // Swap that is hardly used is as good as none.
    machine.write("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2");
    machine.write("proc/sys/vm/swappiness", "1");
    assert_ok(&mut machine.doctor(), "swap");
}

#[test]
fn cores_and_cpus_that_do_not_fit_are_told() {
    let machine = Machine::new();
    let pinned = |cpus: [usize; 2]| {
        let text = fs::read_to_string(machine.cluster.config(1)).unwrap();
        let (text, _) = text.split_once("[[core]]").unwrap_or((&text, ""));
        let [first, second] = cpus;
        let pins = format!("[[core]]\nid = 0\ncpu = {first}\n[[core]]\nid = 1\ncpu = {second}\n");
        fs::write(machine.cluster.config(1), text.to_owned() + &pins).unwrap();
    };
    machine.cluster.edit(1, "cores = 1", "cores = 2");
    assert_ok(&mut machine.doctor(), "CPUs");
    machine.write("proc/self/status", "Cpus_allowed_list:\t2");
    assert_found(&mut machine.doctor(), "CPUs", "warn", "1 CPU: 2", "set `cores = 1`");
    machine.mend("proc/self/status");

    pinned([0, 4]);
    assert_found(&mut machine.doctor(), "CPUs", "fail", "0-3; not 4 (core 1)", "to CPUs of 0-3");
    pinned([0, 2]);
    assert_ok(&mut machine.doctor(), "CPUs");
    assert_found(&mut machine.doctor(), "hardware cores", "warn", "core 0 on CPU 0 and core 1 on CPU 2", "`cpu = 1`");
    pinned([0, 1]);
    assert_ok(&mut machine.doctor(), "hardware cores");
}

#[test]
fn limits_that_are_too_low_are_told() {
    let cluster = Cluster::with_nodes(1);
    cluster.edit(1, "[limits]", "[limits]\nconnections = 400");
    assert_found(&mut limited(&cluster, "ulimit -l 64"), "locked memory", "fail", "64 KiB", "ulimit -l 1024");
    assert_ok(&mut limited(&cluster, "ulimit -l 1024"), "locked memory");
    assert_found(&mut limited(&cluster, "ulimit -n 300"), "open files", "fail", "300", "LimitNOFILE=464");
    assert_found(&mut limited(&cluster, "ulimit -n 463"), "open files", "warn", "463", "LimitNOFILE=464");
    assert_ok(&mut limited(&cluster, "ulimit -n 464"), "open files");
}

#[test]
fn too_few_cpus_are_told() {
    let set = sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    let [first, second, ..] = cpus[..] else { return skip("this machine has a single CPU") };
    let cluster = Cluster::with_nodes(1);
    cluster.edit(1, "cores = 1", "cores = 2");
    let on = |cpus: &[usize]| {
        let mut only = CpuSet::new();
        cpus.iter().for_each(|&cpu| only.set(cpu));
        let mut command = doctor(&cluster, Path::new("/"));
        #[expect(unsafe_code, reason = "a child must be bound before it starts its program")]
        // SAFETY: between fork and exec this makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(sched_setaffinity(None, &only)?));
        }
        command
    };
    assert_found(&mut on(&[second]), "CPUs", "warn", &format!("1 CPU: {second}"), "AllowedCPUs=");
    assert_ok(&mut on(&[first, second]), "CPUs");
}

#[test]
fn forbidden_io_uring_is_told() {
    for (errno, words) in [(libc::EPERM, "not permitted"), (libc::ENOSYS, "not implemented")] {
        let cluster = Cluster::with_nodes(1);
        let mut command = doctor(&cluster, Path::new("/"));
        without_io_uring(&mut command, errno);
        assert_found(&mut command, "io_uring", "fail", words, "io_uring_setup");
        assert_ok(&mut doctor(&cluster, Path::new("/")), "io_uring");
    }
}

#[test]
fn a_port_in_use_is_told_unless_the_node_itself_has_it() {
    let cluster = Cluster::with_nodes(1);
    let address = cluster.address(1, PEER_PORT);
    let taken = TcpListener::bind(address).unwrap();
    let checkup = || doctor(&cluster, Path::new("/"));
    assert_found(&mut checkup(), "ports", "fail", &address.to_string(), "ss -ltnp 'sport = :7500'");
    drop(taken);
    assert_ok(&mut checkup(), "ports");
    let _node = cluster.serve(1);
    let found = finding(&mut checkup(), "ports");
    assert!(found["verdict"] == "ok" && found["measured"].as_str().unwrap().contains("this node"), "{found:#}");
}

#[test]
fn data_in_memory_is_told() {
    let cluster = Cluster::with_nodes(1);
    let Ok(shared) = TempDir::new_in("/dev/shm") else { return skip("there is no /dev/shm") };
    cluster.edit(1, "id = 1\n[cluster]", &format!("id = 1\ndata = \"{}/data\"\n[cluster]", shared.path().display()));
    let checkup = || doctor(&cluster, Path::new("/"));
    assert_found(&mut checkup(), "file system", "fail", "tmpfs at /dev/shm", "set `data` in [node]");
    cluster.edit(1, &shared.path().display().to_string(), cluster.directory());
    // Whatever tests run on, it is on a disk.
    assert_ne!(finding(&mut checkup(), "file system")["verdict"], "fail");
}

#[test]
fn a_full_disk_is_told() {
    apart(&PROGRAMS, || {
        let filesystem = Filesystem::new(160 << 20);
        let cluster = Cluster::in_directory(&filesystem.path(), 1);
        let ballast = filesystem.path().join("ballast");
        fs::write(&ballast, vec![1; 130 << 20]).unwrap();
        filesystem.sync();
        let checkup = || doctor(&cluster, Path::new("/"));
        assert_found(&mut checkup(), "free space", "fail", "MiB", "du -xh -d1");
        fs::remove_file(&ballast).unwrap();
        assert_ok(&mut checkup(), "free space");
        assert_ok(&mut checkup(), "file system");
        // It has room, but not for all that the configuration allows.
        cluster.edit(1, "[store]", "[store]\ncapacity = \"1GiB\"");
        assert_found(&mut checkup(), "free space", "warn", "MiB", "`capacity = \"");
        cluster.edit(1, "1GiB", "64MiB");
        assert_ok(&mut checkup(), "free space");
    });
}

#[test]
fn disk_and_cpus_are_measured_and_nothing_stays_behind() {
    let cluster = Cluster::with_nodes(1);
    let config = cluster.config(1);
    let said = run(&mut quorate(&["doctor", "--quick", "--json", "--config", config.to_str().unwrap()]));
    let told: Value = serde_json::from_str(&said.assert_ok().out).unwrap();
    let findings = told["findings"].as_array().unwrap();
    let measured = |check: &str| {
        let found = findings.iter().filter(|finding| finding["check"] == check);
        found.map(|finding| finding["measured"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert!(measured("disk latency")[0].contains("O_DSYNC p50 "), "{told:#}");
    let jitter = measured("jitter");
    assert!(!jitter.is_empty() && jitter.iter().all(|text| text.contains("p99.9")), "{told:#}");
    assert_eq!(fs::read_dir(cluster.node_directory(1)).unwrap().count(), 1, "only the configuration is there");
    assert!(said.error.is_empty(), "no progress where nobody sees it: {}", said.error);
}

#[test]
fn people_get_a_table_and_scripts_an_exit_code() {
    let machine = Machine::new();
    let (config, root) = (machine.cluster.config(1), machine.root.path().to_str().unwrap());
    let doctor = || run(&mut quorate(&["doctor", "--root", root, "--config", config.to_str().unwrap()]));
    let said = doctor();
    assert!(said.assert_ok().out.contains("ok    clock source"), "{}", said.out);
    machine.write("proc/self/mountinfo", "22 1 0:7 / / rw - tmpfs tmpfs rw");
    let said = doctor();
    said.assert_failed(&["a check failed"]);
    for words in ["FAIL  file system", "why: it must keep what was written", "fix: set `data` in [node]", "1 failed"] {
        assert!(said.out.contains(words), "wanted {words} in {}", said.out);
    }
    assert_eq!(run(&mut quorate(&["doctor", "--slow"])).code(), Some(2));
    let nowhere = run(&mut quorate(&["doctor", "--config", "/nowhere.toml"]));
    nowhere.assert_failed(&["/nowhere.toml"]);
}
