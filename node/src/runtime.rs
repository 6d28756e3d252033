//! The shell: one glommio executor per core, which feeds its core's machine and performs what it asks.
//!
//! The rule: an event is handed over whole, with the time, and nothing waits while the machine runs; IO that an effect
//! starts comes back as an event. All frames of one read are handled before a writer is woken.
//!
//! This is the only place in the crate that names glommio, reads clocks or draws randomness. Not here: any decision about
//! data (`core`), or about RESP commands (`gateway`).

/// A line in the node's log. A log that cannot be written to, since its disk is full, must not end the node.
macro_rules! say {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), $($what)*))
    }};
}

mod clients;
mod executor;
mod http;
mod links;
mod peers;
mod questions;
pub mod rehome;
pub mod server;
mod shares;
mod shell;
mod stalls;
mod view;
