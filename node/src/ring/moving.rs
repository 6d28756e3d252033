//! From one table to the next with as few copies moved as can be.
//!
//! The rule: each step leaves every partition with distinct nodes and with as many racks as its places can still reach
//! ([`Mover::is_legal`]). First goes what must go: copies of nodes that are gone, copies that stand in the way of a rack.
//! Then copies pass from whom has too many to whom has too few ([`targets`]), directly wherever there is a partition for
//! it; what then is left goes round over others, by the shortest way.
//!
//! Not here: the order of the places of a partition (`order`).

use std::collections::VecDeque;

use super::{
    Member, order,
    placement::{self, shares},
    rack_numbers,
};

/// The places of each partition for these members, sorted by id, as positions among them. `kept` are those that still
/// stand of `copies`. Nothing if all stay.
pub(super) fn moved(kept: &[Vec<usize>], copies: u8, replicas: u8, members: &[Member]) -> Option<Vec<Vec<usize>>> {
    let owning = members.iter().filter(|member| member.weight > 0.0).count();
    let mut rows = if owning <= usize::from(replicas) {
        kept.iter().map(|row| everybody(row, replicas, members)).collect()
    } else {
        let mut mover = Mover::new(kept, replicas, members);
        mover.repair_racks();
        mover.move_directly();
        mover.move_round();
        mover.rows
    };
    let stays = |(row, kept): (&Vec<usize>, &Vec<usize>)| {
        row.len() == usize::from(copies) && row.iter().all(|place| kept.contains(place))
    };
    if rows.iter().zip(kept).all(stays) {
        return None;
    }
    order::order(&mut rows, &shares(members, replicas));
    Some(rows)
}

/// Whether these places are as such members may expect.
pub(super) fn suits(rows: &[Vec<usize>], replicas: u8, members: &[Member]) -> bool {
    let owning = members.iter().filter(|member| member.weight > 0.0).count();
    if owning <= usize::from(replicas) {
        let whole = |row: &Vec<usize>| {
            let met = row.iter().filter(|place| members[**place].weight > 0.0).count();
            met == owning && row.len() == members.len().min(replicas.into())
        };
        return rows.iter().all(whole);
    }
    let mover = Mover::new(rows, replicas, members);
    let near = |(count, target): (&usize, &usize)| count.abs_diff(*target) <= 1 + target / 10;
    mover.holes().is_empty()
        && mover.counts.iter().zip(&mover.targets).all(near)
        && mover.rows.iter().all(|row| mover.is_legal(row))
}

/// All that own anything keep every partition; who owns nothing fills up what is left.
fn everybody(row: &[usize], replicas: u8, members: &[Member]) -> Vec<usize> {
    let copies = members.len().min(replicas.into());
    let all = || row.iter().copied().chain((0..members.len()).filter(|place| !row.contains(place)));
    let owning = |place: &usize| members[*place].weight > 0.0;
    all().filter(owning).chain(all().filter(|place| !owning(place))).take(copies).collect()
}

struct Mover {
    copies: usize,
    /// The rack of each member.
    racks: Vec<usize>,
    /// On so many racks each partition shall be.
    racks_wanted: usize,
    rows: Vec<Vec<usize>>,
    counts: Vec<usize>,
    targets: Vec<usize>,
}

impl Mover {
    fn new(kept: &[Vec<usize>], replicas: u8, members: &[Member]) -> Self {
        let (copies, racks) = (usize::from(replicas), rack_numbers(members));
        let owning = |place: &&usize| members[**place].weight > 0.0;
        let rows: Vec<Vec<usize>> = kept.iter().map(|row| row.iter().filter(owning).copied().collect()).collect();
        let mut counts = vec![0; members.len()];
        rows.iter().flatten().for_each(|place| counts[*place] += 1);
        let racks_wanted = copies.min(placement::racks(members).len());
        let targets = targets(rows.len(), replicas, members, &counts);
        Self { copies, racks, racks_wanted, rows, counts, targets }
    }

    /// Whether a partition with these places can still come to all the racks that it shall be on.
    fn is_legal(&self, row: &[usize]) -> bool {
        let new = |at: &usize| !row[..*at].iter().any(|place| self.racks[*place] == self.racks[row[*at]]);
        (0..row.len()).filter(new).count() + self.copies - row.len() >= self.racks_wanted
    }

    /// Whether `to` may take the place at `at` of a partition; the one after the last is a new one.
    fn may_take(&self, row: &[usize], at: usize, to: usize) -> bool {
        if row.contains(&to) {
            return false;
        }
        let mut with = row.to_vec();
        with.truncate(at);
        with.push(to);
        with.extend(row.iter().skip(at + 1));
        self.is_legal(&with)
    }

    fn surplus(&self, member: usize) -> usize {
        self.counts[member].saturating_sub(self.targets[member])
    }

    fn deficit(&self, member: usize) -> usize {
        self.targets[member].saturating_sub(self.counts[member])
    }

    fn put(&mut self, partition: usize, at: usize, to: usize) {
        let row = &mut self.rows[partition];
        match row.get_mut(at) {
            Some(place) => {
                self.counts[*place] -= 1;
                *place = to;
            }
            None => row.push(to),
        }
        self.counts[to] += 1;
    }

    /// Partitions that lack a place.
    fn holes(&self) -> Vec<usize> {
        spread(self.rows.len()).filter(|partition| self.rows[*partition].len() < self.copies).collect()
    }

    /// Takes away copies that share a rack where another rack has none.
    fn repair_racks(&mut self) {
        for partition in spread(self.rows.len()) {
            while !self.is_legal(&self.rows[partition]) {
                let row = &self.rows[partition];
                let shares_rack =
                    |at: &usize| row.iter().filter(|place| self.racks[**place] == self.racks[row[*at]]).count() > 1;
                let balance = |at: &usize| self.counts[row[*at]] as i64 - self.targets[row[*at]] as i64;
                let at = (0..row.len()).filter(shares_rack).max_by_key(|at| (balance(at), row[*at]));
                let gone = self.rows[partition].remove(at.expect("fewer racks than places"));
                self.counts[gone] -= 1;
            }
        }
    }

    /// Copies pass from whom has too many to whom has too few, one of each partition at a time.
    fn move_directly(&mut self) {
        let mut poor: Vec<usize> = (0..self.counts.len()).filter(|member| self.deficit(*member) > 0).collect();
        loop {
            let mut moved = false;
            for partition in spread(self.rows.len()) {
                poor.retain(|member| self.deficit(*member) > 0);
                poor.sort_by_key(|member| (usize::MAX - self.deficit(*member), *member));
                if let Some((at, to)) = self.direct(partition, &poor) {
                    self.put(partition, at, to);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The best direct move in a partition: into its hole, else from whom has the most too many.
    fn direct(&self, partition: usize, poor: &[usize]) -> Option<(usize, usize)> {
        let row = &self.rows[partition];
        let mut from: Vec<usize> = (0..row.len()).filter(|at| self.surplus(row[*at]) > 0).collect();
        from.sort_by_key(|at| (usize::MAX - self.surplus(row[*at]), row[*at]));
        if row.len() < self.copies {
            from = vec![row.len()];
        }
        let mut moves = from.iter().flat_map(|at| poor.iter().map(move |to| (*at, *to)));
        moves.find(|(at, to)| self.may_take(row, *at, *to))
    }

    /// What no direct move settles goes over others.
    fn move_round(&mut self) {
        // Each finds its way at the first attempt but where one way crosses itself.
        let rich: usize = (0..self.counts.len()).map(|member| self.surplus(member)).sum();
        for _ in 0..2 * (rich + self.holes().len()) {
            let hole = self.holes().first().copied();
            let rich = (0..self.counts.len()).filter(|member| self.surplus(*member) > 0);
            let found = match hole {
                Some(partition) => self.way(None, Some(partition)),
                None => rich.into_iter().find_map(|member| self.way(Some(member), None)),
            };
            let Some(way) = found else { break };
            for (partition, from, to) in way.into_iter().rev() {
                let row = &self.rows[partition];
                let at = from.map_or(Some(row.len()), |from| row.iter().position(|place| *place == from));
                match at.filter(|at| *at < self.copies && self.may_take(row, *at, to)) {
                    Some(at) => self.put(partition, at, to),
                    None => break,
                }
            }
        }
        for partition in self.holes() {
            while self.rows[partition].len() < self.copies {
                let row = &self.rows[partition];
                let may = |to: &usize| self.targets[*to] > 0 && self.may_take(row, row.len(), *to);
                let to = (0..self.counts.len()).filter(may).min_by_key(|to| (self.counts[*to], *to));
                self.put(partition, row.len(), to.expect("more members than places"));
            }
        }
    }

    /// The shortest way from a member, or from a hole, to one that has too few: steps that each give a place of a
    /// partition to the next.
    fn way(&self, from: Option<usize>, hole: Option<usize>) -> Option<Vec<(usize, Option<usize>, usize)>> {
        let mut steps: Vec<Option<(usize, Option<usize>)>> = vec![None; self.counts.len()];
        let mut unseen: Vec<usize> =
            (0..self.counts.len()).filter(|to| self.targets[*to] > 0 && Some(*to) != from).collect();
        let mut queue: VecDeque<usize> = from.into_iter().collect();
        if let Some(partition) = hole {
            let row = &self.rows[partition];
            unseen.retain(|to| {
                let may = self.may_take(row, row.len(), *to);
                if may {
                    steps[*to] = Some((partition, None));
                    queue.push_back(*to);
                }
                !may
            });
        }
        while let Some(member) = queue.pop_front() {
            if self.deficit(member) > 0 {
                let mut way = Vec::new();
                let mut to = member;
                while let Some((partition, before)) = steps[to] {
                    way.push((partition, before, to));
                    let Some(before) = before else { break };
                    to = before;
                }
                way.reverse();
                return Some(way);
            }
            for partition in spread(self.rows.len()) {
                let row = &self.rows[partition];
                let Some(at) = row.iter().position(|place| *place == member) else { continue };
                unseen.retain(|to| {
                    let may = self.may_take(row, at, *to);
                    if may {
                        steps[*to] = Some((partition, Some(member)));
                        queue.push_back(*to);
                    }
                    !may
                });
                if unseen.is_empty() {
                    break;
                }
            }
        }
        None
    }
}

/// All partitions, in an order in which those in a row are far from each other.
fn spread(partitions: usize) -> impl Iterator<Item = usize> {
    // About the golden part of Q, and odd: it comes to all of them.
    let stride = (partitions * 5 / 8) | 1;
    (0..partitions).map(move |at| at * stride % partitions)
}

/// How many copies each member shall have: its share, rounded so that a rack's members have the rack's share together,
/// and up rather for those who have more already.
fn targets(partitions: usize, replicas: u8, members: &[Member], counts: &[usize]) -> Vec<usize> {
    let copies = partitions * usize::from(replicas);
    let ideal: Vec<f64> = shares(members, replicas).iter().map(|share| share * copies as f64).collect();
    let racks = placement::racks(members);
    let of_rack = |rack: &Vec<usize>| rack.iter().map(|member| ideal[*member]).sum::<f64>();
    let has: Vec<usize> = racks.iter().map(|rack| rack.iter().map(|member| counts[*member]).sum()).collect();
    let totals = rounded(&racks.iter().map(of_rack).collect::<Vec<_>>(), copies, &has);
    let mut targets = vec![0; members.len()];
    for (rack, total) in racks.iter().zip(totals) {
        let ideals: Vec<f64> = rack.iter().map(|member| ideal[*member]).collect();
        let has: Vec<usize> = rack.iter().map(|member| counts[*member]).collect();
        for (member, target) in rack.iter().zip(rounded(&ideals, total, &has)) {
            targets[*member] = target;
        }
    }
    targets
}

/// Whole numbers that are next to the given ones and have this sum.
fn rounded(ideals: &[f64], sum: usize, has: &[usize]) -> Vec<usize> {
    // Differences below this come from rounding.
    const NOTHING: f64 = 1e-5;
    let mut numbers: Vec<usize> = ideals.iter().map(|ideal| (ideal + NOTHING) as usize).collect();
    let left = |at: &usize| ideals[*at] - numbers[*at] as f64;
    let mut up: Vec<usize> = (0..ideals.len()).collect();
    up.sort_by(|a, b| {
        let rank = |at: &usize| (left(at) <= NOTHING, has[*at] <= numbers[*at]);
        rank(a).cmp(&rank(b)).then(left(b).total_cmp(&left(a))).then(a.cmp(b))
    });
    let more = sum - numbers.iter().sum::<usize>();
    up[..more].iter().for_each(|at| numbers[*at] += 1);
    numbers
}
