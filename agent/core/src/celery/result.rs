//! What a task's result says about how it ended (`celery/backends/base.py: _get_result_meta`).

use serde::Deserialize;

use super::document;
use super::json::{Expected, NotThat, Reader, Text};

/// Prefix of a result's key in key/value backends (`celery/backends/base.py: KeyValueStoreBackend.task_keyprefix`); the
/// user's own key prefix may stand before it.
pub const KEY_PREFIX: &[u8] = b"celery-task-meta-";

/// A task's state as the result backend stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultState {
    /// It began (`track_started`).
    Started,
    /// It returned.
    Success,
    /// It raised.
    Failure,
    /// It asked to be run again.
    Retry,
    /// It was revoked or expired.
    Revoked,
    /// It was ignored.
    Ignored,
    /// It was rejected.
    Rejected,
    /// A state of the application's own.
    Custom,
}

impl ResultState {
    fn parse(text: &str) -> Self {
        match text {
            "STARTED" => Self::Started,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "RETRY" => Self::Retry,
            "REVOKED" => Self::Revoked,
            "IGNORED" => Self::Ignored,
            "REJECTED" => Self::Rejected,
            _ => Self::Custom,
        }
    }
}

/// A stored result: its state, and the exception where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultMeta {
    /// The state.
    pub state: ResultState,
    /// The exception of a FAILURE, RETRY or REVOKED.
    pub exception: Option<Exception>,
}

/// An exception as the JSON serializer stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exception {
    /// Class, with its module unless that is `builtins`.
    pub class: String,
    /// Its message.
    pub message: String,
    /// The traceback; empty where there is none.
    pub traceback: String,
}

impl Exception {
    /// Bytes of its texts.
    pub(crate) fn weight(&self) -> u64 {
        let texts = [&self.class, &self.message, &self.traceback];
        texts.into_iter().map(|text| text.len() as u64).sum()
    }
}

/// Members of a stored result.
#[derive(Clone, Copy)]
enum Member {
    Status,
    Result,
    Traceback,
    Task,
    Id,
    Unused,
}

/// In the order in which Celery stores them; those that it sends begin with the task's id.
const MEMBERS: Expected<Member> = Expected::new(&[
    (r#""task_id": "#, Member::Unused),
    (r#""status": "#, Member::Status),
    (r#""result": "#, Member::Result),
    (r#""traceback": "#, Member::Traceback),
    (r#""children": "#, Member::Unused),
    (r#""date_done": "#, Member::Unused),
    (r#""group_id": "#, Member::Unused),
    (r#""task_id": "#, Member::Unused),
    (r#""task": "#, Member::Task),
    (r#""id": "#, Member::Id),
]);

impl ResultMeta {
    /// Reads a result of which at least the first bytes were captured, in whatever form `result_serializer` gave it. Of JSON
    /// that was cut only the state is known, and that only where it comes first, as Celery writes it.
    #[must_use]
    pub fn parse(stored: &[u8]) -> Option<Self> {
        let json = document::mapping(stored)?;
        Self::whole(&json).or_else(|| Self::cut(&json))
    }

    /// Reads a whole result in JSON; `None` where it is something else.
    pub(super) fn whole(json: &[u8]) -> Option<Self> {
        Self::or_task(json).0
    }

    /// The same, and whether it is an object that names a task and its id, as a message of protocol 1 does.
    pub(super) fn or_task(json: &[u8]) -> (Option<Self>, bool) {
        let mut seen = Seen::default();
        if seen.read(json).is_err() {
            // What is no task to one reader is none to the other.
            return (None, false);
        }
        let meta = seen
            .status
            .map(|status| Self::of(&status.get(), seen.result, seen.traceback));
        (meta, seen.task && seen.id)
    }

    fn of(status: &str, result: Option<&str>, traceback: Option<Text<'_>>) -> Self {
        let state = ResultState::parse(status);
        let raised = matches!(
            state,
            ResultState::Failure | ResultState::Retry | ResultState::Revoked
        );
        let exception = if raised {
            let traceback = traceback.map(|text| text.get().into_owned());
            result.and_then(|result| exception(result, traceback))
        } else {
            None
        };
        Self { state, exception }
    }

    fn cut(json: &[u8]) -> Option<Self> {
        let rest = json
            .strip_prefix(br#"{"status": ""#)
            .or_else(|| json.strip_prefix(br#"{"status":""#))?;
        let end = memchr::memchr(b'"', rest)?;
        let status = std::str::from_utf8(rest.get(..end)?).ok()?;
        Some(Self {
            state: ResultState::parse(status),
            exception: None,
        })
    }
}

/// What a stored result has of its members.
#[derive(Default)]
struct Seen<'a> {
    status: Option<Text<'a>>,
    result: Option<&'a str>,
    traceback: Option<Text<'a>>,
    task: bool,
    id: bool,
}

impl<'a> Seen<'a> {
    fn read(&mut self, json: &'a [u8]) -> Result<(), NotThat> {
        let mut reader = Reader::of(json)?;
        let begun = self.usual(&mut reader)?;
        reader.members(begun, MEMBERS, |member, value| {
            match member {
                Member::Status => self.status = Some(value.string()?),
                Member::Result => self.result = Some(value.raw()?),
                Member::Traceback => self.traceback = value.text()?,
                Member::Task => {
                    self.task = true;
                    value.skip()?;
                }
                Member::Id => {
                    self.id = true;
                    value.skip()?;
                }
                Member::Unused => value.skip()?,
            }
            Ok(())
        })?;
        reader.end()
    }

    /// Members that are what they nearly always are, as far as that goes; says whether there are any.
    fn usual(&mut self, json: &mut Reader<'a>) -> Result<bool, NotThat> {
        let Some(status) = json.after(br#"{"status": ""#) else {
            return Ok(false);
        };
        self.status = Some(Text::plain(status));
        if json.passes(br#", "result": "#) {
            self.result = Some(json.raw()?);
            if json.passes(br#", "traceback": null, "children": []"#)
                && json.after(br#", "date_done": ""#).is_some()
            {
                let _ = json.after(br#", "task_id": ""#);
            }
        }
        Ok(true)
    }
}

fn exception(result: &str, traceback: Option<String>) -> Option<Exception> {
    #[derive(Deserialize)]
    struct Raised {
        exc_type: String,
        #[serde(default)]
        exc_message: serde_json::Value,
        #[serde(default)]
        exc_module: Option<String>,
    }
    let raised: Raised = serde_json::from_str(result).ok()?;
    let class = match raised.exc_module.as_deref() {
        None | Some("" | "builtins") => raised.exc_type,
        Some(module) => format!("{module}.{}", raised.exc_type),
    };
    Some(Exception {
        class,
        message: message(&raised.exc_message),
        traceback: traceback.unwrap_or_default(),
    })
}

/// `str(exception)`: its only argument, or all of them.
fn message(args: &serde_json::Value) -> String {
    use serde_json::Value;
    match args {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => match items.as_slice() {
            [] => String::new(),
            [only] => message(only),
            _ => args.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
