//! What a segment's bytes say after a crash: which frames are there, which are torn, which are corrupt.
//!
//! The rule: a bad frame was acknowledged if, and only if, a later sound frame of the stream says `durable_upto` at or
//! past it. Then it is corrupt: it is reported, and what follows it counts. Else it is the torn tail of the last commits:
//! it is cut, with all that follows, and nothing that was acknowledged is in it.
//!
//! Pure. Not here: reading segments and marking the cut (`replay`).

use crate::{
    disk::BLOCK,
    frame::{self, Header},
    record::Salt,
};

/// A frame whose header validates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Its header.
    pub header: Header,
    /// All its records validate.
    pub sound: bool,
}

/// All frames of one generation in `bytes`, which begin at offset `start` of the segment, up to the one that ends it. Stale
/// frames of other generations are not seen.
#[must_use]
pub fn survey(bytes: &[u8], start: u32, generation: u64, salt: Salt) -> Vec<Sighting> {
    assert!((start as usize).is_multiple_of(BLOCK), "frames begin on blocks");
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let Some(header) = Header::read(&bytes[at..], generation, salt, start + at as u32) else {
            at += BLOCK;
            continue;
        };
        let sound = frame::is_sound(&header, &bytes[at..], salt);
        found.push(Sighting { header, sound });
        if header.last && sound {
            break;
        }
        at += header.frame_length();
    }
    found
}

/// One step through a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A frame to take: the sighting of this index.
    Take(usize),
    /// Something bad.
    Bad(Bad),
}

/// A place where a frame should be and none is sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Where it begins.
    pub offset: u32,
    /// Bytes up to the next frame.
    pub length: u32,
    /// The number of the frame that begins there.
    pub number: u64,
    /// The sighting, when its header validates.
    pub sighting: Option<usize>,
    /// A later frame of this segment proves that it was acknowledged.
    pub acknowledged: bool,
}

/// What a segment amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// In order of offset.
    pub steps: Vec<Step>,
    /// Where the last frame ends.
    pub end: u32,
    /// The number that the next frame would have; `None` when there was no frame at all.
    pub next_number: Option<u64>,
    /// The frame that ends the segment was found.
    pub ended: bool,
}

/// Walks the frames that [`survey`] found from offset `start` on, where frame `expected` should begin, if that is known.
#[must_use]
pub fn judge(sightings: &[Sighting], start: u32, expected: Option<u64>) -> Judged {
    // Any frame says which number the segment began with.
    let first = sightings.first().map(|sighting| sighting.header.first_number());
    let mut judged = Judged { steps: Vec::new(), end: start, next_number: expected.or(first), ended: false };
    // durable_upto never falls along the stream, but what says so may itself be the rotten one: take the highest.
    let mut proven = vec![0; sightings.len() + 1];
    for (i, sighting) in sightings.iter().enumerate().rev() {
        proven[i] = proven[i + 1].max(sighting.header.durable_upto);
    }
    for (i, sighting) in sightings.iter().enumerate() {
        let header = sighting.header;
        if header.offset != judged.end {
            let length = header.offset - judged.end;
            let number = judged.next_number.unwrap_or(header.number);
            judged.steps.push(Step::Bad(Bad {
                offset: judged.end,
                length,
                number,
                sighting: None,
                acknowledged: proven[i] >= number,
            }));
        }
        let length = header.frame_length() as u32;
        judged.steps.push(if sighting.sound {
            Step::Take(i)
        } else {
            Step::Bad(Bad {
                offset: header.offset,
                length,
                number: header.number,
                sighting: Some(i),
                acknowledged: proven[i + 1] >= header.number,
            })
        });
        judged.end = header.offset + length;
        judged.next_number = Some(header.number + 1);
        judged.ended = header.last && sighting.sound;
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{self, Head, Kind},
        segment::{START, Stream},
    };
    use proptest::prelude::*;

    const SALT_OF: u64 = 3;

    /// A segment's bytes behind its header: frames with the given `durable_upto`, each of one record, the numbers from 1 on.
    fn log(durable: &[u64], last: bool) -> Vec<u8> {
        let salt = Salt::new(9, SALT_OF);
        let mut bytes = vec![0; 64 * BLOCK];
        let mut at = 0;
        for (i, durable_upto) in durable.iter().enumerate() {
            let payload = record::length(3, 100 + i * 3000);
            let header = Header {
                generation: SALT_OF,
                number: i as u64 + 1,
                durable_upto: *durable_upto,
                offset: START + at as u32,
                payload: payload as u32,
                records: 1,
                ordinal: i as u32,
                last_sequence: i as u64 + 1,
                last: last && i + 1 == durable.len(),
                stream: Stream::Hot,
            };
            header.write(&mut bytes[at..], salt);
            let head = Head { kind: Kind::Body, partition: 0, sequence: i as u64 + 1, stable_hash: 0 };
            let begin = at + frame::HEADER;
            let body = vec![i as u8; 100 + i * 3000];
            record::write(&mut bytes[begin..begin + payload], head, b"key", &[&body], salt, START + begin as u32);
            at += header.frame_length();
        }
        bytes
    }

    fn judged(bytes: &[u8]) -> Judged {
        judge(&survey(bytes, START, SALT_OF, Salt::new(9, SALT_OF)), START, None)
    }

    fn bad(judged: &Judged) -> Vec<(u64, bool)> {
        let number = |step: &Step| if let Step::Bad(bad) = step { Some((bad.number, bad.acknowledged)) } else { None };
        judged.steps.iter().filter_map(number).collect()
    }

    #[test]
    fn a_whole_log_is_taken() {
        let judged = judged(&log(&[0, 1, 2, 3], true));
        assert_eq!(judged.steps, [Step::Take(0), Step::Take(1), Step::Take(2), Step::Take(3)]);
        assert!(judged.ended && judged.next_number == Some(5));
        assert_eq!(self::judged(&vec![0; 8 * BLOCK]).next_number, None);
    }

    #[test]
    fn a_bad_frame_is_torn_unless_a_later_one_knew_it_durable() {
        // Frame 2 begins in the second block and is one block long.
        for rotten in [BLOCK + 8, BLOCK + 90] {
            let mut torn = log(&[0, 0, 1, 1], false);
            torn[rotten] ^= 1;
            assert_eq!(bad(&judged(&torn)), [(2, false)], "flip at {rotten}");
            let mut corrupt = log(&[0, 1, 1, 2], false);
            corrupt[rotten] ^= 1;
            assert_eq!(bad(&judged(&corrupt)), [(2, true)], "flip at {rotten}");
        }
    }

    #[test]
    fn the_first_frame_of_a_segment_is_no_exception() {
        let mut bytes = log(&[0, 0, 0], false);
        bytes[..BLOCK].fill(0);
        assert_eq!(bad(&judged(&bytes)), [(1, false)]);
        let mut bytes = log(&[0, 1, 1], false);
        bytes[..BLOCK].fill(0);
        assert_eq!(bad(&judged(&bytes)), [(1, true)]);
    }

    #[test]
    fn nothing_counts_behind_the_frame_that_ends_a_segment() {
        let mut bytes = log(&[0, 1, 2], false);
        let end = Header {
            last: true,
            payload: 0,
            records: 0,
            ..survey(&bytes, START, SALT_OF, Salt::new(9, SALT_OF))[1].header
        };
        end.write(&mut bytes[BLOCK..], Salt::new(9, SALT_OF));
        let judged = judged(&bytes);
        assert_eq!(judged.steps, [Step::Take(0), Step::Take(1)]);
        assert!(judged.ended);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..4 * BLOCK)) {
            prop_assert!(judged(&bytes).steps.is_empty());
        }

        #[test]
        fn a_damaged_log_never_gives_a_record_that_was_not_written(
            durable in prop::collection::vec(0..4_u64, 1..6),
            flips in prop::collection::vec((0..8 * BLOCK, any::<u8>()), 0..20),
        ) {
            let whole = log(&durable, false);
            let mut bytes = whole.clone();
            for (at, with) in flips {
                bytes[at] ^= with;
            }
            let salt = Salt::new(9, SALT_OF);
            let sightings = survey(&bytes, START, SALT_OF, salt);
            for step in judge(&sightings, START, None).steps {
                let Step::Take(k) = step else { continue };
                let header = &sightings[k].header;
                let at = (header.offset - START) as usize;
                for (_, _, record) in frame::records(header, &bytes[at..]) {
                    let wanted = frame::records(header, &whole[at..]).next().map(|(_, _, record)| record);
                    prop_assert_eq!(Some(record), wanted);
                }
            }
        }
    }
}
