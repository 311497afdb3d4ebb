//! Frames on the pipes of Celery's prefork pool, read from their first bytes.
//!
//! billiard writes each message as a 4-byte length and a pickle. Only the shapes that `billiard/pool.py` and
//! `celery/concurrency/asynpool.py` produce are recognised, at the fixed offsets where they stand; anything else is
//! not a frame. A frame may be cut anywhere after what names it: what is missing is `None`, never guessed.
//!
//! This is no unpickler: nothing is built or called, opcodes are only walked.

use smallvec::SmallVec;

/// Bytes of a TASK frame before its message type: PROTO, FRAME and the frame's length.
const PREAMBLE: usize = 11;

/// A message on a pool pipe.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolFrame<'a> {
    /// Main process to child: run this (`TASK`).
    Task(Task<'a>),
    /// Child to main: the job was accepted and starts now (`ACK`).
    Ack {
        /// The main process's number for the job.
        job: u32,
    },
    /// Child to main: the job is done (`READY`).
    Ready {
        /// The main process's number for the job.
        job: u32,
        /// How it ended.
        outcome: Outcome<'a>,
    },
    /// Child to main: I am up (`WORKER_UP`).
    Up,
    /// Child to main: I exit (`DEATH`).
    Death,
}

/// What a TASK frame's first bytes tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task<'a> {
    /// The main process's number for the job.
    pub job: u32,
    /// Task name.
    pub name: &'a str,
    /// Task id.
    pub id: &'a str,
    /// `retries` of the headers.
    pub retries: Option<u32>,
    /// `replaced_task_nesting`, when it stands within the captured bytes.
    pub replacements: Option<u32>,
    /// `root_id`; `Some(None)` when it is None.
    pub root_id: Option<Option<&'a str>>,
    /// `parent_id`; `Some(None)` when it is None.
    pub parent_id: Option<Option<&'a str>>,
    /// `group`, when it is a string.
    pub group: Option<&'a str>,
    /// `eta`, when it is a string.
    pub eta: Option<&'a str>,
    /// `expires`, when it is a string.
    pub expires: Option<&'a str>,
    /// W3C traceparent, when it stands within the captured bytes.
    pub traceparent: Option<&'a str>,
}

/// How a job ended, as its READY frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It returned.
    Success,
    /// An exception left it: module and class, empty where the frame was cut before them.
    Raised {
        /// The class's module.
        module: &'a str,
        /// The class's name.
        class: &'a str,
    },
}

/// Reads a frame from its first bytes.
///
/// `read` says whether the child read it (TASK) or wrote it (all others). Returns `None` for anything that is not
/// such a frame.
#[must_use]
pub fn parse(read: bool, head: &[u8]) -> Option<PoolFrame<'_>> {
    let [0x80, 4 | 5, 0x95, ..] = head else {
        return None;
    };
    let mut pickle = Pickle {
        rest: head.get(PREAMBLE..)?,
        memo: SmallVec::new(),
    };
    let Token::Int(kind) = pickle.next()? else {
        return None;
    };
    match (read, kind) {
        (true, 2) => task(&mut pickle).map(PoolFrame::Task),
        (false, 0) => Some(PoolFrame::Ack {
            job: job(&mut pickle)?,
        }),
        (false, 1) => ready(&mut pickle),
        (false, 15) => Some(PoolFrame::Up),
        (false, 4) => Some(PoolFrame::Death),
        _ => None,
    }
}

/// `(job, None` at the start of the payload tuple.
fn job(pickle: &mut Pickle<'_>) -> Option<u32> {
    // As it is written nearly always.
    let (job, rest) = match pickle.rest {
        [b'(', b'K', job, b'N', rest @ ..] => (i32::from(*job), rest),
        [b'(', b'M', low, high, b'N', rest @ ..] => (i32::from(u16::from_le_bytes([*low, *high])), rest),
        [b'(', b'J', a, b, c, d, b'N', rest @ ..] => (i32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return any_job(pickle),
    };
    pickle.rest = rest;
    u32::try_from(job).ok()
}

fn any_job(pickle: &mut Pickle<'_>) -> Option<u32> {
    pickle.expect(&Token::Mark)?;
    let Token::Int(job) = pickle.next()? else {
        return None;
    };
    pickle.expect(&Token::None)?;
    u32::try_from(job).ok()
}

/// `(job, None, fast_trace_task, (name, id, {headers…}, …), kwargs)`.
fn task<'a>(pickle: &mut Pickle<'a>) -> Option<Task<'a>> {
    let job = job(pickle)?;
    if !pickle.steps_over(TRACER, &[Some(TRACER_MODULE), Some(TRACER_NAME), None]) {
        tracer(pickle)?;
    }
    let (Token::Str(name), Token::Str(id)) = (pickle.next()?, pickle.next()?) else {
        return None;
    };
    let mut task = Task {
        job,
        name: utf8(name)?,
        id: utf8(id)?,
        ..Task::default()
    };
    if !pickle.steps_over(b"}\x94(", &[None]) {
        pickle.expect(&Token::Dict)?;
        pickle.expect(&Token::Mark)?;
    }
    // Keys and values alternate at the dict's own level; nested values are stepped over.
    loop {
        while let Some(usual) = pickle.usual() {
            match usual {
                Usual::Plain => task.retries = Some(0),
                Usual::Ordinary => task.replacements = Some(0),
                Usual::Names => {}
            }
        }
        let Some(Token::Str(key)) = pickle.next() else {
            break;
        };
        let Some(value) = pickle.next() else { break };
        match (key, value) {
            (b"retries", Token::Int(n)) => task.retries = u32::try_from(n).ok(),
            (b"replaced_task_nesting", Token::Int(n)) => task.replacements = u32::try_from(n).ok(),
            (b"root_id", Token::None) => task.root_id = Some(None),
            (b"parent_id", Token::None) => task.parent_id = Some(None),
            (
                b"root_id" | b"parent_id" | b"group" | b"eta" | b"expires" | b"traceparent",
                Token::Str(text),
            ) => {
                let Some(text) = utf8(text) else { break };
                match key {
                    b"root_id" => task.root_id = Some(Some(text)),
                    b"parent_id" => task.parent_id = Some(Some(text)),
                    b"group" => task.group = Some(text),
                    b"eta" => task.eta = Some(text),
                    b"expires" => task.expires = Some(text),
                    _ => task.traceparent = Some(text),
                }
            }
            // The worker's own come after the message's headers.
            (b"properties", Token::Dict) => break,
            _ => {}
        }
        if matches!(value, Token::List | Token::Dict) && pickle.skip_filling().is_none() {
            break;
        }
    }
    Some(task)
}

/// What the job calls: a function of Celery's, whatever its name.
fn tracer(pickle: &mut Pickle<'_>) -> Option<()> {
    let (Token::Str(TRACER_MODULE), Token::Str(_)) = (pickle.next()?, pickle.next()?) else {
        return None;
    };
    pickle.expect(&Token::Global)?;
    pickle.expect(&Token::Mark)
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

/// `(job, None, (ok, (0, repr, runtime) | (1, ExceptionInfo, None)), fd)`.
fn ready<'a>(pickle: &mut Pickle<'a>) -> Option<PoolFrame<'a>> {
    let job = job(pickle)?;
    if let [0x88, b'K', 0, ..] = pickle.rest {
        return Some(PoolFrame::Ready {
            job,
            outcome: Outcome::Success,
        });
    }
    let worked = match pickle.next()? {
        Token::Bool(worked) => worked,
        _ => return None,
    };
    let failed = if worked {
        match pickle.next()? {
            Token::Int(0) => false,
            Token::Int(_) => true,
            _ => return None,
        }
    } else {
        true
    };
    if !failed {
        return Some(PoolFrame::Ready {
            job,
            outcome: Outcome::Success,
        });
    }
    let (module, class) = exception(pickle).unwrap_or(("", ""));
    Some(PoolFrame::Ready {
        job,
        outcome: Outcome::Raised { module, class },
    })
}

/// The class after the key `type` in a pickled `billiard.einfo.ExceptionInfo`.
fn exception<'a>(pickle: &mut Pickle<'a>) -> Option<(&'a str, &'a str)> {
    loop {
        if pickle.next()? == Token::Str(b"type") {
            let (Token::Str(module), Token::Str(class)) = (pickle.next()?, pickle.next()?) else {
                return None;
            };
            return Some((utf8(module)?, utf8(class)?));
        }
    }
}

/// What a job calls, as it is written nearly always; what is told of later may refer to the names.
const TRACER: &[u8] = b"\x8c\x10celery.app.trace\x94\x8c\x0ffast_trace_task\x94\x93\x94(";
const TRACER_MODULE: &[u8] = b"celery.app.trace";
const TRACER_NAME: &[u8] = b"fast_trace_task";

/// Headers that follow each other and nearly always say the same.
#[derive(Clone, Copy)]
enum Usual {
    /// `lang` to `id`, which are not read.
    Names,
    /// `shadow` to `timelimit`, of a task that is to run at once, by itself, for the first time.
    Plain,
    /// `ignore_result` to `stamps`, of one without anything special.
    Ordinary,
}

/// Things that may be referred to later: the text of each that is one.
type Memo = &'static [Option<&'static [u8]>];

/// How they are written, and the things in them that may be referred to later.
const USUAL: [(Usual, &[u8], Memo); 3] = [
    (
        Usual::Names,
        b"\x8c\x04lang\x94\x8c\x02py\x94\x8c\x04task\x94h\x03\x8c\x02id\x94h\x04",
        &[Some(b"lang"), Some(b"py"), Some(b"task"), Some(b"id")],
    ),
    (
        Usual::Plain,
        b"\x8c\x06shadow\x94N\x8c\x03eta\x94N\x8c\x07expires\x94N\x8c\x05group\x94N\x8c\x0bgroup_index\x94N\
          \x8c\x07retries\x94K\x00\x8c\ttimelimit\x94]\x94(NNe",
        &[
            Some(b"shadow"),
            Some(b"eta"),
            Some(b"expires"),
            Some(b"group"),
            Some(b"group_index"),
            Some(b"retries"),
            Some(b"timelimit"),
            None,
        ],
    ),
    (
        Usual::Ordinary,
        b"\x8c\rignore_result\x94\x89\x8c\x15replaced_task_nesting\x94K\x00\x8c\x0fstamped_headers\x94N\
          \x8c\x06stamps\x94}\x94",
        &[
            Some(b"ignore_result"),
            Some(b"replaced_task_nesting"),
            Some(b"stamped_headers"),
            Some(b"stamps"),
            None,
        ],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// Text, not looked at.
    Str(&'a [u8]),
    Int(i64),
    Bool(bool),
    None,
    Mark,
    Dict,
    List,
    Global,
    /// SETITEMS or APPENDS: closes the latest mark.
    Fill,
    /// Anything else that stands for a value or builds one.
    Other,
}

/// A walk over pickle opcodes (CPython `Lib/pickletools.py`), protocol 4 and 5, remembering memoized strings.
struct Pickle<'a> {
    rest: &'a [u8],
    memo: SmallVec<[Option<&'a [u8]>; 64]>,
}

impl<'a> Pickle<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    /// Steps over headers that say what they usually say.
    fn usual(&mut self) -> Option<Usual> {
        // The first key's length tells them apart.
        let length = self.rest.get(1)?;
        let (usual, written, memoized) = USUAL
            .iter()
            .find(|(_, written, _)| written.get(1) == Some(length))?;
        self.steps_over(written, memoized).then_some(*usual)
    }

    /// Whether this is what comes next. It is stepped over then; the things in it may be referred to later.
    fn steps_over(&mut self, written: &[u8], memoized: Memo) -> bool {
        let rest = self.rest.strip_prefix(written);
        if let Some(rest) = rest {
            self.rest = rest;
            self.memo.extend_from_slice(memoized);
        }
        rest.is_some()
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self, n: usize) -> Option<Token<'a>> {
        let text = self.take(n)?;
        // MEMOIZE follows at once where the string may be referred to again.
        if self.rest.first() == Some(&0x94) {
            self.take(1)?;
            self.memo.push(Some(text));
        }
        Some(Token::Str(text))
    }

    fn recall(&self, index: usize) -> Token<'a> {
        self.memo
            .get(index)
            .copied()
            .flatten()
            .map_or(Token::Other, Token::Str)
    }

    /// The next token; `None` at the end, at an unknown opcode or at one that is cut.
    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        // Nearly all are short texts that may be referred to later.
        if let [0x8c, n, rest @ ..] = self.rest
            && let Some((text, [0x94, rest @ ..])) = rest.split_at_checked(usize::from(*n))
        {
            self.rest = rest;
            self.memo.push(Some(text));
            return Some(Token::Str(text));
        }
        self.any()
    }

    fn any(&mut self) -> Option<Token<'a>> {
        loop {
            return Some(match self.byte()? {
                // MEMOIZE of something that is not a string.
                0x94 => {
                    self.memo.push(None);
                    continue;
                }
                0x95 => {
                    self.take(8)?;
                    continue;
                }
                0x8c => {
                    let n = self.byte()?;
                    return self.text(usize::from(n));
                }
                0x58 => {
                    let n = self.u32()?;
                    return self.text(usize::try_from(n).ok()?);
                }
                0x68 => {
                    let index = self.byte()?;
                    self.recall(usize::from(index))
                }
                0x6a => {
                    let index = self.u32()?;
                    self.recall(usize::try_from(index).ok()?)
                }
                0x4b => Token::Int(i64::from(self.byte()?)),
                0x4d => Token::Int(i64::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?))),
                0x4a => Token::Int(i64::from(i32::from_le_bytes(self.take(4)?.try_into().ok()?))),
                0x4e => Token::None,
                0x88 => Token::Bool(true),
                0x89 => Token::Bool(false),
                0x28 => Token::Mark,
                0x7d => Token::Dict,
                0x5d => Token::List,
                0x93 => Token::Global,
                0x75 | 0x65 => Token::Fill,
                0x47 => {
                    self.take(8)?;
                    Token::Other
                }
                // SHORT_BINBYTES, LONG1
                0x43 | 0x8a => {
                    let n = self.byte()?;
                    self.take(usize::from(n))?;
                    Token::Other
                }
                // EMPTY_TUPLE, TUPLE1..3, TUPLE, NEWOBJ, REDUCE, BUILD, APPEND, SETITEM
                0x29 | 0x85 | 0x86 | 0x87 | 0x74 | 0x81 | 0x52 | 0x62 | 0x61 | 0x73 => Token::Other,
                _ => return None,
            });
        }
    }

    fn expect(&mut self, want: &Token<'_>) -> Option<()> {
        (self.next()? == *want).then_some(())
    }

    /// Steps over what fills a list or dict that was just opened; an empty one has nothing to step over.
    fn skip_filling(&mut self) -> Option<()> {
        if self.rest.first() == Some(&0x94) {
            self.take(1)?;
            self.memo.push(None);
        }
        if self.rest.first() != Some(&0x28) {
            return Some(());
        }
        let mut open = 0u32;
        loop {
            match self.next()? {
                Token::Mark => open = open.saturating_add(1),
                Token::Fill if open <= 1 => return Some(()),
                Token::Fill => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TASK frame as billiard 4.3 wrote it (Python 3.11), cut at 512 bytes.
    const TASK: &[u8] = include_bytes!("../../tests/data/pool-task.bin");
    /// A failed READY frame, cut at 128 bytes.
    const RAISED: &[u8] = include_bytes!("../../tests/data/pool-ready-raised.bin");
    const ACK: &[u8] =
        b"\x80\x04\x95\x18\0\0\0\0\0\0\0\x4b\0\x28\x4b\x07\x4e\x47\x40\x94\x1c\x5d\xb1\xd1\xa7\x5b\x4d\x31\x30\x4e\x74\x94\x86\x94.";

    /// Scenario: recorded frames of each kind.
    /// Guarantees: job, name, ids, retries and exception class are read.
    #[test]
    fn recorded_frames() {
        let Some(PoolFrame::Task(task)) = parse(true, TASK) else {
            panic!("no task")
        };
        assert_eq!(task.name, "capapp.boom");
        assert_eq!(task.id.len(), 36);
        assert_eq!((task.retries, task.parent_id), (Some(0), Some(None)));
        assert_eq!(task.root_id, Some(Some(task.id)));
        assert_eq!(parse(false, ACK), Some(PoolFrame::Ack { job: 7 }));
        let Some(PoolFrame::Ready { outcome, .. }) = parse(false, RAISED) else {
            panic!("no ready")
        };
        assert_eq!(
            outcome,
            Outcome::Raised {
                module: "builtins",
                class: "ValueError"
            }
        );
    }

    /// Scenario: the same frames cut at every byte, and with every byte changed.
    /// Guarantees: no panic; what a cut frame tells is a part of what the whole one tells.
    #[test]
    fn cut_and_broken_frames() {
        for (read, whole) in [(true, TASK), (false, RAISED), (false, ACK)] {
            for cut in 0..whole.len() {
                let part = parse(read, &whole[..cut]);
                if let (Some(PoolFrame::Task(part)), Some(PoolFrame::Task(task))) = (part, parse(read, whole))
                {
                    assert_eq!((part.id, part.name), (task.id, task.name));
                    assert!(part.retries.is_none() || part.retries == task.retries);
                    assert!(part.root_id.is_none() || part.root_id == task.root_id);
                }
                let mut broken = whole.to_vec();
                for value in [0, 0x28, 0x58, 0x8c, 0xff] {
                    broken[cut] = value;
                    let _ = parse(read, &broken);
                }
            }
        }
    }

    /// Frames as they are written nearly always, and in other ways: jobs of one, two and four bytes, one that is negative,
    /// another function, a root that refers to what stands at the beginning, exceptions and a failure to tell of them.
    fn written() -> Vec<(bool, Vec<u8>)> {
        let jobs: [&[u8]; 5] = [
            b"K\x07",
            b"M\x07\x01",
            b"J\x07\0\x01\0",
            b"J\xff\xff\xff\xff",
            b"N",
        ];
        let root = TASK
            .windows(10)
            .position(|w| w == b"\x8c\x07root_id\x94")
            .unwrap();
        let function = TASK.windows(9).position(|w| w == b"fast_trac").unwrap();
        let mut all = Vec::new();
        for (read, whole) in [(true, TASK), (false, RAISED), (false, ACK)] {
            // The job is a single byte in all of them.
            let (before, after) = (&whole[..14], &whole[16..]);
            all.extend(jobs.map(|job| (read, [before, job, after].concat())));
        }
        for name in [&b"x"[..], b"\xff"] {
            let (before, after) = (&TASK[..function - 1], &TASK[function + 15..]);
            all.push((true, [before, &[name.len() as u8], name, after].concat()));
        }
        for index in 0..30 {
            let (before, after) = (&TASK[..root + 10], &TASK[root + 10 + 39..]);
            all.push((true, [before, b"h", &[index], after].concat()));
        }
        for end in [&b"\x88K\0X"[..], b"\x88K\x01", b"\x89K\0", b"\x88M\0\0", b"\x88N"] {
            all.push((false, [&b"\x80\x05\x95........K\x01(K\x07N"[..], end].concat()));
        }
        all
    }

    /// Scenario: frames as they are written nearly always and in other ways, whole and cut anywhere, and the same with what
    /// says nothing put in at each place where it may stand, so that they are read token by token.
    /// Guarantees: both tell the same.
    #[test]
    fn short_cuts_tell_the_same() {
        for (read, whole) in written() {
            for cut in PREAMBLE..=whole.len() {
                let frame = &whole[..cut];
                let mut pickle = Pickle {
                    rest: &frame[PREAMBLE..],
                    memo: SmallVec::new(),
                };
                let mut slow = frame[..PREAMBLE].to_vec();
                while !pickle.rest.is_empty() {
                    let before = pickle.rest;
                    let ended = pickle.any().is_none();
                    let token = &before[..before.len() - pickle.rest.len()];
                    // Not between a list or dict and what fills it.
                    if !matches!(before, [b'(' | 0x94, ..]) {
                        slow.extend_from_slice(b"\x95........");
                    }
                    slow.extend_from_slice(if ended { before } else { token });
                    if ended {
                        break;
                    }
                }
                assert_eq!(parse(read, &slow), parse(read, frame), "{frame:?}");
            }
        }
    }

    /// Scenario: the right bytes in the wrong direction, and text that only looks alike.
    /// Guarantees: not a frame.
    #[test]
    fn not_a_frame() {
        assert_eq!(parse(false, TASK), None);
        assert_eq!(parse(true, ACK), None);
        assert_eq!(parse(true, b""), None);
        assert_eq!(
            parse(true, b"\x80\x05\x95........K\x02(K\0Ncelery.app.trace"),
            None
        );
    }
}
