//! Records one behind the other, as they lie in the kernel's ring buffer (`Documentation/bpf/ringbuf.rst`).

use celeryscope_core::common::{Header, Record};

/// The kernel's own words before each record, and what each begins at a multiple of.
const SLOT: usize = 8;

/// A stretch of the ring.
#[derive(Default)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    payload: u64,
}

impl Ring {
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let len = Header::SIZE + record.payload.len();
        self.bytes.extend((len as u64).to_ne_bytes());
        self.bytes.extend(record.header.to_bytes());
        self.bytes.extend(record.payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(SLOT), 0);
        self.payload += record.payload.len() as u64;
    }

    /// Each record, read as the agent reads it.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (len, at) = rest.split_first_chunk::<SLOT>()?;
            let len = u64::from_ne_bytes(*len) as usize;
            rest = &at[len.next_multiple_of(SLOT)..];
            Some(Record::parse(&at[..len]).expect("a record"))
        })
    }

    /// Captured bytes in it.
    pub(crate) fn payload(&self) -> u64 {
        self.payload
    }
}
