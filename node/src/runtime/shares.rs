//! Fair shares: how many requests each client's connection may have under way on this core.
//!
//! The rule: the connections that have something under way share evenly what the core works on at once, and they take
//! turns. One that sends more than its share is not read from until enough of it was answered, and after a turn
//! ([`crate::gateway::TURN`]) all the others come first. So nobody waits long behind a client that sends without end.
//!
//! Not here: the reading (`clients`), the bound on all requests of a core (`core`).

use std::{cell::Cell, rc::Rc};

/// The least share.
const SHARE_MIN: usize = 8;

/// What the connections of one core share.
#[derive(Debug)]
pub(super) struct Shares {
    /// So many requests of clients are under way together, unless the least share makes it more.
    together: usize,
    /// Connections that have something under way.
    busy: Cell<usize>,
}

impl Shares {
    pub(super) fn new(together: usize) -> Self {
        Self { together, busy: Cell::new(0) }
    }
}

/// The requests of one connection that are under way.
#[derive(Debug)]
pub(super) struct Share {
    shares: Rc<Shares>,
    underway: Cell<usize>,
}

impl Share {
    /// Of a connection that has nothing under way.
    pub(super) fn new(shares: &Rc<Shares>) -> Self {
        Self { shares: shares.clone(), underway: Cell::new(0) }
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        if self.underway.replace(self.underway.get() + 1) == 0 {
            self.shares.busy.set(self.shares.busy.get() + 1);
        }
    }

    /// A request that had begun is answered.
    pub(super) fn end(&self) {
        if self.underway.replace(self.underway.get() - 1) == 1 {
            self.shares.busy.set(self.shares.busy.get() - 1);
        }
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.underway.get() == 0
    }

    /// The connection has as much under way as it may.
    pub(super) fn is_used_up(&self) -> bool {
        self.underway.get() >= self.most()
    }

    /// So little is under way that it may begin some more at once. Always so when nothing is.
    pub(super) fn has_room(&self) -> bool {
        self.underway.get() <= self.most() / 2
    }

    /// So much may be under way on the connection.
    pub(super) fn most(&self) -> usize {
        (self.shares.together / self.shares.busy.get().max(1)).max(SHARE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOGETHER: usize = 128;

    fn begin(share: &Share, requests: usize) {
        (0..requests).for_each(|_| share.begin());
    }

    #[test]
    fn who_is_alone_has_it_all_and_two_share_it() {
        let shares = Rc::new(Shares::new(TOGETHER));
        let (greedy, modest) = (Share::new(&shares), Share::new(&shares));
        begin(&greedy, TOGETHER - 1);
        assert!(!greedy.is_used_up());
        begin(&modest, 1);
        assert!(greedy.is_used_up() && !greedy.has_room());
        assert!(!modest.is_used_up() && modest.has_room());
        (0..TOGETHER / 2).for_each(|_| greedy.end());
        assert!(!greedy.is_used_up() && !greedy.has_room());
        modest.end();
        assert!(modest.is_idle() && greedy.has_room(), "what the other had is free again");
    }

    #[test]
    fn nobody_is_left_without_a_share() {
        let shares = Rc::new(Shares::new(TOGETHER));
        let all: Vec<Share> = (0..10_000).map(|_| Share::new(&shares)).collect();
        all.iter().for_each(|share| begin(share, SHARE_MIN - 1));
        assert!(all.iter().all(|share| !share.is_used_up()));
        begin(&all[0], 1);
        assert!(all[0].is_used_up());
        all.iter().skip(1).for_each(|share| (1..SHARE_MIN).for_each(|_| share.end()));
        assert!(!all[0].is_used_up());
    }
}
