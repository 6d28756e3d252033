//! Planted bugs: mistakes that somebody who builds a Dynamo could make, each at the place where it would be made. The
//! simulator has to find them all: one that it does not find is a hole in the simulator.
//!
//! The rule: without the feature `planted` the answer of [`planted`] is a constant `false`, so nothing of a bug is in the
//! program. With it at most one is switched on, for the thread that asks.
//!
//! Not here: finding them (`tests/planted`).

#[cfg(all(feature = "planted", panic = "abort", not(debug_assertions)))]
compile_error!("planted bugs are never in what is shipped: build with --profile planted");

macro_rules! bugs {
    ($($name:ident, $word:literal, $hazard:literal, $what:literal;)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug {
            $(#[doc = $what] $name,)*
        }

        #[cfg(feature = "planted")]
        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name on the command line.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The hazard, rule or property that it is about.
            #[must_use]
            pub fn hazard(self) -> &'static str {
                match self { $(Self::$name => $hazard,)* }
            }

            /// What is wrong.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

bugs! {
    ActorKept, "actor-kept", "H1",
        "One actor for ever; its counter goes on above what the log holds after a crash.";
    OwnCopyEarly, "own-copy-early", "H1",
        "The coordinator counts its own copy before it is on disk.";
    IncarnationCounted, "incarnation-counted", "H2",
        "The incarnation is the stored one plus one, so a lost or restored disk brings an old one back.";
    Doomstone, "doomstone", "H3",
        "A delete leaves nothing behind, so the counters of its key begin anew.";
    TombstoneDropped, "tombstone-dropped", "H4",
        "A tombstone is dropped when it is on disk, whoever may still hold a hint.";
    ProvenOnce, "proven-once", "H4",
        "A tombstone is dropped when all have agreed to it once, whatever is under way.";
    FallbacksUnasked, "fallbacks-unasked", "H4",
        "Whether a tombstone can be dropped only the owners are asked, whoever holds hints.";
    AwayUnasked, "away-unasked", "P8",
        "Whether a tombstone can be dropped those who are away are not asked.";
    PastDropped, "past-dropped", "P8",
        "A clock drops its past as soon as it is long, whoever may still hold that.";
    ExchangeOverwrites, "exchange-overwrites", "H5",
        "What an exchange brings is taken as it came, as if who was away had seen all.";
    HintsOwedAsBefore, "hints-owed-as-before", "H6",
        "Hints are owed to those who owned the partition when this core started.";
    ExchangeEndsAtRoot, "exchange-ends-at-root", "H7",
        "An exchange takes roots that differ for equal.";
    SentOnBlind, "sent-on-blind", "P15", "A put without a context is sent on as it is: who is late makes it again, in the place of what came after it.";
    TokenForgotten, "token-forgotten", "H8",
        "A retry with a token is made anew.";
    RetryContextWide, "retry-context-wide", "H8",
        "The context of a retry covers siblings that came meanwhile.";
    ConfirmsUncompared, "confirms-uncompared", "H9",
        "Who gains confirms before it has what it gains.";
    GainerCountsAlone, "gainer-counts-alone", "H9",
        "While the ring changes what is enough of those to be is enough.";
    NewestWins, "newest-wins", "H10",
        "Of siblings that meet only the one with the latest timestamp stays.";
    RemovedHeard, "removed-heard", "H11",
        "Who was removed is listened to.";
    SplitRingsStay, "split-rings-stay", "H12",
        "Of two rings of one term each side keeps its own.";
    DropsUnheard, "drops-unheard", "H12",
        "A change of the ring goes on before all are known to go by the same tables.";
    DropsUncompared, "drops-uncompared", "H12",
        "Who gives a partition away drops it without a look at what the owners have.";
    LateAnswerCounts, "late-answer-counts", "H13",
        "Numbers of requests begin at 0 in each life, so an answer to an earlier one counts.";
    FsyncRetried, "fsync-retried", "H14",
        "A failed write or fsync is followed by another fsync, which succeeds.";
    FailureAcknowledged, "failure-acknowledged", "H14",
        "A replica whose log has failed acknowledges what waited for it.";
    DirectoryUnsynced, "directory-unsynced", "H15",
        "The directory is not synced after a segment was made.";
    CopyUnsynced, "copy-unsynced", "H15",
        "Compaction's copies are not durable when the index points at them.";
    CheckpointAhead, "checkpoint-ahead", "H15",
        "A checkpoint claims to reflect appends that come after its images.";
    TornTailUncut, "torn-tail-uncut", "H16",
        "A torn tail is left where it is.";
    GenerationUnchecked, "generation-unchecked", "H16",
        "Frames of a segment's earlier use count.";
    ChecksumUnchecked, "checksum-unchecked", "H17",
        "A record's checksum is not looked at.";
    MerkleKeepsOld, "merkle-keeps-old", "H17",
        "A replaced version stays in the Merkle sums.";
    MerkleForgetsNot, "merkle-forgets-not", "H17",
        "A forgotten key stays in its Merkle leaf.";
    SloppyUnsaid, "sloppy-unsaid", "H18",
        "The answer to a put does not say that fallbacks were counted.";
    EmptyTrusted, "empty-trusted", "H18",
        "Who has lost its disk says of what it had that it is absent.";
    FallbackSaysAbsent, "fallback-says-absent", "H18",
        "A fallback without a hint says that the key is absent.";
    ContextUnsealed, "context-unsealed", "H19",
        "A context that was not given out for the key is accepted.";
    ActorKeptAfterMove, "actor-kept-after-move", "H20",
        "The actor lives on after a partition was gained or given away.";
    ActorKeptAfterLoss, "actor-kept-after-loss", "rule 1",
        "The actor lives on after a record was lost.";
    RepairsOneSibling, "repairs-one-sibling", "rule 2",
        "Read repair sends one sibling, not the whole object.";
    TakesAsItCame, "takes-as-it-came", "rule 2",
        "A replica takes an object as it came although it holds a sibling.";
    BlindPutEmpty, "blind-put-empty", "rule 3",
        "A put without a context replaces nothing.";
    FsyncLeftOut, "fsync-left-out", "P12",
        "A commit that ends with a sync does not.";
    AckBeforeFsync, "ack-before-fsync", "P12",
        "A replica says that it has an object on disk when it has it in memory.";
    BufferedCounts, "buffered-counts", "P12",
        "A copy in memory counts for a durable put.";
    AnswersAtOneLess, "answers-at-one-less", "P12",
        "A put is answered at W - 1.";
    CountsTwice, "counts-twice", "P12",
        "Votes are counted, not voters.";
    ReadsOneLess, "reads-one-less", "P5",
        "A get is answered at R - 1.";
    ShowsUndurable, "shows-undurable", "P12",
        "A replica tells a version that a crash can still take back.";
    LostSaysAbsent, "lost-says-absent", "P13",
        "A replica that has lost a key says that it is absent.";
    ContextCoversUnseen, "context-covers-unseen", "P4",
        "The context of a put that leaves siblings covers them.";
    ContextCoversBefore, "context-covers-before", "P4",
        "The context of a put covers all that its actor wrote before.";
    HintForgottenEarly, "hint-forgotten-early", "P9",
        "A hint is forgotten when one owner has it.";
    HintForgottenNewer, "hint-forgotten-newer", "P9",
        "A hint is forgotten although a newer one has taken its place.";
    ExchangeOneWay, "exchange-one-way", "P7",
        "An exchange fetches and never gives.";
    SuspicionStands, "suspicion-stands", "P10",
        "Who is suspected does not refute it.";
    QueueUnbounded, "queue-unbounded", "P14",
        "A core takes whatever comes.";
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on for this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        ON.set(bug);
    }

    /// Whether any is switched on for this thread.
    #[must_use]
    pub fn any_planted() -> bool {
        ON.get().is_some()
    }

    /// Whether the bug is switched on.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{any_planted, plant, planted};

/// Whether the bug is switched on: never.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
