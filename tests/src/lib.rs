//! The deterministic simulator: a whole cluster in one thread, under virtual time and faults drawn from a seed.
//!
//! The rule: it drives exactly the code that ships, the machines of `node` over the store of `engine`, with the bytes of
//! `net` between them; the same seed gives the same run.
//!
//! Not here: what the parts do by themselves (their own tests), real processes (`tests/processes`).

pub mod causality;
pub mod checkers;
pub mod clock;
pub mod faults;
pub mod fuzz;
pub mod history;
pub mod network;
#[cfg(feature = "planted")]
pub mod planted;
pub mod seeds;
pub mod simulation;
pub mod workload;
pub mod world;
