//! What a core's machine asks of the shell that drives it.
//!
//! The rule: effects are performed in order; none is awaited by the machine, what comes of one returns as an event.
//!
//! Not here: how they are performed (`runtime`, and the simulator).

use quorate_engine::Damage;
use quorate_net::{
    id::Endpoint,
    key::Key,
    message::{Message, Reply, exchange::HashedKey},
};

use crate::{core::LogId, membership::state::Refusal};

/// Something for the shell to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send to a core of this or another node; it may be lost. Should it be known to be lost, the shell says that the
    /// peer is down.
    Send {
        /// The receiver.
        to: Endpoint,
        /// The message.
        message: Message,
    },
    /// Answer a client of this core.
    Answer {
        /// The number under which the shell gave the request.
        client: u64,
        /// The answer, with the client's own request id.
        reply: Reply,
    },
    /// Read a body from the store, then call `handle_loaded`.
    Load {
        /// The number to come back with.
        load: u64,
        /// Which store.
        log: LogId,
        /// The key's partition.
        partition: u16,
        /// The key.
        key: Key,
    },
    /// Read the object that the index lists under this key, then call `handle_fetched`.
    Fetch {
        /// The number to come back with.
        job: u64,
        /// Which store.
        log: LogId,
        /// The key's partition.
        partition: u16,
        /// The key.
        key: HashedKey,
    },
    /// Store this durably under the name [`STATE`](crate::start::STATE), in the order of asking, then call
    /// `handle_state_stored`.
    StoreState(Vec<u8>),
    /// Store durably, under the name [`FILLED`](crate::start::FILLED), that this core's store was filled once. Not answered.
    StoreFilled,
    /// Drop all of a partition, then call `handle_dropped`, in any case.
    Drop {
        /// The partition.
        partition: u16,
    },
    /// Who belongs to the cluster has changed: whom to be connected to follows from it.
    MembersChanged,
    /// This node does not belong to the cluster. Its operator must know.
    Refused(Refusal),
    /// Something that this core had on its disk is damaged. Its operator must know; it is healed from the replicas.
    Damaged {
        /// In which store.
        log: LogId,
        /// What.
        damage: Damage,
    },
    /// What another core sent of this key fits no record together with what is here, so it was refused: nothing is lost, but
    /// they stay different until a client resolves the siblings. Its operator must know.
    Unfit {
        /// The key.
        key: Key,
    },
    /// Draw a new incarnation, store it durably, then call `handle_actor` with it.
    RenewActor,
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A client of this core, by the shell's number.
    Client(u64),
    /// A core that forwarded it.
    Peer(Endpoint),
}

/// Where the answer to a request goes, and under which id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// Who waits.
    pub origin: Origin,
    /// The id that it chose.
    pub id: u64,
}

impl ReplyTo {
    /// The effect that answers.
    #[must_use]
    pub fn answer(self, outcome: quorate_net::message::Outcome) -> Effect {
        let reply = Reply { id: self.id, outcome };
        match self.origin {
            Origin::Client(client) => Effect::Answer { client, reply },
            Origin::Peer(to) => Effect::Send { to, message: Message::Reply(reply) },
        }
    }
}
