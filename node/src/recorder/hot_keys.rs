//! The keys that are asked for most.
//!
//! The rule: one request in [`SAMPLE`] is looked at, and so many keys are known; a new one takes the place of the least asked
//! for, and its count (Space-Saving, Metwally 2005): so a key that has more than its share is always known, and none is told
//! to be asked for less than it is. What was counted fades within seconds.

use ahash::AHashMap;
use bytes::Bytes;

use super::KEY_BYTES_MAX;

/// So many keys are known.
const KEYS_MAX: usize = 128;

/// One request in so many is looked at.
const SAMPLE: u64 = 8;

/// Each second this part of what was counted fades: all together stand for as many seconds.
const FADES: f64 = 8.0;

/// A key that is asked for often.
#[derive(Clone, PartialEq, Debug)]
pub struct HotKey {
    /// As it is encoded; a long one is cut.
    pub key: Bytes,
    /// Gets a second, about.
    pub gets: f64,
    /// Puts a second, about.
    pub puts: f64,
    /// So many of these a second may be another key's.
    pub error: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    gets: f64,
    puts: f64,
    error: f64,
}

impl Count {
    fn all(&self) -> f64 {
        self.gets + self.puts + self.error
    }
}

/// The keys that are asked for most.
#[derive(Debug, Default)]
pub struct HotKeys {
    requests: u64,
    counts: AHashMap<Bytes, Count>,
}

impl HotKeys {
    pub(super) fn count(&mut self, key: &[u8], put: bool) {
        self.requests += 1;
        if !self.requests.is_multiple_of(SAMPLE) {
            return;
        }
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        if !self.counts.contains_key(key) {
            let mut taken = Count::default();
            if self.counts.len() == KEYS_MAX {
                let least =
                    self.counts.iter().min_by(|a, b| (a.1.all(), a.0).partial_cmp(&(b.1.all(), b.0)).expect("no NaN"));
                let least = least.map(|(key, _)| key.clone()).expect("it is full");
                taken.error = self.counts.remove(&least).expect("found above").all();
            }
            self.counts.insert(Bytes::copy_from_slice(key), taken);
        }
        let count = self.counts.get_mut(key).expect("inserted above");
        *(if put { &mut count.puts } else { &mut count.gets }) += 1.0;
    }

    pub(super) fn roll(&mut self, seconds: u64) {
        let left = (1.0 - 1.0 / FADES).powi(i32::try_from(seconds).unwrap_or(i32::MAX));
        self.counts.retain(|_, count| {
            for part in [&mut count.gets, &mut count.puts, &mut count.error] {
                *part *= left;
            }
            count.all() >= 0.1
        });
    }

    /// The hottest first.
    #[must_use]
    pub fn hottest(&self, most: usize) -> Vec<HotKey> {
        let a_second = |count: f64| count * SAMPLE as f64 / FADES;
        let mut keys: Vec<(&Bytes, &Count)> = self.counts.iter().collect();
        keys.sort_by(|a, b| (b.1.all(), a.0).partial_cmp(&(a.1.all(), b.0)).expect("no NaN"));
        let hot = |(key, count): (&Bytes, &Count)| HotKey {
            key: key.clone(),
            gets: a_second(count.gets),
            puts: a_second(count.puts),
            error: a_second(count.error),
        };
        keys.into_iter().take(most).map(hot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_more_than_its_share_is_known_among_many_others() {
        let mut keys = HotKeys::default();
        for second in 0..60u64 {
            for i in 0..8_000u64 {
                // Prime to the sample, so that it sees all.
                match i % 21 {
                    0 => keys.count(b"hot", false),
                    1 => keys.count(b"warm", true),
                    other => keys.count(&(second * 8_000 + i + other).to_le_bytes(), false),
                }
            }
            keys.roll(1);
        }
        let hottest = keys.hottest(2);
        let names: Vec<&[u8]> = hottest.iter().map(|hot| &hot.key[..]).collect();
        assert!(names.contains(&b"hot".as_slice()) && names.contains(&b"warm".as_slice()), "{hottest:?}");
        let hot = hottest.iter().find(|hot| hot.key == "hot").unwrap();
        assert!((300.0..=400.0).contains(&(hot.gets)) && hot.puts == 0.0, "8000 / 21, what fades included: {hot:?}");
        assert!(keys.counts.len() <= KEYS_MAX);
        keys.roll(100);
        assert!(keys.hottest(5).is_empty(), "it fades");
    }
}
