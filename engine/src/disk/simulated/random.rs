//! The one generator of chance in simulations: xoshiro256** (Blackman and Vigna, 2018), seeded by SplitMix64.
//!
//! The rule: the same seed gives the same numbers on every machine, for ever: a failing seed is a test.
//!
//! Not here: secrets. These numbers are predictable.

use std::ops::Range;

/// A seeded stream of numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut at)) }
    }

    /// A stream of its own for one part of a simulation: what the part draws does not move what the others draw.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number in `range`, each as likely as the others to within 2^-64 of its length.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "nothing to draw from {range:?}");
        let length = range.end - range.start;
        range.start + ((u128::from(self.next_u64()) * u128::from(length)) >> 64) as u64
    }

    /// A position in something of `length` parts (not 0).
    pub fn index(&mut self, length: usize) -> usize {
        self.range(0..length as u64) as usize
    }

    /// True once in `times` on the average; never for 0.
    pub fn one_in(&mut self, times: u64) -> bool {
        times != 0 && self.range(0..times) == 0
    }

    /// True in `permille` of 1000 cases.
    pub fn permille(&mut self, permille: u32) -> bool {
        self.range(0..1000) < u64::from(permille)
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts the elements in any order.
    pub fn shuffle<T>(&mut self, elements: &mut [T]) {
        for last in (1..elements.len()).rev() {
            elements.swap(last, self.index(last + 1));
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut random = Random::new(1);
        let first = [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_eq!(first, FIRST);
    }

    const FIRST: [u64; 3] = [12_966_619_160_104_079_557, 9_600_361_134_598_540_522, 10_590_380_919_521_690_900];

    #[test]
    fn a_range_is_drawn_evenly_and_kept() {
        let mut random = Random::new(2);
        let mut hits = [0; 7];
        for _ in 0..70_000 {
            hits[random.range(10..17) as usize - 10] += 1;
        }
        assert!(hits.iter().all(|hits| (9_500..10_500).contains(hits)), "{hits:?}");
    }

    #[test]
    fn a_shuffle_keeps_all_elements() {
        let mut elements = (0..100).collect::<Vec<_>>();
        Random::new(3).shuffle(&mut elements);
        assert_ne!(elements, (0..100).collect::<Vec<_>>());
        elements.sort_unstable();
        assert_eq!(elements, (0..100).collect::<Vec<_>>());
    }
}
