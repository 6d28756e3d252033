//! The mesh: messages between the cores of one node.
//!
//! The rule: a bounded queue for each ordered pair of cores. Sending never waits: a full queue is an error that the
//! sender sees at once, so that two cores whose queues to each other are full do not wait for each other.
//!
//! Not here: what is said.

use std::fmt;

use futures_lite::future;
use glommio::{
    GlommioError, ResourceType,
    channels::shared_channel::{self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender},
};

use crate::id::CoreId;

/// Messages that a receiver takes before it lets others run.
const BATCH_MAX: usize = 256;

/// What one core needs to join the mesh. Made all at once, then each is given to its core's thread.
pub struct MeshSeat<T: Send + 'static> {
    core: CoreId,
    senders: Vec<Option<SharedSender<T>>>,
    receivers: Vec<Option<SharedReceiver<T>>>,
}

impl<T: Send + 'static> MeshSeat<T> {
    /// The seats of all cores of a node. Each of the queues between two cores holds `capacity` messages.
    #[must_use]
    pub fn all(cores: u16, capacity: usize) -> Vec<Self> {
        let empty = |core| Self { core: CoreId(core), senders: Vec::new(), receivers: Vec::new() };
        let mut seats: Vec<Self> = (0..cores).map(empty).collect();
        for from in 0..usize::from(cores) {
            for to in 0..usize::from(cores) {
                let (sender, receiver) =
                    if from == to { (None, None) } else { split(shared_channel::new_bounded(capacity)) };
                seats[from].senders.push(sender);
                // Row by row, so each core's receivers come in the order of their senders.
                seats[to].receivers.push(receiver);
            }
        }
        seats
    }

    /// The core that this seat is for.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Joins from the core's executor; waits until all others have. The receivers are for one task each, or for one
    /// task that serves them all.
    pub async fn join(self) -> (Mesh<T>, Vec<MeshReceiver<T>>) {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        // All ends at once: two cores that wait for each other's first end would never come to the second.
        let pending_senders: Vec<_> =
            self.senders.into_iter().map(|sender| glommio::spawn_local(connect_sender(sender))).collect();
        let pending_receivers: Vec<_> =
            self.receivers.into_iter().map(|receiver| glommio::spawn_local(connect_receiver(receiver))).collect();
        for sender in pending_senders {
            senders.push(sender.await);
        }
        for (from, receiver) in (0..).map(CoreId).zip(pending_receivers) {
            if let Some(inner) = receiver.await {
                receivers.push(MeshReceiver { from, inner });
            }
        }
        (Mesh { core: self.core, senders }, receivers)
    }
}

fn split<T: Send>(ends: (SharedSender<T>, SharedReceiver<T>)) -> (Option<SharedSender<T>>, Option<SharedReceiver<T>>) {
    (Some(ends.0), Some(ends.1))
}

async fn connect_sender<T: Send + 'static>(sender: Option<SharedSender<T>>) -> Option<ConnectedSender<T>> {
    match sender {
        Some(sender) => Some(sender.connect().await),
        None => None,
    }
}

async fn connect_receiver<T: Send + 'static>(receiver: Option<SharedReceiver<T>>) -> Option<ConnectedReceiver<T>> {
    match receiver {
        Some(receiver) => Some(receiver.connect().await),
        None => None,
    }
}

/// Why a message was not sent; it comes back.
#[derive(PartialEq, Eq, Debug)]
pub enum MeshError<T> {
    /// The other core has not kept up. The message may be tried again later.
    Full(T),
    /// The other core has ended.
    Closed(T),
    /// No such core, or the sender itself.
    NoSuchCore(T),
}

impl<T> fmt::Display for MeshError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "not sent: the other core's queue is full",
            Self::Closed(_) => "not sent: the other core has ended",
            Self::NoSuchCore(_) => "not sent: no such other core",
        })
    }
}

/// One core's way to the others.
pub struct Mesh<T: Send + 'static> {
    core: CoreId,
    senders: Vec<Option<ConnectedSender<T>>>,
}

impl<T: Send + 'static> Mesh<T> {
    /// The core that this is.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Sends to another core of this node. Never waits.
    ///
    /// # Errors
    ///
    /// The message comes back; nothing is sent.
    pub fn send(&self, to: CoreId, message: T) -> Result<(), MeshError<T>> {
        let Some(Some(sender)) = self.senders.get(usize::from(to.0)) else {
            return Err(MeshError::NoSuchCore(message));
        };
        sender.try_send(message).map_err(|error| match error {
            GlommioError::WouldBlock(ResourceType::Channel(message)) => MeshError::Full(message),
            GlommioError::Closed(ResourceType::Channel(message)) => MeshError::Closed(message),
            _ => unreachable!("a channel is full or closed"),
        })
    }
}

/// What comes from one other core.
pub struct MeshReceiver<T: Send + 'static> {
    from: CoreId,
    inner: ConnectedReceiver<T>,
}

impl<T: Send + 'static> MeshReceiver<T> {
    /// The core that sends.
    #[must_use]
    pub fn from(&self) -> CoreId {
        self.from
    }

    /// Waits for the next message and takes all that are there with it, up to a bound. False when the other core has
    /// ended.
    pub async fn receive(&self, into: &mut Vec<T>) -> bool {
        let Some(first) = self.inner.recv().await else { return false };
        into.push(first);
        for _ in 1..BATCH_MAX {
            match future::poll_once(self.inner.recv()).await {
                Some(Some(next)) => into.push(next),
                Some(None) | None => break,
            }
        }
        true
    }
}
