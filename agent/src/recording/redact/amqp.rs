//! Masks the two directions of an AMQP connection byte by byte.
//!
//! Clear are the framing, which method a method frame holds, the arguments of those methods that number and name messages,
//! and of content headers what [`header`] lists. Bodies are masked whole but for JSON objects, of which results show their
//! status (see [`super::json`]). After a gap everything is masked until a call begins with what can be a method, a content
//! header or a heartbeat, as the core's decoder does it.

mod header;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use celeryscope_common::{Idle, Kind, Record};

use super::json::Json;
use super::{MASK, step_over};
use header::Header;

/// Bytes of a frame before its payload.
const HEAD: usize = 7;
/// A frame's last octet.
const END: u8 = 0xce;
/// Channels of a direction whose content is followed; bodies on others are masked whole.
const CHANNELS: usize = 256;
/// Longest payload that is believed.
const LONGEST: u32 = 1 << 30;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Conversation {
    sent: Direction,
    received: Direction,
}

impl Conversation {
    /// `fresh` when both streams are seen from their first byte.
    pub(super) fn new(fresh: bool) -> Self {
        Self {
            sent: Direction::new(fresh),
            received: Direction::new(fresh),
        }
    }

    /// Appends the record's payload to `out`, masked.
    pub(super) fn mask(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let direction = if record.kind == Kind::Send {
            &mut self.sent
        } else {
            &mut self.received
        };
        let at = record.header.start.saturating_add(u64::from(record.header.at));
        match direction.next {
            Some(next) if next == at => {}
            Some(next) => direction.skip(at.checked_sub(next)),
            None if at > 0 => direction.state = State::Lost,
            None => {}
        }
        direction.next = Some(at.saturating_add(record.payload.len() as u64));
        for (n, &byte) in record.payload.iter().enumerate() {
            out.push(direction.byte(byte, n == 0 && record.header.at == 0));
        }
    }
}

impl Conversation {
    /// Whole frames were left out.
    pub(super) fn idle(&mut self, idle: &Idle) {
        let both = [(&mut self.sent, &idle.sent), (&mut self.received, &idle.received)];
        for (direction, left_out) in both {
            if direction.head.is_empty() && matches!(direction.state, State::Head | State::Lost) {
                step_over(&mut direction.next, left_out);
            }
        }
    }
}

#[derive(Debug)]
struct Direction {
    /// Stream offset of the next byte, once there was one.
    next: Option<u64>,
    state: State,
    head: Vec<u8>,
    /// Sync was lost and this is the first frame since.
    probing: bool,
    /// What is under way on each channel.
    contents: HashMap<u16, Content>,
}

#[derive(Debug)]
enum State {
    /// Anywhere: everything is masked until a call begins like a frame.
    Lost,
    /// In a frame's head or in the protocol header.
    Head,
    /// In the protocol header's version.
    Version,
    /// In a payload with so many bytes to come.
    Payload { left: u32, payload: Payload },
    /// Before the last octet.
    End,
}

#[derive(Debug)]
enum Payload {
    Method(Method),
    Header(Box<Header>),
    Body,
    /// All of it is masked.
    Sealed,
}

/// A content's body.
#[derive(Debug)]
struct Content {
    left: u64,
    /// The machine for it, once its first byte showed that it is an object; `None` where nothing may be seen.
    body: Option<Option<Json>>,
}

/// A method's arguments.
#[derive(Debug, Default)]
struct Method {
    /// Class and method.
    id: [u8; 4],
    read: usize,
    /// `basic.consume`: short strings to come, bytes to come of the one at hand.
    strings: u8,
    string: u8,
}

impl Direction {
    fn new(fresh: bool) -> Self {
        Self {
            next: None,
            state: if fresh { State::Head } else { State::Lost },
            head: Vec::with_capacity(HEAD),
            probing: false,
            contents: HashMap::new(),
        }
    }

    fn byte(&mut self, byte: u8, begins: bool) -> u8 {
        if matches!(self.state, State::Lost) {
            if !begins {
                return MASK;
            }
            self.state = State::Head;
            self.probing = true;
        }
        match &mut self.state {
            State::Lost => MASK,
            State::Head => {
                self.head.push(byte);
                if !self.may_be_head() {
                    return self.lose();
                }
                if self.head.len() == HEAD {
                    self.begin();
                }
                byte
            }
            State::Version => {
                self.restart();
                byte
            }
            State::Payload { left, payload } => {
                let out = match payload {
                    Payload::Method(method) => method.byte(byte),
                    Payload::Header(header) => header.byte(byte),
                    Payload::Body => body_byte(&mut self.contents, channel(&self.head), byte),
                    Payload::Sealed => MASK,
                };
                *left -= 1;
                if *left == 0 {
                    self.payload_read();
                }
                out
            }
            State::End if byte == END => {
                self.restart();
                byte
            }
            State::End => self.lose(),
        }
    }

    fn lose(&mut self) -> u8 {
        self.restart();
        self.state = State::Lost;
        MASK
    }

    fn restart(&mut self) {
        self.head.clear();
        self.probing = false;
        self.state = State::Head;
    }

    /// Can a frame, or the protocol header, begin so? The first after a loss is no body frame.
    fn may_be_head(&self) -> bool {
        match self.head.as_slice() {
            [b'A', ..] => b"AMQP\0\0\x09\x01".starts_with(&self.head),
            [3, ..] if self.probing => false,
            [8, rest @ ..] => rest.iter().all(|byte| *byte == 0),
            // Channels above RabbitMQ's own limit and payloads above its largest are not believed of the first.
            [1..=3, high, ..] if self.probing && *high > 7 => false,
            [1..=3, _, _, high, middle, ..] if self.probing && (*high > 0 || *middle > 1) => false,
            [1..=3, ..] => true,
            _ => false,
        }
    }

    fn begin(&mut self) {
        if self.head.first() == Some(&b'A') {
            self.state = State::Version;
            return;
        }
        let len = self.head.last_chunk().map_or(0, |len| u32::from_be_bytes(*len));
        if len > LONGEST {
            self.lose();
            return;
        }
        let payload = match self.head.first() {
            Some(1) => Payload::Method(Method::default()),
            Some(2) => Payload::Header(Box::default()),
            _ => Payload::Body,
        };
        self.state = match len {
            0 => State::End,
            left => State::Payload { left, payload },
        };
    }

    /// The payload is complete.
    fn payload_read(&mut self) {
        let channel = channel(&self.head);
        let State::Payload { payload, .. } = std::mem::replace(&mut self.state, State::End) else {
            return;
        };
        match payload {
            Payload::Header(header) => {
                self.contents.remove(&channel);
                if let Some(left) = header.body_size().filter(|_| self.contents.len() < CHANNELS) {
                    let body = header.is_json().then_some(None);
                    self.contents.insert(channel, Content { left, body });
                }
            }
            Payload::Body => {}
            Payload::Method(_) | Payload::Sealed => _ = self.contents.remove(&channel),
        }
    }

    /// Bytes are missing: so many, or the offset went back.
    fn skip(&mut self, missing: Option<u64>) {
        let missing = missing.and_then(|missing| u32::try_from(missing).ok());
        match (missing, &mut self.state) {
            // A gap that ends inside the payload or with it leaves the framing known.
            (Some(missing), State::Payload { left, payload }) if missing <= *left => {
                *left -= missing;
                if let Payload::Body = payload {
                    if let Some(content) = self.contents.get_mut(&channel(&self.head)) {
                        content.skip(missing);
                    }
                } else {
                    *payload = Payload::Sealed;
                }
                if *left == 0 {
                    self.payload_read();
                }
            }
            (Some(1), State::End) => self.restart(),
            _ => _ = self.lose(),
        }
    }
}

impl Content {
    fn skip(&mut self, missing: u32) {
        self.left = self.left.saturating_sub(u64::from(missing));
        match &mut self.body {
            Some(Some(json)) => json.gap(),
            // Whether it is an object was not seen.
            body => *body = None,
        }
    }
}

/// Masks a byte of the body under way on a channel.
fn body_byte(contents: &mut HashMap<u16, Content>, channel: u16, byte: u8) -> u8 {
    let Some(content) = contents.get_mut(&channel) else {
        return MASK;
    };
    let out = match &mut content.body {
        Some(Some(json)) => json.byte(byte),
        Some(unseen) if byte == b'{' => unseen.insert(Json::default()).byte(byte),
        body => {
            *body = None;
            MASK
        }
    };
    content.left = content.left.saturating_sub(1);
    if content.left == 0 {
        contents.remove(&channel);
    }
    out
}

/// Channel of a frame's head.
fn channel(head: &[u8]) -> u16 {
    match head {
        [_, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

impl Method {
    fn byte(&mut self, byte: u8) -> u8 {
        let at = self.read;
        self.read = at.saturating_add(1);
        if let Some(slot) = self.id.get_mut(at) {
            *slot = byte;
            return byte;
        }
        match self.id {
            // tune, tune-ok, open, open-ok, close-ok.
            [0, 10, 0, 30 | 31 | 40 | 41 | 51] => byte,
            // Channels: open, flow, close-ok.
            [0, 20, 0, 10 | 11 | 20 | 21 | 41] => byte,
            // consume: queue and tag, but not its table of arguments.
            [0, 60, 0, 20] => self.consume(at, byte),
            [0, 60 | 85 | 90, ..] => byte,
            _ => MASK,
        }
    }

    /// Two octets, two short strings, an octet of flags; a table.
    fn consume(&mut self, at: usize, byte: u8) -> u8 {
        if at < 6 {
            self.strings = 2;
            return byte;
        }
        if self.string > 0 {
            self.string -= 1;
        } else if self.strings > 0 {
            self.strings -= 1;
            self.string = byte;
        } else if self.id[0] == 0 {
            // The flags; what follows is of no method that may be seen.
            self.id = [MASK; 4];
        }
        byte
    }
}
