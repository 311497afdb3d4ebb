//! Documents in the forms that kombu gives them (`kombu/serialization.py`, `kombu/compression.py`), read as JSON.
//!
//! Task bodies of protocol 1, results and events may be in JSON, pickle, YAML or msgpack, and compressed besides. Whoever
//! reads them reads JSON. Nothing is unpickled: a pickle is walked, objects become what is known of them without their
//! classes. Documents are bounded: [`MOST`] bytes unpacked, [`DEEPEST`] levels, and what they become by repetition ([`room`]).
//! lzma and brotli are not read.

use std::borrow::Cow;
use std::io::Read;

mod msgpack;
mod pickle;
mod room;
mod yaml;

/// Bytes of an unpacked document, and of the texts of what it becomes.
pub const MOST: u64 = 1 << 20;
/// Levels of a document.
const DEEPEST: usize = 64;

/// How a document was written, as its message says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form<'a> {
    /// `content-type`; JSON where there is none.
    pub content_type: Option<&'a str>,
    /// The header `compression`.
    pub compression: Option<&'a str>,
}

/// Whether a body of this type can be read.
#[must_use]
pub fn is_readable(content_type: Option<&str>) -> bool {
    Serializer::of(content_type).is_some()
}

/// kombu's serializers.
enum Serializer {
    Json,
    Pickle,
    Msgpack,
    Yaml,
}

impl Serializer {
    fn of(content_type: Option<&str>) -> Option<Self> {
        Some(match content_type {
            None | Some("" | "application/json") => Self::Json,
            Some("application/x-python-serialize") => Self::Pickle,
            Some("application/x-msgpack") => Self::Msgpack,
            Some("application/x-yaml") => Self::Yaml,
            Some(_) => return None,
        })
    }
}

impl Form<'_> {
    /// Whether it is JSON as it stands.
    #[must_use]
    #[inline]
    pub fn is_json(&self) -> bool {
        self.compression.is_none() && matches!(self.content_type, None | Some("" | "application/json"))
    }

    /// The document as JSON; `None` where its form is not known, or it is too large, or not what it is said to be.
    #[must_use]
    #[inline]
    pub fn json<'b>(&self, bytes: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        if self.is_json() {
            return Some(Cow::Borrowed(bytes));
        }
        self.other(bytes)
    }

    /// Where it is something else than JSON as it stands.
    fn other<'b>(&self, bytes: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let Some(compression) = self.compression else {
            return self.plain(bytes);
        };
        let unpacked = unpack(compression, bytes)?;
        Some(Cow::Owned(self.plain(&unpacked)?.into_owned()))
    }

    fn plain<'b>(&self, bytes: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let value = match Serializer::of(self.content_type)? {
            Serializer::Json => return Some(Cow::Borrowed(bytes)),
            Serializer::Pickle => pickle::read(bytes)?,
            Serializer::Msgpack => msgpack::read(bytes)?,
            Serializer::Yaml => yaml::read(bytes)?,
        };
        serde_json::to_vec(&value).ok().map(Cow::Owned)
    }
}

/// A mapping that nothing says the form of (a result in a key/value backend), told by its first bytes.
#[must_use]
pub fn mapping(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let content_type = match bytes {
        [b'{', ..] => "application/json",
        [0x80, 2..=5, ..] => "application/x-python-serialize",
        [0x81..=0x8f | 0xde | 0xdf, ..] => "application/x-msgpack",
        [b'a'..=b'z', ..] => "application/x-yaml",
        _ => return None,
    };
    let form = Form {
        content_type: Some(content_type),
        compression: None,
    };
    form.json(bytes)
}

fn unpack(compression: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match compression {
        "application/x-gzip" => all_of(flate2::read::ZlibDecoder::new(bytes)),
        "application/x-bz2" => all_of(bzip2::read::BzDecoder::new(bytes)),
        "application/zstd" if zstd_window(bytes)? <= MOST => {
            all_of(ruzstd::decoding::StreamingDecoder::new(bytes).ok()?)
        }
        _ => None,
    }
}

/// The memory that a zstd frame's decoder takes at once, in bytes (RFC 8878 §3.1.1.1).
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = frame else {
        return None;
    };
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = *rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = 1 << (descriptor >> 6);
    let mut bytes = [0; 8];
    bytes
        .get_mut(..size)?
        .copy_from_slice(rest.get(dictionary_id..)?.get(..size)?);
    Some(u64::from_le_bytes(bytes) + if size == 2 { 256 } else { 0 })
}

fn all_of(reader: impl Read) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(MOST + 1).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() as u64 <= MOST).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"task": "t", "id": "1", "args": [1, "x"], "kwargs": {}}` by kombu 5.7's serializers and compressions.
    const FORMS: &[(&str, Option<&str>, &[u8])] = &[
        (
            "application/x-python-serialize",
            None,
            b"\x80\x02}q\x00(X\x04\x00\x00\x00taskq\x01X\x01\x00\x00\x00tq\x02X\x02\x00\x00\x00idq\x03X\x01\x00\x00\x001q\x04X\x04\x00\x00\x00argsq\x05]q\x06(K\x01X\x01\x00\x00\x00xq\x07eX\x06\x00\x00\x00kwargsq\x08}q\tu.",
        ),
        (
            "application/x-msgpack",
            None,
            b"\x84\xa4task\xa1t\xa2id\xa11\xa4args\x92\x01\xa1x\xa6kwargs\x80",
        ),
        (
            "application/x-yaml",
            None,
            b"args:\n- 1\n- x\nid: '1'\nkwargs: {}\ntask: t\n",
        ),
        (
            "application/json",
            Some("application/x-gzip"),
            b"x\x9c\xabV*I,\xceV\xb2RP*Q\xd2QP\xcaL\x011\x0dA\xcc\xc4\xa2\xf4b '\xda\x10\xc8\xaeP\x8a\x05\x92\xd9\xe5P\xb1\xea\xdaZ\x00\x9c\xad\x0f'",
        ),
        (
            "application/json",
            Some("application/x-bz2"),
            b"BZh91AY&SY\xb1\xca<\x97\x00\x00\x1a\x1b\x80P\x04 \x10\x00\x0a$\xa8\x1c\xca \x00TS&&A\x91\x82U?R~\xa84\xda'\x94=\xf6I\x0fN\xf1\xa2XR\xf0\x8b\xda\x104V&\x87\x85%\x0a\xc6\x97\xda\x07\xa1w$S\x85\x09\x0b\x1c\xa3\xc9p",
        ),
        (
            "application/json",
            Some("application/zstd"),
            b"(\xb5/\xfd 8\xa5\x01\x00\x94\x02{\x22task\x22: \x22t\x22, \x22id1args\x22: [1, \x22x\x22], \x22kw{}}\x03\x00n&\x03\xbbm\x95%",
        ),
    ];

    /// Scenario: one document in every form that kombu gives it.
    /// Guarantees: read as the same JSON, by what the message says and, uncompressed, by its first bytes.
    #[test]
    fn every_form() {
        let want = serde_json::json!({"task": "t", "id": "1", "args": [1, "x"], "kwargs": {}});
        let same = |json: Option<Cow<'_, [u8]>>| {
            let json = json.expect("a document");
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), want);
        };
        for (content_type, compression, bytes) in FORMS {
            let form = Form {
                content_type: Some(content_type),
                compression: *compression,
            };
            same(form.json(bytes));
            if compression.is_none() {
                same(mapping(bytes));
            }
        }
    }

    /// Scenario: every form cut at every byte, with every byte changed, and called by another form's name.
    /// Guarantees: no panic.
    #[test]
    fn cut_and_broken() {
        for (content_type, compression, bytes) in FORMS {
            for (other, ..) in FORMS {
                let form = Form {
                    content_type: Some(other),
                    compression: *compression,
                };
                let _ = form.json(bytes);
            }
            let form = Form {
                content_type: Some(content_type),
                compression: *compression,
            };
            for at in 0..bytes.len() {
                let _ = form.json(&bytes[..at]);
                let mut broken = bytes.to_vec();
                for value in [0, b'(', 0x7f, 0x80, 0xdd, 0xff] {
                    broken[at] = value;
                    let _ = form.json(&broken);
                }
            }
        }
    }

    /// Scenario: 100 MiB of zeros, compressed.
    /// Guarantees: given up after a MiB.
    #[test]
    fn bomb() {
        use std::io::Write;
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..100 {
            packed.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
        let form = Form {
            content_type: None,
            compression: Some("application/x-gzip"),
        };
        assert_eq!(form.json(&packed.finish().unwrap()), None);
    }
}
