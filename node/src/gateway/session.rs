//! One client's connection: commands in, replies out, in order.
//!
//! The rule: each command has a place in line from when it is read; its reply is written when all before it are. A read
//! of a key is not begun before the writes of it that were sent earlier have ended, nor a write before the reads: each
//! sees what was sent before it and nothing that was sent after it. At most so many requests are worked on at a time, and
//! reading stops while too much waits, so a client that pipelines without end costs a bounded amount.
//!
//! Not here: what the commands do (`data`, `kv`, `client`, `server`, `cluster`), how outcomes become replies (`reply`).

use std::collections::VecDeque;

use quorate_net::{
    message::{Operation, Outcome},
    resp::{Command, CommandParser, Protocol, Writer},
    transport::{Next, Taken},
};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Ask, GatewayLimits, NodeView, Origin, Task, Ticket,
    admin::{Order, Wanted},
    client::{Client, write_help},
    command::{self, Run},
    reply::{Gather, Shape},
};
use crate::membership::state::Change;

/// The state of one client's connection.
pub struct Session {
    parser: CommandParser,
    client: Client,
    line: Line,
    /// The shell was told to read no more for now.
    paused: bool,
}

/// What the shell shall do after an outcome was handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing but to send what was written.
    Nothing,
    /// Read again: the session had paused.
    Resume,
    /// End the connection when all is sent.
    Finish,
}

/// What a data command asks, and how the outcomes become its reply.
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) first: Operation,
    /// Those after the first, if any.
    pub(super) more: Vec<Operation>,
}

/// Commands in the order that they were read, from the first that has no reply yet.
struct Line {
    limits: GatewayLimits,
    /// Requests that may be under way at present.
    requests_max: usize,
    places: VecDeque<Place>,
    /// The number of the first place.
    first: u64,
    in_flight: Vec<InFlight>,
    /// Requests that wait until others are answered, in order.
    unsent: VecDeque<Ask>,
    /// Bytes of replies in places behind the first.
    held_bytes: usize,
}

/// A request or a change that is under way.
struct InFlight {
    ticket: Ticket,
    /// The hash of the key that a request is about: two that share one may wait for each other for nothing.
    key: Option<u64>,
    writes: bool,
}

enum Place {
    /// A reply that waits for those before it.
    Written(Vec<u8>),
    /// A command whose requests are under way.
    Asked { gather: Gather, protocol: Protocol },
    /// A change that is under way.
    Changing { protocol: Protocol },
}

impl Session {
    /// The session of a client that has just connected.
    #[must_use]
    pub fn new(origin: Origin, limits: GatewayLimits) -> Self {
        let line = Line {
            limits,
            requests_max: limits.requests_max,
            places: VecDeque::new(),
            first: 0,
            in_flight: Vec::new(),
            unsent: VecDeque::new(),
            held_bytes: 0,
        };
        Self { parser: CommandParser::new(limits.command_limits()), client: Client::new(origin), line, paused: false }
    }

    /// From now on these limits hold.
    pub fn set_limits(&mut self, limits: GatewayLimits) {
        self.line.limits = limits;
        self.parser.set_limits(limits.command_limits());
    }

    /// From now on so many requests may be under way at a time, at least one; never more than the limit.
    pub fn allow(&mut self, requests: usize) {
        self.line.requests_max = requests.clamp(1, self.line.limits.requests_max);
    }

    /// Handles the complete commands at the front of `input`, for one turn. Replies that are ready are appended to `out`;
    /// what is to be asked is appended to `asks`, in order.
    pub fn receive(&mut self, input: &[u8], node: &dyn NodeView, asks: &mut Vec<Ask>, out: &mut Vec<u8>) -> Taken {
        let mut consumed = 0;
        let mut left = self.line.limits.turn;
        loop {
            if self.client.closing {
                // What follows a QUIT is not looked at any more.
                return Taken { consumed: input.len(), next: self.pause_or_close() };
            }
            if self.line.is_busy() {
                self.paused = true;
                return Taken { consumed, next: Next::Pause };
            }
            if left == 0 {
                return Taken { consumed, next: Next::Yield };
            }
            left -= 1;
            match self.parser.parse(&input[consumed..]) {
                Ok(Some(command)) => {
                    consumed += command.consumed();
                    if !command.is_empty() {
                        handle(&mut self.client, &mut self.line, command, node, asks, out);
                    }
                }
                Ok(None) => return Taken::read_more(consumed, self.parser.bytes_wanted()),
                Err(error) => {
                    self.client.closing = true;
                    self.line.write(self.client.protocol, out, |writer| writer.error(&format!("ERR {error}")));
                }
            }
        }
    }

    /// The client sends nothing more. True when no reply is owed, so the connection may end.
    #[must_use]
    pub fn input_ended(&mut self) -> bool {
        self.client.closing = true;
        self.line.places.is_empty()
    }

    /// What came of a request. Replies that are ready now are appended to `out`, requests that may go now to `asks`.
    pub fn answered(&mut self, ticket: Ticket, outcome: Outcome, asks: &mut Vec<Ask>, out: &mut Vec<u8>) -> After {
        self.line.answered(ticket, outcome, asks, out);
        self.after()
    }

    /// What came of a change: what the operator is told, or why it was refused. Otherwise as [`Session::answered`].
    pub fn changed(
        &mut self,
        ticket: Ticket,
        result: Result<Value, String>,
        asks: &mut Vec<Ask>,
        out: &mut Vec<u8>,
    ) -> After {
        self.line.changed(ticket, result, asks, out);
        self.after()
    }

    fn after(&mut self) -> After {
        if self.client.closing && self.line.places.is_empty() {
            return After::Finish;
        }
        if self.paused && !self.client.closing && self.line.has_room() {
            self.paused = false;
            return After::Resume;
        }
        After::Nothing
    }

    /// The session as a line of `CLIENT LIST`.
    #[must_use]
    pub fn describe(&self, node: &dyn NodeView) -> String {
        self.client.describe(node.now_unix())
    }

    /// Commands whose reply is not written yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.line.places.len()
    }

    /// Commands that were read.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.client.commands
    }

    fn pause_or_close(&self) -> Next {
        if self.line.places.is_empty() { Next::Close } else { Next::Pause }
    }
}

fn handle(
    client: &mut Client,
    line: &mut Line,
    command: Command<'_>,
    node: &dyn NodeView,
    asks: &mut Vec<Ask>,
    out: &mut Vec<u8>,
) {
    client.commands += 1;
    let found = command::find(command).and_then(|spec| client.admit(spec, node).map(|()| spec));
    let spec = match found {
        Ok(spec) => spec,
        Err(refusal) => return line.write(client.protocol, out, |writer| writer.error(&refusal)),
    };
    client.last_command = spec.name;
    match spec.run {
        Run::Here(run) => {
            let protocol = client.protocol;
            line.write(protocol, out, |writer| run(client, command, node, writer));
        }
        Run::Asking(plan) => match plan(command, &line.limits, node) {
            Ok(plan) => line.ask(plan, client.protocol, asks),
            Err(refusal) => line.write(client.protocol, out, |writer| writer.error(&refusal)),
        },
        Run::Operating(operate) => match operate(command, node) {
            Ok(Wanted::Order(Order::Change(change))) => line.order(change, client.protocol, asks),
            Ok(Wanted::Order(Order::Answer(inquiry))) => {
                let told = node.inquire(inquiry).map_err(|refusal| format!("ERR {refusal}"));
                line.write(client.protocol, out, |writer| write_told(told, writer));
            }
            Ok(Wanted::Help(container, known)) => {
                line.write(client.protocol, out, |writer| write_help(container, known, writer));
            }
            Err(refusal) => line.write(client.protocol, out, |writer| writer.error(&refusal)),
        },
        Run::HangUp => client.closing = true,
    }
}

/// An operator is told one string of JSON, or why not.
fn write_told(told: Result<Value, String>, writer: &mut Writer<'_>) {
    match told {
        Ok(value) => writer.bulk(value.to_string().as_bytes()),
        Err(refusal) => writer.error(&refusal),
    }
}

impl InFlight {
    fn of(ask: &Ask) -> Self {
        let (key, writes) = match &ask.task {
            Task::Request(Operation::Get(get)) => (Some(&get.key), false),
            Task::Request(Operation::Put(put)) => (Some(&put.key), true),
            Task::Request(Operation::ClusterMap) | Task::Change(_) => (None, false),
        };
        Self { ticket: ask.ticket, key: key.map(|key| xxh3_64(key.encoded())), writes }
    }

    /// Whether `later` has to wait for this one. Of two writes of a key the later builds on the earlier by itself.
    fn bars(&self, later: &Self) -> bool {
        self.key.is_some() && self.key == later.key && self.writes != later.writes
    }
}

impl Line {
    /// A reply that is known at once.
    fn write(&mut self, protocol: Protocol, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
        if self.places.is_empty() {
            write(&mut Writer::new(out, protocol));
            return;
        }
        let mut reply = Vec::new();
        write(&mut Writer::new(&mut reply, protocol));
        self.held_bytes += reply.len();
        self.places.push_back(Place::Written(reply));
    }

    fn ask(&mut self, plan: Plan, protocol: Protocol, asks: &mut Vec<Ask>) {
        let command = self.first + self.places.len() as u64;
        self.places.push_back(Place::Asked { gather: Gather::new(plan.shape, 1 + plan.more.len()), protocol });
        for (part, operation) in (0..).zip(std::iter::once(plan.first).chain(plan.more)) {
            self.unsent.push_back(Ask { ticket: Ticket { command, part }, task: Task::Request(operation) });
        }
        self.send(asks);
    }

    /// A change that this core is to make.
    fn order(&mut self, change: Change, protocol: Protocol, asks: &mut Vec<Ask>) {
        let command = self.first + self.places.len() as u64;
        self.places.push_back(Place::Changing { protocol });
        self.unsent.push_back(Ask { ticket: Ticket { command, part: 0 }, task: Task::Change(change) });
        self.send(asks);
    }

    /// Lets requests go while there is room for them, and none before it is in the way of the next.
    fn send(&mut self, asks: &mut Vec<Ask>) {
        while self.in_flight.len() < self.requests_max
            && let Some(ask) = self.unsent.front()
        {
            let next = InFlight::of(ask);
            if self.in_flight.iter().any(|earlier| earlier.bars(&next)) {
                break;
            }
            self.in_flight.push(next);
            asks.extend(self.unsent.pop_front());
        }
    }

    fn answered(&mut self, ticket: Ticket, outcome: Outcome, asks: &mut Vec<Ask>, out: &mut Vec<u8>) {
        let Some(Place::Asked { gather, .. }) = self.place(ticket) else {
            panic!("an outcome for {ticket:?}, which was not asked")
        };
        let bytes = gather.add(ticket.part, outcome);
        self.held_bytes += bytes;
        self.go_on(ticket, asks, out);
    }

    fn changed(&mut self, ticket: Ticket, result: Result<Value, String>, asks: &mut Vec<Ask>, out: &mut Vec<u8>) {
        let place = self.place(ticket);
        let Some(Place::Changing { protocol }) = place else { panic!("a change for {ticket:?}, which was not asked") };
        let mut reply = Vec::new();
        write_told(result, &mut Writer::new(&mut reply, *protocol));
        let bytes = reply.len();
        *self.place(ticket).expect("found above") = Place::Written(reply);
        self.held_bytes += bytes;
        self.go_on(ticket, asks, out);
    }

    fn place(&mut self, ticket: Ticket) -> Option<&mut Place> {
        ticket.command.checked_sub(self.first).and_then(|at| self.places.get_mut(at as usize))
    }

    /// What was under way by this ticket is done: others may go, and replies may be due.
    fn go_on(&mut self, ticket: Ticket, asks: &mut Vec<Ask>, out: &mut Vec<u8>) {
        let at = self.in_flight.iter().position(|one| one.ticket == ticket).expect("what ends was under way");
        self.in_flight.swap_remove(at);
        self.send(asks);
        while let Some(place) = self.places.front() {
            match place {
                Place::Written(reply) => {
                    self.held_bytes -= reply.len();
                    out.extend_from_slice(reply);
                }
                Place::Asked { gather, protocol } if gather.is_complete() => {
                    self.held_bytes -= gather.held_bytes();
                    gather.write(&mut Writer::new(out, *protocol));
                }
                Place::Asked { .. } | Place::Changing { .. } => break,
            }
            self.places.pop_front();
            self.first += 1;
        }
    }

    /// Too much waits for more commands to be read.
    fn is_busy(&self) -> bool {
        !self.unsent.is_empty()
            || self.places.len() >= self.limits.commands_max
            || self.held_bytes >= self.limits.held_bytes_max
    }

    /// Enough is done to read again: half of what makes it busy, so that reading does not stop and go at each reply.
    fn has_room(&self) -> bool {
        self.unsent.is_empty()
            && self.in_flight.len() <= self.requests_max / 2
            && self.places.len() <= self.limits.commands_max / 2
            && self.held_bytes <= self.limits.held_bytes_max / 2
    }
}
