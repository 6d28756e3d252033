//! What the faults do to the world, and how they end.
//!
//! The rule: only the victim's copies are destroyed. After [`World::heal`] nothing is at fault any more.
//!
//! Not here: which faults a seed suffers (`faults`).

use std::time::Duration;

use quorate_engine::disk::{
    Disk,
    simulated::{Kind, SilentFault},
};
use quorate_net::id::{Endpoint, NodeId};
use quorate_node::start::StartError;

use super::{Event, Fate, Machine, Process, World};
use crate::{checkers::Checked, faults::Class, network::Weather};

/// Something that a fault began ends.
#[derive(Clone)]
pub(super) enum Ending {
    /// A node goes on.
    Resume { node: usize, at: Duration },
    /// Paths are open again.
    Join(Vec<(NodeId, NodeId)>),
    /// A disk is as fast as before.
    Speed { at: usize },
    /// A core is as quick as before.
    Quick { at: usize },
    /// A disk has room again.
    Room { at: usize },
    /// A node is killed and started, as its operator does when its store has failed.
    Replace { node: usize },
    /// The weather changes.
    Weather,
    /// A node's short life is over; it has so many more.
    Life { node: usize, length: Duration, left: u64 },
}

/// The shortest and the longest life where they are short.
const LIFE_MIN: Duration = Duration::from_millis(50);
const LIFE_MAX: Duration = Duration::from_millis(120);

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

impl World {
    /// The next fault strikes, and another one is to come.
    pub(super) fn fault(&mut self) -> Checked {
        if self.healed.is_some() {
            return Ok(());
        }
        let when = self.next_fault();
        self.at(when, Event::Fault);
        if self.plan.classes.is_empty() {
            return Ok(());
        }
        self.check_trees()?;
        let class = self.plan.classes[self.random.index(self.plan.classes.len())];
        if class.changes_ring() { self.change_ring(class) } else { self.strike(class) }
    }

    pub(super) fn next_fault(&mut self) -> Duration {
        self.now + self.plan.gap.mul_f64(0.05 - (1.0 - self.random.unit()).ln())
    }

    /// Inflicts a fault of this class.
    ///
    /// # Errors
    /// A violation that shows at once.
    pub fn strike(&mut self, class: Class) -> Checked {
        let node = if class.destroys() { self.victim } else { self.any_node() };
        if self.nodes[node].fate != Fate::Belongs {
            // There are no copies left to destroy.
            return Ok(());
        }
        let shells = self.nodes[node].shells.clone();
        let at = shells.start + self.random.index(shells.len());
        self.note(None, || format!("fault: {class:?} at node {node}, core {at}"));
        match class {
            // These strike by themselves, in the network.
            Class::Loss | Class::Delay | Class::Duplication | Class::Reordering => self.draw_weather(),
            Class::Clog | Class::Split | Class::OneWaySplit => self.spoil_paths(class),
            Class::Reset => self.reset(),
            Class::PowerCut => self.power_cut(node),
            Class::TotalPowerCut => self.restart_all(),
            Class::Kill => self.kill(node),
            Class::Stop => self.stop(node)?,
            Class::Pause => self.pause(node),
            Class::LostDisk => self.lose_disk(at),
            Class::RestoredDisk => self.restore_disk(at),
            Class::SlowDisk => self.slow_disk(at),
            Class::WriteError => self.write_error(node, at),
            Class::ReadError => self.read_error(node, at),
            Class::FullDisk => self.fill_disk(at),
            Class::Corruption => self.corrupt(at),
            Class::SilentWrite => self.spoil_write(at),
            Class::ClockStep => self.step_clock(node),
            Class::SlowCore => self.slow_core(at),
            Class::Upgrade => self.begin_upgrade(),
            Class::Join | Class::Leave | Class::Remove | Class::Replace => self.change_ring(class)?,
            Class::Echo => self.echo(),
            // They strike with the next commit.
            Class::Deafness | Class::Rivalry | Class::Solitude => {}
        }
        let counted_elsewhere = matches!(
            class,
            Class::Loss
                | Class::Duplication
                | Class::Reordering
                | Class::Clog
                | Class::Echo
                | Class::Deafness
                | Class::Rivalry
                | Class::Solitude
        );
        if !counted_elsewhere && !class.changes_ring() {
            self.hits.count(class);
        }
        Ok(())
    }

    pub(super) fn end(&mut self, ending: Ending) -> Checked {
        match ending {
            Ending::Resume { node, at } => {
                if self.nodes[node].paused_until == Some(at) {
                    self.resume(node)?;
                }
            }
            Ending::Join(paths) => {
                for (from, to) in paths {
                    self.network.join(from, to);
                    self.look_between(from, to);
                }
            }
            Ending::Speed { at } => self.shells[at].disk.set_slowness(1),
            Ending::Quick { at } => self.shells[at].lag = Duration::ZERO,
            Ending::Room { at } => self.shells[at].disk.set_capacity(None),
            Ending::Replace { node } => self.replace_failed(node),
            Ending::Weather if self.healed.is_some() => {}
            Ending::Weather => self.network.set_weather(Weather::fair()),
            Ending::Life { node, length, left } => self.live_again(node, length, left),
        }
        Ok(())
    }

    /// All faults end; what is down starts.
    ///
    /// # Errors
    /// A violation that shows at once.
    pub fn heal(&mut self) -> Checked {
        self.healed = Some(self.now);
        self.workload.close();
        self.network.heal();
        for shell in &mut self.shells {
            shell.disk.mend();
            shell.disk.set_capacity(None);
            shell.disk.set_slowness(1);
            shell.lag = Duration::ZERO;
        }
        for node in 0..self.nodes.len() {
            self.resume(node)?;
            self.nodes[node].deaf_until = Duration::ZERO;
            self.replace_failed(node);
            let when = self.now;
            self.at(when, Event::Start { node });
        }
        for observer in 0..self.shells.len() {
            for peer in 0..self.shells.len() {
                if self.node_of(observer) != self.node_of(peer) {
                    self.look_soon(observer, peer);
                }
            }
        }
        Ok(())
    }

    /// A node whose store has failed is killed and started, as its operator does.
    fn replace_failed(&mut self, node: usize) {
        let shells = self.nodes[node].shells.clone();
        let failed = |core: &Machine| core.store().failure().or(core.hint_store().failure()).is_some();
        if self.shells[shells].iter().any(|shell| shell.core().is_some_and(failed)) {
            self.kill(node);
        }
    }

    /// Cuts the power of all nodes, and starts them.
    pub fn restart_all(&mut self) {
        let belonging: Vec<usize> = self.belonging().collect();
        belonging.into_iter().for_each(|node| self.power_cut(node));
    }

    /// Whether every core is up and knows that every other one is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let belongs = |endpoint: &Endpoint| self.nodes[self.node_of(self.shell_of(*endpoint))].fate == Fate::Belongs;
        let meets_all = |core: &Machine| core.peers_down() == 0;
        let is_whole = |at: usize| {
            let shell = &self.shells[at];
            shell.core().is_some_and(meets_all) && !shell.told_down.iter().any(belongs)
        };
        self.belonging().flat_map(|node| self.nodes[node].shells.clone()).all(is_whole)
    }

    /// Starts what is down of a node.
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].stays_down {
            return;
        }
        let mut ending = false;
        for at in self.nodes[node].shells.clone() {
            match self.shells[at].process {
                Process::Down => {
                    self.shells[at].disk.advance(self.now);
                    if node != self.victim {
                        // A store that cannot read what it has on disk counts it as lost, and only the victim may lose.
                        self.shells[at].disk.mend();
                    }
                    let settings = self.settings.clone();
                    let clock = self.nodes[node].clock;
                    let belonging = self.belief(node);
                    self.shells[at].start(&settings, belonging, clock);
                    // Its first poll is due now.
                    self.shells[at].run();
                }
                Process::Stopping(_) => ending = true,
                Process::Starting(_) | Process::Up(_) => {}
            }
        }
        if ending {
            let when = self.now + Duration::from_millis(20);
            self.at(when, Event::Start { node });
        }
    }

    pub(super) fn start_failed(&mut self, at: usize, error: &StartError) -> Checked {
        self.lose_process(at);
        self.shells[at].disk.kill();
        if self.shells[at].spoiled {
            // Its operator puts in an empty disk.
            self.shells[at].disk.lose_all();
            self.ledger.copy_destroyed(self.now);
        } else if self.healed.is_some_and(|healed| self.shells[at].started > healed) {
            return Err(self.fail("liveness", format!("core {at} does not start on a disk without faults: {error}")));
        }
        self.start_later(self.node_of(at));
        Ok(())
    }

    pub(super) fn draw_weather(&mut self) {
        let has = |class| self.plan.classes.contains(&class);
        let (loss, duplication) = (has(Class::Loss), has(Class::Duplication));
        let delay = has(Class::Delay) || has(Class::Reordering);
        let micros = if delay { self.random.range(100..20_000) } else { self.random.range(20..300) };
        let weather = Weather {
            delay: Duration::from_micros(micros),
            loss_permille: if loss { self.random.range(1..200) as u32 } else { 0 },
            duplicate_permille: if duplication { self.random.range(1..200) as u32 } else { 0 },
        };
        self.network.set_weather(weather);
        let when = self.now + Duration::from_millis(self.random.range(20..400));
        self.at(when, Event::End(Ending::Weather));
    }

    fn spoil_paths(&mut self, class: Class) {
        let mut sides: Vec<bool> = (0..self.nodes.len()).map(|_| self.random.one_in(2)).collect();
        // Both sides have somebody.
        sides[0] = true;
        let other = 1 + self.random.index(sides.len() - 1);
        sides[other] = false;
        let length = Duration::from_millis(self.random.range(5..500));
        let mut cut = Vec::new();
        for from in 0..sides.len() {
            for to in 0..sides.len() {
                let between = sides[from] != sides[to];
                let one_way = sides[from] && !sides[to];
                if between && (one_way || class != Class::OneWaySplit) {
                    cut.push((self.nodes[from].id, self.nodes[to].id));
                }
            }
        }
        for &(from, to) in &cut {
            if class == Class::Clog {
                self.network.clog(from, to, self.now + length);
            } else {
                self.network.cut(from, to);
                // Some learn of it, some only by silence.
                if self.random.one_in(2) {
                    self.look_between(from, to);
                }
            }
        }
        if class != Class::Clog {
            let when = self.now + length;
            self.at(when, Event::End(Ending::Join(cut)));
        }
    }

    fn look_between(&mut self, a: NodeId, b: NodeId) {
        for observer in 0..self.shells.len() {
            for peer in 0..self.shells.len() {
                if (self.shells[observer].me.node, self.shells[peer].me.node) == (a, b) {
                    self.look_soon(observer, peer);
                    self.look_soon(peer, observer);
                }
            }
        }
    }

    /// All nodes live so short for a while that what they ask is answered in a later life of theirs.
    fn echo(&mut self) {
        if self.network.is_stretched(self.now) {
            return;
        }
        self.hits.count(Class::Echo);
        let share = 0.2 + 0.3 * self.random.unit();
        let length = self.settings.timeout.mul_f64(share).clamp(LIFE_MIN, LIFE_MAX);
        let lives = self.random.range(2..6);
        // There and back it takes more than a life, so that an answer comes in the next one; one way takes less, so that it
        // may be there before those who are asked then have anything.
        let by = length.mul_f64(0.5 + 0.4 * self.random.unit());
        let until = self.now + length * lives as u32;
        let nodes: Vec<usize> = self.belonging().collect();
        for &node in &nodes {
            for &other in nodes.iter().filter(|&&other| other != node) {
                self.network.stretch(self.nodes[node].id, self.nodes[other].id, until, by);
            }
            let when = self.now + length.mul_f64(self.random.unit());
            self.at(when, Event::End(Ending::Life { node, length, left: lives }));
        }
    }

    /// A node is killed and starts at once; a life later again, while it has some left.
    fn live_again(&mut self, node: usize, length: Duration, left: u64) {
        if self.healed.is_some() || self.nodes[node].fate != Fate::Belongs {
            return;
        }
        self.kill(node);
        let when = self.now + Duration::from_micros(500);
        self.at(when, Event::Start { node });
        if left > 0 {
            self.at(self.now + length, Event::End(Ending::Life { node, length, left: left - 1 }));
        }
    }

    /// Somebody does not hear of a change that was just committed, nor of anything else for a while.
    pub(super) fn deafen(&mut self, but: usize) {
        let nodes: Vec<usize> = self.belonging().filter(|&node| node != but).collect();
        // Of those of the first hour, who have the most to give away.
        let node = nodes[self.random.index(nodes.len().min(2))];
        if self.healed.is_none() && self.nodes.iter().all(|node| node.deaf_until <= self.now) {
            let length = Duration::from_millis(self.random.range(1_000..3_000));
            self.nodes[node].deaf_until = self.now + length;
            self.note(None, || format!("node {node} hears no gossip for {length:?}"));
        }
    }

    /// Nothing passes between a node and the others for a while, as if all of them had ended.
    pub(super) fn leave_alone(&mut self, node: usize) {
        let length = Duration::from_millis(self.random.range(300..1_000));
        let mut cut = Vec::new();
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let (one, other) = (self.nodes[node].id, self.nodes[other].id);
            cut.extend([(one, other), (other, one)]);
            self.network.cut(one, other);
            self.network.cut(other, one);
            self.look_between(one, other);
        }
        self.hits.count(Class::Solitude);
        self.note(None, || format!("node {node} is alone for {length:?}"));
        let when = self.now + length;
        self.at(when, Event::End(Ending::Join(cut)));
    }

    fn reset(&mut self) {
        let (observer, peer) = (self.random.index(self.shells.len()), self.random.index(self.shells.len()));
        if self.node_of(observer) != self.node_of(peer) {
            let when = self.now;
            self.at(when, Event::Reset { observer, peer });
            self.at(when, Event::Reset { observer: peer, peer: observer });
        }
    }

    /// The node's power fails; it starts again later.
    pub fn power_cut(&mut self, node: usize) {
        self.end_node(node, |disk| disk.crash());
    }

    /// The node's process is killed; it starts again later.
    pub fn kill(&mut self, node: usize) {
        self.end_node(node, |disk| disk.kill());
    }

    pub(super) fn end_node(&mut self, node: usize, end: impl Fn(&quorate_engine::disk::simulated::SimulatedDisk)) {
        self.nodes[node].paused_until = None;
        for at in self.nodes[node].shells.clone() {
            self.shells[at].disk.advance(self.now);
            self.lose_process(at);
            end(&self.shells[at].disk);
        }
        self.start_later(node);
    }

    pub(super) fn start_later(&mut self, node: usize) {
        let when = self.now + Duration::from_micros(self.random.range(500..self.plan.absence_max.as_micros() as u64));
        self.at(when, Event::Start { node });
    }

    pub(super) fn stop(&mut self, node: usize) -> Checked {
        if self.nodes[node].paused_until.is_some() {
            return Ok(());
        }
        for at in self.nodes[node].shells.clone() {
            self.shells[at].disk.advance(self.now);
            self.settle(at);
            self.shells[at].stop();
            self.run_shell(at)?;
        }
        self.start_later(node);
        Ok(())
    }

    fn pause(&mut self, node: usize) {
        if self.nodes[node].paused_until.is_none() {
            let at = self.now + Duration::from_millis(self.random.range(2..600));
            self.nodes[node].paused_until = Some(at);
            self.at(at, Event::End(Ending::Resume { node, at }));
        }
    }

    fn resume(&mut self, node: usize) -> Checked {
        if self.nodes[node].paused_until.take().is_some() {
            for at in self.nodes[node].shells.clone() {
                self.shells[at].disk.advance(self.now);
                self.run_shell(at)?;
            }
        }
        Ok(())
    }

    pub(super) fn spoil(&mut self, at: usize) {
        self.shells[at].spoiled = true;
        self.ledger.copy_destroyed(self.now);
    }

    /// What is wrong on the disk may show at any later time, and take later writes along.
    pub(super) fn spoil_for_good(&mut self, at: usize) {
        self.shells[at].spoiled = true;
        self.ledger.may_raise_dead();
        self.ledger.copy_destroyed(Duration::MAX);
    }

    /// The node's power fails, and the disk of a core is replaced by an empty one.
    pub fn lose_disk(&mut self, at: usize) {
        let node = self.node_of(at);
        self.power_cut(node);
        self.shells[at].disk.lose_all();
        self.shells[at].emptied = true;
        self.spoil(at);
    }

    /// The first time a copy is taken of the disk; then that copy is put in its place.
    fn restore_disk(&mut self, at: usize) {
        let node = self.node_of(at);
        self.power_cut(node);
        match self.shells[at].snapshot.clone() {
            None => self.shells[at].snapshot = Some(self.shells[at].disk.snapshot()),
            Some(snapshot) => {
                self.shells[at].disk.restore(&snapshot);
                // It takes itself for whole.
                self.shells[at].emptied = false;
                self.shells[at].lacking.clear();
                self.ledger.may_raise_dead();
                self.spoil(at);
            }
        }
    }

    fn slow_disk(&mut self, at: usize) {
        let factor = self.random.range(2..60) as u32;
        self.shells[at].disk.set_slowness(factor);
        let when = self.now + Duration::from_millis(self.random.range(10..600));
        self.at(when, Event::End(Ending::Speed { at }));
    }

    fn slow_core(&mut self, at: usize) {
        self.shells[at].lag = Duration::from_micros(self.random.range(500..80_000));
        let when = self.now + Duration::from_millis(self.random.range(20..600));
        self.at(when, Event::End(Ending::Quick { at }));
    }

    fn begin_upgrade(&mut self) {
        if !self.upgrading {
            self.upgrading = true;
            let when = self.now;
            self.at(when, Event::Upgrade { node: 0 });
        }
    }

    /// A node is restarted in order; when it is up again, the next one is.
    pub(super) fn upgrade(&mut self, node: usize) -> Checked {
        if node >= self.nodes.len() || self.healed.is_some() {
            self.upgrading = false;
            return Ok(());
        }
        if self.nodes[node].fate == Fate::Belongs {
            self.stop(node)?;
        }
        let when = self.now + Duration::from_millis(self.random.range(100..400));
        self.at(when, Event::Upgrade { node: node + 1 });
        Ok(())
    }

    fn write_error(&mut self, node: usize, at: usize) {
        let kind = if self.random.one_in(2) { Kind::Write } else { Kind::Sync };
        self.shells[at].disk.fail_next(kind, libc::EIO);
        let when = self.now + Duration::from_millis(self.random.range(10..400));
        self.at(when, Event::End(Ending::Replace { node }));
    }

    fn read_error(&mut self, node: usize, at: usize) {
        // See `start`: what is read there is counted as lost; and what cannot be read twice in a row is, by the scrub.
        let shell = &mut self.shells[at];
        if node != self.victim && (shell.core().is_none() || shell.read_failed) {
            return;
        }
        shell.read_failed = true;
        self.shells[at].disk.fail_next(Kind::Read, libc::EIO);
        if node == self.victim {
            self.spoil_for_good(at);
        }
    }

    fn fill_disk(&mut self, at: usize) {
        self.shells[at].disk.fill();
        let when = self.now + Duration::from_millis(self.random.range(10..600));
        self.at(when, Event::End(Ending::Room { at }));
    }

    fn corrupt(&mut self, at: usize) {
        let files: Vec<_> = self.shells[at].disk.names().into_iter().filter(|(_, length)| *length > 0).collect();
        if files.is_empty() {
            return;
        }
        let (name, length) = &files[self.random.index(files.len())];
        // Most of a segment is zeros; what was written first is what matters.
        let reach = if self.random.one_in(2) { (*length).min(256 << 10) } else { *length };
        let position = self.random.range(0..reach);
        let bytes = self.random.range(1..64).min(length - position) as usize;
        self.shells[at].disk.advance(self.now);
        self.shells[at].disk.corrupt(name, position, bytes);
        self.spoil_for_good(at);
    }

    fn spoil_write(&mut self, at: usize) {
        let fault = if self.random.one_in(2) { SilentFault::Misdirected } else { SilentFault::Lost };
        self.shells[at].disk.spoil_next_write(fault);
        self.spoil_for_good(at);
    }

    fn step_clock(&mut self, node: usize) {
        let by = [HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS][self.random.index(4)];
        self.nodes[node].clock.step(by);
    }

    /// The disk's time, for tests that look at it.
    #[must_use]
    pub fn disk_now(&self, at: usize) -> Duration {
        self.shells[at].disk.now()
    }
}
