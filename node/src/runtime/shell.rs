//! One core's machine and the hands that it works with.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant as SystemInstant, SystemTime},
};

use ahash::AHashMap;
use quorate_engine::{
    Store,
    disk::{Disk, dma::DmaDisk},
};
use quorate_net::{
    frame,
    id::Endpoint,
    key::Key,
    message::{ArchivedMessage, Message, Reply, Request, exchange::HashedKey},
    transport::{Connection, Mesh},
};

use serde_json::{Value, json};

use super::{shares::Shares, stalls::Stalls};
use crate::{
    clock::{Instant, Now},
    core::{Core, LogId},
    effect::Effect,
    start::{fetch, renew, store_filled, store_state},
};

/// What a client's answer leads to.
pub(super) type Answered = Box<dyn FnOnce(Reply)>;

/// What follows when other nodes belong, or when a connection with this core of another node stands.
type PeersChanged = dyn Fn(Option<Endpoint>);

/// One core: its machine, its peers, and the clients that wait.
pub(super) struct Shell {
    me: Endpoint,
    core: RefCell<Core<DmaDisk>>,
    stalls: Rc<Stalls>,
    shares: Rc<Shares>,
    epoch: SystemInstant,
    peers: RefCell<BTreeMap<Endpoint, Connection>>,
    mesh: Mesh<Vec<u8>>,
    /// When it did something last.
    last: Cell<Instant>,
    /// From when to when it did nothing for long, the last time.
    standstill: Cell<Option<(Instant, Instant)>>,
    waiting: RefCell<AHashMap<u64, Answered>>,
    next_client: Cell<u64>,
    /// An empty list, kept for its memory.
    spare: Cell<Vec<Effect>>,
    /// What the machine asked for and is not done yet, in order.
    effects: RefCell<VecDeque<Effect>>,
    performing: Cell<bool>,
    /// Messages that could not be sent.
    unsent: Cell<u64>,
    /// States of the cluster that wait to be stored.
    states: RefCell<VecDeque<Vec<u8>>>,
    storing: Cell<bool>,
    /// The disk refused the last one.
    state_refused: Cell<bool>,
    on_peers_changed: RefCell<Option<Rc<PeersChanged>>>,
    /// Whom this core hung up on, why, and when last.
    refused: RefCell<BTreeMap<Stranger, (String, SystemInstant)>>,
}

/// A core that does nothing for so long stands still.
const STANDSTILL: Duration = Duration::from_millis(100);

/// So long after that it may still read what had come before.
const CATCHES_UP: Duration = Duration::from_secs(1);

/// Whom somebody says that it is, and where it came from.
type Stranger = (Option<Endpoint>, IpAddr);

/// Refusals of more are not remembered.
const REFUSED_MAX: usize = 64;

/// The same refusal is logged again after this.
const SAID_AGAIN: Duration = Duration::from_secs(60);

impl Shell {
    /// `epoch` is the moment from which the core's clock counts.
    pub(super) fn new(
        core: Core<DmaDisk>,
        epoch: SystemInstant,
        mesh: Mesh<Vec<u8>>,
        stalls: Rc<Stalls>,
        shares: Shares,
    ) -> Rc<Self> {
        Rc::new(Self {
            me: core.settings().me,
            core: RefCell::new(core),
            stalls,
            shares: Rc::new(shares),
            epoch,
            peers: RefCell::default(),
            mesh,
            last: Cell::new(instant_since(epoch)),
            standstill: Cell::default(),
            waiting: RefCell::default(),
            next_client: Cell::new(0),
            spare: Cell::default(),
            effects: RefCell::default(),
            performing: Cell::new(false),
            unsent: Cell::new(0),
            states: RefCell::default(),
            storing: Cell::new(false),
            state_refused: Cell::new(false),
            on_peers_changed: RefCell::default(),
            refused: RefCell::default(),
        })
    }

    pub(super) fn me(&self) -> Endpoint {
        self.me
    }

    /// Looks at the machine without an event.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Core<DmaDisk>) -> T) -> T {
        look(&self.core.borrow())
    }

    /// What keeps this core from everything else.
    pub(super) fn stalls(&self) -> &Rc<Stalls> {
        &self.stalls
    }

    /// What its clients share.
    pub(super) fn shares(&self) -> &Rc<Shares> {
        &self.shares
    }

    /// Messages that could not be sent.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    /// Hands an event to the machine, then does what it asks. What is done may at once lead to the next event: a task runs
    /// from the moment it is spawned. Then what that one asks is done after all that was asked before. `name`: of the event.
    pub(super) fn drive(
        self: &Rc<Self>,
        name: &'static str,
        event: impl FnOnce(&mut Core<DmaDisk>, Now, &mut Vec<Effect>),
    ) {
        let mut asked = self.spare.take();
        let now = self.now();
        self.goes_on(now.instant);
        event(&mut self.core.borrow_mut(), now, &mut asked);
        self.effects.borrow_mut().extend(asked.drain(..));
        self.spare.set(asked);
        if self.performing.replace(true) {
            return;
        }
        while let Some(effect) = { self.effects.borrow_mut().pop_front() } {
            self.perform(effect);
        }
        self.performing.set(false);
        self.stalls.note(name, self.instant().since(now.instant));
    }

    /// A client's request that came at `arrived`; `answered` is called once, maybe before this returns.
    pub(super) fn request(self: &Rc<Self>, arrived: Instant, request: Request, answered: Answered) {
        let client = self.next_client.get();
        self.next_client.set(client + 1);
        self.waiting.borrow_mut().insert(client, answered);
        self.drive("a request", |core, now, out| core.handle_request(now, arrived, client, request, out));
    }

    /// What another core says, which came at `arrived`.
    pub(super) fn message(self: &Rc<Self>, arrived: Instant, from: Endpoint, message: &ArchivedMessage) {
        self.drive(message_name(message), |core, now, out| core.handle_message(now, arrived, from, message, out));
    }

    /// When what a client's connection brings now came. The kernel kept it meanwhile if this core stood still, and is asked for how
    /// long: nothing is to be done of which the sender was told that it failed. What counts are the last bytes, since who has
    /// given up a request sends no more on its connection.
    pub(super) fn arrived(&self, connection: &Connection) -> Instant {
        let now = self.instant();
        if self.stood_still(now).is_some() { now.before(connection.silent_for()) } else { now }
    }

    /// The same of connections that bring more and more, or are not known: after a standstill it may have come as that began.
    pub(super) fn arrived_at_the_earliest(&self) -> Instant {
        let now = self.instant();
        self.stood_still(now).unwrap_or(now)
    }

    /// Since when this core stood still, if it did a moment ago.
    fn stood_still(&self, now: Instant) -> Option<Instant> {
        self.goes_on(now);
        let (begun, ended) = self.standstill.get()?;
        (now.since(ended) < CATCHES_UP).then_some(begun)
    }

    /// Something is done on this core. Deadlines are looked at so often that there is no long silence but a standstill.
    fn goes_on(&self, now: Instant) {
        let last = self.last.replace(now);
        if now.since(last) > STANDSTILL {
            // Once more before it had caught up: that counts as one.
            let before = self.standstill.get().filter(|(_, ended)| last.since(*ended) < CATCHES_UP);
            self.standstill.set(Some((before.map_or(last, |(begun, _)| begun), now)));
        }
    }

    /// A connection to the peer stands, and it said who it is. A newer one takes the place of an older.
    pub(super) fn peer_connected(self: &Rc<Self>, peer: Endpoint, connection: &Connection) {
        let met = connection.peer().ip();
        self.refused.borrow_mut().retain(|(who, at), _| who.map_or(*at != met, |who| who != peer));
        let before = self.peers.borrow_mut().insert(peer, connection.clone());
        if let Some(before) = before {
            before.close();
        }
        self.peer_changed(peer, true);
        self.follow_peers(Some(peer));
    }

    /// A connection to the peer has ended.
    pub(super) fn peer_disconnected(self: &Rc<Self>, peer: Endpoint, connection: &Connection) {
        let current = self.peers.borrow().get(&peer).is_some_and(|current| current.id() == connection.id());
        if current {
            self.peers.borrow_mut().remove(&peer);
            self.peer_changed(peer, false);
        }
    }

    /// This core hung up on somebody. Who tries again and again is logged now and then.
    pub(super) fn refused(&self, who: Option<Endpoint>, at: SocketAddr, reason: &str) {
        let stranger = (who, at.ip());
        let mut refused = self.refused.borrow_mut();
        let said = |(before, when): &(String, SystemInstant)| before == reason && when.elapsed() < SAID_AGAIN;
        if refused.get(&stranger).is_some_and(said) {
            return;
        }
        let name = who.map_or("somebody".to_owned(), |who| format!("core {who}"));
        say!("core {}: hung up on {name} at {}: {reason}", self.me, at.ip());
        if refused.len() < REFUSED_MAX || refused.contains_key(&stranger) {
            refused.insert(stranger, (reason.to_owned(), SystemInstant::now()));
        }
    }

    /// Whom this core hung up on and has not been connected with since, and why.
    pub(super) fn refusals(&self) -> Vec<Value> {
        let refused = self.refused.borrow();
        let shown = |((who, at), (reason, _)): (&Stranger, &(String, SystemInstant))| {
            let (node, core) = (who.map(|who| who.node.0), who.map(|who| who.core.0));
            json!({"node": node, "core": core, "address": at.to_string(), "reason": reason})
        };
        refused.iter().map(shown).collect()
    }

    /// Whether there is a connection with this peer.
    pub(super) fn is_connected(&self, peer: Endpoint) -> bool {
        self.peers.borrow().contains_key(&peer)
    }

    /// Whether there is another connection with this peer than this one.
    pub(super) fn is_connected_beside(&self, peer: Endpoint, connection: Option<&Connection>) -> bool {
        let peers = self.peers.borrow();
        peers.get(&peer).is_some_and(|current| connection.is_none_or(|known| known.id() != current.id()))
    }

    /// Whether there is a connection with any other node.
    pub(super) fn has_peers(&self) -> bool {
        !self.peers.borrow().is_empty()
    }

    /// There is such a peer; it cannot be reached unless there is a connection.
    pub(super) fn expect_peer(self: &Rc<Self>, peer: Endpoint) {
        if !self.peers.borrow().contains_key(&peer) {
            self.peer_changed(peer, false);
        }
    }

    fn peer_changed(self: &Rc<Self>, peer: Endpoint, up: bool) {
        self.drive("a peer's coming or going", |core, now, out| core.handle_peer(now, peer, up, out));
    }

    /// The time until the machine has something to do by itself.
    pub(super) fn until_next_timeout(&self) -> Duration {
        self.core.borrow().next_timeout().map_or(Duration::MAX, |at| at.since(self.instant()))
    }

    fn objects(&self) -> Store<DmaDisk> {
        self.look(|core| core.store().clone())
    }

    /// The moment on the clock of the machine.
    pub(super) fn instant(&self) -> Instant {
        instant_since(self.epoch)
    }

    pub(super) fn now(&self) -> Now {
        now_since(self.epoch)
    }

    fn perform(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Answer { client, reply } => {
                let answered = self.waiting.borrow_mut().remove(&client);
                if let Some(answered) = answered {
                    answered(reply);
                }
            }
            Effect::Load { load, log: LogId::Objects, partition, key } => {
                self.load(self.objects(), load, partition, key);
            }
            Effect::Load { load, log: LogId::Hints, partition, key } => {
                self.load(self.look(|core| core.hint_store().clone()), load, partition, key);
            }
            Effect::Fetch { job, log: LogId::Objects, partition, key } => {
                self.fetch(self.objects(), job, LogId::Objects, partition, key);
            }
            Effect::Fetch { job, log: LogId::Hints, partition, key } => {
                self.fetch(self.look(|core| core.hint_store().clone()), job, LogId::Hints, partition, key);
            }
            Effect::StoreState(state) => self.store_state(state),
            Effect::StoreFilled => drop(glommio::spawn_local(store_filled(self.objects())).detach()),
            Effect::Drop { partition } => {
                let shell = self.clone();
                let store = self.objects();
                glommio::spawn_local(async move {
                    if let Err(error) = store.drop_partition(partition).await {
                        say!("core {}: partition {partition} is not dropped yet: {error}", shell.me);
                    }
                    shell.drive("a dropped partition", |core, now, out| core.handle_dropped(now, partition, out));
                })
                .detach();
            }
            Effect::MembersChanged => self.follow_peers(None),
            Effect::Refused(refusal) => say!("core {}: {refusal}", self.me),
            Effect::Damaged { log, damage } => say!("core {}: {} is damaged: {damage}", self.me, log.name()),
            Effect::Unfit { key } => say!(
                "core {}: the siblings of \"{}\" here and on other nodes fit no record together: get it, and put what they come to \
                 with the context",
                self.me,
                key.name().escape_ascii()
            ),
            Effect::RenewActor => {
                let shell = self.clone();
                let store = self.objects();
                glommio::spawn_local(async move {
                    match renew(&store, shell.now(), random_u64()).await {
                        Ok(incarnation) => {
                            shell.drive("a new actor", |core, now, out| core.handle_actor(now, incarnation, out));
                        }
                        Err(error) => say!("core {}: no new actor, so no more puts: {error}", shell.me),
                    }
                })
                .detach();
            }
        }
    }

    /// Calls `follow` whenever somebody else belongs to the cluster, or a peer is connected with.
    pub(super) fn on_peers_changed(&self, follow: impl Fn(Option<Endpoint>) + 'static) {
        *self.on_peers_changed.borrow_mut() = Some(Rc::new(follow));
    }

    fn follow_peers(&self, connected: Option<Endpoint>) {
        let follow = self.on_peers_changed.borrow().clone();
        if let Some(follow) = follow {
            follow(connected);
        }
    }

    /// States are stored one after the other, in their order.
    fn store_state(self: &Rc<Self>, state: Vec<u8>) {
        self.states.borrow_mut().push_back(state);
        if self.storing.replace(true) {
            return;
        }
        let shell = self.clone();
        let store = self.objects();
        glommio::spawn_local(async move {
            while let Some(state) = { shell.states.borrow_mut().pop_front() } {
                let stored = store_state(&store, &state).await;
                // It is tried again five times a second.
                let news = stored.is_err() != shell.state_refused.replace(stored.is_err());
                if let (Err(error), true) = (&stored, news) {
                    say!("core {}: who belongs to the cluster cannot be stored: {error}", shell.me);
                }
                shell.drive("a stored state", |core, now, out| core.handle_state_stored(now, stored.is_ok(), out));
            }
            shell.storing.set(false);
        })
        .detach();
    }

    fn load<D: Disk>(self: &Rc<Self>, store: Store<D>, load: u64, partition: u16, key: Key) {
        let shell = self.clone();
        glommio::spawn_local(async move {
            let loaded = store.read(partition, key.encoded()).await;
            shell.drive("a body from the disk", |core, now, out| core.handle_loaded(now, load, &loaded, out));
        })
        .detach();
    }

    fn fetch<D: Disk>(self: &Rc<Self>, store: Store<D>, job: u64, log: LogId, partition: u16, key: HashedKey) {
        let shell = self.clone();
        glommio::spawn_local(async move {
            let object = fetch(&store, partition, key).await;
            shell.drive("a body from the disk", |core, now, out| core.handle_fetched(now, job, log, object, out));
        })
        .detach();
    }

    /// What cannot be sent is lost, as it could be on the way: the receiver's silence is what the machine reckons with.
    fn send(self: &Rc<Self>, to: Endpoint, message: &Message) {
        let sent = if to == self.me {
            let mut bytes = Vec::with_capacity(256);
            let encoded = frame::encode(message, &mut bytes).is_ok();
            encoded && self.receive_own(&bytes)
        } else if to.node == self.me.node {
            let mut bytes = Vec::with_capacity(256);
            frame::encode(message, &mut bytes).is_ok() && self.mesh.send(to.core, bytes).is_ok()
        } else {
            let mut encoded = true;
            let peers = self.peers.borrow();
            let written = peers.get(&to).map(|peer| peer.send(|out| encoded = frame::encode(message, out).is_ok()));
            matches!(written, Some(Ok(()))) && encoded
        };
        if !sent {
            self.unsent.set(self.unsent.get() + 1);
        }
    }
}

impl Shell {
    /// What a core sends itself comes in like what others send.
    fn receive_own(self: &Rc<Self>, bytes: &[u8]) -> bool {
        let frame = frame::decode(bytes, usize::MAX).ok().flatten().expect("it was just encoded");
        frame.access().is_ok_and(|message| {
            self.message(self.instant(), self.me, message);
            true
        })
    }
}

/// What a message is, to whom it keeps waiting.
fn message_name(message: &ArchivedMessage) -> &'static str {
    match message {
        ArchivedMessage::Request(_) => "a forwarded request",
        ArchivedMessage::Reply(_) => "a forwarded reply",
        ArchivedMessage::Replicate(_) => "a replica's object",
        ArchivedMessage::Replicated(_) => "a replica's answer to a put",
        ArchivedMessage::Probe(_) => "a replica's probe",
        ArchivedMessage::Probed(_) => "a replica's answer to a get",
        ArchivedMessage::Exchange(_) => "anti-entropy",
        ArchivedMessage::Reap(_) => "forgetting",
        ArchivedMessage::Gossip(_) | ArchivedMessage::Hello(_) => "gossip",
    }
}

/// The moment that a clock shows which counts from `epoch`.
pub(super) fn now_since(epoch: SystemInstant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: instant_since(epoch), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

fn instant_since(epoch: SystemInstant) -> Instant {
    Instant(u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// A number that no other start draws.
pub(super) fn random_u64() -> u64 {
    getrandom::u64().expect("the kernel gives randomness")
}
