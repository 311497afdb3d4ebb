//! Frames (§4.2.3): type, channel, length, payload, and an octet that must be `CE`.

use crate::limits::Limits;
use crate::stream::{Call, Segment};
use crate::wire::resp::Item;

const HEAD: usize = 7;
const END: u8 = 0xce;
/// `AMQP`, 0, and the version: what a client sends first (§4.2.2). One byte longer than a frame's head.
const PROTOCOL_HEADER: &[u8] = b"AMQP";
/// Largest frame where the two have not been seen to agree on one: that of RabbitMQ and py-amqp.
const FRAME_MAX: u32 = 131_072;
/// No broker sends larger frames; what claims to be one is not a frame.
const LARGEST: u32 = 1 << 30;

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

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// Its channel.
    pub channel: u16,
    /// Length of its payload.
    pub len: u32,
    /// The payload's first bytes, up to the limit on what is kept.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload, if all of it was captured and kept.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        (self.payload.len() == self.len as usize).then_some(&self.payload)
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
    frame_max: u32,
    /// Sync was lost; the frame at hand is the first after it and proves itself by its last octet.
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
            frame_max: FRAME_MAX,
            probing: false,
            stats: FrameStats::default(),
        }
    }

    /// The two have agreed on a largest frame (`connection.tune-ok`), 0 for none.
    pub fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = if frame_max == 0 { LARGEST } else { frame_max };
    }

    /// The next frame that ends within the segment; `None`: then all of it has been taken.
    pub fn next(&mut self, segment: &mut Segment<'_>) -> Option<Item<Frame>> {
        while !segment.data.is_empty() {
            if self.state == State::Lost && !(segment.begins && self.plausible(segment.data)) {
                let skipped = segment.skip_all();
                self.stats.bytes = self.stats.bytes.saturating_add(skipped);
                self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(skipped);
                return None;
            }
            if self.state == State::Lost {
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

    fn step(&mut self, segment: &mut Segment<'_>) -> Option<Item<Frame>> {
        match self.state {
            State::Lost => {}
            State::Head => {
                let taken = self.take(segment, HEAD.saturating_sub(self.head.len()));
                self.head.extend_from_slice(taken);
                if self.head.len() == HEAD {
                    self.begin();
                }
            }
            State::Payload(left) => {
                let taken = self.take(segment, left as usize);
                // Only a prefix is of use: behind a gap nothing is kept.
                if self.missing == 0 {
                    let room = self.kept.saturating_sub(self.payload.len());
                    self.payload
                        .extend_from_slice(taken.get(..room.min(taken.len())).unwrap_or_default());
                }
                self.left(left.saturating_sub(u32::try_from(taken.len()).unwrap_or(left)));
            }
            State::End => {
                if self.take(segment, 1).first() == Some(&END) {
                    return Some(self.finish());
                }
                self.break_off();
            }
            State::Version => {
                self.take(segment, 1);
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
            Some((kind, channel, len)) => {
                (self.kind, self.channel, self.len) = (kind, channel, len);
                self.left(len);
            }
            None => self.break_off(),
        }
    }

    fn left(&mut self, left: u32) {
        self.state = if left == 0 {
            State::End
        } else {
            State::Payload(left)
        };
    }

    fn finish(&mut self) -> Item<Frame> {
        let resynced = std::mem::take(&mut self.probing);
        self.stats.resyncs = self.stats.resyncs.saturating_add(u64::from(resynced));
        self.stats.frames = self.stats.frames.saturating_add(1);
        self.stats.degraded = self.stats.degraded.saturating_add(u64::from(self.missing > 0));
        let frame = Item {
            value: Frame {
                kind: self.kind,
                channel: self.channel,
                len: self.len,
                payload: std::mem::take(&mut self.payload),
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

    fn count_frame(&mut self) {
        self.stats.frame_bytes = self.stats.frame_bytes.saturating_add(self.under_way);
    }

    fn restart(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.payload.clear();
        self.missing = 0;
        self.under_way = 0;
    }

    /// The bytes are no frame.
    fn break_off(&mut self) {
        self.stats.protocol_errors = self.stats.protocol_errors.saturating_add(1);
        self.lose_sync();
    }

    /// `len` bytes are missing here. Gives the frame that ends with the last of them, if one provably does.
    pub fn gap(&mut self, len: u64) -> Option<Item<Frame>> {
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
        if self.state != State::Lost && !self.probing {
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

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &FrameStats {
        &self.stats
    }

    /// Could a transfer that begins so begin a frame? Body frames are left out: any bytes may follow their head.
    fn plausible(&self, data: &[u8]) -> bool {
        if data.starts_with(PROTOCOL_HEADER) {
            return true;
        }
        let Some((kind, _, len)) = data.get(..HEAD).and_then(read_head) else {
            return false;
        };
        let class = data.get(HEAD..HEAD.saturating_add(2));
        let fits = len.saturating_add(8) <= self.frame_max;
        match kind {
            FrameKind::Method => {
                let known = [10u8, 20, 40, 50, 60, 85, 90];
                fits && len >= 4
                    && class.is_none_or(|class| {
                        class.first() == Some(&0) && class.get(1).is_some_and(|c| known.contains(c))
                    })
            }
            FrameKind::Header => fits && len >= 14 && class.is_none_or(|class| class == [0, 60]),
            FrameKind::Heartbeat => len == 0,
            FrameKind::Body => false,
        }
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
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out.push(END);
        out
    }

    /// A connection's first bytes, a publish of two body frames, a heartbeat.
    fn stream() -> Vec<u8> {
        [
            b"AMQP\0\0\x09\x01".to_vec(),
            frame(1, 1, b"\0\x3c\0\x28\0\0\0\x06celery\0"),
            frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\0"),
            frame(3, 1, b"ab\xcec"),
            frame(3, 1, b"d"),
            frame(8, 0, b""),
        ]
        .concat()
    }

    fn read(decoder: &mut FrameDecoder, data: &[u8], begins: bool) -> Vec<Frame> {
        let mut segment = Segment {
            data,
            begins,
            call: Call::default(),
        };
        std::iter::from_fn(|| decoder.next(&mut segment))
            .map(|item| item.value)
            .collect()
    }

    fn balanced(decoder: &FrameDecoder) -> bool {
        let stats = decoder.stats();
        stats.bytes + stats.gap_bytes == stats.frame_bytes + stats.skipped_bytes + decoder.under_way
    }

    /// Scenario: a stream cut in two at every byte.
    /// Guarantees: the same frames, and every byte accounted for.
    #[test]
    fn cut_at_every_byte() {
        let stream = stream();
        let whole = read(&mut FrameDecoder::new(&Limits::default()), &stream, true);
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[2].whole(), Some(&b"ab\xcec"[..]));
        for cut in 0..=stream.len() {
            let mut decoder = FrameDecoder::new(&Limits::default());
            let mut frames = read(&mut decoder, &stream[..cut], true);
            frames.extend(read(&mut decoder, &stream[cut..], true));
            assert_eq!(frames, whole, "cut at {cut}");
            assert!(balanced(&decoder), "cut at {cut}");
        }
    }

    /// Scenario: bytes missing within a body frame, and from one frame into the next.
    /// Guarantees: the first costs that frame alone; after the second, reading goes on at the next call that begins a
    /// method or header, never in a body.
    #[test]
    fn gaps() {
        let mut decoder = FrameDecoder::new(&Limits::default());
        assert_eq!(read(&mut decoder, &frame(3, 1, &[b'x'; 100])[..20], true), []);
        assert!(decoder.gap(60).is_none());
        let rest = read(&mut decoder, &frame(3, 1, &[b'x'; 100])[80..], false);
        assert_eq!((rest.len(), rest[0].len, rest[0].whole()), (1, 100, None));
        assert!(decoder.is_synced());

        read(&mut decoder, &frame(1, 1, b"\0\x3c\0\x28")[..9], true);
        assert!(decoder.gap(50).is_none());
        assert!(!decoder.is_synced());
        assert_eq!(read(&mut decoder, &frame(3, 1, b"body"), true), []);
        assert_eq!(read(&mut decoder, b"anything at all", true), []);
        let found = read(
            &mut decoder,
            &frame(1, 2, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0"),
            true,
        );
        assert_eq!((found.len(), found[0].channel), (1, 2));
        assert!(decoder.is_synced() && balanced(&decoder));
        assert_eq!((decoder.stats().sync_losses, decoder.stats().resyncs), (1, 1));
    }

    /// Scenario: a frame whose last octet is not `CE`, huge lengths, bytes of other protocols.
    /// Guarantees: counted, skipped, nothing reserved for a length that was only claimed.
    #[test]
    fn not_frames() {
        let mut broken = frame(1, 1, b"\0\x3c\0\x28\0\0\0\0\0");
        *broken.last_mut().unwrap() = 0;
        for bytes in [
            &broken[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0],
        ] {
            let mut decoder = FrameDecoder::new(&Limits::default());
            assert_eq!(read(&mut decoder, bytes, true), []);
            assert_eq!(decoder.stats().protocol_errors, 1, "{bytes:?}");
            assert!(balanced(&decoder));
        }
        let mut decoder = FrameDecoder::new(&Limits::default());
        assert_eq!(
            read(&mut decoder, &[3, 0, 1, 0x3f, 0xff, 0xff, 0xff, 0], true),
            []
        );
        assert!(decoder.payload.capacity() < 1024);
    }
}
