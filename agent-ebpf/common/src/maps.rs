//! Keys and values of the kernel half's maps, as both halves see them.

use core::mem::size_of;

use crate::{Addr, Idle};

/// Most descriptors of one process that are tracked so that a fork inherits them and an exit drops them.
pub const SLOTS_PER_PROCESS: u32 = 64;

/// [`Fd::slot`] of a descriptor that found no free slot: known to the probes, but not inherited.
pub const NO_SLOT: u32 = u32::MAX;

/// Connection ids made by the user half's scan have this bit; the kernel half's never do.
pub const SCANNED_ID: u64 = 1 << 63;

/// Bits of a value of `PROCS`.
pub mod process {
    /// Reads and writes of descriptors that are no tracked connection are looked at: they may be a pool's pipes. Inherited.
    pub const WATCH_PIPES: u32 = 1;
    /// So are those of the processes it makes from now on, not its own: at its ends of the pipes there is nothing that theirs don't
    /// show, and it uses them three times as often.
    pub const HAS_POOL: u32 = 2;

    /// What a process begins with whose parent has these bits.
    #[must_use]
    pub const fn inherited(bits: u32) -> u32 {
        if bits & (WATCH_PIPES | HAS_POOL) == 0 {
            0
        } else {
            WATCH_PIPES
        }
    }
}

/// Key of `FDS`: a descriptor of a process. `SLOTS` is keyed alike, with a slot in place of the descriptor.
#[must_use]
pub const fn fd_key(tgid: u32, fd: u32) -> u64 {
    (tgid as u64) << 32 | fd as u64
}

/// Value of `FDS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fd {
    /// The connection's id.
    pub conn: u64,
    /// Where `SLOTS` names this descriptor, or [`NO_SLOT`].
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
}

/// Elements of `FD_HINTS`; a power of two.
pub const FD_HINTS: u32 = 16_384;

/// The element of `FD_HINTS` that a descriptor shares with others: how many of them are in `FDS`. Who puts one there adds to it
/// before, who removes one takes away after.
#[must_use]
pub const fn fd_hint(tgid: u32, fd: u32) -> u32 {
    (tgid.wrapping_mul(0x9e37_79b1) >> 16).wrapping_add(fd) & (FD_HINTS - 1)
}

/// Elements of `POOL_HINTS`; a power of two.
pub const POOL_HINTS: u32 = 16_384;

/// The element of `POOL_HINTS` that a process shares with others: not 0 once one of them had [`process::WATCH_PIPES`]. Set before the
/// process has it, and never cleared: to count them would be one more thing that two halves must agree on.
#[must_use]
pub const fn pool_hint(tgid: u32) -> u32 {
    tgid & (POOL_HINTS - 1)
}

/// Elements of `IGNORED_HINTS`; a power of two.
pub const IGNORED_HINTS: u32 = 4096;

/// The element of `IGNORED_HINTS` that a connection shares with others: how many of them are in `IGNORED`.
#[must_use]
pub const fn ignored_hint(conn: u64) -> u32 {
    // What ids differ by is the count in their middle or, of those of the user half, at their end.
    (conn ^ conn >> 16) as u32 & (IGNORED_HINTS - 1)
}

/// Words of `PORTS`: a bit for each port.
pub const PORT_WORDS: u32 = 1024;

/// Where in `PORTS` a port's bit is: word, and bit in it.
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

/// Value of `CONNS`: what the kernel half knows of a connection. Its key is the connection's id in the tracepoint back
/// end, the address of its `struct sock` in the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Conn {
    /// Its id.
    pub id: u64,
    /// What is written.
    pub tx: Flow,
    /// What is read.
    pub rx: Flow,
    /// Descriptors that refer to it, over all processes; the tracepoint back end's connections are closed when none is
    /// left.
    pub refs: u64,
    /// The broker's address.
    pub addr: Addr,
    /// The broker's port, host order; 0 where it is not known.
    pub port: u16,
    /// See [`tls`].
    pub tls: u8,
    /// Transfers looked at so far to tell.
    pub judged: u8,
    /// Socket back ends: the process that used it last, and is watched. 0 for none.
    pub user: u32,
    /// 1 when data was written to a TLS connection that no probe on a TLS library saw: what passes unseen is a gap.
    pub unread: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// What is not told.
    pub quiet: Quiet,
}

/// What is kept of a connection to leave out polls that find nothing, and heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Quiet {
    /// Left out since the last record that told of it.
    pub idle: Idle,
    /// The last poll that was told: a hash of its bytes and of the process.
    pub poll: u64,
    /// Its length; 0 for none.
    pub poll_len: u32,
    /// See [`held`].
    pub held: u32,
    /// When the call that moved what is held back began.
    pub held_enter: u64,
    /// When it returned.
    pub held_exit: u64,
    /// Who made it, as `pid_tgid`.
    pub held_by: u64,
}

impl Quiet {
    /// Nothing is left out, held back, or to be repeated.
    pub const NONE: Self = Self {
        idle: Idle::NONE,
        poll: 0,
        poll_len: 0,
        held: held::NOTHING,
        held_enter: 0,
        held_exit: 0,
        held_by: 0,
    };
}

/// Values of [`Quiet::held`]: what was moved last, and is told or left out once it is known what comes next.
pub mod held {
    /// Nothing.
    pub const NOTHING: u32 = 0;
    /// The same poll as the last that was told was written.
    pub const POLL: u32 = 1;
    /// The first seven bytes of a heartbeat were read.
    pub const HEARTBEAT: u32 = 2;
}

/// Values of [`Conn::tls`].
pub mod tls {
    /// Not known: the first that is sent tells.
    pub const FRESH: u8 = 0;
    /// Its bytes are what they are.
    pub const PLAIN: u8 = 1;
    /// It speaks TLS: its bytes are not told, only what the TLS library's calls move.
    pub const SEALED: u8 = 2;
    /// Not known, and it is older than the agent: whatever transfer begins with a TLS record tells.
    pub const JOINED: u8 = 3;
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Bytes moved since capture began.
    pub bytes: u64,
    /// Bytes moved since the last of the other direction, saturating.
    pub run: u32,
    /// The TCP sequence number that the next byte should have. Socket back ends only, like `thread` and `known`.
    pub seq: u32,
    /// The thread that is moving bytes, or 0.
    pub thread: u32,
    /// 1 when there is probably more of the same: the last write took less than it was given, the last read filled its buffer.
    pub more: u8,
    /// 1 when `seq` is known.
    pub known: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl Flow {
    /// Nothing has moved.
    pub const NONE: Self = Self {
        bytes: 0,
        run: 0,
        seq: 0,
        thread: 0,
        more: 0,
        known: 0,
        reserved: [0; 2],
    };
}

/// Bits of the cookie by which `ssl_enter` knows the function that it is at.
pub mod ssl {
    /// It writes; else it reads.
    pub const WRITES: u64 = 1;
    /// It puts the number of bytes where its fourth argument says; else it returns it.
    pub const EXTENDED: u64 = 2;
}

/// What the kernel half counts. The discriminant is the slot in its per-CPU array; the first 16 are records lost,
/// by [`Kind`](crate::Kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// `CONNS` was full: the connection is not seen.
    ConnsFull = 16,
    /// `FDS` was full: the descriptor is not seen.
    FdsFull = 17,
    /// `PROCS` was full: the process is not seen.
    ProcsFull = 18,
    /// `CALLS` was full: the call is not seen.
    CallsFull = 19,
    /// A process has more tracked descriptors than slots: this one is not inherited.
    SlotsFull = 20,
    /// The caller's memory could not be read: the bytes are a gap.
    Unreadable = 21,
    /// Transfers of connections with the verdict Ignore.
    Ignored = 22,
    /// Bytes of transfers that the capture limit left out.
    CutBytes = 23,
    /// Bytes that moved without a probe's seeing it, known by TCP's sequence numbers: each is in a gap.
    MissedBytes = 24,
    /// Calls whose return no probe saw: their bytes are in a gap.
    ReturnsMissed = 25,
    /// Bytes of TLS connections that moved in no call of a TLS library that was seen.
    SealedBytes = 26,
    /// Those of them that were data, not handshakes: what was inside is a gap.
    UnreadBytes = 27,
    /// Polls that found nothing, left out with their answers.
    IdlePolls = 28,
    /// Heartbeats left out.
    Heartbeats = 29,
    /// Bytes of both.
    IdleBytes = 30,
}

impl Counter {
    /// Slots in the per-CPU array.
    pub const SLOTS: usize = 31;

    /// Name and meaning of each slot; those without a name are not used.
    pub const NAMES: [(&'static str, &'static str); Self::SLOTS] = [
        ("", ""),
        ("lost_open", "Open records lost: the ring buffer was full"),
        ("lost_close", "Close records lost: the ring buffer was full"),
        ("lost_send", "Send records lost: the ring buffer was full"),
        ("lost_recv", "Recv records lost: the ring buffer was full"),
        (
            "lost_pipe_read",
            "PipeRead records lost: the ring buffer was full",
        ),
        (
            "lost_pipe_write",
            "PipeWrite records lost: the ring buffer was full",
        ),
        ("lost_fork", "Fork records lost: the ring buffer was full"),
        ("lost_exec", "Exec records lost: the ring buffer was full"),
        ("lost_exit", "Exit records lost: the ring buffer was full"),
        ("", ""),
        ("", ""),
        ("", ""),
        ("lost_tls", "Tls records lost: the ring buffer was full"),
        ("lost_idle", "Idle records lost: the ring buffer was full"),
        ("", ""),
        ("conns_full", "connections not seen: too many at once"),
        ("fds_full", "descriptors not seen: too many at once"),
        ("procs_full", "processes not seen: too many at once"),
        ("calls_full", "calls not seen: too many threads at once"),
        (
            "slots_full",
            "descriptors that a fork will not inherit: too many in one process",
        ),
        ("unreadable", "transfers whose bytes could not be read"),
        ("ignored", "transfers of connections that are not Celery's"),
        ("cut_bytes", "bytes left out by the capture limit"),
        (
            "missed_bytes",
            "bytes that moved unseen by the probes (splice, io_uring, a probe that the kernel passed over)",
        ),
        (
            "returns_missed",
            "calls left out because the kernel passed over the probe of their return",
        ),
        (
            "tls_sealed_bytes",
            "bytes of TLS connections that moved outside the watched calls: handshakes, and all where the TLS library is not covered",
        ),
        (
            "tls_unread_bytes",
            "those of them that were data: written before the TLS library was covered, or read from memory (asyncio)",
        ),
        (
            "idle_polls",
            "polls for a task that found nothing, left out with their answers",
        ),
        ("heartbeats", "heartbeats of AMQP, left out"),
        ("idle_bytes", "bytes of these polls, answers and heartbeats"),
    ];
}

/// Value of the per-CPU array `COUNTERS`.
pub type Counters = [u64; Counter::SLOTS];

const _: () = {
    assert!(size_of::<Fd>() == 16);
    assert!(size_of::<Conn>() == 168);
    assert!(FD_HINTS.is_power_of_two());
    assert!(POOL_HINTS.is_power_of_two());
};
