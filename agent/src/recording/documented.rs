//! Holds docs/recordings.md to the code: its last part is made here.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;

use celeryscope_common::{Endpoint, Header, Idle, Kind, VERSION, flags};

use super::format::{HEAD, HEADER_LIMIT, Head, MAGIC, MARK, PAYLOAD_LIMIT, kind};
use super::header::{FORMAT, Meta};
use super::redact::names;

/// Scenario: docs/recordings.md beside the format as the code has it.
/// Guarantees: sizes, places, kinds and what stays in clear are these; the failure's message is the text to put there.
#[test]
fn the_documentation_is_true() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recordings.md");
    let page = std::fs::read_to_string(page).unwrap();
    let want = [numbers(), heads(), headers(), kinds(), clear()].join("\n");
    let (_, tables) = page.split_once("<!-- from the code: -->\n\n").unwrap();
    assert!(
        tables.trim() == want.trim(),
        "docs/recordings.md should end so:\n\n{want}"
    );
}

/// Scenario: a block's head of which every byte is another.
/// Guarantees: its parts are where the page's table says.
#[test]
fn heads_are_laid_out_as_documented() {
    let head = Head {
        kind: kind::STATE,
        len: 0x0002_0304,
        number: 0x0506_0708_090a_0b0c,
        crc: 0x0d0e_0f10,
    };
    let bytes = head.to_bytes("0123");
    let parts = [
        &MARK[..],
        &[kind::STATE],
        &head.len.to_le_bytes(),
        &head.number.to_le_bytes(),
        &head.crc.to_le_bytes(),
        &crc32fast::hash(&[b"0123", &bytes[..20]].concat()).to_le_bytes(),
    ];
    let mut at = 0;
    for (part, (place, size, _)) in parts.into_iter().zip(PLACES) {
        assert_eq!((at, part.len()), (place, size));
        assert_eq!(&bytes[at..at + size], part);
        at += size;
    }
    assert_eq!(at, HEAD);
    assert_eq!(Head::from_bytes(&bytes, "0123"), Some(head));
    assert_eq!(Head::from_bytes(&bytes, "0124"), None);
}

const PLACES: [(usize, usize, &str); 6] = [
    (0, 3, "mark"),
    (3, 1, "kind"),
    (4, 4, "length of the payload"),
    (8, 8, "number"),
    (16, 4, "CRC-32 of the payload"),
    (20, 4, "CRC-32 of the recording's id and of bytes 0 to 19"),
];

fn numbers() -> String {
    let mark: Vec<_> = MARK.iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = serde_json::to_value(Meta::default()).unwrap();
    let keys: Vec<_> = meta
        .as_object()
        .unwrap()
        .keys()
        .map(|key| format!("`{key}`"))
        .collect();
    let mut text = String::from("### Numbers\n\n| what | value |\n|---|---|\n");
    for (what, value) in [
        ("first line", format!("`{}`", MAGIC.escape_ascii())),
        ("`format`", FORMAT.to_string()),
        ("`record`", VERSION.to_string()),
        ("longest header line", format!("{HEADER_LIMIT} bytes")),
        ("keys of the header line", keys.join(", ")),
        ("mark", format!("`{}`", mark.join(" "))),
        ("a block's head", format!("{HEAD} bytes")),
        ("longest payload of a block", format!("{PAYLOAD_LIMIT} bytes")),
        ("a record's head", format!("{} bytes", Header::SIZE)),
        ("an endpoint", format!("{} bytes", Endpoint::SIZE)),
        ("what an Idle record says", format!("{} bytes", Idle::SIZE)),
    ] {
        _ = writeln!(text, "| {what} | {value} |");
    }
    text
}

fn heads() -> String {
    let mut text =
        String::from("### A block's head (little-endian)\n\n| byte | size | what |\n|---|---|---|\n");
    for (at, size, what) in PLACES {
        _ = writeln!(text, "| {at} | {size} | {what} |");
    }
    text.push_str("\n| kind | payload | what |\n|---|---|---|\n");
    for (kind, payload, what) in [
        (kind::RECORD, "a record", "a record as it came"),
        (kind::STATE, "a record", "what still holds of the part before"),
        (kind::END, "none", "the file was ended, not cut off"),
    ] {
        _ = writeln!(text, "| `{}` | {payload} | {what} |", char::from(kind));
    }
    text
}

fn headers() -> String {
    let mut text = String::from(
        "### A record's head (in the byte order of the header line)\n\n| byte | size | what |\n|---|---|---|\n",
    );
    for (at, size, what) in [
        (offset_of!(Header, kind), 2, "`kind`"),
        (offset_of!(Header, flags), 2, "`flags`"),
        (
            offset_of!(Header, len),
            4,
            "`len`: bytes of payload that follow the head",
        ),
        (
            offset_of!(Header, enter),
            8,
            "`enter`: when the call began, CLOCK_MONOTONIC in ns; of a read that was seen at its return alone, that",
        ),
        (offset_of!(Header, exit), 8, "`exit`: when it returned"),
        (offset_of!(Header, pid), 4, "`pid`: process"),
        (offset_of!(Header, tid), 4, "`tid`: thread"),
        (
            offset_of!(Header, conn),
            8,
            "`conn`: connection, or what the kind says",
        ),
        (
            offset_of!(Header, start),
            8,
            "`start`: where in the stream the transfer begins",
        ),
        (
            offset_of!(Header, at),
            4,
            "`at`: where in the transfer the payload begins",
        ),
        (offset_of!(Header, total), 4, "`total`: bytes of the transfer"),
    ] {
        _ = writeln!(text, "| {at} | {size} | {what} |");
    }
    text
}

fn kinds() -> String {
    let mut text = String::from("### Kinds of records\n\n| kind | name |\n|---|---|\n");
    for kind in (0..u16::MAX).filter_map(Kind::from_raw) {
        _ = writeln!(text, "| {} | {kind:?} |", kind as u16);
    }
    text.push_str("\n| flag | name |\n|---|---|\n");
    for (flag, name) in [(flags::LAST, "LAST"), (flags::MIDSTREAM, "MIDSTREAM")] {
        _ = writeln!(text, "| {flag} | {name} |");
    }
    text
}

fn clear() -> String {
    let list = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    format!(
        "### Whose values stay in clear\n\n\
         Of an envelope or a result: {}.\n\n\
         Of a message's headers: {}.\n\n\
         Of its properties and `delivery_info`: {}.\n",
        list(&names::TOP_CLEAR),
        list(&names::HEADERS),
        list(&names::PROPERTIES)
    )
}
