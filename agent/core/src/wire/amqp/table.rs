//! Field tables (§4.2.5.5) and arrays, read one value at a time.
//!
//! The specification, RabbitMQ and their clients do not agree on the letters of types. Read is what RabbitMQ and its clients
//! mean (<https://www.rabbitmq.com/amqp-0-9-1-errata>, section 3): `s` is an integer, not a short string, `l` is signed,
//! `x` are bytes. The letters that only the specification has (`U`, `L`) collide with none of these.

use super::reader::{Reader, TextReader};

/// Tables and arrays within each other that are followed; deeper ones are stepped over.
const DEPTH: usize = 8;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// `S`, `x`: bytes, usually UTF-8.
    Bytes(&'a [u8]),
    /// `b`, `B`, `s`, `U`, `u`, `I`, `i`, `l`, `L`: integers of any width and sign.
    Int(i64),
    /// `f`, `d`.
    Float(f64),
    /// `D`.
    Decimal {
        /// Digits behind the point.
        scale: u8,
        /// All digits.
        value: i32,
    },
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `t`.
    Bool(bool),
    /// `V`.
    Void,
    /// `F`.
    Table(Table<'a>),
    /// `A`.
    Array(Array<'a>),
    /// A table or array at a depth of 8 or more.
    TooDeep,
}

impl<'a> Field<'a> {
    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// A table's fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table<'a> {
    bytes: &'a [u8],
    /// All of it, where that is known to be text.
    text: Option<&'a str>,
    depth: usize,
}

impl<'a> Table<'a> {
    /// A table's content, without its length.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::known(bytes, None)
    }

    /// The same, and the text that it is, if it is.
    pub(crate) fn known(bytes: &'a [u8], text: Option<&'a str>) -> Self {
        Self {
            bytes,
            text,
            depth: 0,
        }
    }

    /// Names and values in order, up to the first that is broken.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + use<'a> {
        self.texts().map(|(name, field, _)| (name, field)).fuse()
    }

    /// The same, and of each value the text that it is.
    pub(crate) fn texts(&self) -> Texts<'a> {
        Texts {
            at: TextReader::known(self.bytes, self.text),
            depth: self.depth,
        }
    }
}

/// Within a table: gives its fields until one is broken.
pub(crate) struct Texts<'a> {
    at: TextReader<'a>,
    depth: usize,
}

impl<'a> Texts<'a> {
    /// Steps over what comes next, if it is this.
    pub(crate) fn passes<const N: usize>(&mut self, usual: &[u8; N]) -> bool {
        self.at.reader.passes(usual)
    }

    /// Steps over `usual`, which ends with the type of a string, and over that string, if both are there.
    pub(crate) fn after<const N: usize>(&mut self, usual: &[u8; N]) -> Option<&'a str> {
        let mut at = self.at;
        if !at.reader.passes(usual) {
            return None;
        }
        let bytes = at.reader.long_bytes()?;
        let text = at.text_of(bytes)?;
        self.at = at;
        Some(text)
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = (&'a str, Field<'a>, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.at.short_string()?;
        let field = field(&mut self.at.reader, self.depth)?;
        let text = match field {
            Field::Bytes(bytes) => self.at.text_of(bytes),
            _ => None,
        };
        Some((name, field, text))
    }
}

/// An array's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl<'a> Array<'a> {
    /// Values in order, up to the first that is broken.
    pub fn values(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let depth = self.depth;
        std::iter::from_fn(move || field(&mut reader, depth)).fuse()
    }
}

fn field<'a>(reader: &mut Reader<'a>, depth: usize) -> Option<Field<'a>> {
    Some(match reader.u8()? {
        b'S' | b'x' => Field::Bytes(reader.long_bytes()?),
        b't' => Field::Bool(reader.u8()? != 0),
        b'b' => Field::Int(i64::from(reader.u8()?.cast_signed())),
        b'B' => Field::Int(i64::from(reader.u8()?)),
        b's' | b'U' => Field::Int(i64::from(reader.u16()?.cast_signed())),
        b'u' => Field::Int(i64::from(reader.u16()?)),
        b'I' => Field::Int(i64::from(reader.u32()?.cast_signed())),
        b'i' => Field::Int(i64::from(reader.u32()?)),
        b'l' | b'L' => Field::Int(reader.u64()?.cast_signed()),
        b'f' => Field::Float(f64::from(f32::from_bits(reader.u32()?))),
        b'd' => Field::Float(f64::from_bits(reader.u64()?)),
        b'D' => Field::Decimal {
            scale: reader.u8()?,
            value: reader.u32()?.cast_signed(),
        },
        b'T' => Field::Timestamp(reader.u64()?),
        b'V' => Field::Void,
        kind @ (b'F' | b'A') => {
            let bytes = reader.long_bytes()?;
            let depth = depth.saturating_add(1);
            match kind {
                _ if depth >= DEPTH => Field::TooDeep,
                b'F' => Field::Table(Table {
                    bytes,
                    text: None,
                    depth,
                }),
                _ => Field::Array(Array { bytes, depth }),
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every type of the specification, of RabbitMQ and of its clients, then an unknown one.
    /// Guarantees: values are read or stepped over; what follows an unknown type is not guessed.
    #[test]
    fn types() {
        let mut bytes = Vec::new();
        let mut put = |name: &str, value: &[u8]| {
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value);
        };
        put("s", b"S\0\0\0\x02ab");
        put("n", b"I\xff\xff\xff\xfe");
        put("l", b"l\0\0\0\0\0\0\0\x05");
        put("t", b"t\x01");
        put("v", b"V");
        put("a", b"A\0\0\0\x03Vt\x01");
        put("f", b"F\0\0\0\x04\x01kt\0");
        put("d", b"d\x3f\xf0\0\0\0\0\0\0");
        put("e", b"f\x3f\x80\0\0");
        put("b", b"b\xff");
        put("B", b"B\xff");
        put("h", b"s\xff\xff");
        put("U", b"U\xff\xff");
        put("u", b"u\xff\xff");
        put("i", b"i\xff\xff\xff\xff");
        put("L", b"L\xff\xff\xff\xff\xff\xff\xff\xff");
        put("D", b"D\x02\xff\xff\xff\xff");
        put("T", b"T\0\0\0\0\0\0\0\x07");
        put("x", b"x\0\0\0\x01\xff");
        put("z", b"?rest");
        put("w", b"V");
        let fields: Vec<_> = Table::new(&bytes).fields().collect();
        let value = |name: &str| fields.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        assert_eq!(fields.len(), 19);
        assert_eq!(value("s").text(), Some("ab"));
        for (name, want) in [
            ("n", -2),
            ("l", 5),
            ("b", -1),
            ("B", 255),
            ("h", -1),
            ("U", -1),
            ("u", 65_535),
            ("i", 4_294_967_295),
            ("L", -1),
        ] {
            assert_eq!(value(name), Field::Int(want), "{name}");
        }
        assert_eq!((value("t"), value("v")), (Field::Bool(true), Field::Void));
        assert_eq!((value("d"), value("e")), (Field::Float(1.0), Field::Float(1.0)));
        assert_eq!(value("D"), Field::Decimal { scale: 2, value: -1 });
        assert_eq!(
            (value("T"), value("x")),
            (Field::Timestamp(7), Field::Bytes(b"\xff"))
        );
        let Field::Table(inner) = value("f") else {
            panic!("no table")
        };
        assert_eq!(inner.fields().collect::<Vec<_>>(), [("k", Field::Bool(false))]);
        let Field::Array(inner) = value("a") else {
            panic!("no array")
        };
        assert_eq!(
            inner.values().collect::<Vec<_>>(),
            [Field::Void, Field::Bool(true)]
        );
    }

    /// Scenario: tables, then arrays, nested a thousand deep, and lengths beyond the end.
    /// Guarantees: neither recursion nor panic; the rest is left.
    #[test]
    fn hostile() {
        let nested = |kind: u8, name: &[u8]| {
            let mut bytes = [name, b"V"].concat();
            for _ in 0..1000 {
                let len = (bytes.len() as u32).to_be_bytes();
                bytes = [name, &[kind], &len, &bytes].concat();
            }
            bytes
        };
        let tables = nested(b'F', b"\x01k");
        let mut table = Table::new(&tables);
        let mut depth = 0;
        while let Some((_, Field::Table(inner))) = table.fields().next() {
            table = inner;
            depth += 1;
        }
        assert_eq!(depth, DEPTH - 1);
        assert_eq!(table.fields().next(), Some(("k", Field::TooDeep)));

        let arrays = nested(b'A', b"");
        let outer = [b"\x01kA", &(arrays.len() as u32).to_be_bytes()[..], &arrays].concat();
        let Some((_, Field::Array(mut array))) = Table::new(&outer).fields().next() else {
            panic!("no array")
        };
        let mut depth = 1;
        while let Some(Field::Array(inner)) = array.values().next() {
            array = inner;
            depth += 1;
        }
        assert_eq!(depth, DEPTH - 1);
        assert_eq!(array.values().next(), Some(Field::TooDeep));
        assert_eq!(Table::new(b"\x01kS\xff\xff\xff\xffab").fields().next(), None);
    }
}
