//! How fast the gossip is.
//!
//! Not here: how these are read from a file (`config`).

use std::time::Duration;

/// How fast the gossip is. All nodes should have the same; nothing breaks when they differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GossipConfig {
    /// One core is probed in each of these. Typically 300 ms; at least twice `probe_timeout`.
    pub probe_interval: Duration,
    /// After this without an answer others are asked to probe. Typically 100 ms: a high percentile of a round trip.
    pub probe_timeout: Duration,
    /// So many others are asked. Typically 3.
    pub indirect_probes: usize,
    /// So many more are told at each interval while there is news. Typically 2.
    pub fanout: usize,
    /// A suspect has so many intervals, times the logarithm of the number of cores, to refute. Typically 3.
    pub suspicion_intervals: u32,
    /// So many requests or probes in a row must time out before a core is avoided. Typically 2.
    pub timeouts_to_avoid: u32,
    /// A core that failed is avoided for at least this long. Typically 200 ms.
    pub avoid_min: Duration,
    /// Each time that it fails again soon, twice as long, up to this. Typically 5 s.
    pub avoid_max: Duration,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(300),
            probe_timeout: Duration::from_millis(100),
            indirect_probes: 3,
            fanout: 2,
            suspicion_intervals: 3,
            timeouts_to_avoid: 2,
            avoid_min: Duration::from_millis(200),
            avoid_max: Duration::from_secs(5),
        }
    }
}

impl GossipConfig {
    /// How long a suspect among `cores` has to refute.
    #[must_use]
    pub fn suspicion(&self, cores: usize) -> Duration {
        self.probe_interval * self.suspicion_intervals * logarithm(cores)
    }

    /// How often each piece of news is told by each core that hears it.
    #[must_use]
    pub fn retellings(&self, cores: usize) -> u32 {
        3 * logarithm(cores)
    }
}

/// The binary logarithm of one more, rounded up; at least 1.
fn logarithm(cores: usize) -> u32 {
    (usize::BITS - cores.leading_zeros()).max(1)
}
