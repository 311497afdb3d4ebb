//! Masks a field table byte by byte: names, types and lengths stay, values where their name is listed.

use super::super::MASK;
use super::super::names::{HEADERS, Word};

/// Deeper tables and arrays are masked whole.
const DEEPEST: usize = 8;

/// What may be seen of a table or array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// The values of listed names.
    Listed,
    /// Everything.
    All,
    /// Types and lengths.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Where it ends, counted from the table's first byte.
    end: u32,
    array: bool,
    show: Show,
}

#[derive(Clone, Copy, Debug)]
enum State {
    NameLength,
    Name {
        left: u8,
    },
    Type,
    Length {
        kind: u8,
        read: u8,
        length: u32,
    },
    Value {
        left: u32,
        clear: bool,
    },
    /// Nothing more can be understood.
    Sealed,
}

/// The machine; made new for each table.
#[derive(Debug)]
pub(super) struct Fields {
    at: u32,
    levels: Vec<Level>,
    state: State,
    name: Word,
}

impl Fields {
    /// For a table of so many bytes.
    pub(super) fn new(end: u32) -> Self {
        let level = Level {
            end,
            array: false,
            show: Show::Listed,
        };
        Self {
            at: 0,
            levels: vec![level],
            state: State::NameLength,
            name: Word::default(),
        }
    }

    /// Masks the next byte.
    pub(super) fn byte(&mut self, byte: u8) -> u8 {
        self.at = self.at.saturating_add(1);
        let Some(level) = self.levels.last().copied() else {
            return MASK;
        };
        match self.state {
            State::NameLength => {
                self.name.clear();
                self.state = match byte {
                    0 => State::Type,
                    left => State::Name { left },
                };
                byte
            }
            State::Name { left } => {
                self.name.push(byte);
                self.state = match left {
                    1 => State::Type,
                    left => State::Name { left: left - 1 },
                };
                if level.show == Show::Listed { byte } else { MASK }
            }
            State::Type => self.begin_value(level, byte),
            State::Length { kind, read, length } => {
                let length = length << 8 | u32::from(byte);
                self.state = State::Length {
                    kind,
                    read: read + 1,
                    length,
                };
                if read == 3 {
                    self.begin_sized(level, kind, length);
                }
                byte
            }
            State::Value { left, clear } => {
                self.state = State::Value {
                    left: left - 1,
                    clear,
                };
                if left == 1 {
                    self.value_read();
                }
                if clear { byte } else { MASK }
            }
            State::Sealed => MASK,
        }
    }

    /// What may be seen of the value at hand.
    fn shown(&self, level: Level) -> Show {
        match level.show {
            Show::Listed if self.name.is_in(&HEADERS) => Show::All,
            Show::Listed if self.name.is("headers") => Show::Listed,
            Show::Listed => Show::Nothing,
            show => show,
        }
    }

    fn begin_value(&mut self, level: Level, kind: u8) -> u8 {
        let left = match kind {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            b'V' => {
                self.value_read();
                return kind;
            }
            b'S' | b'x' | b'F' | b'A' => {
                self.state = State::Length {
                    kind,
                    read: 0,
                    length: 0,
                };
                return kind;
            }
            _ => {
                self.state = State::Sealed;
                return MASK;
            }
        };
        self.value(level, left);
        kind
    }

    /// So many bytes of a value follow.
    fn value(&mut self, level: Level, left: u32) {
        let fits = self.at.checked_add(left).is_some_and(|end| end <= level.end);
        self.state = match (fits, left) {
            (false, _) => State::Sealed,
            (true, 0) => return self.value_read(),
            (true, left) => State::Value {
                left,
                clear: self.shown(level) == Show::All,
            },
        };
    }

    fn begin_sized(&mut self, level: Level, kind: u8, length: u32) {
        if matches!(kind, b'S' | b'x') {
            return self.value(level, length);
        }
        let Some(end) = self.at.checked_add(length).filter(|end| *end <= level.end) else {
            self.state = State::Sealed;
            return;
        };
        if self.levels.len() >= DEEPEST && length > 0 {
            self.state = State::Value {
                left: length,
                clear: false,
            };
            return;
        }
        let array = kind == b'A';
        let show = match self.shown(level) {
            // Only a list of values may show all of them, only a table some.
            Show::All if !array => Show::Nothing,
            Show::Listed if array => Show::Nothing,
            show => show,
        };
        self.levels.push(Level { end, array, show });
        self.value_read();
    }

    /// A value is complete: what ends with it is left, the next one begins.
    fn value_read(&mut self) {
        while self.levels.last().is_some_and(|level| level.end == self.at) {
            self.levels.pop();
        }
        self.state = match self.levels.last() {
            Some(level) if level.array => State::Type,
            Some(_) => State::NameLength,
            None => State::Sealed,
        };
    }
}
