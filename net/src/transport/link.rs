//! A link: the connection to one peer that is made again whenever it breaks.
//!
//! The rule: a message is sent on the connection that is there now, or refused; nothing is queued for a peer that is
//! not connected. What was sent on a connection that broke may or may not have arrived: the caller has its deadlines.
//!
//! Not here: who the peers are, and what is said first (the [`Handler`] that `handler` makes sends it).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use futures_lite::future;
use glommio::{net::TcpStream, timer::Timer};

use super::{Backoff, Connection, Handler, Limits, SendError, Transport};

/// A connection that lived as long as this was good: the next attempt after it comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(1);

/// How a link connects.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// What each connection may cost.
    pub limits: Limits,
    /// How long one attempt may take. Typical: 1 s.
    pub connect_timeout: Duration,
    /// The first delay between attempts. Typical: 20 ms.
    pub backoff_min: Duration,
    /// The longest delay between attempts. Typical: 1 s.
    pub backoff_max: Duration,
    /// Spreads the delays.
    pub seed: u64,
}

/// The handle of a link. Cheap to clone; the link goes on until [`Link::close`].
#[derive(Clone)]
pub struct Link(Rc<Shared>);

struct Shared {
    address: SocketAddr,
    current: RefCell<Option<Connection>>,
    closing: Cell<bool>,
    hurry: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Link {
    /// Starts to connect to `address`; `handler` makes what each connection leads to, and may send the first message.
    #[must_use]
    pub fn open(
        transport: &Transport,
        address: SocketAddr,
        options: LinkOptions,
        handler: impl Fn(&Connection) -> Box<dyn Handler> + 'static,
    ) -> Self {
        let shared = Rc::new(Shared {
            address,
            current: RefCell::default(),
            closing: Cell::new(false),
            hurry: Cell::new(false),
            waker: Cell::default(),
        });
        glommio::spawn_local(keep_connected(shared.clone(), transport.clone(), options, handler)).detach();
        Self(shared)
    }

    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The connection that is there now.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.0.current.borrow().clone()
    }

    /// Sends on the connection that is there now.
    ///
    /// # Errors
    ///
    /// There is none, or the peer does not read: nothing is sent.
    pub fn send(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendError> {
        match &*self.0.current.borrow() {
            Some(connection) => connection.send(write),
            None => Err(SendError::Closed),
        }
    }

    /// The peer is thought to be there again: the next attempt is made at once.
    pub fn hurry(&self) {
        self.0.hurry.set(true);
        self.0.wake();
    }

    /// Ends the connection, and makes no other.
    pub fn close(&self) {
        self.0.closing.set(true);
        if let Some(connection) = &*self.0.current.borrow() {
            connection.close();
        }
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for `delay`, or until somebody hurries or closes.
    async fn pause(&self, delay: Duration) {
        let disturbed = poll_fn(|cx| {
            if self.closing.get() || self.hurry.get() {
                return Poll::Ready(());
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        });
        future::or(disturbed, async {
            Timer::new(delay).await;
        })
        .await;
    }
}

async fn keep_connected(
    shared: Rc<Shared>,
    transport: Transport,
    options: LinkOptions,
    handler: impl Fn(&Connection) -> Box<dyn Handler>,
) {
    let mut backoff = Backoff::new(options.backoff_min, options.backoff_max, options.seed);
    while !shared.closing.get() {
        shared.hurry.set(false);
        if let Ok(stream) = TcpStream::connect_timeout(shared.address, options.connect_timeout).await
            && !shared.closing.get()
        {
            let since = Instant::now();
            if let Ok(connection) = transport.adopt(stream, &options.limits, &handler) {
                *shared.current.borrow_mut() = Some(connection.clone());
                connection.closed().await;
                shared.current.borrow_mut().take();
            }
            if since.elapsed() >= GOOD_AFTER {
                backoff.reset();
            }
        }
        shared.pause(backoff.next_delay()).await;
    }
}
