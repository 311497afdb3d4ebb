//! Frames on the pipes of Celery's prefork pool, read from their first bytes.
//!
//! billiard writes each message as a 4-byte length and a pickle. Only the shapes that `billiard/pool.py` and
//! `celery/concurrency/asynpool.py` produce are recognised, at the fixed offsets where they stand; anything else is
//! not a frame. A frame may be cut anywhere after what names it: what is missing is `None`, never guessed.
//!
//! This is no unpickler: nothing is built or called, opcodes are only walked.

mod pickle;

use pickle::{Pickle, Token, Usual};

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
    let mut pickle = Pickle::new(head.get(PREAMBLE..)?);
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

#[cfg(test)]
mod tests;
