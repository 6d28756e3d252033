//! Quorate: bench.
