//! Who belongs to the cluster, and who of them answers (Dynamo 4.8).
//!
//! The rule: belonging changes only by command, and travels with the gossip until all know the same; liveness never
//! changes who belongs.
//!
//! Pure. Not here: which partitions a member owns (`ring`).

pub mod state;
