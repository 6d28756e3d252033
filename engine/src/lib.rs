//! Quorate: engine.
