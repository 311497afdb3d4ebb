//! Requests: what a client sends.

use smallvec::SmallVec;

use super::bulk::{Bulk, BulkReader, Gap};
use super::line::{Form, Line, LineReader, number_at_once, parse_len};
use super::progress::{DecoderStats, Item, Progress};
use crate::limits::Limits;
use crate::stream::{Call, Segment};

/// Longest inline command that Redis reads (`PROTO_INLINE_MAX_SIZE`).
const INLINE_MAX: usize = 64 * 1024;
/// Most arguments that a command may have for its start to be taken as a boundary.
const SANE_ARGS: u64 = 1024 * 1024;
/// Longest name that a command may have for its start to be taken as a boundary.
const SANE_NAME: u64 = 32;
/// Longer than any start of a command that is taken as a boundary.
const PROBE_MAX: usize = 128;

/// A command: borrowed where all of it was seen at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command<'a> {
    /// Its name and its arguments, at most [`Limits::elements`] of them.
    pub args: Args<'a>,
    /// Sent as an inline command, of which the first word alone is kept.
    pub inline: bool,
}

/// Few commands have more than these.
type Args<'a> = SmallVec<[Bulk<'a>; 6]>;

impl<'a> Command<'a> {
    /// Its name as it was written.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.arg(0).map(Bulk::head).unwrap_or_default()
    }

    /// Whether it has this name; case does not matter.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// The argument at `index`; the name is at 0.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&Bulk<'a>> {
        self.args.get(index)
    }

    /// The same with memory of its own.
    #[must_use]
    pub fn into_owned(self) -> Command<'static> {
        Command {
            args: self.args.into_iter().map(Bulk::into_owned).collect(),
            inline: self.inline,
        }
    }
}

/// Reads the commands that a client sends.
#[derive(Debug)]
pub struct RequestDecoder {
    state: State,
    line: LineReader,
    bulk: BulkReader,
    args: Vec<Bulk<'static>>,
    /// Start of a transfer that may turn out to be a boundary, and the call that moved its first byte.
    probe: Vec<u8>,
    probe_call: Call,
    inline_max: usize,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Out of sync: skips up to the next boundary.
    Lost,
    /// Out of sync, at the start of a transfer: what is held in `probe` may be the start of a command.
    Probing,
    /// Before or in a command's first line.
    Start,
    /// Before or in the line that starts one of so many arguments.
    Length { left: u64 },
    /// In an argument, with so many to come.
    Payload { left: u64 },
}

/// The bytes are not what the protocol allows.
struct NotResp;

impl RequestDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: State::Start,
            line: LineReader::default(),
            bulk: BulkReader::default(),
            args: Vec::new(),
            probe: Vec::new(),
            probe_call: Call::default(),
            inline_max: INLINE_MAX.min(limits.bulk),
            progress: Progress::new(limits),
        }
    }

    /// The next command that ends in `segment`; what was read is taken from its front. Call it until it gives `None`:
    /// then all of the segment has been taken.
    pub fn next<'s>(&mut self, segment: &mut Segment<'s>) -> Option<Item<Command<'s>>> {
        while !segment.data.is_empty() {
            if let Some((args, rest)) = self.at_once(segment.data) {
                let len = segment.data.len().saturating_sub(rest.len());
                segment.advance_to(rest);
                let command = Command { args, inline: false };
                return Some(self.progress.at_once(command, len, segment.call));
            }
            if matches!(self.state, State::Lost | State::Probing) && !self.probe(segment) {
                continue;
            }
            match self.step_from_boundary(segment) {
                Ok(None) => {}
                Ok(Some(item)) => return Some(item),
                Err(NotResp) => {
                    self.progress.stats.protocol_errors =
                        self.progress.stats.protocol_errors.saturating_add(1);
                    self.lose_sync();
                }
            }
        }
        None
    }

    /// `len` bytes are missing here. Gives the command that ends with the last of them, if one provably does.
    pub fn gap(&mut self, len: u64) -> Option<Item<Command<'static>>> {
        if len == 0 {
            return None;
        }
        let State::Payload { left } = self.state else {
            self.lose_sync();
            self.progress.skip_gap(len);
            return None;
        };
        match self.bulk.gap(len) {
            Gap::Inside => {
                self.progress.miss(len);
                None
            }
            Gap::Done(bulk) => {
                self.progress.miss(len);
                self.argument(bulk, left)
            }
            Gap::Beyond => {
                self.lose_sync();
                self.progress.skip_gap(len);
                None
            }
        }
    }

    /// An unknown number of bytes is missing here.
    pub fn lose_sync(&mut self) {
        self.abandon_probe();
        if self.state != State::Lost {
            self.progress.lose();
        }
        self.state = State::Lost;
        self.args = Vec::new();
        self.bulk = BulkReader::default();
        self.line.clear();
    }

    /// Whether the place in the stream is known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        !matches!(self.state, State::Lost | State::Probing)
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &DecoderStats {
        &self.progress.stats
    }

    /// Bytes read of a command that is not complete, or of what may become one.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.progress.pending()
    }

    /// Bytes of memory behind it.
    #[must_use]
    pub fn held(&self) -> usize {
        let fixed = self.line.held().saturating_add(self.probe.capacity());
        if self.progress.pending() == 0 {
            return fixed;
        }
        let list = self.args.capacity().saturating_mul(size_of::<Bulk<'_>>());
        let args = self.args.iter().map(Bulk::held);
        args.chain([list, self.bulk.held()])
            .fold(fixed, usize::saturating_add)
    }

    /// The arguments of a command that is all in `data` and all to be kept, as nearly every one is, and what follows it. What is
    /// anything else is read step by step.
    fn at_once<'d>(&self, data: &'d [u8]) -> Option<(Args<'d>, &'d [u8])> {
        if self.state != State::Start || self.progress.pending() > 0 {
            return None;
        }
        let (count, mut rest) = number_at_once(data, b'*')?;
        let mut share = self.progress.share(count)?;
        let mut args = Args::new();
        for _ in 0..count {
            let (len, payload) = number_at_once(rest, b'$')?;
            rest = payload;
            args.push(BulkReader::at_once(&mut rest, len, share.whole(len)?)?);
        }
        Some((args, rest))
    }

    /// A transfer's first byte by itself: where that alone is wrong, a command may begin with it. Where a later one is, the
    /// transfer was taken for a part of something else, however it is cut.
    fn step_from_boundary<'c>(
        &mut self,
        segment: &mut Segment<'_>,
    ) -> Result<Option<Item<Command<'c>>>, NotResp> {
        let Some((first, rest)) = segment.data.split_at_checked(1).filter(|_| segment.begins) else {
            return self.step(segment);
        };
        let whole = segment.data;
        segment.data = first;
        let stepped = self.step(segment);
        segment.data = if segment.begins { whole } else { rest };
        stepped
    }

    /// Reads one line or one argument, as far as it goes.
    fn step<'c>(&mut self, segment: &mut Segment<'_>) -> Result<Option<Item<Command<'c>>>, NotResp> {
        match self.state {
            State::Payload { left } => {
                let mut data = segment.data;
                let bulk = self.bulk.read(&mut data).map_err(|_| NotResp)?;
                self.consumed(segment, data);
                Ok(bulk.and_then(|bulk| self.argument(bulk, left)))
            }
            State::Length { left } => {
                let Some(len) = self.number(b'$', segment)? else {
                    return Ok(None);
                };
                let keep = self.progress.keep(len);
                let mut data = segment.data;
                if let Some(bulk) = BulkReader::at_once(&mut data, len, keep) {
                    self.consumed(segment, data);
                    return Ok(self.argument(bulk.into_owned(), left));
                }
                self.bulk.start(len, keep);
                self.state = State::Payload { left };
                Ok(None)
            }
            State::Start if self.line.first(segment.data) == Some(b'*') => {
                match self.number(b'*', segment)? {
                    None => {}
                    Some(0) => self.progress.discard(),
                    Some(left) => {
                        self.args = Vec::with_capacity(usize::try_from(left).unwrap_or(usize::MAX).min(8));
                        self.state = State::Length { left };
                    }
                }
                Ok(None)
            }
            State::Start => self.inline(segment),
            State::Lost | State::Probing => Err(NotResp),
        }
    }

    /// An argument is read; `left` counts it and those to come.
    fn argument<'c>(&mut self, bulk: Bulk<'static>, left: u64) -> Option<Item<Command<'c>>> {
        if self.progress.may_keep() {
            self.args.push(bulk);
        }
        let left = left.saturating_sub(1);
        if left > 0 {
            self.state = State::Length { left };
            return None;
        }
        self.state = State::Start;
        let args: Vec<Bulk<'c>> = std::mem::take(&mut self.args);
        Some(self.progress.finish(Command {
            args: args.into(),
            inline: false,
        }))
    }

    /// A line of `mark` and a number. `*-1` is a command without arguments, as `*0` is.
    fn number(&mut self, mark: u8, segment: &mut Segment<'_>) -> Result<Option<u64>, NotResp> {
        if self.line.is_empty()
            && let Some((number, rest)) = number_at_once(segment.data, mark)
        {
            self.consumed(segment, rest);
            return Ok(Some(number));
        }
        if self.line.first(segment.data) != Some(mark) {
            return Err(NotResp);
        }
        let mut data = segment.data;
        let number = match self.line.read(&mut data, Form::Short) {
            Line::More => None,
            Line::Whole(b"*-1") => Some(0),
            Line::Whole(line) => Some(line.get(1..).and_then(parse_len).ok_or(NotResp)?),
            Line::Bad => return Err(NotResp),
        };
        self.consumed(segment, data);
        Ok(number)
    }

    /// An inline command. An empty one is none: Redis does not answer it.
    fn inline<'c>(&mut self, segment: &mut Segment<'_>) -> Result<Option<Item<Command<'c>>>, NotResp> {
        let mut data = segment.data;
        let word = match self.line.read(&mut data, Form::Inline(self.inline_max)) {
            Line::More => None,
            Line::Whole(line) => Some(Bulk::from(first_word(line).ok_or(NotResp)?).into_owned()),
            Line::Bad => return Err(NotResp),
        };
        self.consumed(segment, data);
        let Some(word) = word else {
            return Ok(None);
        };
        if word.is_empty() {
            self.progress.discard();
            return Ok(None);
        }
        self.progress.stats.inline = self.progress.stats.inline.saturating_add(1);
        Ok(Some(self.progress.finish(Command {
            args: Args::from_iter([word]),
            inline: true,
        })))
    }

    fn consumed<'a>(&mut self, segment: &mut Segment<'a>, rest: &'a [u8]) {
        let len = segment.data.len().saturating_sub(rest.len());
        self.progress.consume(len, segment.call);
        segment.advance_to(rest);
    }

    /// Out of sync: looks for a boundary. True when the segment's data goes on from one.
    fn probe(&mut self, segment: &mut Segment<'_>) -> bool {
        if segment.begins {
            self.abandon_probe();
            self.probe_call = segment.call;
            self.state = State::Probing;
        }
        if self.state == State::Lost {
            self.progress.skip(segment.skip_all());
            return false;
        }
        let held = self.probe.len();
        let more = segment.data.get(..PROBE_MAX).unwrap_or(segment.data);
        self.probe.extend_from_slice(more);
        match starts_command(&self.probe) {
            Some(true) => {
                // What was held before this segment is a part of a first line or two and of a name: no item ends there.
                let start = std::mem::take(&mut self.probe);
                self.state = State::Start;
                self.progress.rewind();
                self.progress.resync();
                let mut held = Segment {
                    data: start.get(..held).unwrap_or_default(),
                    begins: true,
                    call: self.probe_call,
                };
                while !held.data.is_empty() && matches!(self.step(&mut held), Ok(None)) {}
                true
            }
            Some(false) => {
                self.abandon_probe();
                self.progress.skip(segment.skip_all());
                false
            }
            None => {
                self.consumed(segment, &[]);
                false
            }
        }
    }

    /// What is held is not the start of a command.
    fn abandon_probe(&mut self) {
        if self.state == State::Probing {
            self.progress.discard();
            self.state = State::Lost;
        }
        self.probe.clear();
    }
}

/// The first word of an inline command, empty when there is none; `None` when this is another protocol.
///
/// Redis itself hangs up on `POST` and `Host:`, which are how a browser would be made to talk to it.
fn first_word(line: &[u8]) -> Option<&[u8]> {
    let word = line
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty())
        .unwrap_or_default();
    let http = word.eq_ignore_ascii_case(b"POST") || word.eq_ignore_ascii_case(b"Host:");
    let sane = word.first().is_none_or(u8::is_ascii_alphabetic);
    (sane && !http).then_some(word)
}

/// Whether `bytes` begin with `*<n>\r\n$<len>\r\n<name>`, numbers sane, name of letters. `None`: not to be said yet.
fn starts_command(bytes: &[u8]) -> Option<bool> {
    let rest = match sane_number(bytes, b'*', SANE_ARGS) {
        Ok((_, rest)) => rest,
        Err(verdict) => return verdict,
    };
    let (len, rest) = match sane_number(rest, b'$', SANE_NAME) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    let name = rest.get(..len).unwrap_or(rest);
    if !name.iter().all(u8::is_ascii_alphabetic) {
        return Some(false);
    }
    (name.len() == len).then_some(true)
}

/// The number of a line `<mark><number>\r\n` if it is in 1..=`max`, and what follows; else the verdict.
fn sane_number(bytes: &[u8], mark: u8, max: u64) -> Result<(usize, &[u8]), Option<bool>> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Err(None);
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at_checked(digits).ok_or(Some(false))?;
    // No client writes zeros in front; a prefix of what is sane must be sane.
    let number = parse_len(digits).filter(|n| !digits.starts_with(b"0") && (1..=max).contains(n));
    if first != mark || (number.is_none() && !(digits.is_empty() && rest.is_empty())) {
        return Err(Some(false));
    }
    if let Some(rest) = rest.strip_prefix(b"\r\n") {
        let number = number.and_then(|n| usize::try_from(n).ok());
        return number.map(|n| (n, rest)).ok_or(Some(false));
    }
    Err((!b"\r\n".starts_with(rest)).then_some(false))
}
