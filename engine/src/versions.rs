//! What the engine has to know of versions, and no more.
//!
//! The rule: a summary is 62 bits that stand for one version of one key on *this* store; its stable hash stands for the
//! same version on every store of the cluster.
//!
//! Not here: version vectors and siblings, which live in `node`.

/// What the index keeps of a record's version, opaque to the engine. Equal summaries on one store mean equal versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Summary(pub u64);

impl Summary {
    /// The record was there and cannot be read any more: the key is known, its version is not. The index says so until the
    /// key is written anew or forgotten. [`Versions::summarise`] never gives it; its stable hash is 0, so the Merkle trees
    /// of replicas differ and anti-entropy finds the key.
    pub const LOST: Self = Self(3 << 62);
}

/// Tells the engine about the versions inside the opaque bodies that it stores.
///
/// A summary may refer to tables that the implementation interns (actors); they grow only, and travel with the
/// checkpoint as [`Versions::save`]d bytes, so a checkpoint's summaries always find the table that they refer to.
pub trait Versions {
    /// The summary of the version in `body`. Deterministic for a given interned state; interns what is new. `None` when
    /// the body is not an object at all, which recovery treats as corruption. Never [`Summary::LOST`].
    fn summarise(&self, body: &[u8]) -> Option<Summary>;

    /// The same number for the same version on every node: it goes into Merkle leaves. 0 for [`Summary::LOST`].
    fn stable_hash(&self, summary: Summary) -> u64;

    /// True when the version is nothing but tombstones. Deletes may use the reserve of a full disk. Not asked of
    /// [`Summary::LOST`].
    fn is_tombstone(&self, summary: Summary) -> bool;

    /// The interned tables, to be stored with a checkpoint.
    fn save(&self) -> Vec<u8>;

    /// Takes back what [`Versions::save`] gave. Called before any summary of that checkpoint is used. False when the
    /// bytes are not understood; the checkpoint is then not used.
    fn restore(&self, saved: &[u8]) -> bool;
}
