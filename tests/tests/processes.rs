//! Real processes on the loopback: what a user starts, kills and feeds with rubbish.
//!
//! The rule: every test has addresses and a directory of its own, and takes its processes with it, however it ends. It
//! waits for what it needs to see, with a deadline, never for a while.
//!
//! Not here: faults in the network and on the disk, which the simulator draws (`integration`).

mod processes {
    mod bad_input;
    mod cluster;
    mod dev;
    mod harness;
    mod kills;
    mod repair;
    mod start;
    mod talk;
}
