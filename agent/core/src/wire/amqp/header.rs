//! Content headers of class basic (§4.2.6.1): the properties that go before a message's body.

use super::reader::{Reader, TextReader};
use super::table::Table;

/// Property flags, from the highest bit down, in the order in which the values stand.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const CLASS_BASIC: u16 = 60;

/// What a content header says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContentHeader<'a> {
    /// Bytes of body that follow.
    pub body_size: u64,
    /// MIME type of the body.
    pub content_type: Option<&'a str>,
    /// Application headers.
    pub headers: Option<Table<'a>>,
    /// 0 to 9.
    pub priority: Option<u8>,
    /// Names the conversation.
    pub correlation_id: Option<&'a str>,
    /// Queue for replies.
    pub reply_to: Option<&'a str>,
}

impl<'a> ContentHeader<'a> {
    /// The MIME type alone; `None` when it is no header of class basic.
    #[must_use]
    pub fn content_type(payload: &'a [u8]) -> Option<Option<&'a str>> {
        let mut reader = Reader::new(payload);
        let (_, flags) = start(&mut reader)?;
        if flags & CONTENT_TYPE == 0 {
            return Some(None);
        }
        reader.short_string().map(Some)
    }

    /// Bytes of body that follow, as any class's header says; `None` when it is cut.
    #[must_use]
    pub fn body_size(payload: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(*payload.get(4..)?.first_chunk()?))
    }

    /// Reads the payload of a header frame; `None` when it is not one of class basic. Properties after `reply_to` are not
    /// needed and not read.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (body_size, flags) = start(&mut reader)?;
        let mut header = Self {
            body_size,
            ..Self::default()
        };
        let mut at = TextReader::new(reader);
        if flags & CONTENT_TYPE != 0 {
            header.content_type = Some(at.short_string()?);
        }
        if flags & CONTENT_ENCODING != 0 {
            at.reader.short_bytes()?;
        }
        if flags & HEADERS != 0 {
            let table = at.reader.long_bytes()?;
            header.headers = Some(Table::known(table, at.text_of(table)));
        }
        if flags & DELIVERY_MODE != 0 {
            at.reader.u8()?;
        }
        if flags & PRIORITY != 0 {
            header.priority = Some(at.reader.u8()?);
        }
        if flags & CORRELATION_ID != 0 {
            header.correlation_id = Some(at.short_string()?);
        }
        if flags & REPLY_TO != 0 {
            header.reply_to = Some(at.short_string()?);
        }
        Some(header)
    }
}

/// What stands before the properties: the length of the body, and flags that say which there are.
fn start(reader: &mut Reader<'_>) -> Option<(u64, u16)> {
    if reader.u16()? != CLASS_BASIC {
        return None;
    }
    let _weight = reader.u16()?;
    let body_size = reader.u64()?;
    let flags = reader.u16()?;
    // Bit 0: more flags follow; basic has only fourteen properties.
    let mut more = flags;
    while more & 1 != 0 {
        more = reader.u16()?;
    }
    Some((body_size, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a header that is UTF-8 from its first property on, lengths included, and one that is not because of a number
    /// among them; both cut anywhere.
    /// Guarantees: the same texts are read of both, and of what is cut nothing.
    #[test]
    fn texts() {
        let header = |priority: u8| {
            let mut bytes = b"\0\x3c\0\0\0\0\0\0\0\0\0\x51\xfe\0\x10application/json\x05utf-8".to_vec();
            bytes.extend_from_slice(b"\0\0\0\x0d\x04taskS\0\0\0\x03\xc3\xa9a\x02");
            bytes.push(priority);
            bytes.extend_from_slice(b"\x0496dc\x03rep");
            bytes
        };
        for priority in [0, 0xff] {
            let bytes = header(priority);
            let read = ContentHeader::parse(&bytes).unwrap();
            assert_eq!(read.content_type, Some("application/json"));
            assert_eq!(read.priority, Some(priority));
            assert_eq!((read.correlation_id, read.reply_to), (Some("96dc"), Some("rep")));
            let fields: Vec<_> = read
                .headers
                .unwrap()
                .texts()
                .map(|(name, _, text)| (name, text))
                .collect();
            assert_eq!(fields, [("task", Some("\u{e9}a"))]);
            for end in 0..bytes.len() {
                assert_eq!(ContentHeader::parse(&bytes[..end]), None);
            }
        }
        let mut broken = header(0);
        broken[15] = 0xff;
        assert_eq!(
            ContentHeader::parse(&broken),
            None,
            "a content type that is no text"
        );
    }
}
