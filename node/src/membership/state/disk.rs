//! The state as it lies on each core's disk.
//!
//! The rule: what is read back passes every check that a message passes; anything else is an error, never a guess.
//!
//! Not here: where the bytes are kept.

use std::fmt;

use quorate_net::message::gossip::{self, ArchivedStateBody, StateBody};
use rkyv::{rancor::Error, util::AlignedVec};
use xxhash_rust::xxh3::xxh3_64;

use super::{ClusterState, RingState};

/// The most bytes of a state.
pub const STATE_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"QRTSTATE";
const VERSION: u64 = 1;
const HEADER_BYTES: usize = 24;

/// Why stored bytes are no state. Nothing was taken from them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateError {
    /// They are not what was written: cut, changed or something else.
    Damaged,
    /// Another version of this program wrote them.
    Version(u64),
    /// They contradict themselves.
    Contradiction(String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str(
                "the stored state of the cluster is damaged, nothing was changed: empty this node's data directory and let \
                 another node be replaced by it",
            ),
            Self::Version(version) => write!(
                f,
                "the stored state of the cluster has format {version}, this program reads format {VERSION}; nothing was \
                 changed: start the version that wrote it"
            ),
            Self::Contradiction(why) => write!(
                f,
                "the stored state of the cluster contradicts itself ({why}), nothing was changed: start the version that \
                 wrote it"
            ),
        }
    }
}

impl std::error::Error for StateError {}

impl ClusterState {
    /// The bytes to store: magic, version, checksum of what follows, then the state as it travels.
    ///
    /// # Panics
    ///
    /// Never: the largest state is within [`STATE_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = rkyv::to_bytes::<Error>(&self.body()).expect("memory is all that it needs");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(xxh3_64(&body).to_le_bytes());
        bytes.extend(&*body);
        assert!(bytes.len() <= STATE_BYTES_MAX, "a state of {} bytes", bytes.len());
        bytes
    }

    /// What was stored.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`ClusterState::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Err(StateError::Damaged) };
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        if header[..8] != MAGIC || bytes.len() > STATE_BYTES_MAX {
            return Err(StateError::Damaged);
        }
        if number(8) != VERSION {
            return Err(StateError::Version(number(8)));
        }
        if number(16) != xxh3_64(body) {
            return Err(StateError::Damaged);
        }
        let mut aligned: AlignedVec = AlignedVec::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let archived = rkyv::access::<ArchivedStateBody, Error>(&aligned).map_err(|_| StateError::Damaged)?;
        gossip::check_state(archived).map_err(|fault| StateError::Contradiction(fault.to_string()))?;
        let StateBody { entries, ring } =
            rkyv::deserialize::<StateBody, Error>(archived).map_err(|_| StateError::Damaged)?;
        let ring = RingState::of_body(&ring).ok_or_else(|| StateError::Contradiction("its ring".to_owned()))?;
        let mut state = Self::default();
        match state.reconcile(&entries, &ring) {
            Ok(_) => Ok(state),
            Err(error) => Err(StateError::Contradiction(error.to_string())),
        }
    }
}
