//! Recorded connections, and one way to feed either decoder.

use std::sync::LazyLock;

use celeryscope_core::Limits;
use celeryscope_core::stream::{Call, Segment};
use celeryscope_core::wire::resp::{Command, DecoderStats, Item, ReplyDecoder, RequestDecoder, Value};

/// One call of a recorded connection.
pub(crate) struct Transfer {
    pub(crate) sent: bool,
    pub(crate) data: Vec<u8>,
}

/// A recorded connection, calls in order.
pub(crate) struct Connection(pub(crate) Vec<Transfer>);

impl Connection {
    /// All bytes of one direction.
    pub(crate) fn stream(&self, sent: bool) -> Vec<u8> {
        self.transfers(sent).flat_map(|t| t.data.clone()).collect()
    }

    pub(crate) fn transfers(&self, sent: bool) -> impl Iterator<Item = &Transfer> {
        self.0.iter().filter(move |t| t.sent == sent)
    }

    /// It asks for pushes: replies do not alternate with requests.
    pub(crate) fn subscribes(&self) -> bool {
        let sent = self.stream(true);
        sent.windows(9).any(|w| w == b"SUBSCRIBE")
    }
}

/// Every connection of every scenario in `tests/data`.
pub(crate) fn connections() -> &'static [Connection] {
    static ALL: LazyLock<Vec<Connection>> = LazyLock::new(|| {
        let files: [&[u8]; 4] = [
            include_bytes!("../data/simple.transfers"),
            include_bytes!("../data/resp2-chain.transfers"),
            include_bytes!("../data/broadcast.transfers"),
            include_bytes!("../data/bigbody.transfers"),
        ];
        files.iter().flat_map(|file| parse(file)).collect()
    });
    &ALL
}

fn parse(mut file: &[u8]) -> Vec<Connection> {
    let mut connections = Vec::new();
    while let Some((mark, rest)) = file.split_first() {
        let (len, rest) = rest.split_first_chunk::<4>().expect("a length");
        let (data, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        file = rest;
        match mark {
            b'C' => connections.push(Connection(Vec::new())),
            _ => connections.last_mut().expect("a connection").0.push(Transfer {
                sent: *mark == b'>',
                data: data.to_vec(),
            }),
        }
    }
    connections
}

/// Limits so small that every scenario meets them.
pub(crate) fn tight() -> Limits {
    Limits {
        bulk: 600,
        bulk_edge: 100,
        elements: 6,
        depth: 2,
        ..Limits::default()
    }
}

/// What the two decoders have in common.
pub(crate) trait Decoder: Sized {
    type Value: PartialEq + std::fmt::Debug;
    fn make(limits: &Limits) -> Self;
    fn step(&mut self, segment: &mut Segment<'_>) -> Option<Item<Self::Value>>;
    fn miss(&mut self, len: u64) -> Option<Item<Self::Value>>;
    fn desync(&mut self);
    fn counts(&self) -> (DecoderStats, u64);
}

impl Decoder for RequestDecoder {
    type Value = Command<'static>;
    fn make(limits: &Limits) -> Self {
        Self::new(limits)
    }
    fn step(&mut self, segment: &mut Segment<'_>) -> Option<Item<Command<'static>>> {
        self.next(segment).map(|item| item.map(Command::into_owned))
    }
    fn miss(&mut self, len: u64) -> Option<Item<Command<'static>>> {
        self.gap(len)
    }
    fn desync(&mut self) {
        self.lose_sync();
    }
    fn counts(&self) -> (DecoderStats, u64) {
        (*self.stats(), self.pending())
    }
}

impl Decoder for ReplyDecoder {
    type Value = Value<'static>;
    fn make(limits: &Limits) -> Self {
        Self::new(limits)
    }
    fn step(&mut self, segment: &mut Segment<'_>) -> Option<Item<Value<'static>>> {
        self.next(segment).map(|item| item.map(Value::into_owned))
    }
    fn miss(&mut self, len: u64) -> Option<Item<Value<'static>>> {
        self.gap(len)
    }
    fn desync(&mut self) {
        self.lose_sync();
    }
    fn counts(&self) -> (DecoderStats, u64) {
        (*self.stats(), self.pending())
    }
}

/// A decoder, where it is in the stream, and what it gave: items with the offset behind their last byte.
pub(crate) struct Feed<D: Decoder> {
    pub(crate) decoder: D,
    pub(crate) at: u64,
    pub(crate) items: Vec<(u64, Item<D::Value>)>,
}

impl<D: Decoder> Feed<D> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            decoder: D::make(limits),
            at: 0,
            items: Vec::new(),
        }
    }

    pub(crate) fn bytes(&mut self, data: &[u8], begins: bool) {
        let call = Call::default();
        let mut segment = Segment { data, begins, call };
        while let Some(item) = self.decoder.step(&mut segment) {
            let end = self.at + (data.len() - segment.data.len()) as u64;
            self.items.push((end, item));
        }
        assert!(segment.data.is_empty(), "all of the segment is taken");
        self.at += data.len() as u64;
    }

    pub(crate) fn gap(&mut self, len: u64) {
        self.at += len;
        let item = self.decoder.miss(len);
        self.items.extend(item.map(|item| (self.at, item)));
    }

    /// Every byte is accounted for, once.
    pub(crate) fn check_balance(&self) {
        let (stats, pending) = self.decoder.counts();
        assert_eq!(stats.bytes + stats.gap_bytes, self.at, "{stats:?}");
        assert_eq!(
            stats.item_bytes + stats.skipped_bytes + pending,
            self.at,
            "{stats:?}"
        );
        assert_eq!(stats.items, self.items.len() as u64, "{stats:?}");
    }
}

/// The whole of a stream in one piece.
pub(crate) fn decode<D: Decoder>(limits: &Limits, stream: &[u8]) -> Feed<D> {
    let mut feed = Feed::new(limits);
    feed.bytes(stream, true);
    feed.check_balance();
    feed
}
