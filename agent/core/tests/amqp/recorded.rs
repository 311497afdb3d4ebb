//! Recorded connections to RabbitMQ, one direction at a time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use celeryscope_core::Limits;
use celeryscope_core::common::Kind;
use celeryscope_core::wire::amqp::{Frame, FrameDecoder};
use celeryscope_core::wire::resp::Item;

use crate::feed::{Piece, feed};
use crate::support::fixture::{Fixture, names};

/// What one end sent, call by call.
pub(crate) struct Direction {
    pub(crate) sent: bool,
    pub(crate) calls: Vec<Vec<u8>>,
}

impl Direction {
    pub(crate) fn stream(&self) -> Vec<u8> {
        self.calls.concat()
    }

    /// Whether a call's first byte is the one at this offset.
    pub(crate) fn begins(&self, offset: u64) -> bool {
        let mut at = 0;
        self.calls.iter().any(|call| {
            let begins = at == offset;
            at += call.len() as u64;
            begins
        })
    }

    /// Every call as a piece.
    pub(crate) fn pieces(&self) -> Vec<Piece<'_>> {
        self.calls
            .iter()
            .map(|data| Piece::Bytes { data, begins: true })
            .collect()
    }
}

/// Both directions of every recorded connection that was captured whole.
pub(crate) fn directions() -> &'static [Direction] {
    static ALL: LazyLock<Vec<Direction>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for name in names("rabbitmq") {
            let mut found = BTreeMap::<(u64, bool), Option<Vec<Vec<u8>>>>::new();
            for record in Fixture::load(&name).records {
                let sent = match record.kind {
                    Kind::Send => true,
                    Kind::Recv => false,
                    _ => continue,
                };
                let calls = found
                    .entry((record.header.conn, sent))
                    .or_insert_with(|| Some(Vec::new()));
                if record.payload.len() < record.header.total as usize {
                    *calls = None;
                } else if let Some(calls) = calls {
                    calls.push(record.payload);
                }
            }
            all.extend(
                found
                    .into_iter()
                    .filter_map(|((_, sent), calls)| calls.map(|calls| Direction { sent, calls })),
            );
        }
        all
    });
    &ALL
}

/// The frames of a stream, fed in pieces of `size`, each with the offset behind it.
pub(crate) fn frames(stream: &[u8], size: usize) -> Vec<(u64, Item<Frame>)> {
    let whole = [Piece::Bytes {
        data: stream,
        begins: true,
    }];
    feed(&mut FrameDecoder::new(&Limits::default()), &whole, size)
}
