//! One record: a fixed [`Header`] and `len` bytes of payload.
//!
//! A *transfer* is what one system call moved. It becomes one record, or several where the capture limit or an
//! iovec cuts it; each says where in the transfer its payload stands, so that every byte that was not captured is
//! a gap of known place and length.

use core::mem::{offset_of, size_of};

/// What a record tells. Values are part of the recording format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A connection to a watched port: `conn` is its id, the payload an [`Endpoint`].
    Open = 1,
    /// No watched process has a descriptor of `conn` any more: `pid` closed the last. No payload.
    Close = 2,
    /// Bytes that `pid` wrote to `conn`.
    Send = 3,
    /// Bytes that `pid` read from `conn`.
    Recv = 4,
    /// A pool child read a frame from its pipe: `conn` is the descriptor, the payload the frame's first bytes
    /// (after its 4-byte length).
    PipeRead = 5,
    /// A pool child wrote a frame to its pipe; as `PipeRead`, with the last bytes in a second record.
    PipeWrite = 6,
    /// `pid` forked: `conn` is the child's process id. No payload.
    Fork = 7,
    /// `pid` executed another program. No payload.
    Exec = 8,
    /// The process `pid` is gone: `conn` is the wait status where it is known, else 0. No payload.
    Exit = 9,
    /// What user space read about `pid` from /proc: `conn` is the pid of the process that leads its service (its own
    /// where it leads itself), the payload key/value pairs (see [`Record::pairs`]).
    Process = 10,
    /// A pair of clocks: `exit` is CLOCK_MONOTONIC, `conn` the wall clock in ns since 1970 at that instant.
    Clock = 11,
    /// Records were lost since the last such record: `conn` is how many. No payload.
    Lost = 12,
    /// `conn` speaks TLS: transfers told of it from here on are those of what is inside, and what was told of it before is
    /// nothing. `pid` is who used it. No payload.
    Tls = 13,
    /// Bytes of `conn` were moved and are not told, since they say only that nothing happened: polls that found nothing, and
    /// heartbeats; whole ones, so that both streams go on behind them where an item begins. The payload is an [`Idle`].
    Idle = 14,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Open,
            2 => Self::Close,
            3 => Self::Send,
            4 => Self::Recv,
            5 => Self::PipeRead,
            6 => Self::PipeWrite,
            7 => Self::Fork,
            8 => Self::Exec,
            9 => Self::Exit,
            10 => Self::Process,
            11 => Self::Clock,
            12 => Self::Lost,
            13 => Self::Tls,
            14 => Self::Idle,
            _ => return None,
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// Last record of its transfer.
    pub const LAST: u16 = 1;
    /// `Open`, `Tls`: the connection is older than the agent; its streams start in the middle.
    pub const MIDSTREAM: u16 = 2;
    /// `Exec`: the process is not watched; told for its program's name alone. Never leaves the capture side.
    pub const STRANGER: u16 = 4;
    /// `Send`: a poll; without a payload, the same as the last of its connection that had this flag and a payload, which answers
    /// for one such record only. `Recv`: the first seven bytes of a heartbeat, which are known. Never leaves the capture side.
    pub const IMPLIED: u16 = 8;
}

/// The fixed part of a record.
///
/// Times are CLOCK_MONOTONIC in ns: `enter` when the system call began, `exit` when it returned (equal, to some ns, for records
/// that are not transfers, and for reads where those are seen at their return alone). Ids of connections are never used twice while an agent lives: the id is also the
/// generation of a reused descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Bytes of payload that follow.
    pub len: u32,
    /// When the call began.
    pub enter: u64,
    /// When the call returned.
    pub exit: u64,
    /// Process (tgid) in the initial pid namespace.
    pub pid: u32,
    /// Thread in the initial pid namespace.
    pub tid: u32,
    /// Connection id, or what [`Kind`] says.
    pub conn: u64,
    /// Transfers: stream offset of the transfer's first byte, counted per direction from where capture began.
    pub start: u64,
    /// Transfers: where in the transfer the payload begins.
    pub at: u32,
    /// Transfers: bytes the call moved.
    pub total: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 56);
    assert!(offset_of!(Header, len) == 4);
    assert!(offset_of!(Header, enter) == 8);
    assert!(offset_of!(Header, pid) == 24);
    assert!(offset_of!(Header, conn) == 32);
    assert!(offset_of!(Header, start) == 40);
    assert!(offset_of!(Header, at) == 48);
    assert!(offset_of!(Header, total) == 52);
    assert!(size_of::<Endpoint>() == 36);
    assert!(size_of::<Idle>() == 32);
};

/// An IPv6 address, or an IPv4 one in its v4-mapped form, in network order.
pub type Addr = [u8; 16];

/// Payload of [`Kind::Open`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The broker's address.
    pub addr: Addr,
    /// The broker's port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// The connecting thread's name, NUL-padded.
    pub comm: [u8; 16],
}

/// Payload of [`Kind::Idle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Idle {
    /// What was written.
    pub sent: LeftOut,
    /// What was read.
    pub received: LeftOut,
}

/// Bytes of one direction that are not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LeftOut {
    /// Stream offset of the first.
    pub start: u64,
    /// How many there are.
    pub bytes: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Fewer bytes than a header.
    ShortHeader(usize),
    /// The header promises more payload than there is.
    ShortPayload {
        /// What the header says.
        want: u32,
        /// What there is.
        have: usize,
    },
    /// No kind has this number.
    UnknownKind(u16),
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ShortHeader(have) => write!(f, "record of {have} bytes is shorter than its header of 56"),
            Self::ShortPayload { want, have } => {
                write!(f, "record promises {want} bytes of payload, has {have}")
            }
            Self::UnknownKind(kind) => write!(f, "record of unknown kind {kind}"),
        }
    }
}

impl core::error::Error for RecordError {}

/// A record as the user half sees it: checked, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// `header.kind`, checked.
    pub kind: Kind,
    /// The fixed part.
    pub header: Header,
    /// Exactly `header.len` bytes.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record made in user space; sets `kind` and `len` in the header.
    #[must_use]
    pub fn new(kind: Kind, header: Header, payload: &'a [u8]) -> Self {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self {
            kind,
            header: Header {
                kind: kind as u16,
                len,
                ..header
            },
            payload,
        }
    }

    /// Reads the record at the start of `bytes`; what follows it (padding of a ring slot) is ignored.
    ///
    /// # Errors
    /// When `bytes` is too short for what it claims to hold, or the kind is unknown.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let header = Header::from_bytes(bytes).ok_or(RecordError::ShortHeader(bytes.len()))?;
        let kind = Kind::from_raw(header.kind).ok_or(RecordError::UnknownKind(header.kind))?;
        let rest = bytes.get(size_of::<Header>()..).unwrap_or_default();
        let payload = usize::try_from(header.len)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(RecordError::ShortPayload {
                want: header.len,
                have: rest.len(),
            })?;
        Ok(Self {
            kind,
            header,
            payload,
        })
    }

    /// The payload of [`Kind::Open`].
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        Endpoint::from_bytes(self.payload)
    }

    /// The payload of [`Kind::Idle`].
    #[must_use]
    pub fn idle(&self) -> Option<Idle> {
        Idle::from_bytes(self.payload)
    }

    /// The payload of [`Kind::Process`]: pairs of strings, each with a u16 length before it. Stops at the first that
    /// is cut or not UTF-8.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.payload;
        core::iter::from_fn(move || {
            let (key, after) = take_str(rest)?;
            let (value, after) = take_str(after)?;
            rest = after;
            Some((key, value))
        })
    }
}

fn take_str(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*len)))?;
    Some((core::str::from_utf8(text).ok()?, rest))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

impl Header {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a header in native byte order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u16::from_ne_bytes(array(bytes, 0)?),
            flags: u16::from_ne_bytes(array(bytes, 2)?),
            len: u32::from_ne_bytes(array(bytes, 4)?),
            enter: u64::from_ne_bytes(array(bytes, 8)?),
            exit: u64::from_ne_bytes(array(bytes, 16)?),
            pid: u32::from_ne_bytes(array(bytes, 24)?),
            tid: u32::from_ne_bytes(array(bytes, 28)?),
            conn: u64::from_ne_bytes(array(bytes, 32)?),
            start: u64::from_ne_bytes(array(bytes, 40)?),
            at: u32::from_ne_bytes(array(bytes, 48)?),
            total: u32::from_ne_bytes(array(bytes, 52)?),
        })
    }

    /// The header's bytes in native byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..2].copy_from_slice(&self.kind.to_ne_bytes());
        out[2..4].copy_from_slice(&self.flags.to_ne_bytes());
        out[4..8].copy_from_slice(&self.len.to_ne_bytes());
        out[8..16].copy_from_slice(&self.enter.to_ne_bytes());
        out[16..24].copy_from_slice(&self.exit.to_ne_bytes());
        out[24..28].copy_from_slice(&self.pid.to_ne_bytes());
        out[28..32].copy_from_slice(&self.tid.to_ne_bytes());
        out[32..40].copy_from_slice(&self.conn.to_ne_bytes());
        out[40..48].copy_from_slice(&self.start.to_ne_bytes());
        out[48..52].copy_from_slice(&self.at.to_ne_bytes());
        out[52..56].copy_from_slice(&self.total.to_ne_bytes());
        out
    }
}

impl Endpoint {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads an endpoint in native byte order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            addr: array(bytes, 0)?,
            port: u16::from_ne_bytes(array(bytes, 16)?),
            reserved: u16::from_ne_bytes(array(bytes, 18)?),
            comm: array(bytes, 20)?,
        })
    }

    /// The endpoint's bytes in native byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..16].copy_from_slice(&self.addr);
        out[16..18].copy_from_slice(&self.port.to_ne_bytes());
        out[18..20].copy_from_slice(&self.reserved.to_ne_bytes());
        out[20..36].copy_from_slice(&self.comm);
        out
    }
}

impl Idle {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Nothing is left out.
    pub const NONE: Self = {
        let none = LeftOut { start: 0, bytes: 0 };
        Self {
            sent: none,
            received: none,
        }
    };

    /// Reads it in native byte order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let left_out = |at| {
            Some(LeftOut {
                start: u64::from_ne_bytes(array(bytes, at)?),
                bytes: u64::from_ne_bytes(array(bytes, at + 8)?),
            })
        };
        Some(Self {
            sent: left_out(0)?,
            received: left_out(16)?,
        })
    }

    /// Its bytes in native byte order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..8].copy_from_slice(&self.sent.start.to_ne_bytes());
        out[8..16].copy_from_slice(&self.sent.bytes.to_ne_bytes());
        out[16..24].copy_from_slice(&self.received.start.to_ne_bytes());
        out[24..32].copy_from_slice(&self.received.bytes.to_ne_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a record is written and read back, with ring padding behind it.
    /// Guarantees: header, kind and payload survive; the padding is not payload.
    #[test]
    fn round_trip() {
        let record = Record::new(
            Kind::Send,
            Header {
                flags: flags::LAST,
                enter: 1,
                exit: 2,
                pid: 3,
                tid: 4,
                conn: 5,
                start: 6,
                at: 7,
                total: 8,
                ..Header::default()
            },
            b"abc",
        );
        let mut bytes = record.header.to_bytes().to_vec();
        bytes.extend_from_slice(b"abc\0\0\0\0\0");
        assert_eq!(Record::parse(&bytes), Ok(record));
    }

    /// Scenario: what was left out of a connection, whole and cut.
    /// Guarantees: it is read as it was written, or not at all.
    #[test]
    fn left_out() {
        let left_out = |start, bytes| LeftOut { start, bytes };
        let idle = Idle {
            sent: left_out(1, 2),
            received: left_out(3, u64::MAX),
        };
        let bytes = idle.to_bytes();
        let record = |payload| Record::new(Kind::Idle, Header::default(), payload);
        assert_eq!(record(&bytes).idle(), Some(idle));
        assert_eq!(record(&bytes[..31]).idle(), None);
    }

    /// Scenario: hostile lengths and kinds.
    /// Guarantees: an error that names the fault, never a panic.
    #[test]
    fn bad_records_are_named() {
        assert_eq!(Record::parse(b"abc"), Err(RecordError::ShortHeader(3)));
        let mut header = Header {
            kind: Kind::Recv as u16,
            len: u32::MAX,
            ..Header::default()
        };
        assert_eq!(
            Record::parse(&header.to_bytes()),
            Err(RecordError::ShortPayload {
                want: u32::MAX,
                have: 0
            })
        );
        header.kind = 999;
        assert_eq!(
            Record::parse(&header.to_bytes()),
            Err(RecordError::UnknownKind(999))
        );
    }

    /// Scenario: key/value pairs, the last one cut.
    /// Guarantees: whole pairs are given, the cut one ends the list.
    #[test]
    fn pairs_stop_at_a_cut() {
        let mut payload = Vec::new();
        for text in ["service.name", "shop", "host.name"] {
            payload.extend_from_slice(&(text.len() as u16).to_ne_bytes());
            payload.extend_from_slice(text.as_bytes());
        }
        let record = Record::new(Kind::Process, Header::default(), &payload);
        assert_eq!(record.pairs().collect::<Vec<_>>(), [("service.name", "shop")]);
    }
}
