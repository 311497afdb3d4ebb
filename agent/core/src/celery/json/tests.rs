use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Gives `take` each member of an object.
fn object<'a>(
    json: &'a [u8],
    mut take: impl FnMut(&str, &mut Reader<'a>) -> Result<(), NotThat>,
) -> Result<(), NotThat> {
    let mut reader = Reader::of(json)?;
    reader.separated(b'{', b'}', |value| {
        let name = value.name()?;
        take(&name.get(), value)
    })?;
    reader.end()
}

/// The same JSON with another blank behind each colon, as nobody writes it.
pub(in super::super) fn spaced(json: &[u8]) -> Vec<u8> {
    let mut spaced = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for byte in json {
        spaced.push(*byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b':' if !quoted => spaced.push(b' '),
            _ => {}
        }
    }
    spaced
}

fn read(json: &[u8]) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    object(json, |name, value| {
        all.push((name.to_owned(), value.raw()?.to_owned()));
        Ok(())
    })
    .ok()?;
    Some(all)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Scenario: any object, compact and pretty.
    /// Guarantees: each member is found, under its name, with its value.
    #[test]
    fn what_serde_writes_is_read(map in prop::collection::btree_map(any::<String>(), values(), 0..8), pretty: bool) {
        let object = Value::Object(map.clone().into_iter().collect());
        let json = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
        let all = read(&json.unwrap()).expect("an object");
        prop_assert_eq!(all.len(), map.len());
        for (name, value) in all {
            let value: Value = serde_json::from_str(&value).unwrap();
            prop_assert_eq!(Some(&value), map.get(&name));
        }
    }

    /// Scenario: an object that is cut, or of which a byte is another.
    /// Guarantees: what serde reads is read alike; nothing panics.
    #[test]
    fn what_is_broken_is_refused(map in prop::collection::btree_map(any::<String>(), values(), 0..4), at: prop::sample::Index, byte: Option<u8>) {
        let object = Value::Object(map.into_iter().collect());
        let mut json = serde_json::to_vec(&object).unwrap();
        let at = at.index(json.len());
        match byte {
            Some(byte) => json[at] = byte,
            None => json.truncate(at),
        }
        let theirs: Option<serde_json::Map<String, Value>> = serde_json::from_slice(&json).ok();
        if let Some(theirs) = theirs {
            let ours = read(&json).expect("what serde reads");
            for (name, value) in ours.iter().rev().take(1) {
                let value: Value = serde_json::from_str(value).unwrap();
                prop_assert_eq!(Some(&value), theirs.get(name));
            }
        }
        if byte.is_none() {
            prop_assert!(read(&json).is_none(), "a cut object is none");
        }
    }
}

/// Scenario: structures that are no JSON object, among them some that only a bracket or a comma tells apart.
/// Guarantees: refused, however deep.
#[test]
fn no_objects() {
    let deep = format!(r#"{{"a": {}}}"#, "[".repeat(100_000));
    let level = |n: usize| format!(r#"{{"a": {}{}}}"#, "[".repeat(n), "]".repeat(n));
    for bad in [
        "",
        "1",
        "[]",
        "{",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":[1}"#,
        r#"{"a":{]}"#,
        r#"{"a":nul}"#,
        r#"{"a":1}x"#,
        r#"{a:1}"#,
        &deep,
        &level(129),
    ] {
        assert_eq!(read(bad.as_bytes()), None, "{}", &bad[..bad.len().min(40)]);
    }
    assert!(read(level(128).as_bytes()).is_some());
}

/// Scenario: members in the order in which they are expected and in another, twice, without blanks, with escapes in the
/// name, and others among them.
/// Guarantees: each expected one is given with its value, in the order in which they stand.
#[test]
fn expected_members() {
    const NAMES: Expected<u8> = Expected::new(&[(r#""one": "#, 1), (r#""two": "#, 2), (r#""three": "#, 3)]);
    let given = |json: &str| {
        let mut all = Vec::new();
        let mut reader = Reader::of(json.as_bytes())?;
        reader.members(false, NAMES, |name, value| {
            all.push((name, value.number::<u32>()?.unwrap_or(0)));
            Ok(())
        })?;
        reader.end().map(|()| all)
    };
    assert_eq!(
        given(r#"{"one": 7, "two": 8, "three": 9}"#),
        Ok(vec![(1, 7), (2, 8), (3, 9)])
    );
    assert_eq!(
        given(r#"{"three":9,"on":0,"one":7,"ones":{"two":1}}"#),
        Ok(vec![(3, 9), (1, 7)])
    );
    assert_eq!(
        given(r#"{"one": 1, "one": 2, "\u0074wo": 3}"#),
        Ok(vec![(1, 1), (1, 2), (2, 3)])
    );
    assert_eq!(given(r#"{"one": "1"}"#), Err(NotThat));
}

/// Scenario: arrays, objects, null, and others.
/// Guarantees: what stands in them is counted, at their own level.
#[test]
fn counts() {
    let count = |json: &str| Reader::of(json.as_bytes())?.count();
    assert_eq!(count(r#"[1, [2, 3], {"a": 4}]"#), Ok(3));
    assert_eq!(count(r#"{"a": [1, 2], "b":{}}"#), Ok(2));
    assert_eq!((count("[]"), count("{}"), count("null")), (Ok(0), Ok(0), Ok(0)));
    for bad in ["1", "\"a\"", "[1,]", "{1}", "[1", "nul"] {
        assert_eq!(count(bad), Err(NotThat), "{bad}");
    }
}

/// Scenario: values of each type, asked for as each type.
/// Guarantees: each is what it is, null is nothing, and nothing is taken for another type.
#[test]
fn types() {
    let json = br#"{"s": "a\u00e9\"", "n": 7, "f": 1.5, "b": true, "z": null, "o": {"s": "x"}, "l": []}"#;
    object(json, |name, value| {
        let again = || Reader {
            at: value.at,
            ..Reader::of(json).unwrap()
        };
        let text = again()
            .text()
            .map(|text| text.map(|text| text.get().into_owned()));
        assert_eq!(text.is_ok(), matches!(name, "s" | "z"), "{name:?}");
        assert_eq!(
            again().number::<u32>().is_ok(),
            matches!(name, "n" | "z"),
            "{name:?}"
        );
        assert_eq!(again().bool().is_ok(), matches!(name, "b" | "z"), "{name:?}");
        assert_eq!(
            again()
                .members(false, Expected::<()>::new(&[]), |(), value| value.skip())
                .is_ok(),
            name == "o",
            "{name:?}"
        );
        if name == "s" {
            assert_eq!(text, Ok(Some("aé\"".to_owned())));
        }
        value.skip()
    })
    .unwrap();
}

proptest! {
    /// Scenario: any bytes, many of them quotes and backslashes, of any length.
    /// Guarantees: the first quote or backslash is found where it is.
    #[test]
    fn stops(text in prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')], 0..100)) {
        let first = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        prop_assert_eq!(usual::stop(&text), first);
    }
}

/// Scenario: strings of a uuid's length, each byte in each place being any character; shorter and longer ones.
/// Guarantees: what has a quote or a backslash is not taken for one string; everything else is read as it stands.
#[test]
fn strings_as_long_as_a_uuid() {
    const UUID: &str = "d5706acd-ab86-4109-931d-a5e9e871cd92";
    for at in 0..UUID.len() {
        for byte in 1..0x80_u8 {
            let mut text = UUID.to_owned();
            text.replace_range(at..=at, char::from(byte).encode_utf8(&mut [0; 4]));
            let json = format!(r#"{{"id": "{text}", "#);
            let mut reader = Reader::of_text(&json);
            let want = match byte {
                b'"' => Some(&text[..at]),
                b'\\' => None,
                _ => Some(&text[..]),
            };
            assert_eq!(reader.after(br#"{"id": ""#), want, "{json}");
        }
    }
    for text in [
        "",
        "a",
        &UUID[1..],
        &format!("{UUID}0"),
        &UUID.repeat(3),
        &"é".repeat(18),
    ] {
        let json = format!(r#"{{"id": "{text}", "#);
        for long in [false, true] {
            let mut reader = Reader::of_text(&json);
            let begin = br#"{"id": ""#;
            let read = if long {
                reader.after_long(begin)
            } else {
                reader.after(begin)
            };
            assert_eq!(read, Some(text));
            assert!(reader.passes(b", ") && reader.end().is_ok());
        }
    }
}

/// Scenario: what usually comes, something else, a value of another kind, and a string without an end.
/// Guarantees: either all of it is stepped over, or nothing.
#[test]
fn all_or_nothing() {
    for json in [
        r#", "a": 1"#,
        r#", "b": "x"#,
        r#", "b": "x\""#,
        r#", "b":"x""#,
        r#", "b": nul"#,
    ] {
        let mut reader = Reader::of_text(json);
        assert_eq!(reader.after(br#", "b": ""#), None, "{json}");
        assert_eq!(reader.after_long(br#", "b": ""#), None, "{json}");
        assert_eq!(reader.after_or_null(br#", "b": "#), None, "{json}");
        assert_eq!((reader.passes(b"null"), reader.at), (false, 0), "{json}");
    }
    let given = |json| {
        let mut reader = Reader::of_text(json);
        (reader.after_or_null(br#", "b": "#), reader.at)
    };
    assert_eq!(given(r#", "b": null}"#), (Some(None), 11));
    assert_eq!(given(r#", "b": "x"}"#), (Some(Some("x")), 10));
}
