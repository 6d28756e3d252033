//! Which segment to compact next. Pure.
//!
//! The rule: cost and benefit (Rosenblum and Ousterhout, 1992): the victim is the segment with the highest
//! `(1 - u) · age / (1 + u)`, where `1 - u` is the share of it that moving would gain. What died long ago has had its time to die; in a
//! young segment more will die by itself.
//!
//! Not here: moving records (`compactor`), counting what is live (`space`).

/// A full segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its slot.
    pub slot: u32,
    /// Bytes that are gained when its live records are moved elsewhere.
    pub gain: u64,
    /// Bytes appended to the log since it was sealed.
    pub age: u64,
}

/// How things stand when a victim is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation {
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments that could be filled before the disk is full, the reserve included.
    pub free: usize,
    /// Compaction runs when fewer are free.
    pub free_wanted: usize,
    /// Compaction runs when a larger share of the full segments is dead.
    pub dead_percent_max: u64,
}

/// The segment to compact, if any.
#[must_use]
pub fn victim(situation: &Situation, candidates: &[Candidate]) -> Option<u32> {
    let bytes = situation.segment_bytes;
    let total = bytes * candidates.len() as u64;
    let gain: u64 = candidates.iter().map(|candidate| candidate.gain).sum();
    // Less than two segments' worth is not worth a segment for the survivors.
    let untidy = gain > 2 * bytes && gain * 100 > total * situation.dead_percent_max;
    if situation.free >= situation.free_wanted && !untidy {
        return None;
    }
    candidates
        .iter()
        // To move a segment that is nearly all live would write much and gain little.
        .filter(|candidate| candidate.gain * 20 > bytes)
        .max_by(|a, b| score(a, bytes).total_cmp(&score(b, bytes)).then(b.slot.cmp(&a.slot)))
        .map(|candidate| candidate.slot)
}

fn score(candidate: &Candidate, bytes: u64) -> f64 {
    let gain = candidate.gain as f64 / bytes as f64;
    // A segment that was just sealed still competes by what is dead in it.
    gain * (candidate.age + bytes) as f64 / (2.0 - gain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1000;

    fn situation(free: usize) -> Situation {
        Situation { segment_bytes: BYTES, free, free_wanted: 4, dead_percent_max: 30 }
    }

    fn candidate(slot: u32, live: u64, age: u64) -> Candidate {
        Candidate { slot, gain: BYTES - live, age }
    }

    #[test]
    fn a_tidy_store_with_room_is_left_alone() {
        let full: Vec<_> = (0..10).map(|slot| candidate(slot, 800, 5000)).collect();
        assert_eq!(victim(&situation(4), &full), None);
        assert_eq!(victim(&situation(3), &full), Some(0));
    }

    #[test]
    fn dead_bytes_are_reclaimed_without_need_when_they_are_many() {
        let half: Vec<_> = (0..10).map(|slot| candidate(slot, 500, 5000)).collect();
        assert!(victim(&situation(100), &half).is_some());
        // Two segments' worth is not worth one.
        assert_eq!(victim(&situation(100), &half[..3]), None);
    }

    #[test]
    fn the_emptier_and_the_older_go_first() {
        let younger = [candidate(0, 500, 10_000), candidate(1, 500, 20_000)];
        assert_eq!(victim(&situation(0), &younger), Some(1));
        let emptier = [candidate(0, 300, 10_000), candidate(1, 500, 10_000)];
        assert_eq!(victim(&situation(0), &emptier), Some(0));
    }

    #[test]
    fn nothing_is_gained_from_live_segments() {
        assert_eq!(victim(&situation(0), &[candidate(0, 990, 10_000)]), None);
        assert_eq!(victim(&situation(0), &[]), None);
    }
}
