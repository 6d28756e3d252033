//! All simulated scenarios and properties, by behaviour, in one binary.

mod integration {
    mod algebra;
    mod hazards;
    mod hedging;
    #[cfg(feature = "planted")]
    mod planted;
    mod read_repair;
    mod seeds;
    mod siblings;
    mod sloppy_quorum;
}
