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
