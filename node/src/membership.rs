//! Who belongs to the cluster, and who of them answers (Dynamo 4.8, SWIM).
//!
//! The rule: belonging changes only by command, and travels with the gossip until all know the same; liveness never
//! changes who belongs, and a core that is dead for the others is asked for ever whether it came back. Every core is a
//! member by itself.
//!
//! Each core pings one other in turn. Who does not answer, neither directly nor through others, is a suspect; a suspect
//! that does not refute in time is dead, until it refutes that. Besides, a core avoids by itself, at once and telling
//! nobody, whom it does not get through to: that ends with an answer. Each message carries the digest of the cluster's
//! state; who sees another one than its own sends all it knows.
//!
//! Own code and no library: the members here are those of the cluster's state and no others, the digest rides on every
//! message, every part is checked where the frame is, and requests are heard as evidence.
//!
//! Pure. Not here: which partitions a member owns (`ring`), where an endpoint listens (`runtime`).

mod config;
mod peer;
mod probing;
mod random;
pub mod state;

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use quorate_engine::planted::{Bug, planted};
use quorate_net::{
    id::{Endpoint, NodeId},
    message::gossip::{CLAIMS_MAX, Claim, Gossip, GossipBody, Liveness, NodeEntry, NodeIdentity, StateBody, Status},
};

pub use self::config::GossipConfig;
use self::{
    peer::{Peer, rank},
    probing::{Probe, Relay},
    random::Random,
    state::{Change, ChangeError, ClusterState, Refusal, RingState, Standing},
};
use crate::clock::Instant;

/// Something for the owner of a [`Membership`] to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipEffect {
    /// Send to a core; it may be lost. A seed may be no member yet: its address is known from the configuration.
    Send {
        /// The receiver.
        to: Endpoint,
        /// The message.
        gossip: Gossip,
    },
    /// Requests should go to a member's core again, or no longer. All are taken for alive at first.
    LivenessChanged {
        /// The core.
        endpoint: Endpoint,
        /// Whether they should.
        alive: bool,
    },
    /// Somebody changed who belongs, or the ring. Must be on disk before what follows is sent: else a node that starts again could
    /// make another change under the same version.
    StateChanged,
    /// This node does not belong: nobody listens to it. Told once for each reason.
    Refused(Refusal),
}

/// What a request showed about the core that it went to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contact {
    /// It answered.
    Answered,
    /// It did not answer in time: a few of these in a row, and it is avoided.
    TimedOut,
    /// There is no connection to it: it is avoided at once.
    Unreachable,
}

/// Who a core is when it begins to gossip.
#[derive(Clone, Debug)]
pub struct Start {
    /// This core.
    pub me: Endpoint,
    /// Its machine.
    pub identity: NodeIdentity,
    /// Another one than at any earlier start; not 0.
    pub incarnation: u64,
    /// Cores that are asked while no other node is known to live. They need not be members.
    pub seeds: Vec<Endpoint>,
    /// Who belongs, as far as is known: as founded, as stored, or this node alone, joining.
    pub state: ClusterState,
    /// Where its choices come from.
    pub random_seed: u64,
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MembershipStatistics {
    /// Probes that got no answer at all.
    pub probes_failed: u64,
    /// Probes that only others got an answer to.
    pub probes_indirect: u64,
    /// What was said of this core and not so.
    pub refutations: u64,
    /// States sent, because the receiver's was another.
    pub states_sent: u64,
    /// Messages of machines that do not belong.
    pub refused: u64,
    /// States that were not taken in: too many machines would be known, or the ring was another cluster's.
    pub states_not_taken: u64,
    /// Times that this core found that it had been standing still.
    pub pauses: u64,
}

/// One core's part in the gossip.
#[derive(Debug)]
pub struct Membership {
    config: GossipConfig,
    me: Endpoint,
    identity: NodeIdentity,
    incarnation: u64,
    refutation: u32,
    stopped: bool,
    seeds: Vec<Endpoint>,
    state: ClusterState,
    refusal: Option<Refusal>,
    /// All other cores of the nodes that belong.
    peers: BTreeMap<Endpoint, Peer>,
    suspicions: BTreeSet<(Instant, Endpoint)>,
    /// How often each piece of news is still to be told.
    rumors: BTreeMap<Endpoint, u32>,
    random: Random,
    sequence: u32,
    /// Who is still to be probed before all begin anew; the last comes first.
    round: Vec<Endpoint>,
    probe: Option<Probe>,
    relays: BTreeMap<u32, Relay>,
    next_tick: Instant,
    /// When the state was last sent to somebody who is no peer, and which.
    stranger_told: Option<(Instant, u64)>,
    statistics: MembershipStatistics,
}

type Out = Vec<MembershipEffect>;

impl Membership {
    /// Begins; the first probe is due within an interval.
    ///
    /// # Panics
    ///
    /// When the incarnation or the identity is 0.
    #[must_use]
    pub fn new(config: GossipConfig, start: Start, now: Instant) -> Self {
        let Start { me, identity, incarnation, seeds, state, random_seed } = start;
        assert!(incarnation != 0 && identity.0 != 0, "0 stands for nobody");
        let mut random = Random::new(random_seed);
        // Cores that start together do not speak together.
        let first = config.probe_interval.mul_f64(random.below(1000) as f64 / 1000.0);
        // An answer to an earlier life of this core must not be taken for one to this.
        let sequence = random.next() as u32;
        let mut membership = Self {
            config,
            me,
            identity,
            incarnation,
            refutation: 0,
            stopped: false,
            seeds: seeds.into_iter().filter(|&seed| seed != me).collect(),
            state,
            refusal: None,
            peers: BTreeMap::new(),
            suspicions: BTreeSet::new(),
            rumors: BTreeMap::new(),
            random,
            sequence,
            round: Vec::new(),
            probe: None,
            relays: BTreeMap::new(),
            next_tick: now + first,
            stranger_told: None,
            statistics: MembershipStatistics::default(),
        };
        membership.follow_state();
        membership
    }

    /// A message came from another core.
    pub fn handle_gossip(&mut self, now: Instant, from: Endpoint, gossip: &Gossip, out: &mut Out) {
        if self.stopped || from == self.me {
            return;
        }
        let standing = self.state.standing(gossip.identity, from.node);
        if let Standing::Refused(_) = standing {
            // Nothing of what it says counts; it learns why from the state.
            self.statistics.refused += 1;
            return self.tell_state(now, from, out);
        }
        if let GossipBody::State(StateBody { entries, ring }) = &gossip.body {
            match RingState::of_body(ring) {
                Some(ring) => self.take_state(now, standing, gossip.identity, (entries, &ring), out),
                None => self.statistics.states_not_taken += 1,
            }
        }
        let own = Claim {
            endpoint: from,
            incarnation: gossip.incarnation,
            refutation: gossip.refutation,
            liveness: if gossip.body == GossipBody::Farewell { Liveness::Dead } else { Liveness::Alive },
        };
        self.hear(now, own, out);
        // Who does not belong yet may ask, but not say who is dead.
        if standing == Standing::Belongs {
            gossip.claims.iter().for_each(|&claim| self.hear(now, claim, out));
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.behind = rank(&own) < rank(&peer.claim);
            peer.stamp = Some((gossip.incarnation, gossip.ring));
        }
        self.handle_body(now, from, &gossip.body, out);
        if gossip.digest != self.state.digest() {
            self.tell_state(now, from, out);
        }
        if !matches!(gossip.body, GossipBody::Ping { .. } | GossipBody::Farewell) {
            self.tell_what_is_said(now, from, out);
        }
    }

    /// A request to another core was answered, or not.
    pub fn handle_contact(&mut self, now: Instant, peer: Endpoint, contact: Contact, out: &mut Out) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        match contact {
            Contact::Answered => known.answered(),
            Contact::TimedOut => known.timed_out(now, &self.config),
            Contact::Unreachable => known.failed(now, &self.config),
        }
        let lost = self.tell_usable(peer, out) == Some(false);
        if lost && !self.stopped {
            // The others shall know soon, too.
            self.probe_first(now, peer, out);
        }
        if contact == Contact::Answered {
            self.tell_what_is_said(now, peer, out);
        }
    }

    /// A connection with a peer stands: it hears at once what each message tells by the way.
    pub fn greet(&mut self, peer: Endpoint, out: &mut Out) {
        if self.peers.contains_key(&peer) && !self.stopped {
            // An answer to nothing, which asks for none.
            self.send(peer, GossipBody::Ack { sequence: 0 }, out);
        }
    }

    /// [`Membership::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Out) {
        let Some(due) = self.next_timeout().filter(|&due| due <= now) else { return };
        if now.since(due) >= self.config.probe_interval {
            self.wake(now);
        }
        self.expire_direct(now, out);
        while let Some(&(until, endpoint)) = self.suspicions.first()
            && until <= now
        {
            self.suspicions.pop_first();
            let Some(peer) = self.peers.get_mut(&endpoint) else { continue };
            peer.suspected_until = None;
            let dead = Claim { liveness: Liveness::Dead, ..peer.claim };
            self.hear(now, dead, out);
        }
        if self.next_tick <= now {
            self.tick(now, out);
        }
    }

    /// When to call [`Membership::handle_timeout`] next; never again once it was stopped.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let direct = self.probe.as_ref().and_then(Probe::direct_deadline);
        let suspicion = self.suspicions.first().map(|&(until, _)| until);
        [Some(self.next_tick), direct, suspicion].into_iter().flatten().min()
    }

    /// An operator, or a transfer that is done, changes who belongs.
    ///
    /// # Errors
    ///
    /// When the change does not fit what is known here; nothing has changed then.
    pub fn change(&mut self, now: Instant, change: Change, out: &mut Out) -> Result<(), ChangeError> {
        let before = self.state.digest();
        self.state.change(change)?;
        if self.state.digest() != before {
            self.state_changed(now, out);
        }
        Ok(())
    }

    /// Another core of this node knows this: taken in as a whole.
    pub fn handle_state(&mut self, now: Instant, state: &ClusterState, out: &mut Out) {
        let known = (&state.entries()[..], state.ring_state());
        self.take_state(now, Standing::Belongs, self.identity, known, out);
    }

    /// This core stops on purpose: says so, that nobody needs to find out. Nothing that comes later is answered.
    pub fn handle_stop(&mut self, out: &mut Out) {
        if !self.stopped {
            let peers = self.living();
            for to in self.random.choose(peers, 4 * CLAIMS_MAX) {
                self.send(to, GossipBody::Farewell, out);
            }
            self.stopped = true;
        }
    }

    /// Who belongs.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Whether requests should go to a member's core. This core is always alive to itself; who is no member is not.
    #[must_use]
    pub fn is_alive(&self, endpoint: Endpoint) -> bool {
        endpoint == self.me || self.peers.get(&endpoint).is_some_and(Peer::is_usable)
    }

    /// What all say of a member's core, apart from what this one found out by itself.
    #[must_use]
    pub fn claim(&self, endpoint: Endpoint) -> Option<Claim> {
        self.peers.get(&endpoint).map(|peer| peer.claim)
    }

    /// Since when all say of a member's core that it is a suspect or dead, as far as this one heard of it.
    #[must_use]
    pub fn away_since(&self, endpoint: Endpoint) -> Option<Instant> {
        self.peers.get(&endpoint).and_then(|peer| peer.away_since)
    }

    /// Whether every core that counts has shown, in the life that is known of it, that it goes by the tables that this one
    /// goes by, and all machines that these name belong. Then, and without a change under way, nobody counts any more on
    /// what the table gives to others; see [`state`] for what else must hold before that is dropped.
    #[must_use]
    pub fn all_know_ring(&self) -> bool {
        self.state.stamp().term > 0 && self.state.is_whole() && self.behind_ring().is_empty()
    }

    /// The cores that have not shown it, in order; of nodes that are removing nobody waits for any.
    #[must_use]
    pub fn behind_ring(&self) -> Vec<Endpoint> {
        let stamp = self.state.stamp();
        let counts = |node: NodeId| self.state.node(node).is_some_and(|node| node.status != Status::Removing);
        let behind = |peer: &Peer| peer.stamp != Some((peer.claim.incarnation, stamp));
        self.peers.iter().filter(|(of, peer)| counts(of.node) && behind(peer)).map(|(of, _)| *of).collect()
    }

    /// Why this node does not belong, if it does not.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// This core's machine.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.identity
    }

    /// All that is known of who belongs, for somebody who is refused: so it learns why.
    #[must_use]
    pub fn explanation(&self) -> Gossip {
        Gossip {
            identity: self.identity,
            incarnation: self.incarnation,
            refutation: self.refutation,
            digest: self.state.digest(),
            ring: self.state.stamp(),
            empty: false,
            claims: Vec::new(),
            body: GossipBody::State(self.state.body()),
        }
    }

    /// Counts since the start.
    #[must_use]
    pub fn statistics(&self) -> MembershipStatistics {
        self.statistics
    }

    /// Something is said of a core.
    fn hear(&mut self, now: Instant, claim: Claim, out: &mut Out) {
        if claim.endpoint == self.me && !planted(Bug::SuspicionStands) {
            return self.hear_of_me(claim, out);
        }
        let cores = self.peers.len() + 1;
        let Some(peer) = self.peers.get_mut(&claim.endpoint) else { return };
        if rank(&claim) <= rank(&peer.claim) {
            return;
        }
        peer.is_said(now, claim);
        if let Some(until) = peer.suspected_until.take() {
            self.suspicions.remove(&(until, claim.endpoint));
        }
        if claim.liveness == Liveness::Suspect {
            let until = now + self.config.suspicion(cores);
            peer.suspected_until = Some(until);
            self.suspicions.insert((until, claim.endpoint));
        }
        self.rumors.insert(claim.endpoint, self.config.retellings(cores));
        self.tell_usable(claim.endpoint, out);
    }

    /// What is said of this core and not so is refuted, to some at once. An earlier life of it may have refuted more.
    fn hear_of_me(&mut self, claim: Claim, out: &mut Out) {
        let me = (self.refutation, Liveness::Alive, self.incarnation);
        if rank(&claim) > me || claim.refutation == self.refutation && claim.incarnation > self.incarnation {
            self.refutation = claim.refutation.saturating_add(1);
            self.statistics.refutations += 1;
            self.tell_some(out);
        }
    }

    /// Tells the owner when requests should go to a core again or no longer; says what it told.
    fn tell_usable(&mut self, endpoint: Endpoint, out: &mut Out) -> Option<bool> {
        let peer = self.peers.get_mut(&endpoint)?;
        let alive = peer.is_usable();
        if alive == peer.usable {
            return None;
        }
        peer.usable = alive;
        out.push(MembershipEffect::LivenessChanged { endpoint, alive });
        Some(alive)
    }

    /// A core that lives is said to be dead, or does not know that it was said of an earlier life: a ping carries it.
    fn tell_what_is_said(&mut self, now: Instant, to: Endpoint, out: &mut Out) {
        let pause = self.config.probe_timeout;
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let wrong = peer.behind || peer.claim.liveness != Liveness::Alive;
        if wrong && peer.told.is_none_or(|at| now.since(at) >= pause) {
            peer.told = Some(now);
            self.ping(to, out);
        }
    }

    fn take_state(
        &mut self,
        now: Instant,
        from: Standing,
        by: NodeIdentity,
        (entries, ring): (&[NodeEntry], &RingState),
        out: &mut Out,
    ) {
        // Who begins learns everything from whom it was told to ask. Who belongs lets a stranger in only as itself, one
        // that asks to join: else two clusters of one name would become one. But a stranger may be of this very cluster,
        // later than what is known here: after a lost disk, say, all others that this node was founded with may be gone.
        let i_belong = self.state.standing(self.identity, self.me.node) == Standing::Belongs
            && self.state.node(self.me.node).is_some_and(|node| node.status != Status::Joining);
        let alone: Vec<NodeEntry>;
        let none = RingState::default();
        let (entries, ring) = if i_belong && from == Standing::Unknown && !self.state.is_known_to(entries) {
            let itself = |entry: &&NodeEntry| entry.identity == by && entry.status == Status::Joining;
            alone = entries.iter().filter(itself).cloned().collect();
            (&alone[..], &none)
        } else {
            (entries, ring)
        };
        match self.state.reconcile(entries, ring) {
            Ok(true) => self.state_changed(now, out),
            Ok(false) => {}
            Err(_) => self.statistics.states_not_taken += 1,
        }
    }

    fn state_changed(&mut self, now: Instant, out: &mut Out) {
        out.push(MembershipEffect::StateChanged);
        self.follow_state();
        let refusal = match self.state.standing(self.identity, self.me.node) {
            Standing::Refused(refusal) => Some(refusal),
            Standing::Belongs | Standing::Unknown => None,
        };
        if refusal != self.refusal {
            self.refusal = refusal;
            out.extend(refusal.map(MembershipEffect::Refused));
        }
        let living = self.living();
        for to in self.random.choose(living, self.config.fanout + 1) {
            self.tell_state(now, to, out);
        }
    }

    /// The peers are the cores of the nodes that belong.
    fn follow_state(&mut self) {
        let endpoints: BTreeSet<Endpoint> = self.state.endpoints().filter(|&endpoint| endpoint != self.me).collect();
        self.peers.retain(|endpoint, _| endpoints.contains(endpoint));
        let peers = &self.peers;
        self.suspicions.retain(|(_, endpoint)| peers.contains_key(endpoint));
        self.rumors.retain(|endpoint, _| peers.contains_key(endpoint));
        self.round.retain(|endpoint| peers.contains_key(endpoint));
        for endpoint in endpoints {
            if let Entry::Vacant(place) = self.peers.entry(endpoint) {
                place.insert(Peer::new(endpoint));
                let at = self.random.below(self.round.len() + 1);
                self.round.insert(at, endpoint);
            }
        }
    }

    /// Sends all that is known of who belongs, not too often.
    fn tell_state(&mut self, now: Instant, to: Endpoint, out: &mut Out) {
        let digest = self.state.digest();
        let (told, pause) = match self.peers.get_mut(&to) {
            Some(peer) => (&mut peer.state_sent, self.config.probe_timeout),
            None => (&mut self.stranger_told, self.config.probe_timeout / 4),
        };
        // News goes out at once; only the same again has to wait.
        let waits = |&(at, sent): &(Instant, u64)| sent == digest.hash && now.since(at) < pause;
        if told.as_ref().is_some_and(waits) {
            return;
        }
        *told = Some((now, digest.hash));
        self.statistics.states_sent += 1;
        self.send(to, GossipBody::State(self.state.body()), out);
    }

    fn send(&mut self, to: Endpoint, body: GossipBody, out: &mut Out) {
        let claims = self.news_for(to);
        let gossip = Gossip {
            identity: self.identity,
            incarnation: self.incarnation,
            refutation: self.refutation,
            digest: self.state.digest(),
            ring: self.state.stamp(),
            // Who sends it knows.
            empty: false,
            claims,
            body,
        };
        out.push(MembershipEffect::Send { to, gossip });
    }

    /// What is said of the receiver, if that is not what it says itself; then what was told least.
    fn news_for(&mut self, to: Endpoint) -> Vec<Claim> {
        let about = self.peers.get(&to).filter(|peer| peer.behind || peer.claim.liveness != Liveness::Alive);
        let mut claims: Vec<Claim> = about.map(|peer| peer.claim).into_iter().collect();
        let mut news: Vec<(u32, Endpoint)> =
            self.rumors.iter().filter(|&(&of, _)| of != to).map(|(&of, &left)| (left, of)).collect();
        news.sort_unstable_by(|a, b| b.cmp(a));
        news.truncate(CLAIMS_MAX - claims.len());
        for (left, of) in news {
            claims.push(self.peers[&of].claim);
            if left > 1 {
                self.rumors.insert(of, left - 1);
            } else {
                self.rumors.remove(&of);
            }
        }
        claims
    }

    /// All cores that are not dead.
    fn living(&self) -> Vec<Endpoint> {
        self.peers.iter().filter(|(_, peer)| !peer.is_dead()).map(|(&endpoint, _)| endpoint).collect()
    }
}

#[cfg(test)]
mod tests;
