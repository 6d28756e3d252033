//! Quorate: net.
