//! Recorded connections to RabbitMQ, one direction at a time.

use std::sync::LazyLock;

use celeryscope_core::Limits;
use celeryscope_core::wire::amqp::{Frame, FrameDecoder};
use celeryscope_core::wire::resp::Item;

use crate::feed::{Piece, feed};
use crate::support::streams::{self, Direction};

/// Both directions of every recorded connection that was captured whole.
pub(crate) fn directions() -> &'static [Direction] {
    static ALL: LazyLock<Vec<Direction>> = LazyLock::new(|| streams::directions("rabbitmq"));
    &ALL
}

/// Every call as a piece.
pub(crate) fn pieces(direction: &Direction) -> Vec<Piece<'_>> {
    let begins = |data| Piece::Bytes { data, begins: true };
    direction.calls.iter().map(|data| begins(data)).collect()
}

/// The frames of a stream, fed in pieces of `size`, each with the offset behind it.
pub(crate) fn frames(stream: &[u8], size: usize) -> Vec<(u64, Item<Frame<'static>>)> {
    let whole = [Piece::Bytes {
        data: stream,
        begins: true,
    }];
    feed(&mut FrameDecoder::new(&Limits::default()), &whole, size)
}
