//! In which order a partition's nodes stand: the first owns its token.
//!
//! The rule: each member owns its share of the tokens, within one where the places allow it; and of S consecutive
//! partitions each of S equal members owns one where that is possible, so that the walk meets all of them soon. The others
//! keep their order. No data moves by it.
//!
//! Not here: who keeps a partition (`moving`, `placement`).

use std::collections::VecDeque;

/// Puts the owner of the token first in each row; `shares` are those of the members.
pub(super) fn order(rows: &mut [Vec<usize>], shares: &[f64]) {
    let mut owners = Owners { rows, shares, tokens: vec![0; shares.len()] };
    let block = shares.iter().filter(|share| **share > 0.0).count();
    for from in (0..owners.rows.len()).step_by(block) {
        owners.choose(from, (from + block).min(owners.rows.len()));
    }
    owners.even_out();
}

struct Owners<'a> {
    rows: &'a mut [Vec<usize>],
    shares: &'a [f64],
    /// How many each member owns so far.
    tokens: Vec<usize>,
}

/// Differences below this come from rounding.
const NOTHING: f64 = 1e-5;

impl Owners<'_> {
    /// What a member may own of the first so many tokens at most, at least.
    fn most(&self, member: usize, tokens: usize) -> usize {
        (self.shares[member] * tokens as f64 - NOTHING).ceil().max(0.0) as usize
    }

    fn least(&self, member: usize, tokens: usize) -> usize {
        (self.shares[member] * tokens as f64 + NOTHING) as usize
    }

    /// The owners of a block of partitions: as many of them as can be without anybody getting more than its share so far.
    fn choose(&mut self, from: usize, to: usize) {
        let room: Vec<usize> =
            (0..self.tokens.len()).map(|m| self.most(m, to).saturating_sub(self.tokens[m])).collect();
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); self.tokens.len()];
        let mut left = Vec::new();
        for partition in from..to {
            let mut seen = vec![false; self.tokens.len()];
            if !self.find(partition, &room, &mut chosen, &mut seen) {
                left.push(partition);
            }
        }
        for (member, partitions) in chosen.iter().enumerate() {
            partitions.iter().for_each(|partition| self.set(*partition, member));
        }
        for partition in left {
            let over = |member: usize| self.tokens[member] as f64 - self.shares[member] * to as f64;
            let owning = self.rows[partition].iter().copied().filter(|member| self.shares[*member] > 0.0);
            let least = owning.min_by(|a, b| over(*a).total_cmp(&over(*b)).then(a.cmp(b)));
            self.set(partition, least.expect("somebody owns something"));
        }
    }

    /// Finds an owner for a partition that has room, or whose partition can have another one.
    fn find(&self, partition: usize, room: &[usize], chosen: &mut [Vec<usize>], seen: &mut [bool]) -> bool {
        for &member in &self.rows[partition] {
            if seen[member] || room[member] == 0 {
                continue;
            }
            seen[member] = true;
            if chosen[member].len() < room[member] {
                chosen[member].push(partition);
                return true;
            }
            for at in 0..chosen[member].len() {
                if self.find(chosen[member][at], room, chosen, seen) {
                    chosen[member][at] = partition;
                    return true;
                }
            }
        }
        false
    }

    fn set(&mut self, partition: usize, member: usize) {
        let row = &mut self.rows[partition];
        let at = row.iter().position(|place| *place == member).expect("the owner has a place");
        row[..=at].rotate_right(1);
        self.tokens[member] += 1;
    }

    /// Over all partitions: whom has too many gives one on, over others if need be, to whom has too few.
    fn even_out(&mut self) {
        let all = self.rows.len();
        for member in 0..self.tokens.len() {
            let over = |owners: &Self| owners.tokens[member] > owners.most(member, all);
            while over(self) && self.pass_on(member, |owners, to| owners.tokens[to] < owners.most(to, all)) {}
        }
        for member in 0..self.tokens.len() {
            while self.tokens[member] > self.least(member, all)
                && self.pass_on(member, |owners, to| owners.tokens[to] < owners.least(to, all))
            {}
        }
    }

    /// One token of `from` less, and one more of somebody who `has_room`, by the shortest way.
    fn pass_on(&mut self, from: usize, has_room: impl Fn(&Self, usize) -> bool) -> bool {
        let mut owned: Vec<Vec<usize>> = vec![Vec::new(); self.tokens.len()];
        self.rows.iter().enumerate().for_each(|(partition, row)| owned[row[0]].push(partition));
        let mut steps: Vec<Option<(usize, usize)>> = vec![None; self.tokens.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(member) = queue.pop_front() {
            if member != from && has_room(self, member) {
                let mut to = member;
                while to != from {
                    let (partition, before) = steps[to].expect("it was reached");
                    self.tokens[before] -= 1;
                    self.set(partition, to);
                    to = before;
                }
                return true;
            }
            for &partition in &owned[member] {
                for &to in &self.rows[partition] {
                    if to != from && steps[to].is_none() && self.shares[to] > 0.0 {
                        steps[to] = Some((partition, member));
                        queue.push_back(to);
                    }
                }
            }
        }
        false
    }
}
