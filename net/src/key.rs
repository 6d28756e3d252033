//! A key: a bucket and a name in it, in one byte string.
//!
//! The rule: `[bucket length: u8][bucket][name]` is the one form of a key on the wire, in the log and in the index, so
//! it is made once, where the client's bytes come in.
//!
//! Not here: the slot that routes a key (`slot`).

use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

/// The bucket that RESP speaks to.
pub const DEFAULT_BUCKET: &[u8] = b"default";

/// The most bytes in a key's name.
pub const NAME_BYTES_MAX: usize = 4 << 10;

/// The most bytes in an encoded key.
pub const KEY_BYTES_MAX: usize = 1 + u8::MAX as usize + NAME_BYTES_MAX;

/// Keys of up to so many bytes, most of them, are kept in place.
const IN_PLACE_BYTES: usize = 48;

/// A bucket and a name in it. Cheap to clone.
#[derive(Archive, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmallVec<[u8; IN_PLACE_BYTES]>);

/// Why bytes are not a key. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// The name is empty.
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    NameTooLong(usize),
    /// The bucket is empty or longer than 255 bytes.
    BadBucket,
    /// The encoded form is cut short.
    Malformed,
}

impl Key {
    /// The key `name` in `bucket`.
    ///
    /// # Errors
    /// When either is empty or too long.
    pub fn new(bucket: &[u8], name: &[u8]) -> Result<Self, KeyError> {
        let bucket_length = u8::try_from(bucket.len()).map_err(|_| KeyError::BadBucket)?;
        let mut encoded = SmallVec::with_capacity(1 + bucket.len() + name.len());
        encoded.push(bucket_length);
        encoded.extend_from_slice(bucket);
        encoded.extend_from_slice(name);
        check(&encoded)?;
        Ok(Self(encoded))
    }

    /// The key that `encoded` holds.
    ///
    /// # Errors
    /// When a part is missing, empty or too long.
    pub fn from_encoded(encoded: &[u8]) -> Result<Self, KeyError> {
        check(encoded)?;
        Ok(Self(SmallVec::from_slice(encoded)))
    }

    /// The encoded form.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &[u8] {
        &self.0[1..=usize::from(self.0[0])]
    }

    /// The name in the bucket.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        name_of(&self.0)
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        // As one piece, where the derived one goes byte by byte.
        Self(SmallVec::from_slice(&self.0))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(b\"{}\")", self.0.escape_ascii())
    }
}

impl ArchivedKey {
    /// The encoded form, where it was received. Not a key before it was checked.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// The name in an encoded key that was checked before.
#[must_use]
pub fn name_of(encoded: &[u8]) -> &[u8] {
    &encoded[1 + usize::from(encoded[0])..]
}

/// Whether `encoded` is a key.
///
/// # Errors
/// When a part is missing, empty or too long.
pub fn check(encoded: &[u8]) -> Result<(), KeyError> {
    let bucket_length = usize::from(*encoded.first().ok_or(KeyError::Malformed)?);
    let name_length = encoded.len().checked_sub(1 + bucket_length).ok_or(KeyError::Malformed)?;
    match (bucket_length, name_length) {
        (0, _) => Err(KeyError::BadBucket),
        (_, 0) => Err(KeyError::Empty),
        (_, length) if length > NAME_BYTES_MAX => Err(KeyError::NameTooLong(length)),
        _ => Ok(()),
    }
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "the key is empty"),
            Self::NameTooLong(length) => write!(f, "the key has {length} bytes, at most {NAME_BYTES_MAX} are allowed"),
            Self::BadBucket => write!(f, "the bucket must have 1 to 255 bytes"),
            Self::Malformed => write!(f, "the key is cut short"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_parts() {
        let key = Key::new(b"default", b"user:1").unwrap();
        assert_eq!((key.bucket(), key.name()), (&b"default"[..], &b"user:1"[..]));
        assert_eq!(Key::from_encoded(key.encoded()), Ok(key));
    }

    #[test]
    fn bad_keys_are_refused() {
        assert_eq!(Key::new(b"default", b""), Err(KeyError::Empty));
        assert_eq!(Key::new(b"", b"a"), Err(KeyError::BadBucket));
        assert_eq!(Key::new(&[0; 256], b"a"), Err(KeyError::BadBucket));
        assert_eq!(Key::new(b"default", &[0; NAME_BYTES_MAX + 1]), Err(KeyError::NameTooLong(NAME_BYTES_MAX + 1)));
        assert_eq!(check(b""), Err(KeyError::Malformed));
        assert_eq!(check(b"\x05ab"), Err(KeyError::Malformed));
    }
}
