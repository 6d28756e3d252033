//! Which other cores one connects to, and where: those that come after it; and, while it is not known, those that it was
//! told of.
//!
//! The rule: a link goes to the newest address that is known; one to another is closed. A link to a core that should connect
//! to this one stays until that has: else it could not be told that it should. A node says itself where it is, whenever the
//! others know it otherwise.
//!
//! Not here: what is said on a connection ([`peers`]).

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use glommio::timer::Timer;
use quorate_net::{
    id::{CoreId, Endpoint},
    transport::{Link, Transport},
};

use super::{
    peers::{self, Identity},
    shell::Shell,
};
use crate::{
    config::Config,
    membership::state::{Change, ClusterState, Description, Standing},
};

/// A core with no connection to another node for so long asks whether it still belongs.
const ALONE_AFTER: Duration = Duration::from_secs(2);

/// Between two looks whether there is one.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// What is said of this node is corrected no more often: two machines that take themselves for one must not busy the whole
/// cluster.
const SAID_AGAIN: Duration = Duration::from_secs(1);

/// The links of one core.
pub(super) struct Links {
    shell: Rc<Shell>,
    transport: Transport,
    identity: Identity,
    /// What this node is.
    own: Description,
    /// Where the configuration says that nodes listen. They need not belong; one that does says so itself.
    seeds: BTreeMap<Endpoint, SocketAddr>,
    /// Nobody has been connected with this core for a while.
    alone: Cell<bool>,
    open: RefCell<BTreeMap<Endpoint, (SocketAddr, Link)>>,
}

impl Links {
    pub(super) fn new(shell: &Rc<Shell>, transport: &Transport, config: &Config, identity: Identity) -> Rc<Self> {
        let mut seeds = BTreeMap::new();
        for member in config.cluster.members.iter().filter(|member| member.id != identity.me.node) {
            for core in 0..member.cores {
                let at = SocketAddr::new(member.address, member.peer_port + core);
                seeds.insert(Endpoint::new(member.id, CoreId(core)), at);
            }
        }
        let (shell, transport, own) = (shell.clone(), transport.clone(), config.description(identity.machine));
        Rc::new(Self { shell, transport, identity, own, seeds, alone: Cell::new(false), open: RefCell::default() })
    }

    /// Who is connected with nobody for a while connects to those, too, who should connect to it: it may not belong any more,
    /// or have moved, and then nobody else would tell it, or find it.
    pub(super) async fn look_around(self: Rc<Self>) {
        let mut last_met = Instant::now();
        let mut checked = None;
        loop {
            let digest = self.shell.look(|core| core.membership().state().digest());
            if checked.is_none_or(|(before, at): (_, Instant)| before != digest && at.elapsed() > SAID_AGAIN) {
                checked = Some((digest, Instant::now()));
                self.say_where();
            }
            Timer::new(LOOK_AROUND).await;
            if self.shell.has_peers() {
                last_met = Instant::now();
            }
            let alone = last_met.elapsed() > ALONE_AFTER;
            if alone != self.alone.replace(alone) {
                self.follow();
            }
        }
    }

    /// Corrects what the cluster's state says of this node, if that is not so: the machine may have moved.
    fn say_where(&self) {
        let own = &self.own;
        if self.shell.look(|core| core.membership().state().standing(own.identity, own.id)) == Standing::Belongs {
            let mut said = Ok(());
            self.shell.drive("a change of the ring", |core, now, out| {
                said = core.handle_change(now, Change::Join(own.clone()), out);
            });
            if let Err(error) = said {
                say!("core {}: cannot tell the cluster where this node is: {error}", self.identity.me);
            }
        }
    }

    /// A connection with the peer stands. If the peer made it, a link that was kept until then has done its work.
    pub(super) fn connected(&self, peer: Endpoint) {
        if peer < self.identity.me && self.open.borrow().contains_key(&peer) {
            self.follow();
        }
    }

    /// Connects to whom it is not connected to and should be, and the other way round.
    pub(super) fn follow(&self) {
        let me = self.identity.me;
        let wanted = self.shell.look(|core| Wanted::of(core.membership().state(), me, &self.seeds, self.alone.get()));
        self.open.borrow_mut().retain(|&peer, (at, link)| {
            let keep = wanted.keeps(peer, *at, || self.shell.is_connected_beside(peer, link.connection().as_ref()));
            if !keep {
                link.close();
            }
            keep
        });
        // Nobody can be reached until a connection stands, whoever makes it.
        let all: Vec<Endpoint> = self.shell.look(|core| core.membership().state().endpoints().collect());
        all.into_iter().filter(|peer| peer.node != me.node).for_each(|peer| self.shell.expect_peer(peer));
        let mut open = self.open.borrow_mut();
        for (peer, at) in wanted.opened() {
            let asks = wanted.belongs && peer < me;
            open.entry(peer)
                .or_insert_with(|| (at, peers::connect(&self.shell, &self.transport, self.identity, peer, at, asks)));
        }
    }

    pub(super) fn close(&self) {
        self.open.borrow().values().for_each(|(_, link)| link.close());
    }
}

/// Where a core's links should go, by what it knows.
struct Wanted {
    me: Endpoint,
    /// This core belongs, and so does another node.
    belongs: bool,
    alone: bool,
    /// Cores of other nodes, and the newest that is known of where they listen.
    known: BTreeMap<Endpoint, SocketAddr>,
}

impl Wanted {
    fn of(state: &ClusterState, me: Endpoint, seeds: &BTreeMap<Endpoint, SocketAddr>, alone: bool) -> Self {
        let at = |peer: Endpoint| {
            let node = state.node(peer.node)?;
            Some((peer, SocketAddr::new(node.address, node.peer_port.checked_add(peer.core.0)?)))
        };
        let others = state.endpoints().filter(|peer| peer.node != me.node);
        let mut known: BTreeMap<Endpoint, SocketAddr> = others.filter_map(at).collect();
        let belongs = state.has(me) && !known.is_empty();
        // Who does not belong yet asks those that it was told of; so do those who know nobody else.
        if !belongs {
            for (&seed, &at) in seeds {
                known.entry(seed).or_insert(at);
            }
        }
        Self { me, belongs, alone, known }
    }

    /// Whether it is for this core to connect to the peer.
    fn opens(&self, peer: Endpoint) -> bool {
        peer > self.me || !self.belongs || self.alone
    }

    fn opened(&self) -> impl Iterator<Item = (Endpoint, SocketAddr)> {
        self.known.iter().filter(|&(&peer, _)| self.opens(peer)).map(|(&peer, &at)| (peer, at))
    }

    /// Whether a link stays that goes there; `connected`: the peer is connected with by another connection.
    fn keeps(&self, peer: Endpoint, at: SocketAddr, connected: impl FnOnce() -> bool) -> bool {
        self.known.get(&peer) == Some(&at) && (self.opens(peer) || !connected())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use quorate_net::{id::NodeId, message::gossip::NodeIdentity};

    use super::*;
    use crate::membership::state::tests::description;

    fn core(node: u16) -> Endpoint {
        Endpoint::new(NodeId(node), CoreId(0))
    }

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 7500)
    }

    /// Nodes of one core each, that listen at 127.0.0.1 and so on.
    fn founded(nodes: impl Iterator<Item = u16>) -> ClusterState {
        let one = |id: u16| Description { cores: 1, ..description(id, id.into()) };
        ClusterState::founded(64, 3, nodes.map(one).collect()).unwrap()
    }

    fn opened(wanted: &Wanted) -> Vec<Endpoint> {
        wanted.opened().map(|(peer, _)| peer).collect()
    }

    #[test]
    fn the_lesser_of_two_connects_and_who_is_alone_asks_all() {
        let state = founded(1..=4);
        let wanted = |me, alone| Wanted::of(&state, core(me), &BTreeMap::new(), alone);
        assert_eq!(opened(&wanted(2, false)), [core(3), core(4)]);
        assert_eq!(opened(&wanted(4, false)), []);
        assert_eq!(opened(&wanted(4, true)), [core(1), core(2), core(3)]);
    }

    #[test]
    fn who_joins_keeps_its_links_until_the_others_have_connected() {
        let seeds: BTreeMap<_, _> = [(core(1), at("127.0.0.1")), (core(2), at("127.0.0.2"))].into();
        let mut state = ClusterState::default();
        state.change(Change::Join(Description { cores: 1, ..description(3, 3) })).unwrap();
        assert_eq!(opened(&Wanted::of(&state, core(3), &seeds, false)), [core(1), core(2)]);
        // It has heard of the others, who have not heard of it.
        let others = founded(1..=2);
        state.reconcile(&others.entries(), others.ring_state()).unwrap();
        let wanted = Wanted::of(&state, core(3), &seeds, false);
        assert_eq!(opened(&wanted), []);
        assert!(wanted.keeps(core(1), at("127.0.0.1"), || false));
        assert!(!wanted.keeps(core(1), at("127.0.0.1"), || true));
        // Who is nobody's node is not kept.
        assert!(!wanted.keeps(core(4), at("127.0.0.4"), || false));
    }

    #[test]
    fn links_go_to_the_newest_address_that_is_known() {
        let seeds = [(core(2), at("127.0.0.2"))].into();
        let mut state = founded(1..=2);
        let address: IpAddr = "127.0.0.9".parse().unwrap();
        state.change(Change::Join(Description { address, cores: 1, ..description(2, 2) })).unwrap();
        // Also for a core whose own node is not known, and which goes by its configuration in all else.
        for me in [core(1), core(7)] {
            let wanted = Wanted::of(&state, me, &seeds, false);
            assert!(wanted.opened().any(|to| to == (core(2), at("127.0.0.9"))));
            assert!(wanted.keeps(core(2), at("127.0.0.9"), || false));
            assert!(!wanted.keeps(core(2), at("127.0.0.2"), || false));
        }
        assert_eq!(state.standing(NodeIdentity(2), NodeId(2)), Standing::Belongs);
    }
}
