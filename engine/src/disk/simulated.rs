//! A disk in RAM, under virtual time, that crashes, tears, rots, fills up, slows down and fails on demand.
//!
//! The rule: all that happens follows from the seed and the calls. An operation takes effect at its own virtual moment,
//! in [`SimulatedDisk::advance`]; whoever drives the simulation first advances the disk to the current time, then lets
//! tasks run, then looks at [`SimulatedDisk::next_due`]. After [`SimulatedDisk::crash`] nothing that the old handle
//! started ever returns; [`SimulatedDisk::reopen`] gives a handle on what survived.
//!
//! What a crash leaves is said in `files`. Not here: when to crash, and what must have survived (the tests).

mod executor;
mod files;
mod operation;
mod random;
#[cfg(test)]
mod tests;

use super::{BLOCK, Buffer, Disk, File};
pub use executor::{Executor, LocalBoxFuture, Outcome, yield_once};
use files::{FileId, Files};
use operation::{Action, Operations, Output};
pub use random::Random;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    io,
    ops::{Deref, DerefMut},
    rc::Rc,
    time::Duration,
};

/// How long operations take: each is drawn from half of the figure upwards, 1.1 times it on the average, now and then
/// many times longer. The default is a fast SSD.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One read, beside its bytes.
    pub read: Duration,
    /// One write, beside its bytes.
    pub write: Duration,
    /// One sync; half of it is what a durable write takes more than another.
    pub sync: Duration,
    /// One change of names or lengths.
    pub metadata: Duration,
    /// 1 MiB of bytes read or written.
    pub mebibyte: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            read: Duration::from_micros(80),
            write: Duration::from_micros(60),
            sync: Duration::from_micros(80),
            metadata: Duration::from_micros(50),
            mebibyte: Duration::from_micros(700),
        }
    }
}

/// Kinds of operations that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// [`File::read`].
    Read,
    /// [`File::write`]: an error leaves each sector old or new.
    Write,
    /// [`File::sync`]: after an error, what it should have covered may be lost though later syncs succeed.
    Sync,
    /// [`File::allocate`] and [`File::truncate`].
    Resize,
    /// Opening, renaming, removing, listing and the sync of the directory.
    Directory,
}

/// A write that the disk reports as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SilentFault {
    /// It went to another place of the same file.
    Misdirected,
    /// It went nowhere.
    Lost,
}

/// What the disk has done since it was made, over all crashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Completed reads.
    pub reads: u64,
    /// Completed writes.
    pub writes: u64,
    /// Completed syncs of files.
    pub syncs: u64,
    /// Bytes of completed reads.
    pub read_bytes: u64,
    /// Bytes of completed writes.
    pub written_bytes: u64,
    /// Operations that were made to fail.
    pub failed: u64,
}

/// All files of a disk at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Files);

/// A handle of one run of a process on a simulated disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Rc<RefCell<State>>,
    /// A handle works in its own epoch: each crash begins a new one.
    epoch: u64,
}

struct State {
    files: Files,
    operations: Operations,
    random: Random,
    timing: Timing,
    slowness: u32,
    now: Duration,
    epoch: u64,
    capacity: Option<u64>,
    fail_next: BTreeMap<Kind, i32>,
    fail_always: BTreeMap<Kind, i32>,
    silent: Option<SilentFault>,
    /// Counts down operations that change the disk; at the end the disk stands still.
    halt_after: Option<u64>,
    statistics: Statistics,
}

/// Making, driving and looking.
impl SimulatedDisk {
    /// An empty disk whose chances follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, timing: Timing) -> Self {
        let state = State {
            files: Files::default(),
            operations: Operations::default(),
            random: Random::new(seed),
            timing,
            slowness: 1,
            now: Duration::ZERO,
            epoch: 0,
            capacity: None,
            fail_next: BTreeMap::new(),
            fail_always: BTreeMap::new(),
            silent: None,
            halt_after: None,
            statistics: Statistics::default(),
        };
        Self { state: Rc::new(RefCell::new(state)), epoch: 0 }
    }

    /// When the next operation takes effect; `None` when nothing is under way, or the disk stands still.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let state = self.state.borrow();
        if state.is_halted() { None } else { state.operations.next_due() }
    }

    /// Moves the disk's time to `now`: what is due by then takes effect in order of its moments, and the tasks that wait
    /// for it are woken.
    ///
    /// # Panics
    /// When `now` goes back.
    pub fn advance(&self, now: Duration) {
        let mut state = self.state.borrow_mut();
        assert!(now >= state.now, "time goes back from {:?} to {now:?}", state.now);
        while !state.is_halted()
            && let Some((id, operation)) = state.operations.pop_due(now)
        {
            state.now = operation.due;
            let result = state.perform(&operation);
            if let Some(waker) = state.operations.complete(id, result) {
                // A waker only queues its task, but it is foreign code: hold no borrow over it.
                drop(state);
                waker.wake();
                state = self.state.borrow_mut();
            }
        }
        state.now = now;
    }

    /// Runs the executor and this disk until the future has ended, and returns what it gives; `None` when everything waits
    /// and nothing is under way (a deadlock, or the disk stands still). Other tasks of the executor run along.
    pub fn run<T: 'static>(&self, executor: &Executor, future: impl Future<Output = T> + 'static) -> Option<T> {
        let outcome = executor.spawn_for_result(u64::MAX, future);
        loop {
            executor.run_until_stalled();
            if let Some(result) = outcome.take() {
                return Some(result);
            }
            self.advance(self.next_due()?);
        }
    }

    /// Runs the executor and this disk until `until`, or until nothing is under way.
    pub fn run_until(&self, executor: &Executor, until: Duration) {
        executor.run_until_stalled();
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            self.advance(due);
            executor.run_until_stalled();
        }
        self.advance(until.max(self.now()));
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.state.borrow().statistics
    }

    /// A hash of every operation so far with its moment: equal in two runs of one seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.state.borrow().operations.trace_hash()
    }

    /// The bytes of a file as a reader would see them; `None` without such a file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let files = &self.state.borrow().files;
        files.find(name).map(|file| files.read(file, 0, files.length(file) as usize))
    }

    /// The names and lengths of all files, by name.
    #[must_use]
    pub fn names(&self) -> Vec<(String, u64)> {
        self.state.borrow().files.names()
    }
}

/// Faults.
impl SimulatedDisk {
    /// Cuts the power: operations under way never return, whatever is not durable is lost, kept or torn.
    pub fn crash(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.files.crash(&mut state.random);
        state.begin_epoch();
    }

    /// Kills the process but not the machine: operations under way never return, though what they write may arrive; all
    /// that was written is still read, and what was not synced is still lost in a later crash.
    pub fn kill(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let under_way = state.operations.writes();
        state.files.kill(&under_way, &mut state.random);
        state.begin_epoch();
    }

    /// Empties the disk, as if another had been put in its place, under the next process.
    pub fn lose_all(&self) {
        let mut state = self.state.borrow_mut();
        state.files = Files::default();
        state.begin_epoch();
    }

    /// A handle for the next process, after a crash.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self { state: self.state.clone(), epoch: self.state.borrow().epoch }
    }

    /// Copies all files as they would be read now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.borrow().files.copy())
    }

    /// Puts an older copy of all files in place, under the next process.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.state.borrow_mut();
        state.files = snapshot.0.copy();
        state.begin_epoch();
    }

    /// Stops the disk in the middle of the `count`-th next operation that changes it (1 is the next one): nothing ends any
    /// more until the crash.
    pub fn halt_after(&self, count: u64) {
        assert!(count > 0, "the next operation is number 1");
        self.state.borrow_mut().halt_after = Some(count);
    }

    /// True when [`SimulatedDisk::halt_after`] has stopped the disk.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state.borrow().is_halted()
    }

    /// The next operation of this kind fails with an error number of the system.
    pub fn fail_next(&self, kind: Kind, errno: i32) {
        self.state.borrow_mut().fail_next.insert(kind, errno);
    }

    /// All operations of this kind fail from now on, also after a crash, until [`SimulatedDisk::mend`].
    pub fn fail_always(&self, kind: Kind, errno: i32) {
        self.state.borrow_mut().fail_always.insert(kind, errno);
    }

    /// No operation is made to fail any more.
    pub fn mend(&self) {
        let mut state = self.state.borrow_mut();
        state.fail_next.clear();
        state.fail_always.clear();
        state.silent = None;
    }

    /// The next write is reported as done, but is not where it should be.
    pub fn spoil_next_write(&self, fault: SilentFault) {
        self.state.borrow_mut().silent = Some(fault);
    }

    /// Flips one bit in each byte of a part of a file, durably. False when the file has no such part.
    pub fn corrupt(&self, name: &str, position: u64, length: usize) -> bool {
        let mut state = self.state.borrow_mut();
        let flips = (0..length).map(|_| 1 << state.random.index(8)).collect::<Vec<u8>>();
        state.files.alter(name, position, |at, byte| byte ^ flips[at], length)
    }

    /// Writes bytes into a file behind everyone's back, durably. False when the file has no such part.
    pub fn overwrite(&self, name: &str, position: u64, bytes: &[u8]) -> bool {
        self.state.borrow_mut().files.alter(name, position, |at, _| bytes[at], bytes.len())
    }

    /// Lets the files' lengths sum up to no more than this; `None` is without a limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.borrow_mut().capacity = bytes;
    }

    /// Leaves no room for one more byte.
    pub fn fill(&self) {
        let mut state = self.state.borrow_mut();
        state.capacity = Some(state.files.used_bytes());
    }

    /// Makes the operations from now on take `factor` times as long.
    pub fn set_slowness(&self, factor: u32) {
        self.state.borrow_mut().slowness = factor;
    }
}

impl State {
    fn is_halted(&self) -> bool {
        self.halt_after == Some(0)
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.operations.forget_all();
        self.halt_after = None;
    }

    fn takes(&mut self, base: Duration, bytes: usize) -> Duration {
        let base = base + self.timing.mebibyte.mul_f64(bytes as f64 / f64::from(1 << 20));
        let factor = if self.random.one_in(100) { 10.0 } else { 0.5 + self.random.unit() };
        base.mul_f64(factor * f64::from(self.slowness))
    }

    /// The error that this operation has to fail with.
    fn failure(&mut self, kind: Kind) -> Option<io::Error> {
        let errno = self.fail_next.remove(&kind).or_else(|| self.fail_always.get(&kind).copied())?;
        self.statistics.failed += 1;
        Some(io::Error::from_raw_os_error(errno))
    }
}

/// Zeroed memory to write from.
#[derive(Debug)]
pub struct SimulatedBuffer(Vec<u8>);

impl Deref for SimulatedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SimulatedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Buffer for SimulatedBuffer {
    fn truncate(&mut self, length: usize) {
        assert!(length.is_multiple_of(BLOCK) && length <= self.0.len(), "a buffer cannot be cut to {length} bytes");
        self.0.truncate(length);
    }
}

/// An open file of a [`SimulatedDisk`].
pub struct SimulatedFile {
    disk: SimulatedDisk,
    file: FileId,
    durable_writes: bool,
    _held: Rc<()>,
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;
    type Buffer = SimulatedBuffer;

    fn buffer(&self, length: usize) -> SimulatedBuffer {
        assert!(length.is_multiple_of(BLOCK), "a buffer of {length} bytes is not aligned");
        SimulatedBuffer(vec![0; length])
    }

    async fn open(&self, name: &str, durable_writes: bool) -> io::Result<SimulatedFile> {
        match self.submit(Action::Open { name: name.to_owned() }).await? {
            Output::File { file, held } => Ok(SimulatedFile { disk: self.clone(), file, durable_writes, _held: held }),
            other => unreachable!("an open gave {other:?}"),
        }
    }

    async fn list(&self) -> io::Result<Vec<(String, u64)>> {
        match self.submit(Action::List).await? {
            Output::Names(names) => Ok(names),
            other => unreachable!("a listing gave {other:?}"),
        }
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.submit(Action::Rename { from: from.to_owned(), to: to.to_owned() }).await.map(drop)
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.submit(Action::Remove { name: name.to_owned() }).await.map(drop)
    }

    async fn sync_directory(&self) -> io::Result<()> {
        self.submit(Action::SyncDirectory).await.map(drop)
    }

    async fn sleep(&self, duration: Duration) {
        self.submit(Action::Sleep(duration)).await.map(drop).expect("a sleep does not fail");
    }

    fn now(&self) -> Duration {
        self.state.borrow().now
    }
}

impl File for SimulatedFile {
    type Buffer = SimulatedBuffer;
    type Bytes = Vec<u8>;

    async fn length(&self) -> io::Result<u64> {
        match self.disk.submit(Action::Length { file: self.file }).await? {
            Output::Length(length) => Ok(length),
            other => unreachable!("a length gave {other:?}"),
        }
    }

    async fn write(&self, buffer: Rc<SimulatedBuffer>, position: u64) -> io::Result<()> {
        check_aligned(position, buffer.len())?;
        let write = Action::Write { file: self.file, position, buffer, durable: self.durable_writes };
        self.disk.submit(write).await.map(drop)
    }

    async fn read(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        check_aligned(position, length)?;
        match self.disk.submit(Action::Read { file: self.file, position, length }).await? {
            Output::Bytes(bytes) => Ok(bytes),
            other => unreachable!("a read gave {other:?}"),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        self.disk.submit(Action::Sync { file: self.file }).await.map(drop)
    }

    async fn allocate(&self, length: u64) -> io::Result<()> {
        self.disk.submit(Action::Allocate { file: self.file, length }).await.map(drop)
    }

    async fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.submit(Action::Truncate { file: self.file, length }).await.map(drop)
    }
}

/// `O_DIRECT` refuses what is not aligned.
fn check_aligned(position: u64, length: usize) -> io::Result<()> {
    let aligned = position.is_multiple_of(BLOCK as u64) && length.is_multiple_of(BLOCK);
    if aligned { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}
