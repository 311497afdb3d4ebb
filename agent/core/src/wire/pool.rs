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
    let kind = match pickle.next()? {
        Token::Int(kind) => kind,
        _ => return None,
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
    let Token::Str(b"celery.app.trace") = pickle.next()? else {
        return None;
    };
    let Token::Str(_function) = pickle.next()? else {
        return None;
    };
    pickle.expect(&Token::Global)?;
    pickle.expect(&Token::Mark)?;
    let (Token::Str(name), Token::Str(id)) = (pickle.next()?, pickle.next()?) else {
        return None;
    };
    let mut task = Task {
        job,
        name: utf8(name)?,
        id: utf8(id)?,
        ..Task::default()
    };
    pickle.expect(&Token::Dict)?;
    pickle.expect(&Token::Mark)?;
    // Keys and values alternate at the dict's own level; nested values are stepped over.
    loop {
        match pickle.usual() {
            Some(Usual::Plain) => task.retries = Some(0),
            Some(Usual::Ordinary) => task.replacements = Some(0),
            Some(Usual::Names) | None => {}
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

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

/// `(job, None, (ok, (0, repr, runtime) | (1, ExceptionInfo, None)), fd)`.
fn ready<'a>(pickle: &mut Pickle<'a>) -> Option<PoolFrame<'a>> {
    let job = job(pickle)?;
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

/// How they are written, and how many of the things in them may be referred to later; nobody does.
const USUAL: [(Usual, &[u8], usize); 3] = [
    (
        Usual::Names,
        b"\x8c\x04lang\x94\x8c\x02py\x94\x8c\x04task\x94h\x03\x8c\x02id\x94h\x04",
        4,
    ),
    (
        Usual::Plain,
        b"\x8c\x06shadow\x94N\x8c\x03eta\x94N\x8c\x07expires\x94N\x8c\x05group\x94N\x8c\x0bgroup_index\x94N\
          \x8c\x07retries\x94K\x00\x8c\ttimelimit\x94]\x94(NNe",
        8,
    ),
    (
        Usual::Ordinary,
        b"\x8c\rignore_result\x94\x89\x8c\x15replaced_task_nesting\x94K\x00\x8c\x0fstamped_headers\x94N\
          \x8c\x06stamps\x94}\x94",
        5,
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
        let (usual, written, memoized) = USUAL
            .iter()
            .find(|(_, written, _)| self.rest.starts_with(written))?;
        self.take(written.len())?;
        let memo = self.memo.len().saturating_add(*memoized);
        self.memo.resize(memo, None);
        Some(*usual)
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
    fn next(&mut self) -> Option<Token<'a>> {
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
