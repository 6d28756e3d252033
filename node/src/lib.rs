//! Dynamo itself, as pure state machines, and the thin shell that runs them.
//!
//! The rule: outside `runtime/` nothing here reads a clock, draws from the machine's randomness, does IO or names
//! what runs it. What a core shall do next depends only on what it was told.
//!
//! Not here: files (`engine`), bytes on the wire (`net`).

pub mod admission;
pub mod anti_entropy;
pub mod clock;
pub mod config;
pub mod context;
pub mod coordinator;
pub mod core;
pub mod effect;
pub mod gateway;
pub mod hedging;
pub mod hinted_handoff;
pub mod membership;
pub mod metrics;
pub mod object;
mod pace;
pub mod quorum;
pub mod reaper;
pub mod recorder;
pub mod replica;
pub mod ring;
mod runtime;
pub mod start;
pub mod summary;
mod tokens;
pub mod transfer;
pub mod unhealed;
pub mod version;

pub use runtime::{rehome, server};
