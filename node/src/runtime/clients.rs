//! Connections from clients: native frames or RESP, told apart by the first byte.
//!
//! The rule: a client that sends faster than it is answered is not read from until it caught up.

use std::{cell::Cell, rc::Rc};

use quorate_net::{
    frame,
    message::{ArchivedMessage, Message, Request},
    transport::{Connection, Handler, Next, Taken},
};

use super::shell::Shell;

/// A native connection with more unanswered requests than this is not read from.
const UNANSWERED_MAX: usize = 4096;

/// What a client's connection leads to.
pub(super) fn accepted(shell: &Rc<Shell>) -> Box<dyn Handler> {
    Box::new(ClientHandler::Unknown(shell.clone()))
}

enum ClientHandler {
    Unknown(Rc<Shell>),
    Native(NativeHandler),
}

struct NativeHandler {
    shell: Rc<Shell>,
    state: Rc<NativeState>,
}

#[derive(Default)]
struct NativeState {
    unanswered: Cell<usize>,
    paused: Cell<bool>,
    input_ended: Cell<bool>,
}

impl Handler for ClientHandler {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        if let Self::Unknown(shell) = self {
            let Some(&first) = input.first() else { return Taken::read_more(0, 0) };
            if first == frame::MAGIC[0] {
                *self = Self::Native(NativeHandler { shell: shell.clone(), state: Rc::default() });
            } else {
                return Taken { consumed: 0, next: Next::Close };
            }
        }
        match self {
            Self::Native(native) => native.received(connection, input),
            Self::Unknown(_) => unreachable!("decided above"),
        }
    }

    fn input_ended(&mut self, connection: &Connection) {
        match self {
            Self::Native(native) => native.input_ended(connection),
            Self::Unknown(_) => connection.finish(),
        }
    }
}

impl NativeHandler {
    fn received(&mut self, connection: &Connection, input: &[u8]) -> Taken {
        let mut consumed = 0;
        loop {
            if self.state.unanswered.get() >= UNANSWERED_MAX {
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
            self.ask(connection, request);
        }
    }

    fn ask(&self, connection: &Connection, request: Request) {
        let (state, connection) = (self.state.clone(), connection.clone());
        state.unanswered.set(state.unanswered.get() + 1);
        let answered = move |reply| {
            let message = Message::Reply(reply);
            // A connection that is gone needs no answer.
            let _ = connection.send(|out| frame::encode(&message, out).expect("a reply is within its limit"));
            let left = state.unanswered.get() - 1;
            state.unanswered.set(left);
            if left <= UNANSWERED_MAX / 2 && state.paused.replace(false) {
                connection.resume();
            }
            if left == 0 && state.input_ended.get() {
                connection.finish();
            }
        };
        self.shell.request(request, Box::new(answered));
    }

    fn input_ended(&self, connection: &Connection) {
        self.state.input_ended.set(true);
        if self.state.unanswered.get() == 0 {
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
