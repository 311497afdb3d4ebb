//! The RESP decoders against real traffic, another implementation, and chance.

mod cuts;
mod gaps;
mod hostile;
mod oracle;
mod records;
mod support;
mod trees;
