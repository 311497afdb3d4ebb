//! The contract between celeryscope's two halves.
//!
//! The kernel half writes [`Header`]s and payloads into one ring buffer; the user half reads them as [`Record`]s.
//! A recording on disk holds the same bytes, so replay and live capture share everything from here on.
//! [`maps`] is what the halves share besides: the values of the kernel half's maps. [`layout`] is what the user half
//! tells the kernel half of the running kernel.
//!
//! Nothing in this crate allocates, panics on input, or depends on another crate: it must compile for the BPF target.
//! Fields are plain integers (no bool, no enum), in native byte order, with no implicit padding.
#![cfg_attr(not(test), no_std)]

pub mod layout;
pub mod maps;
pub mod record;

pub use layout::Layout;
pub use record::{Addr, Endpoint, Header, Idle, Kind, LeftOut, Record, RecordError, flags};

/// Version of the record layout. A recording of another version is refused.
pub const VERSION: u32 = 1;
