//! Masks the two directions of a Redis connection byte by byte.

use celeryscope_common::{Idle, Kind, Record};

use super::json::Json;
use super::names::{
    ERRORS, KEY_AND_VALUE, KEYS_ONLY, MEMBERS, NAMES_IN_REPLY, STATUSES, SUBSCRIPTIONS, Word,
};
use super::{MASK, step_over};

/// Longest bulk reply that is taken for a name.
const NAME_LIMIT: u64 = 1024;
/// Longest command name.
const COMMAND_LIMIT: u64 = 32;
/// Largest number of a header line that is believed.
const NUMBER_LIMIT: u64 = 1 << 40;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Conversation {
    requests: Direction,
    replies: Direction,
    request: Request,
    /// The client speaks RESP: it has sent a whole command.
    proven: bool,
    /// Replies to come that hold names; none as soon as a reply may be another's.
    answers: u64,
    replied: bool,
    /// It has subscribed, and done nothing else since but ask whether the broker is there: arrays and pushes come unasked.
    subscribed: bool,
    reply: Reply,
}

/// The reply being read.
#[derive(Debug, Default)]
struct Reply {
    /// Values to come, with that being read; 0 between replies.
    left: u64,
    /// It is what was asked for, or was subscribed to.
    names: bool,
    /// It answers a command.
    answers: bool,
}

#[derive(Debug)]
struct Direction {
    /// Stream offset of the next byte, once there was one.
    next: Option<u64>,
    state: State,
    /// What the line begins with, where that is a word.
    word: Word,
}

#[derive(Debug)]
enum State {
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
enum Show {
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

/// What a bulk string shows that is no JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Nothing,
    Digits,
    Command,
}

/// The command being sent.
#[derive(Debug, Default)]
struct Request {
    /// Arguments to come.
    left: u64,
    /// The argument being read; 0 is the command.
    index: u64,
    command: Word,
    key: Word,
    argument: Word,
    /// `HELLO`: arguments to mask, name and password.
    secrets: u8,
    /// `EVALSHA`: the number of keys.
    keys: u64,
    /// Bytes of an argument are missing: what the others mean is not to be relied on.
    torn: bool,
}

impl Conversation {
    /// `fresh` when both streams are seen from their first byte.
    pub(super) fn new(fresh: bool) -> Self {
        let direction = || Direction {
            next: None,
            state: if fresh { State::Start } else { State::Lost },
            word: Word::default(),
        };
        Self {
            requests: direction(),
            replies: direction(),
            request: Request::default(),
            proven: false,
            answers: 0,
            replied: true,
            subscribed: false,
            reply: Reply::default(),
        }
    }

    /// Appends the record's payload to `out`, masked.
    pub(super) fn mask(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let sent = record.kind == Kind::Send;
        let at = record.header.start.saturating_add(u64::from(record.header.at));
        let direction = if sent {
            &mut self.requests
        } else {
            &mut self.replies
        };
        if let Some(missing) = direction.next.map(|next| at.checked_sub(next)) {
            direction.skip(missing);
            let gap = sent && missing != Some(0);
            self.request.torn |= gap;
            // What is missing may have asked for anything, and may not have been answered yet.
            if gap {
                self.answers = 0;
                self.replied = false;
            }
        } else if at > 0 {
            direction.state = State::Lost;
        }
        direction.next = Some(at.saturating_add(record.payload.len() as u64));
        if !sent {
            self.replied = true;
        }
        for (n, &byte) in record.payload.iter().enumerate() {
            let begins = n == 0 && record.header.at == 0;
            out.push(if sent {
                self.request(byte, begins)
            } else {
                self.reply(byte, begins)
            });
            if !sent && matches!(self.replies.state, State::Lost) {
                // Replies are missed, and which is whose can't be told.
                self.answers = 0;
                self.reply = Reply::default();
            }
        }
    }

    /// Whole commands and their replies were left out.
    pub(super) fn idle(&mut self, idle: &Idle) {
        let between = |direction: &Direction, left: u64| match direction.state {
            State::Type => left == 0,
            State::Lost => true,
            _ => false,
        };
        if between(&self.requests, self.request.left) && between(&self.replies, self.reply.left) {
            step_over(&mut self.requests.next, &idle.sent);
            step_over(&mut self.replies.next, &idle.received);
        }
    }

    fn request(&mut self, byte: u8, begins: bool) -> u8 {
        let state = &mut self.requests.state;
        match state {
            State::Start | State::Lost if begins && byte == b'*' => {
                *state = State::Type;
            }
            State::Start | State::Lost => {
                *state = State::Lost;
                return MASK;
            }
            _ => {}
        }
        match state {
            State::Type => {
                let fits = if self.request.left == 0 {
                    byte == b'*'
                } else {
                    byte == b'$'
                };
                if !fits {
                    return self.requests.lose();
                }
                *state = State::line(byte);
                byte
            }
            State::Line { .. } => self.requests.line(byte),
            State::LineEnd { kind, number } => {
                let (kind, number) = (*kind, *number);
                if byte != b'\n' || number >= NUMBER_LIMIT || (kind == b'*' && number == 0) {
                    return self.requests.lose();
                }
                if kind == b'*' {
                    self.request = Request {
                        left: number,
                        ..Request::default()
                    };
                    *state = State::Type;
                    return byte;
                }
                let rule = self.request.rule();
                if rule == Rule::Command && !(1..=COMMAND_LIMIT).contains(&number) {
                    return self.requests.lose();
                }
                self.request.argument.clear();
                *state = State::bulk(number, rule);
                byte
            }
            State::Bulk { left, show } => {
                let out = show.byte(byte);
                if matches!(show, Show::Command) && !byte.is_ascii_alphabetic() {
                    return self.requests.lose();
                }
                self.request.argument.push(byte);
                *left -= 1;
                if *left == 0 {
                    *state = State::BulkEnd { left: 2 };
                }
                out
            }
            State::BulkEnd { .. } => {
                let out = self.requests.bulk_end(byte);
                if matches!(self.requests.state, State::Type) {
                    self.argument_read();
                }
                out
            }
            State::Start | State::Lost => MASK,
        }
    }

    /// An argument is complete.
    fn argument_read(&mut self) {
        let request = &mut self.request;
        let argument = request.argument;
        match request.index {
            0 => {
                request.command.clear();
                for byte in argument.text() {
                    request.command.push(byte.to_ascii_uppercase());
                }
                self.proven = true;
                let names = request.command.is_in(&NAMES_IN_REPLY) && !request.torn;
                self.answers = if names && (self.answers > 0 || self.replied) {
                    self.answers.saturating_add(1)
                } else {
                    0
                };
                self.replied = false;
                let subscribes = request.command.is_in(&SUBSCRIPTIONS) && !request.torn;
                self.subscribed = subscribes || (self.subscribed && request.command.is("PING"));
            }
            1 => request.key = argument,
            2 if request.command.is("EVALSHA") => {
                let digits = std::str::from_utf8(argument.text()).unwrap_or_default();
                request.keys = digits.parse().unwrap_or(0);
            }
            _ => {}
        }
        if request.command.is("HELLO") && request.index > 0 {
            request.secrets = match request.secrets {
                0 if argument.text().eq_ignore_ascii_case(b"AUTH") => 2,
                left => left.saturating_sub(1),
            };
        }
        request.index += 1;
        request.left -= 1;
    }

    fn reply(&mut self, byte: u8, begins: bool) -> u8 {
        if !self.proven {
            self.replies.state = State::Lost;
            return MASK;
        }
        let state = &mut self.replies.state;
        match state {
            State::Start => *state = State::Type,
            // A word of some value must not pass for a status: only what is counted.
            State::Lost if begins && b"*$>%~_".contains(&byte) => *state = State::Type,
            State::Lost => return MASK,
            _ => {}
        }
        match state {
            State::Type => {
                if !b"+-:$*_,#(!=%~>|".contains(&byte) {
                    return self.replies.lose();
                }
                *state = State::line(byte);
                if self.reply.left == 0 {
                    self.reply_begins(byte);
                }
                byte
            }
            State::Line { .. } => self.replies.line(byte),
            State::LineEnd { kind, number } => {
                let (kind, number) = (*kind, *number);
                if byte != b'\n' {
                    return self.replies.lose();
                }
                if b"$=!".contains(&kind) && number < NUMBER_LIMIT {
                    let name = kind == b'$' && self.reply.names && number <= NAME_LIMIT;
                    *state = State::bulk(number, if name { Rule::All } else { Rule::Nothing });
                } else {
                    *state = State::Type;
                    self.value_read(kind, number);
                }
                byte
            }
            State::Bulk { left, show } => {
                let out = show.byte(byte);
                *left -= 1;
                if *left == 0 {
                    *state = State::BulkEnd { left: 2 };
                }
                out
            }
            State::BulkEnd { .. } => {
                let out = self.replies.bulk_end(byte);
                if matches!(self.replies.state, State::Type) {
                    self.value_read(b'$', 0);
                }
                out
            }
            State::Start | State::Lost => MASK,
        }
    }

    /// The first byte of a reply, or of what comes unasked. A command that was lost is not known of, its reply is: what was not asked
    /// for by those that are known shows no names.
    fn reply_begins(&mut self, kind: u8) {
        let unasked = kind == b'>' || (kind == b'*' && self.subscribed);
        self.reply = Reply {
            left: 1,
            names: if unasked {
                self.subscribed
            } else {
                self.answers > 0
            },
            answers: !unasked,
        };
    }

    /// A value of a reply is complete, or an aggregate of `number` of them begins.
    fn value_read(&mut self, kind: u8, number: u64) {
        let inside = match kind {
            b'*' | b'~' | b'>' if number < NUMBER_LIMIT => number,
            b'%' if number < NUMBER_LIMIT => number * 2,
            // What it describes is still to come.
            b'|' if number < NUMBER_LIMIT => number * 2 + 1,
            _ => 0,
        };
        self.reply.left = self.reply.left.saturating_sub(1).saturating_add(inside);
        if self.reply.left == 0 && self.reply.answers {
            self.answers = self.answers.saturating_sub(1);
        }
    }
}

impl Direction {
    fn lose(&mut self) -> u8 {
        self.state = State::Lost;
        MASK
    }

    /// Bytes are missing: so many, or the offset went back.
    fn skip(&mut self, missing: Option<u64>) {
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

    fn line(&mut self, byte: u8) -> u8 {
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

    fn bulk_end(&mut self, byte: u8) -> u8 {
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
    fn line(kind: u8) -> Self {
        Self::Line {
            kind,
            number: 0,
            any: false,
        }
    }

    fn bulk(length: u64, rule: Rule) -> Self {
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
    fn byte(&mut self, byte: u8) -> u8 {
        if let Self::Undecided(rule) = *self {
            *self = match rule {
                Rule::Command => Self::Command,
                _ if byte == b'{' || byte == b'[' => Self::Document(Box::default()),
                Rule::All => Self::All,
                Rule::Nothing => Self::Nothing,
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

impl Request {
    /// What the argument about to be read may show.
    fn rule(&self) -> Rule {
        let name = &self.command;
        match self.index {
            0 => Rule::Command,
            _ if self.torn => Rule::Nothing,
            _ if name.is("HELLO") => {
                if self.secrets > 0 {
                    Rule::Nothing
                } else {
                    Rule::All
                }
            }
            _ if name.is_in(&KEYS_ONLY) => Rule::All,
            1 if name.is_in(&KEY_AND_VALUE) || name.is_in(&MEMBERS) => Rule::All,
            2 if name.is_in(&["SETEX", "PSETEX", "EVALSHA"]) => Rule::Digits,
            index => {
                let harmless = (name.is_in(&MEMBERS)
                    && (self.key.contains("unacked") || self.key.contains("_kombu.")))
                    || (name.is_in(&["HSET", "HMSET", "HSETNX"]) && index % 2 == 0)
                    || (name.is("SET") && index > 2)
                    || (name.is("EVALSHA") && index - 3 < self.keys);
                if harmless { Rule::All } else { Rule::Nothing }
            }
        }
    }
}
