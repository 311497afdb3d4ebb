//! JSON in one pass: what the envelopes and headers of every task are read with, several times a task.
//!
//! Strings are found by their closing quote and stepped over, nothing is built, and a value is looked at only when somebody asks. Of what is
//! stepped over the structure is checked (quotes, brackets) and not the spelling of numbers. Of members that are there twice the last
//! counts, as for the `json` of Python that reads them in the worker. No recursion but that of the callers, who know what they look for.

use std::borrow::Cow;

use super::envelope::Text;

/// Deepest nesting that is stepped over; one bit each tells objects from arrays.
const DEPTH: u32 = 128;

/// A string up to this length is looked through without a search's start-up.
const SHORT: usize = 64;

/// It is not JSON, or not of the type that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotThat;

/// Gives `take` the name of each member of the object that `json` is, and the value for it to read, or to step over.
///
/// # Errors
/// It is no object, or `take` says so.
pub(super) fn object<'a>(
    json: &'a [u8],
    take: impl FnMut(&str, &mut Reader<'a>) -> Result<(), NotThat>,
) -> Result<(), NotThat> {
    let mut reader = Reader(std::str::from_utf8(json).map_err(|_| NotThat)?);
    reader.members(take)?;
    if reader.peek().is_ok() {
        Err(NotThat)
    } else {
        Ok(())
    }
}

/// At a value; each method reads it and leaves what follows.
pub(super) struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    /// An object: gives `take` the name of each member, and its value to read or step over.
    pub(super) fn members(
        &mut self,
        mut take: impl FnMut(&str, &mut Self) -> Result<(), NotThat>,
    ) -> Result<(), NotThat> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.step(1);
            return Ok(());
        }
        loop {
            let (quoted, escaped) = self.quoted()?;
            self.expect(b':')?;
            if escaped {
                take(plain(quoted, true)?.as_str(), self)?;
            } else {
                take(inside(quoted)?, self)?;
            }
            match self.peek()? {
                b',' => self.step(1),
                b'}' => {
                    self.step(1);
                    return Ok(());
                }
                _ => return Err(NotThat),
            }
        }
    }

    /// A string.
    pub(super) fn string(&mut self) -> Result<Text<'a>, NotThat> {
        let (quoted, escaped) = self.quoted()?;
        plain(quoted, escaped)
    }

    /// A string, or `None` for null.
    pub(super) fn text(&mut self) -> Result<Option<Text<'a>>, NotThat> {
        if self.null()? {
            return Ok(None);
        }
        self.string().map(Some)
    }

    /// A whole number, or `None` for null.
    pub(super) fn number<N: std::str::FromStr>(&mut self) -> Result<Option<N>, NotThat> {
        if self.null()? {
            return Ok(None);
        }
        self.scalar()?.parse().map(Some).map_err(|_| NotThat)
    }

    /// True or false, or `None` for null.
    pub(super) fn bool(&mut self) -> Result<Option<bool>, NotThat> {
        match self.scalar()? {
            "null" => Ok(None),
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(NotThat),
        }
    }

    /// Whether the value is null; only then it is read.
    pub(super) fn null(&mut self) -> Result<bool, NotThat> {
        let null = self.peek()? == b'n';
        if null && self.scalar()? != "null" {
            return Err(NotThat);
        }
        Ok(null)
    }

    /// Any value, as it stands.
    pub(super) fn raw(&mut self) -> Result<&'a str, NotThat> {
        match self.peek()? {
            b'"' => self.quoted().map(|(quoted, _)| quoted),
            b'{' | b'[' => self.nested(),
            _ => self.scalar(),
        }
    }

    /// Steps over any value.
    pub(super) fn skip(&mut self) -> Result<(), NotThat> {
        self.raw().map(|_| ())
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Result<u8, NotThat> {
        loop {
            match self.0.as_bytes().first() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.step(1),
                Some(byte) => return Ok(*byte),
                None => return Err(NotThat),
            }
        }
    }

    fn step(&mut self, len: usize) {
        self.0 = self.0.get(len..).unwrap_or_default();
    }

    fn take(&mut self, len: usize) -> Result<&'a str, NotThat> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(NotThat)?;
        self.0 = rest;
        Ok(taken)
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotThat> {
        if self.peek()? != byte {
            return Err(NotThat);
        }
        self.step(1);
        Ok(())
    }

    /// A string with its quotes, and whether it has escapes.
    fn quoted(&mut self) -> Result<(&'a str, bool), NotThat> {
        if self.peek()? != b'"' {
            return Err(NotThat);
        }
        let (len, escaped) = string_len(self.0.as_bytes()).ok_or(NotThat)?;
        Ok((self.take(len)?, escaped))
    }

    fn scalar(&mut self) -> Result<&'a str, NotThat> {
        self.peek()?;
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        let len = self
            .0
            .bytes()
            .position(|byte| ends(&byte))
            .unwrap_or(self.0.len());
        let scalar = self.take(len)?;
        let number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let known = matches!(scalar, "null" | "true" | "false")
            || (scalar.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && scalar.bytes().all(|byte| number(&byte)))
            // Python writes and reads these.
            || matches!(scalar, "NaN" | "Infinity" | "-Infinity");
        if known { Ok(scalar) } else { Err(NotThat) }
    }

    /// An object or an array, from its opening bracket on. That its members are separated as they should be is for those to find out
    /// who read them.
    fn nested(&mut self) -> Result<&'a str, NotThat> {
        let whole = self.0.as_bytes();
        // Of each level whether it is an object; the innermost is the lowest bit.
        let (mut objects, mut depth, mut at) = (0_u128, 0_u32, 0_usize);
        loop {
            match *whole.get(at).ok_or(NotThat)? {
                b'"' => {
                    at += string_len(whole.get(at..).unwrap_or_default()).ok_or(NotThat)?.0;
                    continue;
                }
                open @ (b'{' | b'[') => {
                    if depth == DEPTH {
                        return Err(NotThat);
                    }
                    depth += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                }
                close @ (b'}' | b']') => {
                    if (objects & 1 == 1) != (close == b'}') {
                        return Err(NotThat);
                    }
                    depth -= 1;
                    objects >>= 1;
                    if depth == 0 {
                        return self.take(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

fn inside(quoted: &str) -> Result<&str, NotThat> {
    quoted.get(1..quoted.len().saturating_sub(1)).ok_or(NotThat)
}

/// What a string with its quotes says.
fn plain(quoted: &str, escaped: bool) -> Result<Text<'_>, NotThat> {
    let text = if escaped {
        serde_json::from_str(quoted)
            .map(Cow::Owned)
            .map_err(|_| NotThat)?
    } else {
        Cow::Borrowed(inside(quoted)?)
    };
    Ok(Text(text))
}

/// Length of the string at the front of `json`, its quotes included, and whether it has escapes.
fn string_len(json: &[u8]) -> Option<(usize, bool)> {
    let mut at = 1 + special(json.get(1..)?)?;
    let mut escaped = false;
    while json.get(at) == Some(&b'\\') {
        escaped = true;
        at += 2;
        at += special(json.get(at..)?)?;
    }
    Some((at + 1, escaped))
}

/// Where the first quote or backslash is.
fn special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    // Nearly all are short: to start a search by wide steps would cost more than to find their end.
    let (eights, _) = text.as_chunks::<8>();
    let mut at = 0;
    for eight in eights.iter().take(SHORT / 8) {
        let eight = u64::from_le_bytes(*eight);
        // A byte that is zero borrows; the lowest that did is one that was.
        let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
        let found = (zero(eight ^ QUOTES) | zero(eight ^ BACKSLASHES)) & (ONES << 7);
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    Some(at + memchr::memchr2(b'"', b'\\', text.get(at..)?)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

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

    /// Scenario: values of each type, asked for as each type.
    /// Guarantees: each is what it is, null is nothing, and nothing is taken for another type.
    #[test]
    fn types() {
        let json = br#"{"s": "a\u00e9\"", "n": 7, "f": 1.5, "b": true, "z": null, "o": {"s": "x"}, "l": []}"#;
        object(json, |name, value| {
            let again = || Reader(value.0);
            let text = again()
                .text()
                .map(|text| text.map(|text| text.as_str().to_owned()));
            assert_eq!(text.is_ok(), matches!(name, "s" | "z"), "{name:?}");
            assert_eq!(
                again().number::<u32>().is_ok(),
                matches!(name, "n" | "z"),
                "{name:?}"
            );
            assert_eq!(again().bool().is_ok(), matches!(name, "b" | "z"), "{name:?}");
            assert_eq!(
                again().members(|_, value| value.skip()).is_ok(),
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
}
