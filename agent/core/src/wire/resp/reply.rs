//! Replies: what a client receives.

use super::bulk::{Bulk, BulkReader, Gap};
use super::head::{Head, Kind, Text};
use super::line::{Line, LineReader, number_at_once, short_text};
use super::progress::{DecoderStats, Item, Progress, Share};
use super::value::Value;
use crate::limits::Limits;
use crate::stream::Segment;

/// Reads the replies and pushes that a client receives.
#[derive(Debug)]
pub struct ReplyDecoder {
    state: State,
    line: LineReader,
    bulk: BulkReader,
    /// Aggregates that are open, the innermost last.
    open: Vec<Open>,
    /// The innermost of them may hold one that is too deep to be kept.
    deep: Option<Deep>,
    /// A bulk string that comes in pieces.
    pieces: Option<Pieces>,
    /// The next byte, if it is the first of a transfer, is the first of a reply. Only ever true out of sync.
    boundary: bool,
    depth: usize,
    text_max: usize,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Out of sync: skips up to the next boundary.
    Lost,
    /// Before or in a line.
    Line,
    /// In the payload of a bulk string.
    Payload(Text),
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Values to come; `None` when an end is to come instead.
    left: Option<u64>,
    values: Vec<Value<'static>>,
    /// It will be kept in the aggregate around it.
    keep: bool,
}

/// An aggregate that is passed over without being followed: its values, and theirs, are merely counted.
#[derive(Debug)]
struct Deep {
    /// Values to come.
    left: u64,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Pieces {
    head: Vec<u8>,
    len: u64,
    lost: u64,
}

/// The bytes are not what the protocol allows.
struct NotResp;

impl ReplyDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: State::Line,
            line: LineReader::default(),
            bulk: BulkReader::default(),
            open: Vec::new(),
            deep: None,
            pieces: None,
            boundary: false,
            depth: limits.depth,
            text_max: limits.bulk,
            progress: Progress::new(limits),
        }
    }

    /// The next reply or push that ends in `segment`; what was read is taken from its front. Call it until it gives
    /// `None`: then all of the segment has been taken.
    pub fn next<'s>(&mut self, segment: &mut Segment<'s>) -> Option<Item<Value<'s>>> {
        while !segment.data.is_empty() {
            if let Some((value, rest)) = self.at_once(segment.data) {
                let len = segment.data.len().saturating_sub(rest.len());
                segment.advance_to(rest);
                return Some(self.progress.at_once(value, len, segment.call));
            }
            if self.state == State::Lost && !self.at_boundary(segment) {
                self.progress.skip(segment.skip_all());
                return None;
            }
            match self.step(segment) {
                Ok(None) => {}
                Ok(Some(value)) => return Some(self.progress.finish(value)),
                Err(NotResp) => {
                    self.progress.stats.protocol_errors =
                        self.progress.stats.protocol_errors.saturating_add(1);
                    self.lose_sync();
                }
            }
        }
        None
    }

    /// Passes over a reply that says no more than that there is one: a short text, a number, nothing, or a list of those. It counts
    /// like any other.
    pub(crate) fn pass(&mut self, segment: &mut Segment<'_>) -> bool {
        let Some(rest) = self.acknowledgment(segment.data) else {
            return false;
        };
        let len = segment.data.len().saturating_sub(rest.len());
        segment.advance_to(rest);
        let _passed = self.progress.at_once((), len, segment.call);
        true
    }

    /// What follows such a reply at the front of `data`. Not the first after sync was lost: of that it matters that there was
    /// one.
    fn acknowledgment<'d>(&self, data: &'d [u8]) -> Option<&'d [u8]> {
        if self.state != State::Line || self.progress.pending() > 0 || self.progress.is_resynced() {
            return None;
        }
        if data.first() != Some(&b'*') {
            return plain(data, &mut self.progress.share(1)?);
        }
        let (count, mut rest) = number_at_once(data, b'*').filter(|_| self.depth > 0)?;
        let mut share = self.progress.share(count)?;
        for _ in 0..count {
            rest = plain(rest, &mut share)?;
        }
        Some(rest)
    }

    /// `len` bytes are missing here. Gives the reply that ends with the last of them, if one provably does.
    pub fn gap(&mut self, len: u64) -> Option<Item<Value<'static>>> {
        if len == 0 {
            return None;
        }
        let gap = match self.state {
            State::Payload(text) => Some((text, self.bulk.gap(len))),
            State::Lost | State::Line => None,
        };
        match gap {
            None | Some((_, Gap::Beyond)) => {
                self.lose_sync();
                self.progress.skip_gap(len);
                None
            }
            Some((_, Gap::Inside)) => {
                self.progress.miss(len);
                None
            }
            Some((text, Gap::Done(bulk))) => {
                self.progress.miss(len);
                let value = self.string(text, bulk)?;
                Some(self.progress.finish(value))
            }
        }
    }

    /// An unknown number of bytes is missing here.
    pub fn lose_sync(&mut self) {
        self.boundary = false;
        if self.state == State::Lost {
            return;
        }
        self.progress.lose();
        self.state = State::Lost;
        self.open = Vec::new();
        self.deep = None;
        self.pieces = None;
        self.bulk = BulkReader::default();
        self.line.clear();
    }

    /// The client has read all that was owed to it: if the next byte is the first of a transfer, it is the first of a
    /// reply. Ignored in sync.
    ///
    /// To be called when a client that is known to alternate sends: it has read the replies to all it sent before,
    /// or it would not send now. A gap or anything but the first byte of a transfer takes it back, because then what comes
    /// may have been sent before. Not to be called for a client that pipelines or has subscribed.
    pub fn mark_boundary(&mut self) {
        self.boundary = self.state == State::Lost;
    }

    /// Whether the place in the stream is known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.state != State::Lost
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &DecoderStats {
        &self.progress.stats
    }

    /// Bytes read of a reply that is not complete.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.progress.pending()
    }

    /// Bytes of memory behind it.
    #[must_use]
    pub fn held(&self) -> usize {
        if self.progress.pending() == 0 {
            return self.line.held();
        }
        let list = self.open.capacity().saturating_mul(size_of::<Open>());
        let values = self.open.iter().map(|open| Value::all_held(&open.values));
        let pieces = self.pieces.as_ref().map_or(0, |pieces| pieces.head.capacity());
        values
            .chain([list, pieces, self.line.held(), self.bulk.held()])
            .fold(0, usize::saturating_add)
    }

    /// A reply that is all in `data` and all to be kept, and what follows it: what answers most commands, a number, a text or
    /// a list of them. What is anything else is read step by step.
    fn at_once<'d>(&self, data: &'d [u8]) -> Option<(Value<'d>, &'d [u8])> {
        if self.state != State::Line || self.progress.pending() > 0 {
            return None;
        }
        let mut rest = data;
        let kind = match data.first()? {
            b'*' => Value::Array,
            b'>' => Value::Push,
            _ => {
                let value = flat(&mut rest, &mut self.progress.share(1)?)?;
                return Some((value, rest));
            }
        };
        if self.depth == 0 {
            return None;
        }
        let (count, values) = number_at_once(data, *data.first()?)?;
        let mut share = self.progress.share(count)?;
        rest = values;
        let mut values = Vec::with_capacity(usize::try_from(count).ok()?.min(8));
        for _ in 0..count {
            values.push(flat(&mut rest, &mut share)?);
        }
        Some((kind(values), rest))
    }

    /// Out of sync: finds it again if this is the boundary that was marked.
    fn at_boundary(&mut self, segment: &Segment<'_>) -> bool {
        let found = std::mem::take(&mut self.boundary) && segment.begins;
        if found {
            self.progress.resync();
            self.state = State::Line;
        }
        found
    }

    /// Reads one line or one payload, as far as it goes. Gives the reply when it is complete.
    fn step(&mut self, segment: &mut Segment<'_>) -> Result<Option<Value<'static>>, NotResp> {
        let mut data = segment.data;
        let len = data.len();
        if let State::Payload(text) = self.state {
            let bulk = self.bulk.read(&mut data).map_err(|_| NotResp)?;
            self.progress
                .consume(len.saturating_sub(data.len()), segment.call);
            segment.advance_to(data);
            return Ok(bulk.and_then(|bulk| self.string(text, bulk)));
        }
        let head = if self.line.is_empty()
            && let Some((head, rest)) = Head::at_once(data, self.text_max)
        {
            data = rest;
            Some(head)
        } else {
            let mark = self.line.first(data).ok_or(NotResp)?;
            let form = Head::form(mark, self.text_max).ok_or(NotResp)?;
            match self.line.read(&mut data, form) {
                Line::More => None,
                Line::Whole(line) => Some(Head::parse(line).ok_or(NotResp)?),
                Line::Bad => return Err(NotResp),
            }
        };
        let value = head.map_or(Ok(None), |head| self.head(head, &mut data));
        self.progress
            .consume(len.saturating_sub(data.len()), segment.call);
        segment.advance_to(data);
        value
    }

    /// A line is read; `data` is what follows, of which a whole string may be taken.
    fn head(&mut self, head: Head, data: &mut &[u8]) -> Result<Option<Value<'static>>, NotResp> {
        if self.pieces.is_some() && !matches!(head, Head::Piece(_)) {
            return Err(NotResp);
        }
        match head {
            Head::Value(value) => Ok(self.add(value)),
            Head::Bulk(text, len) => Ok(self.payload(text, len, data)),
            Head::Pieces => {
                self.pieces = Some(Pieces::default());
                Ok(None)
            }
            Head::Piece(0) => {
                let pieces = self.pieces.take().ok_or(NotResp)?;
                Ok(self.add(Value::Bulk(pieces.into())))
            }
            Head::Piece(len) if self.pieces.is_some() => Ok(self.payload(Text::Bulk, len, data)),
            Head::Piece(_) => Err(NotResp),
            Head::Aggregate(kind, left) => self.aggregate(kind, left),
            Head::End => self.end(),
        }
    }

    fn payload(&mut self, text: Text, len: u64, data: &mut &[u8]) -> Option<Value<'static>> {
        let keep = self.progress.keep(len);
        if let Some(bulk) = BulkReader::at_once(data, len, keep) {
            return self.string(text, bulk.into_owned());
        }
        self.bulk.start(len, keep);
        self.state = State::Payload(text);
        None
    }

    /// A bulk string or a piece of one is read.
    fn string(&mut self, text: Text, bulk: Bulk<'static>) -> Option<Value<'static>> {
        self.state = State::Line;
        if let Some(pieces) = &mut self.pieces {
            if pieces.add(&bulk, self.text_max) {
                self.progress.truncate();
            }
            return None;
        }
        self.add(match text {
            Text::Bulk => Value::Bulk(bulk),
            Text::Verbatim => Value::Verbatim(bulk),
            Text::Error => Value::Error(bulk.into_head()),
        })
    }

    fn aggregate(&mut self, kind: Kind, left: Option<u64>) -> Result<Option<Value<'static>>, NotResp> {
        if let Some(deep) = &mut self.deep {
            // It is one of the values passed over, unless it is none, and brings its own.
            let own = u64::from(kind != Kind::Attribute);
            let left = left.and_then(|n| deep.left.saturating_sub(own).checked_add(n));
            deep.left = left.ok_or(NotResp)?;
            return Ok(self.end_deep());
        }
        if left != Some(0) && self.open.len() >= self.depth {
            let left = left.ok_or(NotResp)?;
            self.progress.truncate();
            self.deep = Some(Deep { left, kind });
            return Ok(None);
        }
        let keep = self.open.is_empty() || self.progress.may_keep();
        let room = match left {
            Some(n) if keep => usize::try_from(n).unwrap_or(usize::MAX).min(8),
            _ => 0,
        };
        self.open.push(Open {
            kind,
            left,
            values: Vec::with_capacity(room),
            keep,
        });
        Ok(if left == Some(0) { self.close() } else { None })
    }

    /// The line that ends an aggregate of unknown length.
    fn end(&mut self) -> Result<Option<Value<'static>>, NotResp> {
        match self.open.last() {
            Some(Open { left: None, .. }) if self.deep.is_none() => Ok(self.close()),
            _ => Err(NotResp),
        }
    }

    /// The values passed over may have come to their end.
    fn end_deep(&mut self) -> Option<Value<'static>> {
        let deep = self.deep.take_if(|deep| deep.left == 0)?;
        if deep.kind == Kind::Attribute {
            return None;
        }
        self.add(Value::TooDeep)
    }

    /// Closes the innermost aggregate.
    fn close(&mut self) -> Option<Value<'static>> {
        let open = self.open.pop()?;
        let value = open.kind.value(open.values)?;
        self.place(value, open.keep)
    }

    /// A value that is no aggregate is complete.
    fn add(&mut self, mut value: Value<'static>) -> Option<Value<'static>> {
        if let Some(deep) = &mut self.deep {
            deep.left = deep.left.saturating_sub(1);
            return self.end_deep();
        }
        let keep = self.open.is_empty() || self.progress.may_keep();
        if let (true, Value::Simple(text) | Value::Error(text) | Value::Big(text)) = (keep, &mut value) {
            self.progress.cut(text);
        }
        self.place(value, keep)
    }

    /// Puts a value where it belongs, and closes what that completes. Gives it when it belongs nowhere: it is the reply.
    fn place(&mut self, mut value: Value<'static>, mut keep: bool) -> Option<Value<'static>> {
        while let Some(open) = self.open.last_mut() {
            if keep {
                open.values.push(value);
            }
            let left = open.left.as_mut()?;
            *left = left.saturating_sub(1);
            if *left > 0 {
                return None;
            }
            let open = self.open.pop()?;
            value = open.kind.value(open.values)?;
            keep = open.keep;
        }
        Some(value)
    }
}

/// What follows a number, a short text or nothing at the front of `data`.
fn plain<'d>(data: &'d [u8], share: &mut Share) -> Option<&'d [u8]> {
    match data {
        [b':', ..] => Some(number_at_once(data, b':')?.1),
        [b'+', text @ ..] => {
            let (text, rest) = short_text(text)?;
            share.whole(text.len() as u64)?;
            Some(rest)
        }
        [b'_', b'\r', b'\n', rest @ ..] | [b'$', b'-', b'1', b'\r', b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// A number or a text that is whole at the front of `data`, if it is to be kept.
fn flat<'d>(data: &mut &'d [u8], share: &mut Share) -> Option<Value<'d>> {
    let whole = *data;
    let (mark, text) = whole.split_first()?;
    if *mark == b'+' {
        let (text, rest) = short_text(text)?;
        share.whole(text.len() as u64)?;
        *data = rest;
        return Some(Value::Simple(text.into()));
    }
    let (number, rest) = number_at_once(whole, *mark)?;
    *data = rest;
    match mark {
        b':' => i64::try_from(number).ok().map(Value::Int),
        b'$' => BulkReader::at_once(data, number, share.whole(number)?).map(Value::Bulk),
        _ => None,
    }
}

impl Pieces {
    /// Adds one; true when some of it is not kept though it was captured.
    fn add(&mut self, piece: &Bulk<'_>, max: usize) -> bool {
        let contiguous = self.lost == 0 && self.head.len() as u64 == self.len;
        self.len = self.len.saturating_add(piece.len());
        self.lost = self.lost.saturating_add(piece.lost());
        if !contiguous {
            return true;
        }
        let room = max.saturating_sub(self.head.len());
        let keep = piece.head().get(..room).unwrap_or(piece.head());
        self.head.extend_from_slice(keep);
        piece.lost() == 0 && (self.head.len() as u64) < self.len
    }
}

impl From<Pieces> for Bulk<'static> {
    fn from(pieces: Pieces) -> Self {
        Self::headed(pieces.head, pieces.len, pieces.lost)
    }
}
