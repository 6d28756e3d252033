//! Which key is asked for: uniform, zipfian, latest or hotspot, as YCSB has them.
//!
//! The rule: a draw is a pure function of the stream of randomness and of how many keys there are now. Popular ranks are
//! scattered over all keys, so that popularity says nothing of where a key lies.
//!
//! Not here: what is done with the key (`workload`).

use clap::ValueEnum;

use crate::random::{Random, mix};

/// The shape of the popularity of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Shape {
    /// All keys alike.
    Uniform,
    /// Few keys get most requests (Zipf's law, scattered).
    Zipfian,
    /// The keys that were inserted last are asked for most.
    Latest,
    /// A share of the keys gets a share of the requests.
    Hotspot,
}

/// Zipf's law over this many ranks, whatever the number of keys: YCSB's choice, so that its figures compare.
const SCATTERED_RANKS: u64 = 10_000_000_000;

/// Draws key numbers.
#[derive(Clone, Debug)]
pub(crate) enum Popularity {
    /// All keys alike.
    Uniform,
    /// Ranks of Zipf's law, scattered over the keys by a hash.
    Zipfian(Zipf),
    /// Ranks of Zipf's law, counted back from the last key.
    Latest(Zipf),
    /// The first `keys` share of the (scattered) keys gets the `requests` share.
    Hotspot {
        /// Share of the keys that is hot, 0..1.
        keys: f64,
        /// Share of the requests that the hot keys get, 0..1.
        requests: f64,
    },
}

impl Popularity {
    /// A source of that shape. `theta` is the zipfian exponent, 0..1; `hot_keys` and `hot_requests` are shares.
    #[must_use]
    pub(crate) fn new(shape: Shape, theta: f64, hot_keys: f64, hot_requests: f64) -> Self {
        match shape {
            Shape::Uniform => Self::Uniform,
            Shape::Zipfian => Self::Zipfian(Zipf::new(SCATTERED_RANKS, theta)),
            Shape::Latest => Self::Latest(Zipf::new(1, theta)),
            Shape::Hotspot => Self::Hotspot { keys: hot_keys, requests: hot_requests },
        }
    }

    /// A key number below `keys`, which is not 0.
    pub(crate) fn draw(&mut self, random: &mut Random, keys: u64) -> u64 {
        match self {
            Self::Uniform => random.below(keys),
            Self::Zipfian(zipf) => scatter(zipf.draw(random), keys),
            Self::Latest(zipf) => {
                zipf.grow(keys);
                keys - 1 - zipf.draw(random).min(keys - 1)
            }
            Self::Hotspot { keys: share, requests } => {
                let hot = ((keys as f64 * *share) as u64).clamp(1, keys);
                if hot == keys || random.unit() < *requests {
                    random.below(hot)
                } else {
                    hot + random.below(keys - hot)
                }
            }
        }
    }
}

fn scatter(rank: u64, keys: u64) -> u64 {
    mix(rank.wrapping_add(0x5bd1_e995)) % keys
}

/// Draws ranks, 0 the most popular, by the method of Gray et al., "Quickly generating billion-record synthetic
/// databases" (1994), section 3.2.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    ranks: u64,
    theta: f64,
    /// The sum of 1 / i^theta over all ranks.
    zeta: f64,
    /// The same over the first two.
    zeta_two: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Zipf's law over `ranks` (at least 1) with the exponent `theta` (0..1).
    #[must_use]
    pub(crate) fn new(ranks: u64, theta: f64) -> Self {
        assert!(ranks > 0 && (0.0..1.0).contains(&theta), "zipfian over {ranks} ranks with theta {theta}");
        let zeta_two = 1.0 + 0.5_f64.powf(theta);
        let mut zipf = Self { ranks, theta, zeta: zeta(ranks, theta), zeta_two, alpha: 1.0 / (1.0 - theta), eta: 0.0 };
        zipf.derive();
        zipf
    }

    /// Adds ranks up to `ranks`; the work is in the new ones only, and bounded.
    pub(crate) fn grow(&mut self, ranks: u64) {
        if ranks > self.ranks {
            self.zeta += zeta_between(self.ranks, ranks, self.theta);
            self.ranks = ranks;
            self.derive();
        }
    }

    /// A rank.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let scaled = u * self.zeta;
        if scaled < 1.0 || self.ranks == 1 {
            return 0;
        }
        if scaled < self.zeta_two {
            return 1;
        }
        let rank = self.ranks as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.ranks - 1)
    }

    fn derive(&mut self) {
        let n = self.ranks as f64;
        self.eta = (1.0 - (2.0 / n).powf(1.0 - self.theta)) / (1.0 - self.zeta_two / self.zeta);
    }
}

fn zeta(ranks: u64, theta: f64) -> f64 {
    zeta_between(0, ranks, theta)
}

/// The sum of 1 / i^theta for i in from+1..=to: term by term where the terms still differ, then by the integral with its
/// first Euler–Maclaurin correction (the error is below 1e-9).
fn zeta_between(from: u64, to: u64, theta: f64) -> f64 {
    const EXACT: u64 = 10_000;
    let exact_to = to.min(from.max(EXACT));
    let mut sum: f64 = (from + 1..=exact_to).map(|i| (i as f64).powf(-theta)).sum();
    if to > exact_to {
        let (a, b) = (exact_to as f64, to as f64);
        let power = 1.0 - theta;
        sum += (b.powf(power) - a.powf(power)) / power + (b.powf(-theta) - a.powf(-theta)) / 2.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(mut popularity: Popularity, keys: u64, draws: usize) -> Vec<u64> {
        let mut random = Random::new(42, 0);
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[popularity.draw(&mut random, keys) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zeta_is_the_sum() {
        let direct: f64 = (1..=200_000).map(|i| f64::from(i).powf(-0.99)).sum();
        assert!((zeta(200_000, 0.99) - direct).abs() < 1e-8);
        let mut grown = Zipf::new(1, 0.99);
        for ranks in [2, 3, 100, 9_999, 10_001, 150_000, 200_000] {
            grown.grow(ranks);
        }
        assert!((grown.zeta - direct).abs() < 1e-8, "{} {direct}", grown.zeta);
    }

    #[test]
    fn ranks_follow_zipfs_law() {
        let zipf = Zipf::new(1000, 0.99);
        let mut random = Random::new(1, 2);
        let mut counts = vec![0_u64; 1000];
        for _ in 0..1_000_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        // The method is exact for the first two ranks and close for all others.
        let share = |rank: u32| 1e6 / (f64::from(rank + 1).powf(0.99) * zipf.zeta);
        for (rank, tolerance) in [(0, 0.02), (1, 0.02), (9, 0.25), (99, 0.25), (499, 0.25)] {
            let (got, want) = (counts[rank as usize] as f64, share(rank));
            assert!((got / want - 1.0).abs() < tolerance, "rank {rank}: {got}, expected {want}");
        }
    }

    #[test]
    fn scattered_ranks_keep_the_weight_of_the_hottest() {
        let counts = counts(Popularity::new(Shape::Zipfian, 0.99, 0.0, 0.0), 100_000, 1_000_000);
        let hottest = counts.iter().position(|&count| count == *counts.iter().max().unwrap()).unwrap();
        // 1 / zeta(10¹⁰, 0.99) = 3.78 %.
        assert!((36_500..39_500).contains(&counts[hottest]), "{}", counts[hottest]);
        assert!(hottest > 100, "the hottest key lies anywhere: {hottest}");
    }

    #[test]
    fn latest_prefers_the_last_and_grows() {
        let mut popularity = Popularity::new(Shape::Latest, 0.99, 0.0, 0.0);
        let mut random = Random::new(9, 9);
        for keys in [1, 2, 10, 1000, 1001] {
            assert!(popularity.draw(&mut random, keys) < keys);
        }
        let counts = counts(popularity, 2000, 100_000);
        assert!(counts[1999] > counts[1990] && counts[1990] > counts[100], "{} {}", counts[1999], counts[1990]);
    }

    #[test]
    fn hot_keys_get_their_share() {
        let counts = counts(Popularity::new(Shape::Hotspot, 0.0, 0.2, 0.8), 100, 100_000);
        let hot: u64 = counts[..20].iter().sum();
        assert!((79_000..81_000).contains(&hot), "{hot}");
    }

    #[test]
    fn uniform_reaches_every_key() {
        assert!(counts(Popularity::Uniform, 100, 10_000).iter().all(|&count| count > 50));
    }
}
