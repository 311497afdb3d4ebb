//! Masks a content header: properties as listed, of the application's headers those that are harmless.

use super::super::MASK;
use super::super::names::Word;
use super::table::Fields;

/// Class, weight, body size and flags.
const FIXED: usize = 14;

/// The machine; made new for each header frame.
#[derive(Debug, Default)]
pub(super) struct Header {
    fixed: [u8; FIXED],
    read: usize,
    /// Flags of the properties to come.
    flags: u16,
    content_type: Word,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// In the fixed part.
    #[default]
    Fixed,
    /// In further flags: the first octet of two was read.
    MoreFlags { high: Option<u8> },
    /// Before a property.
    Property,
    /// In a number, so many bytes to come.
    Number { left: u8 },
    /// In a short string, so many bytes to come.
    Text {
        left: u8,
        clear: bool,
        content_type: bool,
    },
    /// In the length of the headers.
    TableLength { read: u8, length: u32 },
    /// In the headers.
    Table { left: u32, fields: Fields },
    /// Behind the last property that is known.
    Done,
}

/// Properties from the highest flag down (§4.2.6.1), each with what it is.
#[derive(Clone, Copy)]
enum Property {
    ContentType,
    /// A short string that may be seen.
    Clear,
    /// One that may not.
    Opaque,
    Headers,
    Number(u8),
}

const PROPERTIES: [Property; 14] = [
    Property::ContentType,
    // content-encoding
    Property::Clear,
    Property::Headers,
    // delivery-mode, priority
    Property::Number(1),
    Property::Number(1),
    // correlation-id, reply-to, expiration
    Property::Clear,
    Property::Clear,
    Property::Clear,
    // message-id
    Property::Opaque,
    // timestamp
    Property::Number(8),
    // type
    Property::Clear,
    // user-id, app-id, cluster-id
    Property::Opaque,
    Property::Opaque,
    Property::Opaque,
];

impl Header {
    /// Bytes of body that follow, once that was read; of class basic only.
    pub(super) fn body_size(&self) -> Option<u64> {
        let [0, 60, _, _, size @ .., _, _] = self.fixed else {
            return None;
        };
        (self.read == FIXED).then(|| u64::from_be_bytes(size))
    }

    pub(super) fn is_json(&self) -> bool {
        self.content_type.is("application/json")
    }

    /// Masks the next byte.
    pub(super) fn byte(&mut self, byte: u8) -> u8 {
        if let State::Property = self.state {
            self.next_property();
        }
        match &mut self.state {
            State::Fixed => {
                if let Some(slot) = self.fixed.get_mut(self.read) {
                    *slot = byte;
                }
                self.read += 1;
                if self.read == FIXED {
                    let [.., high, low] = self.fixed;
                    self.flags = u16::from_be_bytes([high, low]);
                    self.state = more(self.flags);
                }
                if self.read <= 2 && byte != [0, 60][self.read - 1] {
                    self.state = State::Done;
                    return MASK;
                }
                byte
            }
            State::MoreFlags { high } => {
                match high.take() {
                    None => *high = Some(byte),
                    Some(high) => self.state = more(u16::from_be_bytes([high, byte])),
                }
                byte
            }
            State::Number { left } => {
                *left -= 1;
                if *left == 0 {
                    self.state = State::Property;
                }
                byte
            }
            State::Text {
                left,
                clear,
                content_type,
            } => {
                if *content_type {
                    self.content_type.push(byte);
                }
                let out = if *clear { byte } else { MASK };
                *left -= 1;
                if *left == 0 {
                    self.state = State::Property;
                }
                out
            }
            State::TableLength { read, length } => {
                *length = *length << 8 | u32::from(byte);
                *read += 1;
                if *read == 4 {
                    self.state = match *length {
                        0 => State::Property,
                        left => State::Table {
                            left,
                            fields: Fields::new(left),
                        },
                    };
                }
                byte
            }
            State::Table { left, fields } => {
                let out = fields.byte(byte);
                *left -= 1;
                if *left == 0 {
                    self.state = State::Property;
                }
                out
            }
            State::Property => self.begin_text(byte),
            State::Done => MASK,
        }
    }

    /// Moves to the next property whose value has no length before it, or stays where a short string's length is next.
    fn next_property(&mut self) {
        let at = self.flags.leading_zeros() as usize;
        self.state = match PROPERTIES.get(at) {
            Some(Property::Headers) => State::TableLength { read: 0, length: 0 },
            Some(Property::Number(left)) => State::Number { left: *left },
            Some(_) => return,
            None => State::Done,
        };
        self.done_with(at);
    }

    /// The length of a short string.
    fn begin_text(&mut self, length: u8) -> u8 {
        let at = self.flags.leading_zeros() as usize;
        let kind = PROPERTIES.get(at).copied();
        self.done_with(at);
        if length > 0 {
            self.state = State::Text {
                left: length,
                clear: !matches!(kind, Some(Property::Opaque)),
                content_type: matches!(kind, Some(Property::ContentType)),
            };
        }
        length
    }

    fn done_with(&mut self, property: usize) {
        self.flags &= !0x8000_u16.checked_shr(property as u32).unwrap_or(0);
    }
}

/// Bit 0: further flags follow. They are of no property that is known.
fn more(flags: u16) -> State {
    if flags & 1 == 1 {
        State::MoreFlags { high: None }
    } else {
        State::Property
    }
}
