//! Operations on the bare io_uring, several under way at once: what the engine's and the network's operations cost when
//! nothing is around them.
//!
//! The rule: a lane is a buffer of its own with at most one operation under way. Buffers, ring and descriptor are owned
//! together and outlive every operation: [`Lanes`] waits for all of them before it goes.
//!
//! Not here: what is measured with them (`disk`, `floor`).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use io_uring::{
    IoUring, opcode,
    squeue::Flags,
    types::{Fd, FsyncFlags},
};

/// What O_DIRECT wants of memory, positions and lengths.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What a lane does with its whole buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// At this position of the file.
    Write(u64),
    /// At this position of the file.
    Read(u64),
    /// fdatasync; moves no bytes.
    Sync,
    /// To the socket. What is started next begins when all was sent, without another call of the kernel.
    SendThen,
    /// From the socket, until the buffer is full or the other side has closed.
    Receive,
}

/// Lanes on one file or socket.
pub(crate) struct Lanes {
    ring: IoUring,
    descriptor: OwnedFd,
    lanes: Vec<Lane>,
}

struct Lane {
    buffer: Aligned,
    busy: bool,
}

impl Lanes {
    /// So many lanes with buffers of so many bytes.
    pub(crate) fn new(descriptor: impl Into<OwnedFd>, lanes: usize, bytes: usize) -> io::Result<Self> {
        let ring = IoUring::new(lanes.next_power_of_two() as u32)?;
        let lane = || Lane { buffer: Aligned::new(bytes), busy: false };
        Ok(Self { ring, descriptor: descriptor.into(), lanes: (0..lanes).map(|_| lane()).collect() })
    }

    /// The buffer of a lane that has nothing under way.
    pub(crate) fn buffer_mut(&mut self, lane: usize) -> &mut [u8] {
        let lane = &mut self.lanes[lane];
        assert!(!lane.busy, "the kernel uses this buffer");
        lane.buffer.bytes_mut()
    }

    /// Begins an operation; the kernel hears of it at the next [`Lanes::wait`] that has to wait.
    pub(crate) fn start(&mut self, lane: usize, operation: Operation) {
        let number = lane as u64;
        let lane = &mut self.lanes[lane];
        assert!(!lane.busy, "a lane has one operation under way");
        lane.busy = true;
        let descriptor = Fd(self.descriptor.as_raw_fd());
        let (memory, length) = (lane.buffer.bytes_mut().as_mut_ptr(), lane.buffer.length as u32);
        let entry = match operation {
            Operation::Write(position) => opcode::Write::new(descriptor, memory, length).offset(position).build(),
            Operation::Read(position) => opcode::Read::new(descriptor, memory, length).offset(position).build(),
            Operation::Sync => opcode::Fsync::new(descriptor).flags(FsyncFlags::DATASYNC).build(),
            Operation::SendThen => {
                opcode::Send::new(descriptor, memory, length).flags(libc::MSG_WAITALL).build().flags(Flags::IO_LINK)
            }
            Operation::Receive => opcode::Recv::new(descriptor, memory, length).flags(libc::MSG_WAITALL).build(),
        };
        let entry = entry.user_data(number);
        #[expect(unsafe_code, reason = "io_uring takes raw memory")]
        // SAFETY: the buffer and the descriptor are owned by `self`, which waits for all lanes when it is dropped; while
        // the lane is busy nobody gets the buffer.
        unsafe {
            self.ring.submission().push(&entry).expect("the ring has room for every lane");
        }
    }

    /// Waits until some operation is done: its lane, and the bytes that it moved. The lane is free then, also after an
    /// error.
    pub(crate) fn wait(&mut self) -> io::Result<(usize, usize)> {
        let (lane, result) = self.next();
        self.lanes[lane].busy = false;
        usize::try_from(result).map(|moved| (lane, moved)).map_err(|_| io::Error::from_raw_os_error(-result))
    }

    /// Starts an operation, waits for it, and wants it to move `length` bytes.
    pub(crate) fn run(&mut self, lane: usize, operation: Operation, length: usize) -> io::Result<()> {
        self.start(lane, operation);
        expect_moved(self.wait()?.1, length)
    }

    fn next(&mut self) -> (usize, i32) {
        assert!(self.lanes.iter().any(|lane| lane.busy), "nothing is under way that could be waited for");
        loop {
            if let Some(done) = self.ring.completion().next() {
                return (done.user_data() as usize, done.result());
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("io_uring lost an entry: {error}"),
            }
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        while self.lanes.iter().any(|lane| lane.busy) {
            // Nobody asks any more how it ended.
            let (lane, _) = self.next();
            self.lanes[lane].busy = false;
        }
    }
}

/// An error unless all was moved.
pub(crate) fn expect_moved(moved: usize, length: usize) -> io::Result<()> {
    if moved == length { Ok(()) } else { Err(io::Error::other(format!("moved {moved} of {length} bytes"))) }
}

/// Memory aligned as O_DIRECT wants it: the aligned part of a larger vector.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "bytes can be aligned");
        Self { memory, start, length }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_reads_what_was_written_to_its_place() {
        let mut lanes = Lanes::new(tempfile::tempfile().unwrap(), 4, BLOCK_BYTES).unwrap();
        for lane in 0..4 {
            lanes.buffer_mut(lane).fill(lane as u8 + 1);
            lanes.start(lane, Operation::Write((lane * BLOCK_BYTES) as u64));
        }
        for _ in 0..4 {
            assert_eq!(lanes.wait().unwrap().1, BLOCK_BYTES);
        }
        for lane in 0..4 {
            lanes.run(lane, Operation::Read(((3 - lane) * BLOCK_BYTES) as u64), BLOCK_BYTES).unwrap();
            assert!(lanes.buffer_mut(lane).iter().all(|&byte| byte == 4 - lane as u8), "lane {lane}");
        }
        // Beyond the end there is nothing to read, and the lane is free again.
        assert!(lanes.run(0, Operation::Read(1 << 20), BLOCK_BYTES).is_err());
        lanes.run(0, Operation::Sync, 0).unwrap();
    }
}
