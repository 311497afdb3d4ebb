//! Redis' protocol, RESP2 and RESP3, as seen by a bystander who may miss parts of it.
//!
//! [`RequestDecoder`] reads what a client sends (arrays of bulk strings; inline commands), [`ReplyDecoder`] what it
//! receives (any type). Both are used alike: hand each [`Segment`](crate::stream::Segment) to `next` until it returns
//! `None`, each gap to `gap`, and a break to `lose_sync`.
//!
//! ```
//! use celeryscope_core::Limits;
//! use celeryscope_core::stream::{Call, Chunk, Segment};
//! use celeryscope_core::wire::resp::RequestDecoder;
//!
//! let mut decoder = RequestDecoder::new(&Limits::default());
//! let data: &[u8] = b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$2\r\n{}\r\n*1\r\n$4\r\nPI";
//! let chunk = Chunk::Bytes(Segment { data, begins: true, call: Call::default() });
//!
//! let mut commands = Vec::new();
//! match chunk {
//!     Chunk::Bytes(mut segment) => commands.extend(std::iter::from_fn(|| decoder.next(&mut segment))),
//!     Chunk::Gap { len } => commands.extend(decoder.gap(len)),
//!     Chunk::Break => decoder.lose_sync(),
//! }
//! assert!(commands[0].value.is("lpush"));
//! assert_eq!(commands[0].value.arg(1).unwrap().whole(), Some(&b"celery"[..]));
//! assert_eq!((commands.len(), decoder.pending()), (1, 10));
//! ```
//!
//! # What is kept
//! A bulk string of up to [`Limits::bulk`](crate::Limits) bytes is kept whole, a longer one as head and tail of
//! `bulk_edge` bytes each; see [`Bulk`]. One item keeps at most `elements` values, nested up to `depth`, and four
//! times `bulk` bytes of strings. What goes beyond is parsed, dropped and flagged ([`Item::truncated`]). That bounds
//! a decoder's memory whatever it reads: nothing is reserved because a length or count says so.
//!
//! # When bytes are missing
//! A gap that lies inside a bulk string (its payload or the CRLF behind it) leaves no doubt where the next element
//! begins: decoding goes on exactly, the string has a hole ([`Item::degraded`]). Any other gap, and any byte that the
//! protocol forbids, loses sync: the item at hand is dropped, and what follows is skipped and counted up to the next
//! provable boundary. The first item after it says so ([`Item::resynced`]): items between it and the one before
//! may be missing.
//!
//! Boundaries are looked for only at the first byte of a transfer:
//! - A *request* begins there when the transfer starts with `*<n>\r\n$<len>\r\n<name>` where the numbers are sane and
//!   the name is letters. Clients start a command with a call of its own, or inside a pipeline that does; a transfer
//!   that continues a large argument would have to start with these very bytes.
//! - A *reply* cannot be told from payload by its first bytes. But a client that alternates (sends, reads all
//!   replies, sends again) has read everything that was owed when it sends: the next transfer it reads begins with
//!   the first reply. The connection layer knows when that is and says so with [`ReplyDecoder::mark_boundary`].
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

mod bulk;
mod head;
mod line;
mod progress;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod value;

pub use bulk::Bulk;
pub use progress::{DecoderStats, Item};
pub use reply::ReplyDecoder;
pub use request::{Command, RequestDecoder};
pub use value::Value;
