//! Running one check under many seeds.
//!
//! The rule: whatever fails says with which seed.

/// Calls `check` with each seed from 0; when it panics, the seed is printed.
pub fn for_each_seed(count: u64, mut check: impl FnMut(u64)) {
    for seed in 0..count {
        let named = Named(seed);
        check(seed);
        drop(named);
    }
}

struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}
