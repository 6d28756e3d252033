//! Which node owns which token, so that each walk of N tokens meets N nodes and as many racks as it can, and every node
//! is met as often as its weight asks.
//!
//! The rule: a share that no placement could give is cut down first ([`shares`]); then tokens are dealt one by one to
//! whom most is owed, of those that may come next ([`tokens`]). All is computed in one order, so every node comes to the
//! same result.
//!
//! Not here: how a table changes later (`moving`), preference lists (`super`).

use super::Member;
use std::cmp::Reverse;

/// What part of all copies each member should keep: as its weight asks, within what distinct nodes and racks allow.
///
/// A partition has one copy on a node at most, so no share is over 1/N, however heavy the node. Where there are N racks, a
/// rack has one copy at most, too; where there are fewer, each has one at least. What is cut off goes to the others by
/// weight.
pub(super) fn shares(members: &[Member], replicas: u8) -> Vec<f64> {
    let groups = racks(members);
    let copies = copies(members, replicas) as f64;
    let rack_bounds = groups.iter().map(|rack| {
        let weight = rack.iter().map(|node| members[*node].weight).sum();
        let (least, most) = if groups.len() as f64 >= copies {
            (0.0, 1.0)
        } else {
            (1.0, (rack.len() as f64).min(copies - groups.len() as f64 + 1.0))
        };
        Bounded { weight, least: least / copies, most: most / copies }
    });
    let mut shares = vec![0.0; members.len()];
    for (rack, share) in groups.iter().zip(divide(1.0, &rack_bounds.collect::<Vec<_>>())) {
        let bounds = rack.iter().map(|node| Bounded { weight: members[*node].weight, least: 0.0, most: 1.0 / copies });
        for (node, share) in rack.iter().zip(divide(share, &bounds.collect::<Vec<_>>())) {
            shares[*node] = share;
        }
    }
    shares
}

/// The owner of each token, as a position in `members`.
pub(super) fn tokens(partitions: u16, replicas: u8, members: &[Member]) -> Vec<usize> {
    let mut dealer = Dealer::new(replicas, members);
    for _ in 0..partitions {
        dealer.deal();
    }
    dealer.tokens
}

/// The primaries of each partition, as positions in `members`: the nodes in the order in which the walk from its token
/// meets them, new racks first until N are found; then the others, and the nodes that own no token.
pub(super) fn rows(partitions: u16, replicas: u8, members: &[Member]) -> Vec<Vec<usize>> {
    let (tokens, racks) = (tokens(partitions, replicas, members), super::rack_numbers(members));
    let copies = members.len().min(replicas.into());
    let row = |partition: usize| {
        let mut met: Vec<usize> = Vec::new();
        let (mut list, mut racks_met) = (Vec::new(), vec![false; members.len()]);
        let mut seen = vec![false; members.len()];
        let all = 0..members.len();
        // A node of so little weight that it got no token is met after those that did, one of no weight last.
        let unmet = [true, false].map(|owning| all.clone().filter(move |node| (members[*node].weight > 0.0) == owning));
        let walk = tokens[partition..].iter().chain(&tokens[..partition]).copied();
        for node in walk.chain(unmet.into_iter().flatten()) {
            if list.len() == copies {
                break;
            }
            if !std::mem::replace(&mut seen[node], true) {
                let new_rack = members[node].weight > 0.0 && !std::mem::replace(&mut racks_met[racks[node]], true);
                if new_rack { list.push(node) } else { met.push(node) }
            }
        }
        list.extend(met);
        list.truncate(copies);
        list
    };
    (0..partitions.into()).map(row).collect()
}

/// The members with a weight, grouped by rack, racks in the order of their names.
pub(super) fn racks(members: &[Member]) -> Vec<Vec<usize>> {
    let mut owning = (0..members.len()).filter(|node| members[*node].weight > 0.0).collect::<Vec<_>>();
    owning.sort_by_key(|node| (&members[*node].rack, *node));
    owning.chunk_by(|a, b| members[*a].rack == members[*b].rack).map(<[usize]>::to_vec).collect()
}

/// How many copies a partition has among the nodes with a weight.
fn copies(members: &[Member], replicas: u8) -> usize {
    usize::from(replicas).min(members.iter().filter(|member| member.weight > 0.0).count())
}

struct Bounded {
    weight: f64,
    least: f64,
    most: f64,
}

/// Divides `whole` by weight, within each one's bounds; some division must exist.
fn divide(whole: f64, parts: &[Bounded]) -> Vec<f64> {
    let at = |scale: f64| parts.iter().map(move |part| (part.weight * scale).clamp(part.least, part.most));
    // The sum rises with the scale: double it until it is enough, then halve the interval until nothing is left of it.
    let weights = parts.iter().map(|part| part.weight).sum::<f64>();
    let (mut low, mut high) = (0.0, whole / weights);
    for _ in 0..200 {
        if at(high).sum::<f64>() >= whole {
            break;
        }
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if at(middle).sum::<f64>() < whole { low = middle } else { high = middle }
    }
    at(high).collect()
}

/// Deals tokens, first to the rack that is owed most, then to its node that is owed most.
///
/// Each step pays every rack its share as credit, and takes one token's worth from the one that gets the token; likewise
/// for the nodes of a rack. So equal nodes get one token each in each block of S. Among equals the one comes first that
/// stands in least often for the nodes before it: when a node dies, all the others take over from it in turn.
struct Dealer {
    nodes: Vec<Node>,
    racks: Vec<Rack>,
    copies: usize,
    tokens: Vec<usize>,
    /// Walks that have met their primaries and not yet the first fallback: where they start.
    open_walks: Vec<usize>,
    /// For how many partitions the second is the first fallback of the first.
    stands_in: Vec<Vec<u32>>,
}

struct Node {
    id: u16,
    rack: usize,
    /// Its part of its rack's tokens; 0 never gets one.
    share: f64,
    credit: f64,
}

struct Rack {
    share: f64,
    credit: f64,
    /// One past its last token.
    seen: usize,
}

impl Dealer {
    fn new(replicas: u8, members: &[Member]) -> Self {
        let shares = shares(members, replicas);
        let node = |member: &Member| Node { id: member.node.id.0, rack: 0, share: 0.0, credit: 0.0 };
        let mut nodes = members.iter().map(node).collect::<Vec<_>>();
        let mut dealt = Vec::new();
        for (rack, group) in racks(members).iter().enumerate() {
            let share = group.iter().map(|node| shares[*node]).sum();
            for node in group {
                (nodes[*node].rack, nodes[*node].share) = (rack, shares[*node] / share);
            }
            dealt.push(Rack { share, credit: 0.0, seen: 0 });
        }
        let stands_in = vec![vec![0; members.len()]; members.len()];
        let copies = copies(members, replicas);
        Self { nodes, racks: dealt, copies, tokens: Vec::new(), open_walks: Vec::new(), stands_in }
    }

    fn deal(&mut self) {
        self.racks.iter_mut().for_each(|rack| rack.credit += rack.share);
        let racks = self.racks_next();
        let recent = self.recent(self.copies - 1);
        let owning = |node: &usize| self.nodes[*node].share > 0.0;
        let apart = |node: &usize| !recent.contains(node);
        let in_rack = |node: &usize| racks[self.nodes[*node].rack];
        let all = || (0..self.nodes.len()).filter(owning);
        let best = all().filter(apart).filter(in_rack).max_by_key(|node| self.rank(*node));
        let best = best.or_else(|| all().filter(apart).max_by_key(|node| self.rank(*node)));
        self.give(best.expect("fewer nodes are kept apart than own tokens"));
    }

    fn give(&mut self, node: usize) {
        let rack = self.nodes[node].rack;
        self.racks[rack].credit -= 1.0;
        for other in self.nodes.iter_mut().filter(|other| other.rack == rack) {
            other.credit += other.share;
        }
        self.nodes[node].credit -= 1.0;
        let (tokens, copies, stands_in) = (&mut self.tokens, self.copies, &mut self.stands_in);
        self.open_walks.retain(|start| {
            let primaries = &tokens[*start..][..copies];
            let meets_again = primaries.contains(&node);
            if !meets_again {
                primaries.iter().for_each(|primary| stands_in[*primary][node] += 1);
            }
            meets_again
        });
        tokens.push(node);
        if tokens.len() >= copies {
            self.open_walks.push(tokens.len() - copies);
        }
        self.racks[rack].seen = self.tokens.len();
    }

    /// The racks that may come next.
    fn racks_next(&self) -> Vec<bool> {
        let now = self.tokens.len();
        if self.racks.len() >= self.copies {
            return self.racks.iter().map(|rack| rack.seen == 0 || now + 1 >= rack.seen + self.copies).collect();
        }
        // Each rack has to come again within N tokens. When the first few of them to do so have no token to spare, it
        // must be one of them.
        let last = |rack: &usize| self.racks[*rack].seen + self.copies - 1;
        let mut order = (0..self.racks.len()).collect::<Vec<_>>();
        order.sort_by_key(last);
        let urgent = (0..order.len()).find(|at| last(&order[*at]) <= now + at).unwrap_or(order.len() - 1);
        let mut next = vec![false; self.racks.len()];
        order[..=urgent].iter().for_each(|rack| next[*rack] = true);
        next
    }

    fn recent(&self, count: usize) -> &[usize] {
        &self.tokens[self.tokens.len().saturating_sub(count)..]
    }

    fn rank(&self, node: usize) -> (i64, i64, Reverse<u32>, u64) {
        // Differences below this come from rounding: such nodes are owed the same.
        let owed = |credit: f64| (credit * 1e6).round() as i64;
        let Node { id, rack, credit, .. } = self.nodes[node];
        let token = self.tokens.len() as u64;
        // Now and then the hash alone decides: the best choice at each step would soon repeat itself with a short period.
        let stands_in = if token.is_multiple_of(4) { 0 } else { self.stood_in(node) };
        (owed(self.racks[rack].credit), owed(credit), Reverse(stands_in), tie_break(token, id))
    }

    /// How often the node stands in already for those for whom it would with the next token.
    fn stood_in(&self, node: usize) -> u32 {
        let primaries = self.open_walks.iter().map(|start| &self.tokens[*start..][..self.copies]);
        let primaries = primaries.filter(|primaries| !primaries.contains(&node)).flatten();
        primaries.map(|primary| self.stands_in[*primary][node]).sum()
    }
}

fn tie_break(token: u64, node: u16) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&node.to_le_bytes(), token)
}
