//! The index against a plain map, and its promises on memory and Merkle leaves.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Summaries are their own versions.
struct Plain;

impl Versions for Plain {
    fn summarise(&self, _body: &[u8]) -> Option<Summary> {
        None
    }
    fn stable_hash(&self, summary: Summary) -> u64 {
        summary.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn is_tombstone(&self, _summary: Summary) -> bool {
        false
    }
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&self, _saved: &[u8]) -> bool {
        true
    }
}

const SEED: u64 = 7;

fn entry(n: u64) -> Entry {
    Entry { place: Place::new((n % 1000) as u32, (n % 4096) as u32 * 16, 160), summary: Summary(n) }
}

fn insert(index: &mut Index, partition: u16, key: u64, n: u64) -> Option<Entry> {
    let hash = index.hash(&key.to_le_bytes());
    index.insert(partition, &hash, entry(n).place, entry(n).summary, &Plain)
}

/// A table of `keys` keys from `first` on, each of version `n + key`.
fn filled(first: u64, keys: u64, n: u64) -> Index {
    let mut index = Index::new(1, SEED);
    for key in first..first + keys {
        assert_eq!(insert(&mut index, 0, key, n + key), None);
    }
    index
}

fn leaves(index: &Index, level: u32) -> Vec<u64> {
    (0..1 << level).map(|i| index.leaf(0, level, i, &Plain)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u64, n: u64 },
    Remove { key: u64 },
    Relocate { key: u64, stale: bool, n: u64 },
    Image,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..600_u64;
    let step = prop_oneof![
        60 => (key(), 0..1_u64 << 40).prop_map(|(key, n)| Step::Insert { key, n }),
        25 => key().prop_map(|key| Step::Remove { key }),
        15 => (key(), any::<bool>(), 0..1_u64 << 40).prop_map(|(key, stale, n)| Step::Relocate { key, stale, n }),
        1 => Just(Step::Image),
    ];
    // Runs of one kind, so that tables grow large and shrink again.
    let removals = (0..600_u64).prop_map(|from| (0..500).map(|i| Step::Remove { key: (from + i) % 600 }).collect());
    let growth = (0..600_u64, any::<u32>())
        .prop_map(|(from, n)| (0..500).map(|i| Step::Insert { key: (from + i) % 600, n: u64::from(n) + i }).collect());
    let run = prop_oneof![
        8 => prop::collection::vec(step, 1..100),
        2 => growth,
        2 => removals,
        1 => Just(vec![Step::Clear]),
    ];
    prop::collection::vec(run, 1..12).prop_map(|runs: Vec<Vec<Step>>| runs.concat())
}

proptest! {
    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let mut index = Index::new(3, SEED);
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert { key, n } => {
                    prop_assert_eq!(insert(&mut index, 1, key, n), model.insert(key, entry(n)));
                }
                Step::Remove { key } => {
                    let hash = index.hash(&key.to_le_bytes());
                    prop_assert_eq!(index.remove(1, &hash, &Plain), model.remove(&key));
                }
                Step::Relocate { key, stale, n } => {
                    let hash = index.hash(&key.to_le_bytes());
                    let held = model.get(&key).map_or(entry(1).place, |entry: &Entry| entry.place);
                    let from = if stale { Place::from_bits(held.bits() ^ 1) } else { held };
                    let moves = model.contains_key(&key) && !stale;
                    prop_assert_eq!(index.relocate(1, &hash, from, entry(n).place), moves);
                    if moves {
                        model.entry(key).and_modify(|held| held.place = entry(n).place);
                    }
                }
                Step::Image => {
                    let mut image = Vec::new();
                    index.image(1, &mut image);
                    let mut restored = Index::new(3, SEED);
                    restored.restore(1, &image).unwrap();
                    let mut again = Vec::new();
                    restored.image(1, &mut again);
                    prop_assert_eq!(image, again);
                    index = restored;
                }
                Step::Clear => {
                    index.clear(1);
                    model.clear();
                }
            }
        }
        agrees(&index, &model)?;
    }

    #[test]
    fn bad_images_are_refused_or_give_a_sound_table(
        keys in 0..200_u64,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut image = Vec::new();
        filled(0, keys, 0).image(0, &mut image);
        for (at, bit) in flips {
            let at = at.index(image.len());
            image[at] ^= 1 << bit;
        }
        if cuts {
            image.truncate(cut.index(image.len()));
        }
        let mut index = filled(1000, 3, 0);
        if index.restore(0, &image).is_ok() {
            let listed = index.entries(0, 0, 0).collect::<Vec<_>>();
            prop_assert_eq!(listed.len() as u64, index.len());
            for listed in listed {
                prop_assert!(index.find(0, &listed.hash).is_some());
            }
        } else {
            prop_assert_eq!(index.len(), 3);
        }
    }
}

fn agrees(index: &Index, model: &BTreeMap<u64, Entry>) -> Result<(), TestCaseError> {
    prop_assert_eq!(index.partition_len(1), model.len() as u64);
    prop_assert_eq!((index.partition_len(0), index.root(0)), (0, 0));
    let mut fresh = Index::new(3, SEED);
    for (key, entry) in model {
        let hash = index.hash(&key.to_le_bytes());
        prop_assert_eq!(index.find(1, &hash), Some(*entry));
        prop_assert_eq!(index.find(0, &hash), None);
        fresh.insert(1, &hash, entry.place, entry.summary, &Plain);
    }
    prop_assert_eq!(index.root(1), fresh.root(1));
    for level in 0..8 {
        let mut listed = 0;
        for i in 0..1 << level {
            prop_assert_eq!(index.leaf(1, level, i, &Plain), fresh.leaf(1, level, i, &Plain));
            prop_assert!(index.leaf_is_sound(1, level, i, &Plain));
            for entry in index.entries(1, level, i) {
                prop_assert_eq!(entry.hash.fingerprint() & ((1 << level) - 1), i);
                prop_assert_eq!(index.find(1, &entry.hash), Some(entry.entry));
                listed += 1;
            }
        }
        prop_assert_eq!(listed, model.len());
    }
    // What is accounted for is what a walk over the table finds.
    let buckets = index.tables[1].buckets().map(|bucket| bucket.heap_bytes()).sum::<u64>();
    let mut empty = Vec::new();
    index.image(1, &mut empty);
    prop_assert!(index.tables[1].heap_bytes() >= buckets);
    prop_assert!(index.memory_bytes() <= 32 * index.len() + 3 * Index::FIXED_BYTES + 64);
    Ok(())
}

#[test]
fn leaves_fold_between_tables_with_different_bucket_counts() {
    // The same keys; one of the tables had been larger, and has more buckets.
    let small = filled(0, 1_500, 0);
    let mut large = filled(0, 3_500, 0);
    for key in 1_500..3_500_u64 {
        let hash = large.hash(&key.to_le_bytes());
        large.remove(0, &hash, &Plain).unwrap();
    }
    assert_ne!(small.level(0), large.level(0));
    assert_eq!(small.root(0), large.root(0));
    for level in 0..12 {
        let fine = leaves(&small, level);
        assert_eq!(fine, leaves(&large, level), "level {level}");
        let half = fine.len() / 2;
        if half > 0 {
            let folded = (0..half).map(|i| fine[i].wrapping_add(fine[i + half])).collect::<Vec<_>>();
            assert_eq!(folded, leaves(&small, level - 1));
        }
    }
}

#[test]
fn every_flipped_bit_of_an_image_is_refused_or_harmless() {
    let mut image = Vec::new();
    filled(0, 30, 0).image(0, &mut image);
    for length in 0..image.len() {
        assert!(Index::new(1, SEED).restore(0, &image[..length]).is_err(), "cut to {length} bytes");
    }
    for bit in 0..image.len() * 8 {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut index = Index::new(1, SEED);
        if index.restore(0, &flipped).is_err() {
            assert!(index.is_empty());
            continue;
        }
        // One word of one entry is another: the image's owner has a checksum for that. The table is sound all the same.
        let listed = index.entries(0, 0, 0).collect::<Vec<_>>();
        assert_eq!((listed.len(), index.len(), index.root(0)), (30, 30, filled(0, 30, 0).root(0)), "bit {bit}");
        assert!(listed.iter().all(|listed| listed.hash.tag != 0), "bit {bit}");
        assert!(listed.iter().all(|listed| index.find(0, &listed.hash) == Some(listed.entry)), "bit {bit}");
    }
}

#[test]
fn one_changed_version_shows_in_one_leaf_of_each_level() {
    let ours = filled(0, 5_000, 0);
    let mut theirs = filled(0, 5_000, 0);
    insert(&mut theirs, 0, 77, 1 << 30);
    let at = ours.hash(&77_u64.to_le_bytes()).fingerprint();
    for level in 0..10 {
        let (ours, theirs) = (leaves(&ours, level), leaves(&theirs, level));
        let different = (0..ours.len()).filter(|i| ours[*i] != theirs[*i]).collect::<Vec<_>>();
        assert_eq!(different, [at as usize & ((1 << level) - 1)]);
    }
}

#[test]
fn a_place_is_no_part_of_a_leaf() {
    let ours = filled(0, 100, 0);
    let mut theirs = filled(0, 100, 0);
    let hash = theirs.hash(&5_u64.to_le_bytes());
    assert!(theirs.relocate(0, &hash, entry(5).place, Place::new(3, 64, 32)));
    assert_eq!(ours.root(0), theirs.root(0));
}

#[test]
fn another_seed_gives_other_leaves() {
    let mut other = Index::new(1, SEED + 1);
    (0..100).for_each(|key| assert_eq!(insert(&mut other, 0, key, key), None));
    assert_ne!(other.root(0), filled(0, 100, 0).root(0));
}

#[test]
fn the_key_hash_is_stable() {
    // Stored and compared between machines: a change of these numbers is a change of every format that holds them.
    let hash = KeyHash::new(b"key", 0);
    assert_eq!((hash.fingerprint(), hash.tag), STABLE);
}

const STABLE: (u64, u8) = (13_540_649_951_185_429_987, 62);

#[test]
fn a_key_costs_at_most_32_bytes_at_any_number_of_keys() {
    for (partitions, keys) in [(1024, 600_000_u64), (8, 2_000_000), (1, 300_000)] {
        let mut index = Index::new(partitions, SEED);
        let fixed = u64::from(partitions) * Index::FIXED_BYTES;
        let mut worst: (f64, u64) = (0.0, 0);
        for key in 0..keys {
            insert(&mut index, (key % u64::from(partitions)) as u16, key, key);
            let at = key + 1;
            if (at >= 1000 && at.is_multiple_of(keys / 500)) || at == 1000 {
                assert!(index.memory_bytes() <= 32 * at + fixed, "{} bytes for {at} keys", index.memory_bytes());
                // From some 32 keys a partition on, the fixed part is within the 32 bytes, too.
                let each = index.memory_bytes() as f64 / at as f64;
                if at >= 32 * u64::from(partitions) && each > worst.0 {
                    worst = (each, at);
                }
            }
        }
        println!("{partitions} partitions: at most {:.2} bytes a key, at {} keys", worst.0, worst.1);
        assert!(worst.0 <= 32.0, "{worst:?}");
    }
}

#[test]
fn an_emptied_index_gives_its_memory_back() {
    let mut index = filled(0, 20_000, 0);
    for key in 0..20_000_u64 {
        let hash = index.hash(&key.to_le_bytes());
        assert!(index.remove(0, &hash, &Plain).is_some());
        assert!(index.memory_bytes() <= 32 * index.len() + Index::FIXED_BYTES, "{} keys", index.len());
    }
    assert_eq!((index.len(), index.root(0)), (0, 0));
}
