use super::*;

const TAIL: &str = r#"QUJD", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"task": "t", "id": "1"}, "properties": {"delivery_tag": "d"}}"#;

/// Scenario: a large message of which only head and tail were captured.
/// Guarantees: headers and properties are read, and the body's length is exact.
#[test]
fn hole_in_the_body() {
    let head = br#"{"body": "QUJDQUJD"#;
    let len = (head.len() + 1000 + TAIL.len()) as u64;
    let joined = Contiguous::with_hole(head, TAIL.as_bytes(), len).unwrap();
    let envelope = joined.envelope().unwrap();
    assert_eq!(envelope.headers.unwrap().id.unwrap().get(), "1");
    assert_eq!(envelope.properties.delivery_tag.unwrap().get(), "d");
    assert_eq!(joined.cut_body(), Some(8 + 1000 + 4));
}

/// Scenario: the hole swallows the end of the body, or begins behind it.
/// Guarantees: refused, since members would be missing; nothing is guessed.
#[test]
fn hole_elsewhere() {
    let bad = |head: &[u8], tail: &[u8]| Contiguous::with_hole(head, tail, 1 << 20).unwrap_err();
    assert_eq!(bad(br#"{"headers": {"#, TAIL.as_bytes()), EnvelopeError::Hole);
    assert_eq!(
        bad(br#"{"body": "QUJD", "content"#, TAIL.as_bytes()),
        EnvelopeError::Hole
    );
    assert_eq!(bad(br#"{"body": "QUJD"#, b"no quote at all"), EnvelopeError::Hole);
    assert_eq!(
        bad(br#"{"body": "QUJD"#, br#"\", "headers": {}}"#),
        EnvelopeError::Hole
    );
}

/// Scenario: an escaped quote inside the part of a plain-text body that was captured.
/// Guarantees: only the quote that really ends the body ends it.
#[test]
fn escaped_quotes() {
    let tail = br#"a\"b\\", "headers": {"id": "2"}}"#;
    let joined = Contiguous::with_hole(br#"{"body": "x"#, tail, 500).unwrap();
    let headers = joined.envelope().unwrap().headers.unwrap();
    assert_eq!(headers.id.unwrap().get(), "2");
}

/// Scenario: JSON that is no envelope, or not JSON.
/// Guarantees: an error, no panic, however deep it nests.
#[test]
fn not_an_envelope() {
    let deep = "[".repeat(100_000);
    for bad in [
        "",
        "[]",
        "1",
        r#"{"body": 5}"#,
        r#"{"properties": 1}"#,
        deep.as_str(),
    ] {
        let result = Contiguous::whole(bad.as_bytes());
        assert_eq!(
            result.envelope().map(|_| ()),
            Err(EnvelopeError::Malformed),
            "{}",
            &bad[..bad.len().min(40)]
        );
    }
}
