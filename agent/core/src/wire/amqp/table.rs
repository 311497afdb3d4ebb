//! Field tables (§4.2.5.5, with the types that RabbitMQ really uses).

use super::reader::Reader;

/// Tables within tables that are followed; deeper ones are stepped over.
const DEPTH: usize = 8;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// `S`, `x`: bytes, usually UTF-8.
    Bytes(&'a [u8]),
    /// Integers of any width and sign that fit.
    Int(i64),
    /// `f`, `d`.
    Float(f64),
    /// `t`.
    Bool(bool),
    /// `V`.
    Void,
    /// `F`, up to a depth of 8.
    Table(Table<'a>),
    /// Arrays, decimals, timestamps: known, not read.
    Other,
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

/// A table's fields, read one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl<'a> Table<'a> {
    /// A table's content, without its length.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0 }
    }

    /// Names and values in order, up to the first that is broken.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let depth = self.depth;
        std::iter::from_fn(move || {
            let name = reader.short_string()?;
            Some((name, field(&mut reader, depth)?))
        })
    }
}

fn field<'a>(reader: &mut Reader<'a>, depth: usize) -> Option<Field<'a>> {
    Some(match reader.u8()? {
        b'S' | b'x' => Field::Bytes(reader.long_bytes()?),
        b't' => Field::Bool(reader.u8()? != 0),
        b'b' => Field::Int(i64::from(i8::from_be_bytes([reader.u8()?]))),
        b'B' => Field::Int(i64::from(reader.u8()?)),
        b's' | b'U' => Field::Int(i64::from(i16::from_be_bytes(reader.u16()?.to_be_bytes()))),
        b'u' => Field::Int(i64::from(reader.u16()?)),
        b'I' => Field::Int(i64::from(i32::from_be_bytes(reader.u32()?.to_be_bytes()))),
        b'i' => Field::Int(i64::from(reader.u32()?)),
        b'l' | b'L' => Field::Int(i64::from_be_bytes(reader.u64()?.to_be_bytes())),
        b'f' => Field::Float(f64::from(f32::from_bits(reader.u32()?))),
        b'd' => Field::Float(f64::from_bits(reader.u64()?)),
        b'V' => Field::Void,
        b'F' => {
            let bytes = reader.long_bytes()?;
            let depth = depth.saturating_add(1);
            if depth < DEPTH {
                Field::Table(Table { bytes, depth })
            } else {
                Field::Other
            }
        }
        b'A' => {
            reader.long_bytes()?;
            Field::Other
        }
        b'D' => {
            reader.take(5)?;
            Field::Other
        }
        b'T' => {
            reader.u64()?;
            Field::Other
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every type that py-amqp and RabbitMQ write, then an unknown one.
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
        put("a", b"A\0\0\0\x01V");
        put("f", b"F\0\0\0\x04\x01kt\0");
        put("d", b"d\x3f\xf0\0\0\0\0\0\0");
        put("z", b"?rest");
        put("w", b"V");
        let fields: Vec<_> = Table::new(&bytes).fields().collect();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["s", "n", "l", "t", "v", "a", "f", "d"]);
        assert_eq!(fields[0].1.text(), Some("ab"));
        assert_eq!(fields[1].1, Field::Int(-2));
        let Field::Table(inner) = &fields[6].1 else {
            panic!("no table")
        };
        assert_eq!(inner.fields().next(), Some(("k", Field::Bool(false))));
        assert_eq!(fields[7].1, Field::Float(1.0));
    }

    /// Scenario: tables nested a thousand deep, and lengths beyond the end.
    /// Guarantees: neither recursion nor panic; the rest is left.
    #[test]
    fn hostile() {
        let mut bytes = b"V".to_vec();
        for _ in 0..1000 {
            let mut outer = b"\x01kF".to_vec();
            outer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        let mut table = Table::new(&bytes);
        let mut depth = 0;
        while let Some((_, Field::Table(inner))) = table.fields().next() {
            table = inner;
            depth += 1;
        }
        assert_eq!(depth, DEPTH - 1);
        assert_eq!(Table::new(b"\x01kS\xff\xff\xff\xffab").fields().next(), None);
    }
}
