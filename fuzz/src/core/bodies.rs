//! What messages hold: envelopes, results, events, and bodies in every form that kombu gives them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use celeryscope_core::celery::content::{self, Content};
use celeryscope_core::celery::document::{self, Form};
use celeryscope_core::celery::envelope::Contiguous;
use celeryscope_core::celery::{ResultMeta, TraceParent, body, event, legacy};

/// Envelopes, results, events, bodies and contexts, whole and with a hole.
pub fn envelope(data: &[u8]) {
    _ = content::read(&Contiguous::whole(data), data.len() as u64, true, &|text| {
        text.into()
    });
    let (head, tail) = data.split_at(data.len() / 2);
    let len = data.len() as u64 + 1000;
    if let Ok(cut) = Contiguous::with_hole(head, tail, len)
        && let Content::Task(message) = content::read(&cut, len, false, &|text| text.into())
    {
        assert_eq!(
            message.rare().reprs,
            None,
            "arguments are not kept unless asked for"
        );
    }
    told(data);
    if let Ok(text) = std::str::from_utf8(data) {
        _ = TraceParent::parse(text);
        _ = TraceParent::parse_b3(text);
    }
}

const TYPES: [&str; 4] = [
    "application/x-python-serialize",
    "application/x-msgpack",
    "application/x-yaml",
    "application/json",
];

const COMPRESSIONS: [Option<&str>; 4] = [
    None,
    Some("application/x-gzip"),
    Some("application/x-bz2"),
    Some("application/zstd"),
];

/// The longest text that a document becomes, whatever it repeats: its bytes escaped, and the numbers and punctuation around.
const LONGEST: usize = 16 << 20;

/// Documents: the first byte says how the rest was serialized and compressed. What is read is JSON of bounded length; the
/// same document, packed, is read the same; and so it is in an envelope.
pub fn document(data: &[u8]) {
    let [form, bytes @ ..] = data else { return };
    let content_type = TYPES[usize::from(form & 3)];
    let compression = COMPRESSIONS[usize::from(form >> 2 & 3)];
    let read = |compression, bytes| {
        let content_type = Some(content_type);
        Form {
            content_type,
            compression,
        }
        .json(bytes)
    };
    let json = read(compression, bytes);
    if let Some(json) = &json {
        assert!(json.len() <= LONGEST, "{} bytes of {}", json.len(), bytes.len());
        if content_type != "application/json" {
            let value = serde_json::from_slice::<serde_json::Value>(json);
            assert!(value.is_ok(), "{value:?}");
        }
        told(json);
    }
    if compression.is_none() {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).expect("memory");
        let packed = packed.finish().expect("memory");
        assert_eq!(read(COMPRESSIONS[1], &packed), json, "packed");
    }
    _ = document::mapping(bytes);
    in_envelope(content_type, compression, bytes);
}

/// The document as the body of a message without a task's headers, where the body alone tells what it is.
fn in_envelope(content_type: &str, compression: Option<&str>, bytes: &[u8]) {
    let headers = compression.map_or_else(String::new, |name| format!(r#""compression": "{name}""#));
    let text = format!(
        r#"{{"body": "{}", "content-type": "{content_type}", "headers": {{{headers}}}, "properties": {{"correlation_id": "c", "body_encoding": "base64"}}}}"#,
        STANDARD.encode(bytes)
    );
    match content::read(
        &Contiguous::whole(text.as_bytes()),
        text.len() as u64,
        false,
        &|text| text.into(),
    ) {
        Content::Task(message) => assert_eq!(message.system, Some("redis")),
        Content::Reply { task_id, .. } => assert_eq!(task_id, "c"),
        Content::Other => {}
        content @ (Content::Events { .. } | Content::Malformed) => panic!("{content:?}"),
    }
}

/// All that JSON may be read as.
fn told(json: &[u8]) {
    _ = ResultMeta::parse(json);
    _ = event::parse(json);
    _ = legacy::read(json);
    _ = body::count_arguments(json);
}
