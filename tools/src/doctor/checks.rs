//! What the facts mean for a node: a function for each check.
//!
//! The rule: pure. A fix is what to type or to change, with the numbers of this machine in it.

mod data;

use std::io;

use quorate_node::config::Config;

pub(super) use self::data::{jitter, latency};
use super::{
    facts::{Facts, Ports, Time},
    finding::Finding,
};
use crate::{
    probe::{CONNECTIONS_MIN, Problem, check_locked_memory, check_open_files, locked_memory_needed},
    table::count,
};

/// The oldest kernel whose io_uring does all that is asked of it.
const KERNEL_MIN: [u32; 2] = [5, 8];

/// Clocks that are read by a system call or over a bus.
const SLOW_CLOCKS: [&str; 6] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit", "xen"];

/// With so much of it or less the kernel swaps only when it would have to kill otherwise.
const SWAPPINESS_MAX: u64 = 1;

/// All that need no measurement.
pub(super) fn all(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        kernel(facts),
        io_uring_setting(facts),
        io_uring(facts),
        locked_memory(facts, config),
        open_files(facts, config),
        cpus(facts, config),
        siblings(facts, config),
        quota(facts, config),
        governor(facts),
        clock_source(facts),
        huge_pages(facts),
        swap(facts),
        time(&facts.time),
        ports(facts, config),
    ];
    findings.extend(facts.places.iter().flat_map(data::all));
    findings
}

fn kernel(facts: &Facts) -> Finding {
    let numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    let numbers: Vec<u32> = numbers.take(2).collect();
    Finding::new("kernel", &facts.kernel, "Linux 5.8 or newer", "older ones lack operations of io_uring").fail_if(
        numbers[..] < KERNEL_MIN[..],
        "take a newer kernel and start the machine again: `sudo apt install linux-image-amd64` (Debian), \
         `sudo dnf upgrade kernel` (Fedora)",
    )
}

fn io_uring_setting(facts: &Facts) -> Finding {
    let measured = facts.io_uring_disabled.map_or("no such setting".to_owned(), |value| value.to_string());
    let fix = "`echo kernel.io_uring_disabled=0 | sudo tee /etc/sysctl.d/60-quorate.conf && sudo sysctl --system`";
    Finding::new("kernel.io_uring_disabled", measured, "0", "2 forbids io_uring, 1 all but the privileged to use it")
        .warn_if(facts.io_uring_disabled == Some(1), fix)
        .fail_if(facts.io_uring_disabled == Some(1) && facts.ring.is_err(), fix)
        .fail_if(facts.io_uring_disabled > Some(1), fix)
}

fn io_uring(facts: &Facts) -> Finding {
    let (measured, fix) = match &facts.ring {
        Ok(()) => ("there, with all operations".to_owned(), String::new()),
        Err(Problem::NoRing(error)) if facts.filtered && facts.io_uring_disabled.unwrap_or(0) == 0 => (
            format!("its system calls are filtered (seccomp): {error}"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, or take the \
             filter away: `docker run --security-opt seccomp=unconfined`; in a systemd unit \
             `SystemCallFilter=@system-service @io-event io_uring_setup io_uring_enter io_uring_register`"
                .to_owned(),
        ),
        Err(problem) => (problem.what(), problem.cure()),
    };
    Finding::new("io_uring", measured, "all operations of the executors", "all IO of a node goes through it")
        .fail_if(facts.ring.is_err(), fix)
}

fn locked_memory(facts: &Facts, config: &Config) -> Finding {
    let problem = check_locked_memory(facts.locked_memory, &config.cores).err();
    Finding::new(
        "locked memory",
        limit(facts.locked_memory >> 10, " KiB"),
        format!("{} KiB for {} cores", locked_memory_needed(&config.cores) >> 10, config.cores.len()),
        "each executor locks its rings and IO buffers; with less it does not start",
    )
    .fail_if(problem.is_some(), problem.map_or_else(String::new, |problem| problem.cure()))
}

fn open_files(facts: &Facts, config: &Config) -> Finding {
    let cores = config.cores.len();
    let connections = cores as u64 * u64::from(config.limits.connections);
    let problem = |connections| check_open_files(facts.open_files, cores, connections).err();
    // The least that `connections` can say is less than what a node starts with.
    let (few, wanted) = (problem(CONNECTIONS_MIN), problem(connections.max(CONNECTIONS_MIN)));
    let fix = wanted.as_ref().map_or_else(String::new, Problem::cure);
    let fix = fix + ", or set fewer `connections` in [limits]";
    Finding::new(
        "open files",
        limit(facts.open_files, ""),
        format!("{cores} x {} of clients, and the nodes' own", config.limits.connections),
        "a connection for which there is no file left is refused, and so is a segment of the store",
    )
    .warn_if(wanted.is_some(), &*fix)
    .fail_if(few.is_some(), fix)
}

/// A limit of a process; the largest number is none.
fn limit(limit: u64, unit: &str) -> String {
    if limit >= u64::MAX >> 10 { "unlimited".to_owned() } else { format!("{limit}{unit}") }
}

fn cpus(facts: &Facts, config: &Config) -> Finding {
    let (cores, has) = (usize::from(config.member().cores), facts.cpus.len());
    let outside = |(_, cpu): &(usize, usize)| !facts.cpus.contains(cpu);
    let outside: Vec<_> = pins(config).filter(outside).map(|(core, cpu)| format!("{cpu} (core {core})")).collect();
    let allowed = ranges(&facts.cpus);
    let measured = match outside.len() {
        0 => format!("{}: {allowed}", count(has as u64, "CPU", "CPUs")),
        _ => format!("{}: {allowed}; not {}", count(has as u64, "CPU", "CPUs"), outside.join(", ")),
    };
    Finding::new(
        "CPUs",
        measured,
        format!("one for each of {}, and those that they are pinned to", count(cores as u64, "core", "cores")),
        "cores that share a CPU wait for each other; one cannot be pinned to a CPU that the process may not use",
    )
    .warn_if(
        cores > has,
        format!(
            "set `cores = {has}` of this node in [[cluster.node]] on all nodes and run `quorate rehome --config FILE`, or \
             give it more CPUs: `AllowedCPUs=` in its systemd unit, `--cpuset-cpus` of docker"
        ),
    )
    .fail_if(
        !outside.is_empty(),
        format!(
            "set `cpu` in [[core]] to CPUs of {allowed}, or give the node those: `AllowedCPUs=` in its systemd unit, \
             `--cpuset-cpus` of docker, `taskset -c`"
        ),
    )
}

/// Each core that is pinned, with its CPU.
fn pins(config: &Config) -> impl Iterator<Item = (usize, usize)> {
    config.cores.iter().enumerate().filter_map(|(core, settings)| Some((core, settings.cpu?)))
}

/// Sorted numbers as the kernel lists them: `0-3,8`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

fn siblings(facts: &Facts, config: &Config) -> Finding {
    let pins: Vec<_> = pins(config).collect();
    let share = |a: usize, b: usize| facts.siblings.get(&a).is_some_and(|siblings| siblings.contains(&b));
    let pairs = pins.iter().enumerate().flat_map(|(at, one)| pins[at + 1..].iter().map(move |other| (one, other)));
    let twice = pairs.into_iter().find(|(one, other)| share(one.1, other.1));
    let free = facts.cpus.iter().find(|&&cpu| pins.iter().all(|&(_, pinned)| pinned != cpu && !share(cpu, pinned)));
    let measured = match twice {
        None if pins.is_empty() => "no core is pinned".to_owned(),
        None => "each pinned core has its own".to_owned(),
        Some((one, other)) => format!("core {} on CPU {} and core {} on CPU {}", one.0, one.1, other.0, other.1),
    };
    let fix = twice.map_or_else(String::new, |(_, other)| match free {
        Some(cpu) => format!("set `cpu = {cpu}` for core {} in [[core]]", other.0),
        None => {
            "run the node with fewer `cores`, or pin them to CPUs of different hardware cores: `lscpu -e`".to_owned()
        }
    });
    Finding::new(
        "hardware cores",
        measured,
        "no two pinned to one",
        "two threads of one hardware core share its units: each runs at little more than half its speed, unevenly",
    )
    .warn_if(twice.is_some(), fix)
}

fn quota(facts: &Facts, config: &Config) -> Finding {
    let cores = f64::from(config.member().cores);
    let measured = facts.quota.as_ref().map_or("no limit".to_owned(), |quota| format!("{} CPUs", quota.cpus));
    let fix = facts.quota.as_ref().map_or_else(String::new, |quota| {
        format!(
            "`echo max | sudo tee {}`; for good: `CPUQuota=` in the systemd unit, no `--cpus` of docker, no CPU limit of a \
             Kubernetes container",
            quota.file.display()
        )
    });
    Finding::new(
        "CPU quota",
        measured,
        format!("none, or {cores} CPUs at least"),
        "a group that has used up its time stands still until the next period, up to 100 ms",
    )
    .warn_if(facts.quota.as_ref().is_some_and(|quota| quota.cpus < cores), fix)
}

fn governor(facts: &Facts) -> Finding {
    let mut seen: Vec<&str> = facts.governors.values().map(String::as_str).collect();
    seen.sort_unstable();
    seen.dedup();
    let measured = if seen.is_empty() { "none, the machine decides".to_owned() } else { seen.join(", ") };
    Finding::new(
        "CPU frequency",
        measured,
        "performance",
        "a core sleeps whenever it has nothing to do, and begins the next request at the lowest frequency",
    )
    .warn_if(
        seen.iter().any(|&governor| governor != "performance"),
        "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
    )
}

fn clock_source(facts: &Facts) -> Finding {
    let source = facts.clock_source.as_str();
    let quick = ["tsc", "kvm-clock"].into_iter().find(|clock| facts.clock_sources.split(' ').any(|one| one == *clock));
    let fix = match quick {
        Some(clock) => {
            format!("`echo {clock} | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource`")
        }
        None => "the kernel does not trust this machine's tsc: `sudo dmesg | grep -i -e tsc -e clocksource` says why; \
                 where it is known to be sound, start the kernel with `tsc=reliable`"
            .to_owned(),
    };
    Finding::new("clock source", source, "tsc", "the clock is read several times for each request")
        .warn_if(SLOW_CLOCKS.contains(&source), fix)
}

fn huge_pages(facts: &Facts) -> Finding {
    let measured = facts.huge_pages.as_deref().unwrap_or("none");
    Finding::new(
        "huge pages",
        measured,
        "madvise or never",
        "the kernel stops a process to put a huge page together, and a store in many small tables gains nothing",
    )
    .warn_if(measured == "always", "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled`")
}

fn swap(facts: &Facts) -> Finding {
    let (swaps, swappiness) = (facts.swaps.join(", "), facts.swappiness);
    let measured = if swaps.is_empty() { "none".to_owned() } else { format!("{swaps}, vm.swappiness={swappiness}") };
    Finding::new(
        "swap",
        measured,
        "none, or vm.swappiness=1",
        "a core that touches a page that was swapped out stands still until it is read",
    )
    .warn_if(
        !swaps.is_empty() && swappiness > SWAPPINESS_MAX,
        "`sudo swapoff -a` (for good: take it out of /etc/fstab), or \
         `echo vm.swappiness=1 | sudo tee /etc/sysctl.d/60-quorate-swap.conf && sudo sysctl --system`",
    )
}

fn time(time: &io::Result<Time>) -> Finding {
    let measured = match time {
        Ok(time) if time.synchronised => format!("synchronised, at most {} ms off", time.error_us / 1000),
        Ok(_) => "not synchronised".to_owned(),
        Err(error) => format!("not told: {error}"),
    };
    Finding::new(
        "time",
        measured,
        "synchronised",
        "GET answers the newest of several siblings, by the clocks of the nodes that took them",
    )
    .warn_if(
        !time.as_ref().is_ok_and(|time| time.synchronised),
        "`sudo timedatectl set-ntp true`, or `sudo apt install chrony`",
    )
}

fn ports(facts: &Facts, config: &Config) -> Finding {
    let member = config.member();
    let measured = match &facts.ports {
        Ports::Free => "all free".to_owned(),
        Ports::Own(pid) => format!("taken by this node, process {}", pid.as_raw_nonzero()),
        Ports::Refused(refused) => refused.what.clone(),
    };
    let fix = if let Ports::Refused(refused) = &facts.ports { refused.cure.clone() } else { String::new() };
    let wanted = format!("{} ports of {}", member.listeners().len(), member.address);
    Finding::new("ports", measured, wanted, "a node listens on all of its ports, or does not start")
        .fail_if(matches!(facts.ports, Ports::Refused(_)), fix)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn a_clock_that_is_not_kept_or_not_told_is_a_warning() {
        let kept = |synchronised| Ok(Time { synchronised, error_us: 12_345 });
        let found = time(&kept(true));
        assert_eq!((found.verdict, &*found.measured), (Verdict::Ok, "synchronised, at most 12 ms off"));
        for wrong in [kept(false), Err(io::Error::from_raw_os_error(libc::EPERM))] {
            let found = time(&wrong);
            assert_eq!(found.verdict, Verdict::Warn);
            assert!(found.fix.is_some_and(|fix| fix.contains("timedatectl set-ntp true")));
        }
    }

    #[test]
    fn numbers_are_listed_as_the_kernel_does() {
        assert_eq!(ranges(&[0, 1, 2, 8, 10, 11]), "0-2,8,10-11");
        assert_eq!(ranges(&[]), "");
    }
}
