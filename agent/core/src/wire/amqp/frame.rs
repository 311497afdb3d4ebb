//! Frames (§4.2.3): type, channel, length, payload, and an octet that must be `CE`.

use std::borrow::Cow;

use super::tuning::{LARGEST, Tuning};
use crate::limits::Limits;
use crate::stream::{Call, Segment};
use crate::wire::resp::Item;

const HEAD: usize = 7;
const END: u8 = 0xce;
/// `AMQP`, 0, and the version: what a client sends first (§4.2.2). One byte longer than a frame's head.
const PROTOCOL_HEADER: &[u8] = b"AMQP";
/// Classes of the methods that a client and RabbitMQ exchange on channels (§1.2; `confirm` is RabbitMQ's).
const CHANNEL_CLASSES: [[u8; 2]; 7] = [[0, 20], [0, 30], [0, 40], [0, 50], [0, 60], [0, 85], [0, 90]];
/// Class `connection`: channel 0 only.
const CONNECTION_CLASS: [u8; 2] = [0, 10];
/// Class `basic`, the only one whose methods carry content.
const BASIC_CLASS: [u8; 2] = [0, 60];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method.
    Method,
    /// A content header.
    Header,
    /// A piece of a message's body.
    Body,
    /// A heartbeat.
    Heartbeat,
}

/// A frame: borrowed where all of it was seen at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// Its channel.
    pub channel: u16,
    /// Length of its payload.
    pub len: u32,
    /// The payload's first bytes, up to the limit on what is kept.
    pub payload: Cow<'a, [u8]>,
}

impl Frame<'_> {
    /// The payload, if all of it was captured and kept.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        (self.payload.len() == self.len as usize).then_some(&self.payload)
    }

    /// The same with memory of its own.
    #[must_use]
    pub fn into_owned(self) -> Frame<'static> {
        Frame {
            payload: Cow::Owned(self.payload.into_owned()),
            ..self
        }
    }
}

/// What a decoder has seen; `bytes + gap_bytes` is `frame_bytes + skipped_bytes` plus what is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Captured bytes read.
    pub bytes: u64,
    /// Bytes missing in gaps of known length.
    pub gap_bytes: u64,
    /// Frames given.
    pub frames: u64,
    /// Bytes of those frames.
    pub frame_bytes: u64,
    /// Bytes that belong to no frame.
    pub skipped_bytes: u64,
    /// Frames with bytes missing.
    pub degraded: u64,
    /// How often sync was lost.
    pub sync_losses: u64,
    /// How often it was found again.
    pub resyncs: u64,
    /// How often bytes were no frame.
    pub protocol_errors: u64,
}

/// Where in a frame the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nowhere: a boundary is looked for.
    Lost,
    /// In its head.
    Head,
    /// In its payload, of which so many bytes are left.
    Payload(u32),
    /// Before its last octet.
    End,
    /// In the last byte of the protocol header.
    Version,
}

/// Reads one direction of a connection.
#[derive(Debug)]
pub struct FrameDecoder {
    state: State,
    head: Vec<u8>,
    kind: FrameKind,
    channel: u16,
    len: u32,
    payload: Vec<u8>,
    kept: usize,
    missing: u64,
    /// Bytes of the frame at hand so far, missing ones included.
    under_way: u64,
    first: Call,
    last: Call,
    tuning: Tuning,
    /// Sync was lost; the frame at hand is the first after it and proves itself by what it holds and by its last octet.
    probing: bool,
    stats: FrameStats,
}

impl FrameDecoder {
    /// A decoder at the beginning of a connection.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: State::Head,
            head: Vec::with_capacity(HEAD),
            kind: FrameKind::Heartbeat,
            channel: 0,
            len: 0,
            payload: Vec::new(),
            kept: limits.bulk,
            missing: 0,
            under_way: 0,
            first: Call::default(),
            last: Call::default(),
            tuning: Tuning::default(),
            probing: false,
            stats: FrameStats::default(),
        }
    }

    /// The two ends have agreed on these.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// The next frame that ends within the segment; `None`: then all of it has been taken.
    pub fn next<'s>(&mut self, segment: &mut Segment<'s>) -> Option<Item<Frame<'s>>> {
        while !segment.data.is_empty() {
            if let Some((frame, rest)) = self.at_once(segment.data) {
                return Some(self.whole(frame, rest, segment));
            }
            if self.state == State::Lost {
                if !segment.begins {
                    let skipped = segment.skip_all();
                    self.stats.bytes = self.stats.bytes.saturating_add(skipped);
                    self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(skipped);
                    return None;
                }
                self.state = State::Head;
                self.probing = true;
            }
            if self.under_way == 0 {
                self.first = segment.call;
            }
            self.last = segment.call;
            if let Some(frame) = self.step(segment) {
                return Some(frame);
            }
        }
        None
    }

    /// A frame that is all in `data` and all to be kept, as nearly every one is, and what follows it. What is anything else is
    /// read step by step.
    pub(super) fn at_once<'d>(&self, data: &'d [u8]) -> Option<(Frame<'d>, &'d [u8])> {
        if self.state != State::Head || self.under_way > 0 || self.probing {
            return None;
        }
        let (head, rest) = data.split_at_checked(HEAD)?;
        let (kind, channel, len) = read_head(head)?;
        let allowed = !self.tuning.seen || self.tuning.allows(channel, len);
        let size = usize::try_from(len).ok()?;
        if !allowed || size > self.kept {
            return None;
        }
        let (payload, rest) = rest.split_at_checked(size)?;
        let frame = Frame {
            kind,
            channel,
            len,
            payload: Cow::Borrowed(payload),
        };
        Some((frame, rest.strip_prefix(&[END])?))
    }

    /// Accounts for a frame that was read at once.
    pub(super) fn whole<'s>(
        &mut self,
        frame: Frame<'s>,
        rest: &'s [u8],
        segment: &mut Segment<'s>,
    ) -> Item<Frame<'s>> {
        let bytes = segment.data.len().saturating_sub(rest.len()) as u64;
        segment.advance_to(rest);
        let stats = &mut self.stats;
        stats.bytes = stats.bytes.saturating_add(bytes);
        stats.frames = stats.frames.saturating_add(1);
        stats.frame_bytes = stats.frame_bytes.saturating_add(bytes);
        Item::of_call(frame, bytes, segment.call)
    }

    fn step(&mut self, segment: &mut Segment<'_>) -> Option<Item<Frame<'static>>> {
        match self.state {
            State::Lost => {}
            State::Head => {
                let taken = self.take(segment, HEAD.saturating_sub(self.head.len()));
                self.head.extend_from_slice(taken);
                if self.head.len() == HEAD {
                    self.begin();
                } else if self.probing && !self.first_fits() {
                    // At once: the next transfer may begin with a frame.
                    self.break_off();
                }
            }
            State::Payload(left) => {
                let taken = self.take(segment, left as usize);
                // Only a prefix is of use, and of a large body frame nothing.
                if self.missing == 0 && (self.kind != FrameKind::Body || self.len as usize <= self.kept) {
                    let room = self.kept.saturating_sub(self.payload.len());
                    self.payload
                        .extend_from_slice(taken.get(..room.min(taken.len())).unwrap_or_default());
                }
                self.left(left.saturating_sub(u32::try_from(taken.len()).unwrap_or(left)));
                if self.probing && self.missing == 0 && !self.payload_fits() {
                    self.break_off();
                }
            }
            State::End => {
                if self.take(segment, 1).first() == Some(&END) {
                    return Some(self.finish());
                }
                self.break_off();
            }
            State::Version => {
                self.take(segment, 1);
                self.found();
                self.count_frame();
                self.restart();
            }
        }
        None
    }

    fn take<'a>(&mut self, segment: &mut Segment<'a>, most: usize) -> &'a [u8] {
        let data = segment.data;
        let (taken, rest) = data.split_at_checked(most).unwrap_or((data, &[]));
        segment.advance_to(rest);
        let len = taken.len() as u64;
        self.stats.bytes = self.stats.bytes.saturating_add(len);
        self.under_way = self.under_way.saturating_add(len);
        taken
    }

    /// The head is complete.
    fn begin(&mut self) {
        if self.head.starts_with(PROTOCOL_HEADER) {
            self.state = State::Version;
            return;
        }
        match read_head(&self.head) {
            Some((kind, channel, len)) if !self.tuning.seen || self.tuning.allows(channel, len) => {
                (self.kind, self.channel, self.len) = (kind, channel, len);
                self.left(len);
                if self.probing && !self.head_fits() {
                    self.break_off();
                }
            }
            _ => self.break_off(),
        }
    }

    /// Could the first frame after a loss, or a connection, begin with this byte?
    fn first_fits(&self) -> bool {
        matches!(self.head.first(), None | Some(1 | 2 | 8 | b'A'))
    }

    /// Could this be the head of the first frame after a loss? Not a body frame: any bytes may follow its head, and its
    /// content header was not seen.
    fn head_fits(&self) -> bool {
        self.tuning.allows(self.channel, self.len)
            && match self.kind {
                FrameKind::Method => self.len >= 4,
                FrameKind::Header => self.len >= 14 && self.channel != 0,
                FrameKind::Heartbeat => self.len == 0 && self.channel == 0,
                FrameKind::Body => false,
            }
    }

    /// Could the payload of the first frame after a loss begin so?
    fn payload_fits(&self) -> bool {
        let Some(&class) = self.payload.first_chunk::<2>() else {
            return true;
        };
        match self.kind {
            FrameKind::Method if self.channel == 0 => class == CONNECTION_CLASS,
            FrameKind::Method => CHANNEL_CLASSES.contains(&class),
            FrameKind::Header => class == BASIC_CLASS,
            FrameKind::Body | FrameKind::Heartbeat => true,
        }
    }

    fn left(&mut self, left: u32) {
        self.state = if left == 0 {
            State::End
        } else {
            State::Payload(left)
        };
    }

    fn finish(&mut self) -> Item<Frame<'static>> {
        let resynced = self.found();
        self.stats.frames = self.stats.frames.saturating_add(1);
        self.stats.degraded = self.stats.degraded.saturating_add(u64::from(self.missing > 0));
        let frame = Item {
            value: Frame {
                kind: self.kind,
                channel: self.channel,
                len: self.len,
                payload: Cow::Owned(std::mem::take(&mut self.payload)),
            },
            first: self.first.enter,
            last_enter: self.last.enter,
            last: self.last.exit,
            pid: self.last.pid,
            tid: self.last.tid,
            bytes: self.under_way,
            degraded: self.missing > 0,
            truncated: self.missing == 0 && self.len as usize > self.kept,
            resynced,
        };
        self.count_frame();
        self.restart();
        frame
    }

    /// What is complete now proves where frames begin. Gives whether that was unknown.
    fn found(&mut self) -> bool {
        let resynced = std::mem::take(&mut self.probing);
        self.stats.resyncs = self.stats.resyncs.saturating_add(u64::from(resynced));
        resynced
    }

    fn count_frame(&mut self) {
        self.stats.frame_bytes = self.stats.frame_bytes.saturating_add(self.under_way);
    }

    fn restart(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.payload = Vec::new();
        self.missing = 0;
        self.under_way = 0;
    }

    /// The bytes are no frame. While a boundary is looked for, that is no error.
    fn break_off(&mut self) {
        if !self.probing {
            self.stats.protocol_errors = self.stats.protocol_errors.saturating_add(1);
        }
        self.lose_sync();
    }

    /// `len` bytes are missing here. Gives the frame that ends with the last of them, if one provably does.
    pub fn gap(&mut self, len: u64) -> Option<Item<Frame<'static>>> {
        self.stats.gap_bytes = self.stats.gap_bytes.saturating_add(len);
        let left = match self.state {
            State::Payload(left) => u64::from(left),
            State::End => 0,
            _ => {
                self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(len);
                self.lose_sync();
                return None;
            }
        };
        self.under_way = self.under_way.saturating_add(len);
        self.missing = self.missing.saturating_add(len);
        if len <= left {
            self.left(u32::try_from(left.saturating_sub(len)).unwrap_or(0));
            None
        } else if len == left.saturating_add(1) && !self.probing {
            Some(self.finish())
        } else {
            self.lose_sync();
            None
        }
    }

    /// An unknown number of bytes is missing here.
    pub fn lose_sync(&mut self) {
        if self.is_synced() {
            self.stats.sync_losses = self.stats.sync_losses.saturating_add(1);
        }
        self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(self.under_way);
        self.restart();
        self.probing = false;
        self.state = State::Lost;
    }

    /// Whether frames are being read, the first after a loss proven.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.state != State::Lost && !self.probing
    }

    /// Bytes of the frame under way.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.under_way
    }

    /// Bytes of memory behind it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.head.capacity().saturating_add(self.payload.capacity())
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &FrameStats {
        &self.stats
    }
}

/// Kind, channel and payload length.
fn read_head(head: &[u8]) -> Option<(FrameKind, u16, u32)> {
    let [kind, c1, c2, l1, l2, l3, l4] = *head else {
        return None;
    };
    let kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 => FrameKind::Heartbeat,
        _ => return None,
    };
    let len = u32::from_be_bytes([l1, l2, l3, l4]);
    (len <= LARGEST).then_some((kind, u16::from_be_bytes([c1, c2]), len))
}

#[cfg(test)]
mod tests;
