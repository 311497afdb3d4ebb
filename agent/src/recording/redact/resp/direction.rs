//! One direction of a connection: where in a command or reply the next byte stands, and what may be seen of it.

use super::super::MASK;
use super::super::json::Json;
use super::super::names::{ERRORS, STATUSES, Word};

/// Largest number of a header line that is believed.
pub(super) const NUMBER_LIMIT: u64 = 1 << 40;

#[derive(Debug)]
pub(super) struct Direction {
    /// Stream offset of the next byte, once there was one.
    pub(super) next: Option<u64>,
    pub(super) state: State,
    /// What the line begins with, where that is a word.
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum State {
    /// Before the first byte of a connection seen from its start.
    Start,
    /// Anywhere: everything is masked until a transfer begins like a command or a reply.
    Lost,
    /// A type byte is next.
    Type,
    /// In a line that begins with this type.
    Line { kind: u8, number: u64, any: bool },
    /// After a line's carriage return.
    LineEnd { kind: u8, number: u64 },
    /// In a bulk string with so many bytes to come.
    Bulk { left: u64, show: Show },
    /// In the line end after a bulk string, so many bytes to come.
    BulkEnd { left: u8 },
}

/// What may be seen of a bulk string.
#[derive(Debug)]
pub(super) enum Show {
    /// Not decided: nothing was read of it.
    Undecided(Rule),
    All,
    Nothing,
    /// Its digits.
    Digits,
    /// A command's name: letters.
    Command,
    Document(Box<Json>),
}

/// What a bulk string may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// All of a name, of a JSON document what [`Json`] shows.
    All,
    Nothing,
    Digits,
    Command,
    /// Of a JSON document what [`Json`] shows, else nothing.
    Document,
}

impl Direction {
    pub(super) fn lose(&mut self) -> u8 {
        self.state = State::Lost;
        MASK
    }

    /// Bytes are missing: so many, or the offset went back.
    pub(super) fn skip(&mut self, missing: Option<u64>) {
        match (missing, &mut self.state) {
            (Some(0), _) => {}
            // A gap that ends inside the value or with it leaves the framing known.
            (Some(missing), State::Bulk { left, show }) if missing <= *left => {
                *left -= missing;
                match show {
                    Show::Document(json) => json.gap(),
                    // Whether it is a document was not seen.
                    Show::Undecided(_) | Show::Command => *show = Show::Nothing,
                    Show::All | Show::Nothing | Show::Digits => {}
                }
                if *left == 0 {
                    self.state = State::BulkEnd { left: 2 };
                }
            }
            _ => self.state = State::Lost,
        }
    }

    pub(super) fn line(&mut self, byte: u8) -> u8 {
        let State::Line { kind, number, any } = &mut self.state else {
            return self.lose();
        };
        let kind = *kind;
        if byte == b'\r' {
            let empty_is_wrong = b"$*=!%~>|".contains(&kind) && !*any;
            if empty_is_wrong {
                return self.lose();
            }
            self.state = State::LineEnd {
                kind,
                number: *number,
            };
            return byte;
        }
        let first = !std::mem::replace(any, true);
        match kind {
            b'+' | b'-' => {
                if first {
                    self.word.clear();
                }
                self.word.push(byte);
                // Scripts and modules say what they like there.
                let known = if kind == b'+' { &STATUSES[..] } else { &ERRORS[..] };
                let shown = byte == b' ' || self.word.begins_one_of(known);
                if shown { byte } else { MASK }
            }
            b'$' | b'*' | b'=' | b'!' | b'%' | b'~' | b'>' | b'|' => match byte {
                // The null of RESP2.
                b'-' if first && b"$*".contains(&kind) => {
                    *number = NUMBER_LIMIT;
                    byte
                }
                b'0'..=b'9' if *number >= NUMBER_LIMIT => byte,
                b'0'..=b'9' => {
                    *number = *number * 10 + u64::from(byte - b'0');
                    if *number >= NUMBER_LIMIT {
                        self.lose()
                    } else {
                        byte
                    }
                }
                _ => self.lose(),
            },
            _ if byte.is_ascii_digit() || b"+-.einfatE".contains(&byte) => byte,
            _ => self.lose(),
        }
    }

    pub(super) fn bulk_end(&mut self, byte: u8) -> u8 {
        let State::BulkEnd { left } = &mut self.state else {
            return self.lose();
        };
        if byte != if *left == 2 { b'\r' } else { b'\n' } {
            return self.lose();
        }
        *left -= 1;
        if *left == 0 {
            self.state = State::Type;
        }
        byte
    }
}

impl State {
    pub(super) fn line(kind: u8) -> Self {
        Self::Line {
            kind,
            number: 0,
            any: false,
        }
    }

    pub(super) fn bulk(length: u64, rule: Rule) -> Self {
        if length == 0 {
            return Self::BulkEnd { left: 2 };
        }
        Self::Bulk {
            left: length,
            show: Show::Undecided(rule),
        }
    }
}

impl Show {
    pub(super) fn byte(&mut self, byte: u8) -> u8 {
        if let Self::Undecided(rule) = *self {
            *self = match rule {
                // No name begins so, but the answer to another command may.
                Rule::All | Rule::Document if byte == b'{' || byte == b'[' => Self::Document(Box::default()),
                Rule::Nothing | Rule::Document => Self::Nothing,
                Rule::Command => Self::Command,
                Rule::All => Self::All,
                Rule::Digits => Self::Digits,
            };
        }
        match self {
            Self::All => byte,
            Self::Digits if byte.is_ascii_digit() => byte,
            Self::Command if byte.is_ascii_alphabetic() => byte,
            Self::Document(json) => json.byte(byte),
            Self::Undecided(_) | Self::Nothing | Self::Digits | Self::Command => MASK,
        }
    }
}
