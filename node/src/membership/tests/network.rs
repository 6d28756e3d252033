//! The network that the tests run many cores on: everything that happens follows from one seed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::*;

pub(super) fn endpoint(node: u16, core: u16) -> Endpoint {
    Endpoint::new(NodeId(node), CoreId(core))
}

struct Running {
    membership: Membership,
    /// What came while the core was paused; `None` when it runs.
    inbox: Option<VecDeque<(Endpoint, Gossip)>>,
}

pub(super) struct Network {
    pub(super) loss_percent: usize,
    pub(super) delay_max: Duration,
    now: Instant,
    random: Random,
    founders: ClusterState,
    cores: BTreeMap<Endpoint, Running>,
    /// On their way, by time of arrival and number.
    messages: BTreeMap<(Instant, u64), (Endpoint, Endpoint, Gossip)>,
    number: u64,
    blocked: BTreeSet<(Endpoint, Endpoint)>,
    changes: Vec<(Endpoint, Endpoint, bool)>,
    refusals: Vec<(Endpoint, Refusal)>,
    sent: Vec<Gossip>,
}

impl Network {
    /// `nodes` of `cores`, numbered from 1, that know each other.
    pub(super) fn new(seed: u64, nodes: u16, cores: u16) -> Self {
        let founder = |id: u16| state::Description { cores, ..description(id, id.into()) };
        let founders = ClusterState::founded(64, 3, (1..=nodes).map(founder).collect()).unwrap();
        let mut network = Self {
            loss_percent: 0,
            delay_max: Duration::from_millis(2),
            now: Instant(1_000_000_000),
            random: Random::new(seed),
            founders,
            cores: BTreeMap::new(),
            messages: BTreeMap::new(),
            number: 0,
            blocked: BTreeSet::new(),
            changes: Vec::new(),
            refusals: Vec::new(),
            sent: Vec::new(),
        };
        let endpoints: Vec<Endpoint> = network.founders.endpoints().collect();
        for at in endpoints {
            let incarnation = network.random.next() | 1;
            network.start(at, incarnation);
        }
        network
    }

    /// Starts a founder with what it knew at first.
    pub(super) fn start(&mut self, me: Endpoint, incarnation: u64) {
        self.begin(me, NodeIdentity(me.node.0.into()), incarnation, Vec::new(), self.founders.clone());
    }

    /// Starts a machine that knows a seed, and asks to join.
    pub(super) fn join(&mut self, machine: &state::Description, seed: Endpoint) {
        let mut state = ClusterState::default();
        state.change(Change::Join(machine.clone())).unwrap();
        for core in 0..machine.cores {
            let me = Endpoint::new(machine.id, CoreId(core));
            self.begin(me, machine.identity, 1 + u64::from(core), vec![seed], state.clone());
        }
    }

    pub(super) fn begin(
        &mut self,
        me: Endpoint,
        identity: NodeIdentity,
        incarnation: u64,
        seeds: Vec<Endpoint>,
        state: ClusterState,
    ) {
        let start = Start { me, identity, incarnation, seeds, state, random_seed: self.random.next() };
        let membership = Membership::new(GossipConfig::default(), start, self.now);
        self.cores.insert(me, Running { membership, inbox: None });
    }

    pub(super) fn kill(&mut self, core: Endpoint) {
        self.cores.remove(&core);
    }

    pub(super) fn stop(&mut self, core: Endpoint) {
        self.with(core, |membership, _, out| membership.handle_stop(out));
        self.kill(core);
    }

    pub(super) fn pause(&mut self, core: Endpoint) {
        self.cores.get_mut(&core).unwrap().inbox = Some(VecDeque::new());
    }

    pub(super) fn resume(&mut self, core: Endpoint) {
        let inbox = self.cores.get_mut(&core).unwrap().inbox.take().expect("it was paused");
        // Timers and what was received come in either order.
        if self.random.below(2) == 0 {
            self.with(core, |membership, now, out| membership.handle_timeout(now, out));
        }
        for (from, gossip) in inbox {
            self.with(core, |membership, now, out| membership.handle_gossip(now, from, &gossip, out));
        }
    }

    pub(super) fn block(&mut self, from: Endpoint, to: Endpoint) {
        self.blocked.insert((from, to));
    }

    pub(super) fn split(&mut self, left: &BTreeSet<NodeId>, right: &BTreeSet<NodeId>) {
        let all: Vec<Endpoint> = self.cores.keys().copied().collect();
        for &from in &all {
            for &to in &all {
                if left.contains(&from.node) && right.contains(&to.node) {
                    self.blocked.extend([(from, to), (to, from)]);
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn contact(&mut self, me: Endpoint, peer: Endpoint, contact: Contact) {
        self.with(me, |membership, now, out| membership.handle_contact(now, peer, contact, out));
    }

    pub(super) fn change(&mut self, at: Endpoint, change: Change) {
        self.with(at, |membership, now, out| membership.change(now, change, out).unwrap());
    }

    /// Commits what is staged and finishes it, as if those who gain had confirmed at once.
    pub(super) fn commit(&mut self, at: Endpoint) {
        let plan = self.core(at).state().plan().unwrap().id;
        self.change(at, Change::Commit { plan });
        for core in self.core(at).state().unconfirmed() {
            self.change(at, Change::Confirm(core));
        }
        self.change(at, Change::Finish);
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timeout = |(&at, core): (&Endpoint, &Running)| {
                core.inbox.is_none().then(|| core.membership.next_timeout().map(|due| (due, at))).flatten()
            };
            let timer = self.cores.iter().filter_map(timeout).min();
            let message = self.messages.first_key_value().map(|(&(at, _), _)| at);
            let next = timer.map(|(due, _)| due).into_iter().chain(message).min().filter(|&next| next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            match timer {
                Some((due, core)) if message.is_none_or(|at| due < at) => {
                    self.with(core, |membership, now, out| membership.handle_timeout(now, out));
                    let after = self.cores[&core].membership.next_timeout();
                    assert!(after.is_none_or(|after| after > self.now), "{core} wants to be called again at once");
                }
                _ => self.deliver(),
            }
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let (_, (from, to, gossip)) = self.messages.pop_first().expect("looked at");
        match self.cores.get_mut(&to) {
            Some(Running { inbox: Some(inbox), .. }) => inbox.push_back((from, gossip)),
            Some(_) => self.with(to, |membership, now, out| membership.handle_gossip(now, from, &gossip, out)),
            None => {}
        }
    }

    fn with(&mut self, core: Endpoint, act: impl FnOnce(&mut Membership, Instant, &mut Vec<MembershipEffect>)) {
        let mut out = Vec::new();
        act(&mut self.cores.get_mut(&core).expect("it runs").membership, self.now, &mut out);
        for effect in out {
            match effect {
                MembershipEffect::Send { to, gossip } => self.send(core, to, gossip),
                MembershipEffect::LivenessChanged { endpoint, alive } => self.changes.push((core, endpoint, alive)),
                MembershipEffect::Refused(refusal) => self.refusals.push((core, refusal)),
                MembershipEffect::StateChanged => {}
            }
        }
    }

    fn send(&mut self, from: Endpoint, to: Endpoint, gossip: Gossip) {
        assert_ne!(from, to);
        assert!(gossip.claims.len() <= CLAIMS_MAX);
        self.sent.push(gossip.clone());
        if self.blocked.contains(&(from, to)) || self.random.below(100) < self.loss_percent {
            return;
        }
        let delay = self.delay_max.mul_f64(self.random.below(1000) as f64 / 1000.0);
        self.number += 1;
        self.messages.insert((self.now + delay, self.number), (from, to, gossip));
    }

    pub(super) fn len(&self) -> usize {
        self.cores.len()
    }

    pub(super) fn running(&self) -> Vec<Endpoint> {
        self.cores.iter().filter(|(_, core)| core.inbox.is_none()).map(|(&at, _)| at).collect()
    }

    pub(super) fn core(&self, at: Endpoint) -> &Membership {
        &self.cores[&at].membership
    }

    pub(super) fn core_mut(&mut self, at: Endpoint) -> &mut Membership {
        &mut self.cores.get_mut(&at).unwrap().membership
    }

    pub(super) fn all(&self, holds: impl Fn(&Membership) -> bool) -> bool {
        self.cores.values().all(|core| holds(&core.membership))
    }

    pub(super) fn any(&self, holds: impl Fn(&Membership) -> bool) -> bool {
        self.cores.values().any(|core| holds(&core.membership))
    }

    /// How many states the cores of these nodes have between them.
    pub(super) fn views(&self, nodes: &BTreeSet<NodeId>) -> usize {
        let of = self.cores.iter().filter(|(at, _)| nodes.contains(&at.node));
        of.map(|(_, core)| core.membership.state().digest()).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn assert_all_alive(&self) {
        for by in self.cores.keys() {
            for of in self.cores.keys() {
                assert!(self.core(*by).is_alive(*of), "{by} takes {of} for dead: {:?}", self.core(*by).claim(*of));
            }
        }
    }

    /// Who told of whom that it lives or not, so far.
    pub(super) fn changes(&self) -> &[(Endpoint, Endpoint, bool)] {
        &self.changes
    }

    pub(super) fn refusals(&self) -> &[(Endpoint, Refusal)] {
        &self.refusals
    }

    pub(super) fn sent(&self) -> &[Gossip] {
        &self.sent
    }
}
