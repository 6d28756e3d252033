//! Real processes: what a user starts, kills and feeds with rubbish, on the loopback and on hosts in networks of their own.
//!
//! The rule: every test has addresses and a directory of its own, and takes its processes with it, however it ends. It
//! waits for what it needs to see, with a deadline, never for a while.
//!
//! Where a test repeats something, an environment variable makes it many times: `QUORATE_KILLS`, `QUORATE_POWER_CUTS`,
//! `QUORATE_FLIPS`.
//!
//! Not here: faults in all their combinations, which the simulator draws (`integration`).

mod processes {
    mod apart;
    mod away;
    mod bad_input;
    mod changes;
    mod clients;
    mod cluster;
    mod command_line;
    mod compare;
    mod config;
    mod crashes;
    mod dashboards;
    mod dev;
    mod disks;
    mod doctor;
    mod documents;
    mod filesystem;
    mod flips;
    mod harness;
    mod hosts;
    mod http;
    mod installed;
    mod load;
    mod moved;
    mod outage;
    mod packages;
    mod page;
    mod paper;
    mod repair;
    mod splits;
    mod start;
    mod talk;
}
