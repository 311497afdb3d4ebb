//! Pickles, walked (CPython `Lib/pickletools.py`), in the binary protocols 2 to 5 that kombu writes.
//!
//! Nothing is imported, called or built: an object is its class's name and the arguments it would be made of, in the form in
//! which Celery's other serializers store exceptions (`exc_type`, `exc_module`, `exc_message`). Objects lie in one table and
//! refer to each other by number, so that neither depth nor repetition costs more than the pickle's own bytes; what is
//! made of the table is bounded by [`DEEPEST`] levels and by [`Room`].

use serde_json::{Value, json};

use super::DEEPEST;
use super::room::Room;

/// The pickled value; `None` where it is cut, or uses what no serializer writes.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let mut machine = Machine {
        rest: bytes,
        ..Machine::default()
    };
    let root = machine.run()?;
    machine.json(root, DEEPEST, &mut Room::new())
}

/// A value's place in the table.
type Place = usize;

#[derive(Clone, Debug)]
enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// Bytes, and integers beyond 64 bits.
    Opaque,
    Items(Vec<Place>),
    Pairs(Vec<(Place, Place)>),
    Class {
        module: &'a str,
        name: &'a str,
    },
    /// What a class or function makes of its arguments.
    Made {
        of: Place,
        arguments: Place,
    },
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    table: Vec<Object<'a>>,
    stack: Vec<Place>,
    marks: Vec<usize>,
    memo: Vec<Option<Place>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Option<Place> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                0x80 => _ = self.byte()?,
                0x95 => _ = self.take(8)?,
                code => self.step(code)?,
            }
        }
    }

    fn step(&mut self, code: u8) -> Option<()> {
        match code {
            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            b'K' => {
                let n = self.byte()?;
                self.push(Object::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(n.into()));
            }
            0x8a | 0x8b => {
                let digits = self.sized(if code == 0x8a { 1 } else { 4 })?;
                self.push(long(digits));
            }
            b'G' => {
                let n = f64::from_be_bytes(self.array()?);
                self.push(Object::Float(n));
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c | b'X' | 0x8d => {
                let text = self.sized(width(code))?;
                self.push(Object::Text(std::str::from_utf8(text).ok()?));
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8; SHORT_BINSTRING, BINSTRING
            b'C' | b'B' | 0x8e | 0x96 | b'U' | b'T' => {
                self.sized(width(code))?;
                self.push(Object::Opaque);
            }
            b'}' => self.push(Object::Pairs(Vec::new())),
            b']' | b')' | 0x8f => self.push(Object::Items(Vec::new())),
            b'(' => self.marks.push(self.stack.len()),
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84))?;
                let items = self.stack.split_off(from);
                self.push(Object::Items(items));
            }
            // TUPLE, LIST, FROZENSET
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Object::Items(items));
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' | b'e' | 0x90 => {
                let more = if code == b'a' {
                    vec![self.pop()?]
                } else {
                    self.since_mark()?
                };
                if let Object::Items(items) = self.top()? {
                    items.extend(more);
                }
            }
            // SETITEM, SETITEMS
            b's' | b'u' => {
                let more = if code == b's' {
                    let value = self.pop()?;
                    vec![self.pop()?, value]
                } else {
                    self.since_mark()?
                };
                if let Object::Pairs(pairs) = self.top()? {
                    pairs.extend(more.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                }
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Class { module, name });
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Object::Text(module), Object::Text(name)) =
                    (self.table.get(module)?, self.table.get(name)?)
                else {
                    return None;
                };
                let class = Object::Class { module, name };
                self.push(class);
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, of) = (self.pop()?, self.pop()?);
                self.push(Object::Made { of, arguments });
            }
            // NEWOBJ_EX: keyword arguments, too; BUILD: state
            0x92 => {
                let (_, arguments, of) = (self.pop()?, self.pop()?, self.pop()?);
                self.push(Object::Made { of, arguments });
            }
            b'b' | b'0' => _ = self.pop()?,
            b'1' => _ = self.since_mark()?,
            b'2' => {
                let last = *self.stack.last()?;
                self.stack.push(last);
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' | b'r' | 0x94 => {
                let index = match code {
                    0x94 => self.memo.len(),
                    _ => self.number(if code == b'q' { 1 } else { 4 })?,
                };
                self.memoize(index)?;
            }
            // BINGET, LONG_BINGET
            b'h' | b'j' => {
                let index = self.number(if code == b'h' { 1 } else { 4 })?;
                let place = self.memo.get(index).copied().flatten()?;
                self.stack.push(place);
            }
            _ => return None,
        }
        Some(())
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        let mut bytes = [0; 8];
        bytes.get_mut(..width)?.copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }

    /// What follows its own length.
    fn sized(&mut self, width: usize) -> Option<&'a [u8]> {
        let len = self.number(width)?;
        self.take(len)
    }

    fn line(&mut self) -> Option<&'a str> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(line.strip_suffix(b"\n")?).ok()
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(self.table.len());
        self.table.push(object);
    }

    fn pop(&mut self) -> Option<Place> {
        self.stack.pop()
    }

    fn top(&mut self) -> Option<&mut Object<'a>> {
        self.table.get_mut(*self.stack.last()?)
    }

    fn since_mark(&mut self) -> Option<Vec<Place>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    /// Picklers number what they memoize one after the other; an index far beyond that is no pickler's.
    fn memoize(&mut self, index: usize) -> Option<()> {
        if index > self.memo.len() {
            return None;
        }
        if index == self.memo.len() {
            self.memo.push(None);
        }
        *self.memo.get_mut(index)? = self.stack.last().copied();
        Some(())
    }

    /// The document from this place on; `None` beyond either bound.
    fn json(&self, place: Place, levels: usize, room: &mut Room) -> Option<Value> {
        room.value()?;
        let levels = levels.checked_sub(1)?;
        Some(match self.table.get(place)? {
            Object::None | Object::Opaque => Value::Null,
            Object::Bool(value) => (*value).into(),
            Object::Int(n) => (*n).into(),
            Object::Float(n) => (*n).into(),
            Object::Text(text) => room.text(text)?.into(),
            Object::Items(items) => {
                let mut list = Vec::new();
                for item in items {
                    list.push(self.json(*item, levels, room)?);
                }
                list.into()
            }
            Object::Pairs(pairs) => {
                let mut map = serde_json::Map::new();
                for (key, value) in pairs {
                    let value = self.json(*value, levels, room)?;
                    if let Some(Object::Text(key)) = self.table.get(*key) {
                        map.insert(room.text(key)?, value);
                    }
                }
                map.into()
            }
            Object::Class { module, name } => {
                format!("{}.{}", room.text(today(module))?, room.text(name)?).into()
            }
            Object::Made { of, arguments } => {
                let Some(Object::Class { module, name }) = self.table.get(*of) else {
                    return Some(Value::Null);
                };
                let arguments = self.json(*arguments, levels, room)?;
                let (name, module) = (room.text(name)?, room.text(today(module))?);
                json!({"exc_type": name, "exc_module": module, "exc_message": arguments})
            }
        })
    }
}

/// Bytes of the length of a string or bytes object.
fn width(code: u8) -> usize {
    match code {
        0x8c | b'C' | b'U' => 1,
        b'X' | b'B' | b'T' => 4,
        _ => 8,
    }
}

/// Two's complement, little-endian.
fn long<'a>(digits: &[u8]) -> Object<'a> {
    if digits.len() > 8 {
        return Object::Opaque;
    }
    let sign = if digits.last().is_some_and(|top| top & 0x80 != 0) {
        0xff
    } else {
        0
    };
    let mut bytes = [sign; 8];
    for (byte, digit) in bytes.iter_mut().zip(digits) {
        *byte = *digit;
    }
    Object::Int(i64::from_le_bytes(bytes))
}

/// Protocol 2 names Python 2's modules (`Lib/_compat_pickle.py`).
fn today(module: &str) -> &str {
    match module {
        "exceptions" | "__builtin__" => "builtins",
        module => module,
    }
}

#[cfg(test)]
mod tests {
    use super::super::MOST;
    use super::*;

    /// Scenario: a failed task's result as the pickle serializer stores it, in protocols 2 and 5.
    /// Guarantees: the exception is told by class and arguments, under Python 3's names; nothing else is made of it.
    #[test]
    fn exception() {
        let want = json!({
            "status": "FAILURE",
            "result": {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["bad 0"]},
            "n": -3, "big": 1_099_511_627_776_i64, "t": [1.5, true, null],
        });
        let protocol_2 = b"\x80\x02}q\x00(X\x06\x00\x00\x00statusq\x01X\x07\x00\x00\x00FAILUREq\x02X\x06\x00\x00\x00resultq\x03cexceptions\nValueError\nq\x04X\x05\x00\x00\x00bad 0q\x05\x85q\x06Rq\x07X\x01\x00\x00\x00nq\x08J\xfd\xff\xff\xffX\x03\x00\x00\x00bigq\t\x8a\x06\x00\x00\x00\x00\x00\x01X\x01\x00\x00\x00tq\nG?\xf8\x00\x00\x00\x00\x00\x00\x88N\x87q\x0bu.";
        let protocol_5 = b"\x80\x05\x95w\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x06status\x94\x8c\x07FAILURE\x94\x8c\x06result\x94\x8c\x08builtins\x94\x8c\nValueError\x94\x93\x94\x8c\x05bad 0\x94\x85\x94R\x94\x8c\x01n\x94J\xfd\xff\xff\xff\x8c\x03big\x94\x8a\x06\x00\x00\x00\x00\x00\x01\x8c\x01t\x94G?\xf8\x00\x00\x00\x00\x00\x00\x88N\x87\x94u.";
        assert_eq!(read(protocol_2), Some(want.clone()));
        assert_eq!(read(protocol_5), Some(want));
    }

    /// Scenario: a list of lists that each refer twice to the one before, a list that holds itself, 100,000 levels, and half
    /// a MiB of text that is referred to 50,000 times, as an item, as a key and as a class.
    /// Guarantees: given up, without the memory or the stack that they stand for.
    #[test]
    fn bombs() {
        let mut doubled = b"\x80\x02]q\0".to_vec();
        for level in 0..60u8 {
            doubled.extend([b'h', level, b'h', level, 0x86, b'q', level + 1]);
        }
        doubled.push(b'.');
        assert_eq!(read(&doubled), None);
        assert_eq!(read(b"\x80\x02]q\0h\0a."), None);
        let deep = [b"\x80\x02".as_slice(), &[b']'; 100_000], &[b'a'; 99_999], b"."].concat();
        assert_eq!(read(&deep), None);
        let text = [b"X\x20\xa1\x07\0".as_slice(), &[b'x'; 500_000], b"q\0"].concat();
        let class = [b"c".as_slice(), &[b'x'; 500_000], b"\nE\nq\0"].concat();
        for (once, often) in [(&text, b"h\0".as_slice()), (&text, b"}h\0Ns"), (&class, b"h\0)R")] {
            let pickle = [b"\x80\x02(", once.as_slice(), &often.repeat(50_000), b"l."].concat();
            assert!(pickle.len() < MOST as usize);
            assert_eq!(read(&pickle), None);
        }
    }
}
