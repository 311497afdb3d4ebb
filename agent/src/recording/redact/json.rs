//! Masks one JSON document byte by byte: an envelope, an entry of `unacked`, a result, or somebody else's.
//!
//! Strings, and digits of numbers, are overwritten where the key they belong to is not listed as harmless. Quotes,
//! punctuation and literals stay, so a masked document is a document still.

use super::MASK;
use super::names::{ENVELOPE_FIRST, HEADERS, PROPERTIES, RESULT_FIRST, RESYNC, TOP, TOP_CLEAR, Word};

/// Deeper documents are masked whole from there on.
const DEEPEST: usize = 48;

/// What may be seen of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Everything; of objects in it nothing.
    Clear,
    /// Nothing.
    Opaque,
    /// The envelope or result itself.
    Top,
    /// `headers`.
    Headers,
    /// `properties` or `delivery_info`.
    Properties,
    /// `result` of a task under way: who runs it.
    Started,
    /// `result` of a failed task: the exception.
    Failed,
    /// An array around the envelope, as in `unacked`; nothing in it where no envelope comes first.
    Around,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    object: bool,
    context: Context,
    /// What the value to come may show.
    value: Context,
    /// Between `{` or `,` and the colon.
    key_next: bool,
    expects: Expects,
}

/// What an object's next key must be, where that decides whether it is an envelope or a result.
#[derive(Clone, Copy, Debug)]
enum Expects {
    /// One that such an object begins with.
    First,
    /// What follows that in a result.
    Second(&'static str),
    /// Nothing.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Key {
        escape: bool,
    },
    Text {
        clear: bool,
        escape: bool,
    },
    /// After a gap, or inside a candidate for a known key there.
    Lost {
        candidate: bool,
    },
    /// After a candidate that is a known key.
    Found,
    /// Nothing more can be understood.
    Sealed,
}

/// The machine; made new for each document.
#[derive(Debug)]
pub(super) struct Json {
    stack: Vec<Frame>,
    state: State,
    key: Word,
    status: Word,
    previous: u8,
    /// What may be seen outside of any bracket.
    outside: Context,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            stack: Vec::new(),
            state: State::Between,
            key: Word::default(),
            status: Word::default(),
            previous: b'\\',
            outside: Context::Opaque,
        }
    }
}

impl Json {
    /// Masks the next byte.
    pub(super) fn byte(&mut self, byte: u8) -> u8 {
        let out = match self.state {
            State::Between => self.between(byte),
            State::Key { escape } => self.in_key(byte, escape),
            State::Text { clear, escape } => self.in_text(byte, clear, escape),
            State::Lost { candidate } => self.lost(byte, candidate),
            State::Found if byte == b':' => {
                // An unescaped quote, a known key, a quote and a colon: no string can hold that.
                let value = self.value_context(Context::Top);
                self.stack = vec![Frame {
                    object: true,
                    context: Context::Top,
                    value,
                    key_next: false,
                    expects: Expects::Any,
                }];
                self.outside = Context::Clear;
                self.state = State::Between;
                byte
            }
            State::Found => {
                self.state = State::Lost { candidate: false };
                self.lost(byte, false)
            }
            State::Sealed => MASK,
        };
        self.previous = byte;
        out
    }

    /// Bytes are missing here.
    pub(super) fn gap(&mut self) {
        let foreign = match self.stack.as_slice() {
            [around, inside, ..] if around.context == Context::Around => inside.context == Context::Opaque,
            [around] if around.context == Context::Around => around.value == Context::Opaque,
            [first, ..] => first.context == Context::Opaque,
            [] => false,
        };
        self.stack.clear();
        // Whether the next byte is escaped is unknown.
        self.previous = b'\\';
        self.state = if foreign || self.state == State::Sealed {
            State::Sealed
        } else {
            State::Lost { candidate: false }
        };
    }

    fn current(&self) -> Context {
        self.stack.last().map_or(self.outside, |frame| frame.value)
    }

    fn between(&mut self, byte: u8) -> u8 {
        match byte {
            b'"' => {
                if self
                    .stack
                    .last()
                    .is_some_and(|frame| frame.object && frame.key_next)
                {
                    self.key.clear();
                    self.state = State::Key { escape: false };
                } else {
                    if self.key.is("status") && self.in_top() {
                        self.status.clear();
                    }
                    let clear = self.current() == Context::Clear;
                    self.close_around();
                    self.state = State::Text { clear, escape: false };
                }
                byte
            }
            b'{' | b'[' => {
                self.open(byte == b'{');
                byte
            }
            b'}' | b']' => {
                self.stack.pop();
                // Nothing follows a document, but the rest of the array around one found after a gap.
                if self.stack.is_empty() && self.outside != Context::Clear {
                    self.state = State::Sealed;
                }
                byte
            }
            b',' => {
                if let Some(frame) = self.stack.last_mut() {
                    frame.key_next = frame.object;
                }
                byte
            }
            b':' => {
                let context = self.stack.last().map(|frame| frame.context);
                let value = context.map_or(Context::Opaque, |context| self.value_context(context));
                if let Some(frame) = self.stack.last_mut() {
                    frame.key_next = false;
                    frame.value = value;
                }
                byte
            }
            b' ' | b'\t' | b'\r' | b'\n' => byte,
            b'0'..=b'9' => {
                let clear = self.current() == Context::Clear;
                self.close_around();
                if clear { byte } else { b'1' }
            }
            // Signs, points and exponents; letters of true, false, null, NaN and Infinity.
            b'+' | b'-' | b'.' | b'E' | b'I' | b'N' | b'a' | b'e' | b'f' | b'i' | b'l' | b'n' | b'r'
            | b's' | b't' | b'u' | b'y' => {
                self.close_around();
                byte
            }
            _ => {
                self.state = State::Sealed;
                MASK
            }
        }
    }

    fn open(&mut self, object: bool) {
        let context = match (self.stack.last(), self.current()) {
            (None, _) if object => Context::Top,
            (None, _) => Context::Around,
            (Some(_), Context::Around) if object => Context::Top,
            (Some(_), Context::Around) => Context::Opaque,
            (Some(_), Context::Clear) if object => Context::Opaque,
            // Only what is an object may show some of its values.
            (Some(_), Context::Headers | Context::Properties | Context::Started | Context::Failed)
                if !object =>
            {
                Context::Opaque
            }
            (Some(_), context) => context,
        };
        // Whether it is the envelope is not known before its first key.
        self.close_around();
        if self.stack.len() >= DEEPEST {
            self.state = State::Sealed;
            return;
        }
        self.stack.push(Frame {
            object,
            context,
            value: context,
            key_next: object,
            expects: if context == Context::Top {
                Expects::First
            } else {
                Expects::Any
            },
        });
    }

    /// An array whose first element is no envelope is around none.
    fn close_around(&mut self) {
        if let Some(frame) = self
            .stack
            .last_mut()
            .filter(|frame| frame.value == Context::Around)
        {
            frame.value = Context::Opaque;
        }
    }

    /// A key is complete: what its object is may be known now.
    fn key_read(&mut self) {
        let Some((frame, around)) = self.stack.split_last_mut() else {
            return;
        };
        let expects = std::mem::replace(&mut frame.expects, Expects::Any);
        match expects {
            Expects::First if self.key.is_in(&ENVELOPE_FIRST) => {
                // What follows the envelope in `unacked`: exchange and routing key.
                if let Some(around) = around.last_mut() {
                    around.value = Context::Clear;
                }
            }
            Expects::First => match RESULT_FIRST.iter().find(|(first, _)| self.key.is(first)) {
                Some((_, second)) => frame.expects = Expects::Second(second),
                None => frame.context = Context::Opaque,
            },
            Expects::Second(key) if !self.key.is(key) => frame.context = Context::Opaque,
            Expects::Second(_) | Expects::Any => {}
        }
    }

    fn in_top(&self) -> bool {
        self.stack
            .last()
            .is_some_and(|frame| frame.context == Context::Top)
    }

    fn in_key(&mut self, byte: u8, escape: bool) -> u8 {
        if byte == b'"' && !escape {
            self.state = State::Between;
            self.key_read();
            return byte;
        }
        self.state = State::Key {
            escape: byte == b'\\' && !escape,
        };
        self.key.push(byte);
        let shown = match self.stack.last().map(|frame| frame.context) {
            Some(Context::Top) => self.key.begins_one_of(&TOP),
            Some(Context::Headers | Context::Properties | Context::Started | Context::Failed) => true,
            _ => false,
        };
        if shown { byte } else { MASK }
    }

    fn in_text(&mut self, byte: u8, clear: bool, escape: bool) -> u8 {
        if byte == b'"' && !escape {
            self.state = State::Between;
            return byte;
        }
        self.state = State::Text {
            clear,
            escape: byte == b'\\' && !escape,
        };
        let status = self.in_top() && self.key.is("status");
        if status {
            self.status.push(byte);
        }
        // Celery's states are in capitals. What other programs call a status may be a sentence.
        let clear = clear && (!status || byte.is_ascii_uppercase() || byte == b'_');
        // The padding tells the body's size and nothing else.
        let padding = byte == b'=' && self.in_top() && self.key.is("body");
        if clear || padding { byte } else { MASK }
    }

    fn lost(&mut self, byte: u8, candidate: bool) -> u8 {
        let quote = byte == b'"' && self.previous != b'\\';
        if candidate {
            if quote && self.key.is_in(&RESYNC) {
                self.state = State::Found;
                return byte;
            }
            self.key.push(byte);
            if !quote && self.key.begins_one_of(&RESYNC) {
                return byte;
            }
        }
        self.state = State::Lost { candidate: quote };
        if quote {
            self.key.clear();
        }
        if quote || b" ,:={}[]".contains(&byte) {
            byte
        } else {
            MASK
        }
    }

    /// What the value of the key just read may show, in an object of this context.
    fn value_context(&self, context: Context) -> Context {
        let clear_if = |clear: bool| if clear { Context::Clear } else { Context::Opaque };
        match context {
            Context::Top if self.key.is("headers") => Context::Headers,
            Context::Top if self.key.is("properties") => Context::Properties,
            Context::Top if self.key.is("result") => {
                if self.status.is("STARTED") {
                    Context::Started
                } else if self.status.is_in(&["FAILURE", "RETRY", "REVOKED"]) {
                    Context::Failed
                } else {
                    Context::Opaque
                }
            }
            Context::Top => clear_if(self.key.is_in(&TOP_CLEAR)),
            Context::Headers if self.key.is("headers") => Context::Headers,
            Context::Headers => clear_if(self.key.is_in(&HEADERS)),
            Context::Properties if self.key.is("delivery_info") => Context::Properties,
            Context::Properties => clear_if(self.key.is_in(&PROPERTIES)),
            Context::Started => clear_if(self.key.is_in(&["pid", "hostname"])),
            Context::Failed => clear_if(self.key.is_in(&["exc_type", "exc_module"])),
            Context::Clear | Context::Opaque | Context::Around => Context::Opaque,
        }
    }
}
