//! Which faults a seed suffers, and how often each class of them struck.
//!
//! The rule: a seed draws its own set of classes (swarm testing), so that rare combinations meet; what destroys copies
//! strikes one node of a seed only, so that N, R and W can bear it.
//!
//! Not here: how a fault is inflicted (`world`).

use std::time::Duration;

use quorate_engine::disk::simulated::Random;

/// A class of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Class {
    /// Single messages are lost.
    Loss,
    /// Messages take long.
    Delay,
    /// Messages arrive twice.
    Duplication,
    /// Messages overtake each other.
    Reordering,
    /// What is sent on a path waits for long.
    Clog,
    /// Nothing passes between two sets of nodes, in both directions.
    Split,
    /// Nothing passes in one direction.
    OneWaySplit,
    /// A connection ends and begins again.
    Reset,
    /// The power fails: what was not synced is lost or torn.
    PowerCut,
    /// The power of all nodes fails at once.
    TotalPowerCut,
    /// The process is killed, the machine lives on.
    Kill,
    /// The process ends in order.
    Stop,
    /// The process stands still for a while.
    Pause,
    /// The disk is replaced by an empty one.
    LostDisk,
    /// The disk is replaced by an older copy of itself.
    RestoredDisk,
    /// The disk takes many times as long.
    SlowDisk,
    /// A write or a sync fails.
    WriteError,
    /// A read fails.
    ReadError,
    /// There is no room for more, for a while.
    FullDisk,
    /// Bytes on the disk change.
    Corruption,
    /// A write goes elsewhere, or nowhere, and is reported as done.
    SilentWrite,
    /// The wall clock jumps by an hour or a year, either way.
    ClockStep,
    /// A core hears everything late for a while.
    SlowCore,
    /// All nodes are restarted, one after the other.
    Upgrade,
    /// Another node joins.
    Join,
    /// A node leaves in order.
    Leave,
    /// A node dies for good, and is removed.
    Remove,
    /// Another node takes the places of one that leaves, or died for good.
    Replace,
    /// All nodes live short lives for a while, and hear what is said to their earlier ones.
    Echo,
    /// Gossip does not reach a node, as after the commit of a change; all else does.
    Deafness,
    /// Two operators commit different changes at the same moment.
    Rivalry,
    /// The node on which a change is committed is alone from that moment on, for a while.
    Solitude,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::Loss,
        Self::Delay,
        Self::Duplication,
        Self::Reordering,
        Self::Clog,
        Self::Split,
        Self::OneWaySplit,
        Self::Reset,
        Self::PowerCut,
        Self::TotalPowerCut,
        Self::Kill,
        Self::Stop,
        Self::Pause,
        Self::LostDisk,
        Self::RestoredDisk,
        Self::SlowDisk,
        Self::WriteError,
        Self::ReadError,
        Self::FullDisk,
        Self::Corruption,
        Self::SilentWrite,
        Self::ClockStep,
        Self::SlowCore,
        Self::Upgrade,
        Self::Join,
        Self::Leave,
        Self::Remove,
        Self::Replace,
        Self::Echo,
        Self::Deafness,
        Self::Rivalry,
        Self::Solitude,
    ];

    /// The first so many are drawn for each seed. The others have seeds of their own: so what a seed means stayed the same
    /// when they came.
    const DRAWN: usize = 28;

    /// Whether it changes the ring.
    #[must_use]
    pub fn changes_ring(self) -> bool {
        matches!(self, Self::Join | Self::Leave | Self::Remove | Self::Replace)
    }

    /// Whether it may destroy what was durable.
    #[must_use]
    pub fn destroys(self) -> bool {
        matches!(self, Self::LostDisk | Self::RestoredDisk | Self::Corruption | Self::SilentWrite)
    }
}

/// How often each class struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hits([u64; Class::ALL.len()]);

impl Hits {
    /// It struck once.
    pub fn count(&mut self, class: Class) {
        self.0[class as usize] += 1;
    }

    /// How often it struck.
    #[must_use]
    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The classes that never struck.
    #[must_use]
    pub fn missing(&self) -> Vec<Class> {
        Class::ALL.into_iter().filter(|&class| self.of(class) == 0).collect()
    }
}

/// What one seed suffers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The classes that may strike.
    pub classes: Vec<Class>,
    /// The average time between two faults.
    pub gap: Duration,
    /// A node that goes down is back within this time.
    pub absence_max: Duration,
    /// The ring is changed so often at most.
    pub ring_changes_max: u32,
    /// The seed is about a ring that changes.
    pub about_ring: bool,
}

/// In most seeds a node that goes down is back within this time.
const ABSENCE_MAX: Duration = Duration::from_millis(200);

/// What strikes in a seed that is about the ring: it changes often, under those who do not always hear each other.
const RING_CLASSES: [Class; 9] = [
    Class::Join,
    Class::Leave,
    Class::Remove,
    Class::Replace,
    Class::Split,
    Class::OneWaySplit,
    Class::Clog,
    Class::Pause,
    Class::Kill,
];

impl Plan {
    /// No faults at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            classes: Vec::new(),
            gap: Duration::from_secs(3600),
            absence_max: ABSENCE_MAX,
            ring_changes_max: 0,
            about_ring: false,
        }
    }

    /// Draws some classes, and how dense they come.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        if random.one_in(6) {
            let classes = RING_CLASSES.to_vec();
            let gap = Duration::from_millis(random.range(20..80));
            let ring_changes_max = random.range(4..16) as u32;
            return Self { classes, gap, absence_max: ABSENCE_MAX, ring_changes_max, about_ring: true };
        }
        let one_in = random.range(2..5);
        let drawn = &Class::ALL[..Class::DRAWN];
        let mut classes: Vec<Class> = drawn.iter().copied().filter(|_| random.one_in(one_in)).collect();
        if classes.is_empty() {
            classes.push(drawn[random.index(drawn.len())]);
        }
        let gap = Duration::from_millis(random.range(10..80));
        let ring_changes_max = random.range(1..4) as u32;
        Self { classes, gap, absence_max: ABSENCE_MAX, ring_changes_max, about_ring: false }
    }
}
