//! One way to feed any of the stream decoders, with its books checked after every piece.

use std::fmt::Debug;

use celeryscope_core::stream::{Call, Segment};
use celeryscope_core::wire::amqp::{Frame, FrameDecoder};
use celeryscope_core::wire::resp::{Command, Item, ReplyDecoder, RequestDecoder, Value};

/// What comes next in a direction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'a> {
    /// Bytes; `begins` when their first is the first that a call moved.
    Bytes {
        /// Them.
        data: &'a [u8],
        /// The first of a call.
        begins: bool,
    },
    /// So many bytes are missing.
    Gap(u64),
    /// Nobody knows how many are.
    Break,
}

/// What the decoders have in common.
pub(crate) trait Decoder {
    /// What they give.
    type Value: PartialEq + Debug;
    /// The next value that ends in the segment.
    fn next(&mut self, segment: &mut Segment<'_>) -> Option<Item<Self::Value>>;
    /// Bytes are missing.
    fn gap(&mut self, len: u64) -> Option<Item<Self::Value>>;
    /// Bytes are missing, nobody knows how many.
    fn lose_sync(&mut self);
    /// Bytes read or missed, and bytes accounted for.
    fn balance(&self) -> (u64, u64);
}

macro_rules! decoder {
    ($decoder:ty, $value:ty, $value_bytes:ident) => {
        impl Decoder for $decoder {
            type Value = $value;
            fn next(&mut self, segment: &mut Segment<'_>) -> Option<Item<$value>> {
                self.next(segment)
                    .map(|item| item.map(|value| value.into_owned()))
            }
            fn gap(&mut self, len: u64) -> Option<Item<$value>> {
                self.gap(len)
            }
            fn lose_sync(&mut self) {
                self.lose_sync();
            }
            fn balance(&self) -> (u64, u64) {
                let stats = self.stats();
                (
                    stats.bytes + stats.gap_bytes,
                    stats.$value_bytes + stats.skipped_bytes + self.pending(),
                )
            }
        }
    };
}
decoder!(FrameDecoder, Frame<'static>, frame_bytes);
decoder!(RequestDecoder, Command<'static>, item_bytes);
decoder!(ReplyDecoder, Value<'static>, item_bytes);

/// Feeds all pieces, no more than `size` bytes at once. Gives each item with the offset behind its last byte.
pub(crate) fn feed<D: Decoder>(
    decoder: &mut D,
    pieces: &[Piece<'_>],
    size: usize,
) -> Vec<(u64, Item<D::Value>)> {
    let mut items = Vec::new();
    let mut at = 0;
    for piece in pieces {
        match *piece {
            Piece::Gap(len) => {
                at += len;
                items.extend(decoder.gap(len).map(|item| (at, item)));
            }
            Piece::Break => decoder.lose_sync(),
            Piece::Bytes { data, begins } => {
                for (n, data) in data.chunks(size).enumerate() {
                    let begins = n == 0 && begins;
                    let call = Call::default();
                    let mut segment = Segment { data, begins, call };
                    while let Some(item) = decoder.next(&mut segment) {
                        items.push((at + (data.len() - segment.data.len()) as u64, item));
                    }
                    assert!(segment.data.is_empty(), "all of it is taken");
                    at += data.len() as u64;
                }
            }
        }
        assert_eq!(decoder.balance(), (at, at), "every byte is accounted for, once");
    }
    items
}
