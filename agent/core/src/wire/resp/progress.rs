//! What both decoders keep about the item at hand, and the accounts that must balance.

use std::borrow::Cow;

use super::bulk::Keep;
use crate::limits::Limits;
use crate::stream::Call;
use crate::time::Mono;

/// One command or one reply, and when and by whom it was moved.
///
/// The last byte of an item may not have been captured (`degraded` is set then): the times are those of the calls that
/// moved the first and the last captured byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<T> {
    /// The command or reply.
    pub value: T,
    /// When the call that moved its first byte began.
    pub first: Mono,
    /// When the call that moved its last byte began.
    pub last_enter: Mono,
    /// When the call that moved its last byte returned.
    pub last: Mono,
    /// Process that moved its last byte.
    pub pid: u32,
    /// Thread that moved its last byte.
    pub tid: u32,
    /// Its length on the wire.
    pub bytes: u64,
    /// Some of its bytes were not captured; a [`Bulk`](super::Bulk) tells whether and where it has a hole.
    pub degraded: bool,
    /// Some of it was captured but not kept, because it is beyond a limit.
    pub truncated: bool,
    /// The first one after sync was lost: items before it may be missing, and this may be the answer to, or the
    /// question of, another item than the count says.
    pub resynced: bool,
}

impl<T> Item<T> {
    /// One that a single call moved, and of which nothing is missing.
    pub(crate) fn of_call(value: T, bytes: u64, call: Call) -> Self {
        Self {
            value,
            first: call.enter,
            last_enter: call.enter,
            last: call.exit,
            pid: call.pid,
            tid: call.tid,
            bytes,
            degraded: false,
            truncated: false,
            resynced: false,
        }
    }
}

impl<T> Item<T> {
    /// The same with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Item<U> {
        Item {
            value: f(self.value),
            first: self.first,
            last_enter: self.last_enter,
            last: self.last,
            pid: self.pid,
            tid: self.tid,
            bytes: self.bytes,
            degraded: self.degraded,
            truncated: self.truncated,
            resynced: self.resynced,
        }
    }
}

/// What a decoder has seen.
///
/// They balance: `bytes + gap_bytes == item_bytes + skipped_bytes` plus what the item at hand has so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderStats {
    /// Captured bytes read.
    pub bytes: u64,
    /// Bytes missing in gaps of known length.
    pub gap_bytes: u64,
    /// Items given.
    pub items: u64,
    /// Bytes of those items, the ones missing in them included.
    pub item_bytes: u64,
    /// Bytes that belong to no item: skipped while out of sync, and what was dropped when sync was lost.
    pub skipped_bytes: u64,
    /// Items with bytes missing.
    pub degraded: u64,
    /// Items not kept whole because of a limit.
    pub truncated: u64,
    /// Inline commands.
    pub inline: u64,
    /// How often sync was lost.
    pub sync_losses: u64,
    /// How often it was found again.
    pub resyncs: u64,
    /// How often it was lost because the bytes are not RESP.
    pub protocol_errors: u64,
}

/// Strings kept of one item, as a multiple of [`Limits::bulk`].
const BULKS_PER_ITEM: u64 = 4;

/// Account of the item at hand.
#[derive(Debug)]
pub(super) struct Progress {
    /// A bulk string up to this length is kept whole.
    bulk: u64,
    /// Else this much of each end.
    edge: u64,
    /// Values kept of one item.
    elements: usize,
    pub(super) stats: DecoderStats,
    /// The call that moved the item's first byte, when it has begun.
    first: Option<Call>,
    last: Call,
    bytes: u64,
    kept: usize,
    budget: u64,
    degraded: bool,
    truncated: bool,
    resynced: bool,
}

/// What an item may keep, as far as none of it has to be cut.
#[derive(Debug)]
pub(super) struct Share {
    bulk: u64,
    left: u64,
}

impl Share {
    /// Takes room for a whole string of `len` bytes, if there is any.
    pub(super) fn whole(&mut self, len: u64) -> Option<Keep> {
        self.left = self.left.checked_sub(len)?;
        (len <= self.bulk).then_some(Keep { head: len, tail: 0 })
    }
}

impl Progress {
    pub(super) fn new(limits: &Limits) -> Self {
        let bulk = limits.bulk as u64;
        Self {
            bulk,
            edge: limits.bulk_edge as u64,
            elements: limits.elements,
            stats: DecoderStats::default(),
            first: None,
            last: Call::default(),
            bytes: 0,
            kept: 0,
            budget: bulk.saturating_mul(BULKS_PER_ITEM),
            degraded: false,
            truncated: false,
            resynced: false,
        }
    }

    /// The next `len` bytes, moved by `call`, are of the item at hand.
    pub(super) fn consume(&mut self, len: usize, call: Call) {
        if len == 0 {
            return;
        }
        self.first.get_or_insert(call);
        self.last = call;
        self.bytes = self.bytes.saturating_add(len as u64);
        self.stats.bytes = self.stats.bytes.saturating_add(len as u64);
    }

    /// The next `len` bytes are of the item at hand but missing.
    pub(super) fn miss(&mut self, len: u64) {
        self.bytes = self.bytes.saturating_add(len);
        self.stats.gap_bytes = self.stats.gap_bytes.saturating_add(len);
        self.degraded = true;
    }

    /// The next `len` bytes are of no item.
    pub(super) fn skip(&mut self, len: u64) {
        self.stats.bytes = self.stats.bytes.saturating_add(len);
        self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(len);
    }

    /// The next `len` bytes are of no item, and missing.
    pub(super) fn skip_gap(&mut self, len: u64) {
        self.stats.gap_bytes = self.stats.gap_bytes.saturating_add(len);
        self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(len);
    }

    /// What was read of the item at hand is of no item after all.
    pub(super) fn discard(&mut self) {
        self.stats.skipped_bytes = self.stats.skipped_bytes.saturating_add(self.bytes);
        self.reset();
    }

    /// What was read of the item at hand will be read again.
    pub(super) fn rewind(&mut self) {
        self.stats.bytes = self.stats.bytes.saturating_sub(self.bytes);
        self.reset();
    }

    /// Sync is lost, and with it the item at hand.
    pub(super) fn lose(&mut self) {
        self.discard();
        self.stats.sync_losses = self.stats.sync_losses.saturating_add(1);
    }

    /// Sync is found.
    pub(super) fn resync(&mut self) {
        self.resynced = true;
        self.stats.resyncs = self.stats.resyncs.saturating_add(1);
    }

    /// Sync was found and no item has been read since.
    pub(super) fn is_resynced(&self) -> bool {
        self.resynced
    }

    /// Something of the item at hand is not kept.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Whether one more value may be kept. Asked once for each.
    pub(super) fn may_keep(&mut self) -> bool {
        let may = self.kept < self.elements;
        if may {
            self.kept = self.kept.saturating_add(1);
        } else {
            self.truncated = true;
        }
        may
    }

    /// Nothing more will be kept of the item at hand.
    pub(super) fn is_full(&self) -> bool {
        self.kept >= self.elements
    }

    /// How much to keep of a bulk string of `len` bytes. Asked once for each.
    pub(super) fn keep(&mut self, len: u64) -> Keep {
        let keep = if self.is_full() {
            Keep::default()
        } else if len <= self.bulk.min(self.budget) {
            Keep { head: len, tail: 0 }
        } else {
            let edge = self.edge.min(self.budget / 2).min(len / 2);
            Keep {
                head: edge,
                tail: edge,
            }
        };
        self.budget = self.budget.saturating_sub(keep.head.saturating_add(keep.tail));
        self.truncated |= keep.head < len;
        keep
    }

    /// What an item of so many values that has not begun may keep; `None` when it can't be all of them, or there are none.
    pub(super) fn share(&self, values: u64) -> Option<Share> {
        let all = 1..=u64::try_from(self.elements).unwrap_or(u64::MAX);
        all.contains(&values).then_some(Share {
            bulk: self.bulk,
            left: self.budget,
        })
    }

    /// Cuts a text that is kept to what is left of the item's share.
    pub(super) fn cut(&mut self, text: &mut Cow<'_, [u8]>) {
        let keep = usize::try_from(self.budget).unwrap_or(usize::MAX).min(text.len());
        if keep < text.len() {
            let text = text.to_mut();
            text.truncate(keep);
            text.shrink_to_fit();
            self.truncated = true;
        }
        self.budget = self.budget.saturating_sub(keep as u64);
    }

    /// The item at hand is complete.
    pub(super) fn finish<T>(&mut self, value: T) -> Item<T> {
        let item = Item {
            value,
            first: self.first.unwrap_or(self.last).enter,
            last_enter: self.last.enter,
            last: self.last.exit,
            pid: self.last.pid,
            tid: self.last.tid,
            bytes: self.bytes,
            degraded: self.degraded,
            truncated: self.truncated,
            resynced: self.resynced,
        };
        let stats = &mut self.stats;
        stats.items = stats.items.saturating_add(1);
        stats.item_bytes = stats.item_bytes.saturating_add(self.bytes);
        stats.degraded = stats.degraded.saturating_add(u64::from(self.degraded));
        stats.truncated = stats.truncated.saturating_add(u64::from(self.truncated));
        self.resynced = false;
        self.reset();
        item
    }

    /// An item of so many bytes that was read at once.
    pub(super) fn at_once<T>(&mut self, value: T, bytes: usize, call: Call) -> Item<T> {
        let bytes = bytes as u64;
        let stats = &mut self.stats;
        stats.bytes = stats.bytes.saturating_add(bytes);
        stats.items = stats.items.saturating_add(1);
        stats.item_bytes = stats.item_bytes.saturating_add(bytes);
        Item {
            resynced: std::mem::take(&mut self.resynced),
            ..Item::of_call(value, bytes, call)
        }
    }

    /// Bytes of the item at hand, so far.
    pub(super) fn pending(&self) -> u64 {
        self.bytes
    }

    fn reset(&mut self) {
        self.first = None;
        self.bytes = 0;
        self.kept = 0;
        self.budget = self.bulk.saturating_mul(BULKS_PER_ITEM);
        self.degraded = false;
        self.truncated = false;
    }
}
