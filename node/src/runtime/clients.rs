//! Connections from clients: native frames or RESP, told apart by the first byte.
//!
//! The rule: a client that sends faster than it is answered is not read from until it caught up, and no client keeps the core
//! for itself (`shares`).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use glommio::spawn_local;
use quorate_net::{
    frame,
    message::{ArchivedMessage, Message, Operation, Reply, Request},
    transport::{Closed, Connection, Handler, Next, SendError, Taken},
};

use super::{shares::Share, shell::Shell, view::View};
use crate::{
    clock::Instant,
    gateway::{After, Ask, Origin, Session, TURN, Task, Ticket},
    membership::state::Change,
};

/// What a client's connection leads to. `local`: the port that it chose.
pub(super) fn accepted(shell: &Rc<Shell>, view: &Rc<View>, local: SocketAddr) -> Box<dyn Handler> {
    Box::new(ClientHandler::Unknown { shell: shell.clone(), view: view.clone(), local })
}

enum ClientHandler {
    Unknown { shell: Rc<Shell>, view: Rc<View>, local: SocketAddr },
    Native(NativeHandler),
    Resp(Rc<RespConnection>),
}

struct NativeHandler {
    shell: Rc<Shell>,
    state: Rc<NativeState>,
}

struct NativeState {
    share: Share,
    paused: Cell<bool>,
    input_ended: Cell<bool>,
}

impl Handler for ClientHandler {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        if let Self::Unknown { shell, view, local } = self {
            let Some(&first) = input.first() else { return Taken::read_more(0, 0) };
            *self = if first == frame::MAGIC[0] {
                Self::Native(NativeHandler::new(shell))
            } else {
                Self::Resp(RespConnection::new(shell, view, connection, *local))
            };
        }
        match self {
            Self::Native(native) => native.received(connection, input),
            Self::Resp(resp) => resp.received(input),
            Self::Unknown { .. } => unreachable!("decided above"),
        }
    }

    fn input_ended(&mut self, connection: &Connection) {
        match self {
            Self::Native(native) => native.input_ended(connection),
            Self::Resp(resp) => resp.input_ended(),
            Self::Unknown { .. } => connection.finish(),
        }
    }

    fn closed(&mut self, connection: &Connection, _reason: Closed) {
        if let Self::Resp(resp) = self {
            resp.view.forget(connection.id());
        }
    }
}

/// A client that speaks RESP: its session, and the requests that the session asks.
pub(super) struct RespConnection {
    shell: Rc<Shell>,
    view: Rc<View>,
    connection: Connection,
    session: RefCell<Session>,
    share: Share,
    /// Asked by the session, not yet by the machine.
    asks: RefCell<VecDeque<Ask>>,
    /// An answer may come while the request is being asked: the next one then waits for this loop, not for a deeper one.
    asking: Cell<bool>,
    /// When the last bytes came: what follows from them waits since then.
    arrived: Cell<Instant>,
}

impl RespConnection {
    fn new(shell: &Rc<Shell>, view: &Rc<View>, connection: &Connection, local: SocketAddr) -> Rc<Self> {
        let origin = Origin { id: view.next_client(), peer: connection.peer(), local, since: view.since() };
        let resp = Rc::new(Self {
            shell: shell.clone(),
            view: view.clone(),
            connection: connection.clone(),
            session: RefCell::new(Session::new(origin, view.gateway_limits())),
            share: Share::new(shell.shares()),
            asks: RefCell::default(),
            asking: Cell::new(false),
            arrived: Cell::new(shell.instant()),
        });
        view.remember(connection.id(), Rc::downgrade(&resp));
        resp
    }

    fn received(self: &Rc<Self>, input: &[u8]) -> Taken {
        self.arrived.set(self.shell.arrived(&self.connection));
        let mut asks = Vec::new();
        let mut taken = Taken { consumed: 0, next: Next::Close };
        let sent = self.connection.send(|out| {
            let mut session = self.session.borrow_mut();
            let before = session.commands();
            session.set_limits(self.view.gateway_limits());
            session.allow(self.share.most());
            taken = session.receive(input, &*self.view, &mut asks, out);
            self.view.count_commands(session.commands() - before);
        });
        match sent {
            Ok(()) => self.ask(asks),
            Err(SendError::Closed | SendError::Full) => taken.next = Next::Close,
        }
        taken
    }

    fn ask(self: &Rc<Self>, asks: Vec<Ask>) {
        self.asks.borrow_mut().extend(asks);
        if self.asking.replace(true) {
            return;
        }
        loop {
            let next = self.asks.borrow_mut().pop_front();
            let Some(Ask { ticket, task }) = next else { break };
            match task {
                Task::Request(operation) => self.request(ticket, operation),
                Task::Change(change) => self.change(ticket, change),
            }
        }
        self.asking.set(false);
    }

    fn request(self: &Rc<Self>, ticket: Ticket, operation: Operation) {
        let resp = self.clone();
        self.share.begin();
        let answered = move |reply: Reply| {
            resp.share.end();
            resp.hand_in(|session, asks, out| {
                session.allow(resp.share.most());
                session.answered(ticket, reply.outcome, asks, out)
            });
        };
        self.shell.request(self.arrived.get(), request_for(operation), Box::new(answered));
    }

    fn change(self: &Rc<Self>, ticket: Ticket, change: Change) {
        let resp = self.clone();
        spawn_local(async move {
            let result = resp.view.change(change).await;
            resp.hand_in(|session, asks, out| session.changed(ticket, result, asks, out));
        })
        .detach();
    }

    /// Tells the session what came of something, and sends and does what follows.
    fn hand_in(self: &Rc<Self>, told: impl FnOnce(&mut Session, &mut Vec<Ask>, &mut Vec<u8>) -> After) {
        let mut asks = Vec::new();
        let mut after = After::Nothing;
        let sent = self.connection.send(|out| after = told(&mut self.session.borrow_mut(), &mut asks, out));
        if sent.is_err() {
            return;
        }
        match after {
            After::Nothing => {}
            After::Resume => self.connection.resume(),
            After::Finish => self.connection.finish(),
        }
        self.ask(asks);
    }

    fn input_ended(&self) {
        if self.session.borrow_mut().input_ended() {
            self.connection.finish();
        }
    }

    /// A line of `CLIENT LIST`; `None` for the session that is being asked.
    pub(super) fn describe(&self, view: &View) -> Option<String> {
        self.session.try_borrow().ok().map(|session| session.describe(view))
    }
}

/// A client that cannot say how long it waits, waits as long as the node's default says.
pub(super) fn request_for(operation: Operation) -> Request {
    Request { id: 0, timeout_us: 0, hops: 0, operation }
}

/// A session that may have ended.
pub(super) type WeakResp = Weak<RespConnection>;

impl NativeHandler {
    fn new(shell: &Rc<Shell>) -> Self {
        let share = Share::new(shell.shares());
        let state = NativeState { share, paused: Cell::new(false), input_ended: Cell::new(false) };
        Self { shell: shell.clone(), state: Rc::new(state) }
    }

    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        let arrived = self.shell.arrived(connection);
        let mut consumed = 0;
        for _ in 0..TURN {
            if self.state.share.is_used_up() {
                self.state.paused.set(true);
                return Taken { consumed, next: Next::Pause };
            }
            let rest = &input[consumed..];
            let request = match frame::decode(rest, usize::MAX) {
                Ok(Some(frame)) => {
                    consumed += frame.consumed();
                    frame.access().ok().and_then(request)
                }
                Ok(None) => return Taken::read_more(consumed, frame::bytes_wanted(rest)),
                Err(_) => None,
            };
            let Some(request) = request else {
                return Taken { consumed, next: Next::Close };
            };
            self.ask(connection, arrived, request);
        }
        Taken { consumed, next: Next::Yield }
    }

    fn ask(&self, connection: &Connection, arrived: Instant, request: Request) {
        let (state, connection) = (self.state.clone(), connection.clone());
        state.share.begin();
        let answered = move |reply| {
            let message = Message::Reply(reply);
            // A connection that is gone needs no answer.
            let _ = connection.send(|out| frame::encode(&message, out).expect("a reply is within its limit"));
            state.share.end();
            if state.share.has_room() && state.paused.replace(false) {
                connection.resume();
            }
            if state.share.is_idle() && state.input_ended.get() {
                connection.finish();
            }
        };
        self.shell.request(arrived, request, Box::new(answered));
    }

    fn input_ended(&self, connection: &Connection) {
        self.state.input_ended.set(true);
        if self.state.share.is_idle() {
            connection.finish();
        }
    }
}

/// A client sends requests and nothing else.
fn request(message: &ArchivedMessage) -> Option<Request> {
    match message {
        ArchivedMessage::Request(request) => rkyv::deserialize::<_, rkyv::rancor::Error>(request).ok(),
        _ => None,
    }
}
