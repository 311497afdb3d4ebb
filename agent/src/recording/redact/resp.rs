//! Masks the two directions of a Redis connection byte by byte.

mod direction;

use celeryscope_common::{Idle, Kind, Record};

use direction::{Direction, NUMBER_LIMIT, Rule, Show, State};

use super::names::{
    BINDING, KEY_AND_VALUE, KEY_AND_VALUE_IN_REPLY, KEYS_ONLY, MEMBERS, SUBSCRIPTIONS, UNACKED, Word,
};
use super::{MASK, step_over};

/// Longest bulk reply that is taken for a name.
const NAME_LIMIT: u64 = 1024;
/// Values of what a pop gives.
const KEY_WITH_VALUE: u64 = 2;
/// Values of what is told unasked, at most: `pmessage`, pattern, channel, message.
const MESSAGE: u64 = 4;
/// Longest command name.
const COMMAND_LIMIT: u64 = 32;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Conversation {
    requests: Direction,
    replies: Direction,
    request: Request,
    /// The client speaks RESP: it has sent a whole command.
    proven: bool,
    /// Replies to come that are a key and a value; none as soon as a reply may be another's.
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
    /// It is what was asked for, or was subscribed to: all of it but the last are names, if it is at most so many values. A key before a
    /// value, a channel before what was published there.
    names: u64,
    /// An aggregate has begun.
    inside: bool,
    /// It answers a command.
    answers: bool,
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
    /// `HELLO`: what comes is the client's name.
    client: bool,
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
        let missing = direction.next.map(|next| at.checked_sub(next));
        let gap = missing.is_some_and(|missing| missing != Some(0));
        match missing {
            Some(missing) => direction.skip(missing),
            None if at > 0 => direction.state = State::Lost,
            None => {}
        }
        direction.next = Some(at.saturating_add(record.payload.len() as u64));
        if sent && gap {
            // What is missing may have asked for anything, and may not have been answered yet.
            self.request.torn = true;
            self.answers = 0;
            self.replied = false;
            self.subscribed = false;
        } else if !sent {
            self.replied = true;
        }
        if gap {
            self.forget_if_lost();
        }
        for (n, &byte) in record.payload.iter().enumerate() {
            let begins = n == 0 && record.header.at == 0;
            out.push(if sent {
                self.request(byte, begins)
            } else {
                self.reply(byte, begins)
            });
            self.forget_if_lost();
        }
    }

    /// What is sent is not understood, and neither is what answers it; or replies are missed, and which is whose can't be told.
    fn forget_if_lost(&mut self) {
        if matches!(self.requests.state, State::Lost) {
            self.answers = 0;
            self.subscribed = false;
        }
        if matches!(self.replies.state, State::Lost) {
            self.answers = 0;
            self.reply = Reply::default();
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
        // HELLO version [AUTH name password] [SETNAME name]
        if request.command.is("HELLO") && request.index > 1 {
            let is = |word: &[u8]| argument.text().eq_ignore_ascii_case(word);
            let option = request.secrets == 0 && !request.client;
            request.client = option && is(b"SETNAME");
            request.secrets = if option && is(b"AUTH") {
                2
            } else {
                request.secrets.saturating_sub(1)
            };
        }
        request.index += 1;
        request.left -= 1;
        if request.left == 0 {
            let names = request.command.is_in(&KEY_AND_VALUE_IN_REPLY) && !request.torn;
            self.answers = if names && (self.answers > 0 || self.replied) {
                self.answers.saturating_add(1)
            } else {
                0
            };
            self.replied = false;
        }
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
                    let name = self.reply.names > 0 && self.reply.left > 1;
                    let name = name && kind == b'$' && number <= NAME_LIMIT;
                    *state = State::bulk(number, if name { Rule::All } else { Rule::Document });
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
            names: match unasked {
                true if self.subscribed => MESSAGE,
                false if self.answers > 0 => KEY_WITH_VALUE,
                _ => 0,
            },
            inside: false,
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
        // What stands deeper, is one of many, or in a map, answers something else.
        let fits = !self.reply.inside && inside <= self.reply.names && b"*>".contains(&kind);
        if inside > 0 && !fits {
            self.reply.names = 0;
        }
        self.reply.inside |= inside > 0;
        self.reply.left = self.reply.left.saturating_sub(1).saturating_add(inside);
        if self.reply.left == 0 && self.reply.answers {
            self.answers = self.answers.saturating_sub(1);
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
                let harmless = (name.is_in(&MEMBERS) && self.is_on_kombus())
                    || (name.is_in(&["HSET", "HMSET", "HSETNX"]) && index % 2 == 0)
                    || (name.is("SET") && index > 2)
                    || (name.is("EVALSHA") && index - 3 < self.keys);
                if harmless {
                    Rule::All
                } else if name.is_in(&KEY_AND_VALUE) {
                    Rule::Document
                } else {
                    Rule::Nothing
                }
            }
        }
    }

    /// Its key is one of kombu's sets.
    fn is_on_kombus(&self) -> bool {
        self.key.ends_with_one_of(&UNACKED) || self.key.contains(BINDING)
    }
}
