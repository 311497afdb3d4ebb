//! The JSON envelope that kombu's virtual transports (Redis) put around every message
//! (`kombu/transport/virtual/base.py`: `Message`, `prepare_message`).
//!
//! `{"body": …, "content-encoding": …, "content-type": …, "headers": {…}, "properties": {…}}`. The body comes first and
//! may be large, so the middle of a long envelope may be missing: the hole is accepted only where it provably lies inside
//! the body string, because then nothing else is affected by it.

use std::borrow::Cow;

use super::headers::Headers;
pub use super::json::Text;
use super::json::{Expected, NotThat, Reader};

/// A decoded envelope. Strings borrow from it where JSON allows.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// The body as it stands in the JSON: usually base64. Only its padding when it was not captured whole.
    pub body: Text<'a>,
    /// `content-type` of the body.
    pub content_type: Option<Text<'a>>,
    /// The task's headers.
    pub headers: Option<Headers<'a>>,
    /// Delivery properties.
    pub properties: Properties<'a>,
}

/// `properties` of an envelope.
#[derive(Debug, Default)]
pub struct Properties<'a> {
    /// Names the task's conversation; for replies of rpc:// the task.
    pub correlation_id: Option<Text<'a>>,
    /// Queue for results.
    pub reply_to: Option<Text<'a>>,
    /// Where the message goes.
    pub delivery_info: DeliveryInfo<'a>,
    /// Exact priority, 0 to 9.
    pub priority: Option<i64>,
    /// `base64` on Redis.
    pub body_encoding: Option<Text<'a>>,
    /// uuid4 of this message: its name in the unacked set.
    pub delivery_tag: Option<Text<'a>>,
}

/// `properties.delivery_info`.
#[derive(Debug, Default)]
pub struct DeliveryInfo<'a> {
    /// Exchange; empty for the default one.
    pub exchange: Option<Text<'a>>,
    /// Routing key.
    pub routing_key: Option<Text<'a>>,
    /// Set when an unacked message was put back.
    pub redelivered: Option<bool>,
}

/// Why bytes are not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not a JSON object, or a member has the wrong type.
    #[error("not a kombu envelope")]
    Malformed,
    /// The missing middle is not inside the body.
    #[error("the part that was not captured is not inside the body")]
    Hole,
}

/// The captured bytes of an envelope, made contiguous.
#[derive(Debug)]
pub struct Contiguous<'a> {
    json: Cow<'a, [u8]>,
    /// Length of the body string where it was cut out of `json`.
    cut_body: Option<u64>,
}

impl<'a> Contiguous<'a> {
    /// A message that was captured whole.
    #[must_use]
    pub fn whole(json: &'a [u8]) -> Self {
        Self {
            json: Cow::Borrowed(json),
            cut_body: None,
        }
    }

    /// A message of `len` bytes of which only the two ends were captured.
    ///
    /// # Errors
    /// [`EnvelopeError::Hole`] when the head does not end, or the tail does not begin, inside the body string.
    pub fn with_hole(head: &[u8], tail: &[u8], len: u64) -> Result<Self, EnvelopeError> {
        const OPEN: &[u8] = br#"{"body": ""#;
        const OPEN_COMPACT: &[u8] = br#"{"body":""#;
        let body = head
            .strip_prefix(OPEN)
            .or_else(|| head.strip_prefix(OPEN_COMPACT))
            .ok_or(EnvelopeError::Hole)?;
        if closing_quote(body).is_some() {
            return Err(EnvelopeError::Hole);
        }
        let close = closing_quote(tail).ok_or(EnvelopeError::Hole)?;
        let after = tail.get(close..).unwrap_or_default();
        let around = (head.len() - body.len()).saturating_add(after.len());
        // base64 padding stays, so that the decoded size is exact.
        let padding = tail
            .iter()
            .take(close)
            .rev()
            .take(2)
            .take_while(|b| **b == b'=')
            .count();
        let mut json = Vec::with_capacity(around.saturating_add(padding));
        json.extend_from_slice(OPEN);
        json.extend(std::iter::repeat_n(b'=', padding));
        json.extend_from_slice(after);
        Ok(Self {
            json: Cow::Owned(json),
            cut_body: Some(len.saturating_sub(around as u64)),
        })
    }

    /// Decodes the envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when it is not one.
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        let mut envelope = Envelope::default();
        self.read(&mut envelope)?;
        Ok(envelope)
    }

    /// The same into an empty one: it is large to be moved.
    pub(super) fn read<'b>(&'b self, envelope: &mut Envelope<'b>) -> Result<(), EnvelopeError> {
        envelope
            .read(&self.json)
            .map_err(|NotThat| EnvelopeError::Malformed)
    }

    /// Length of the body string, where the body itself was not captured whole.
    #[must_use]
    pub fn cut_body(&self) -> Option<u64> {
        self.cut_body
    }
}

/// Members of an envelope.
#[derive(Clone, Copy)]
enum Member {
    Body,
    ContentEncoding,
    ContentType,
    Headers,
    Properties,
}

impl<'a> Envelope<'a> {
    const MEMBERS: Expected<Member> = Expected::new(&[
        (r#""body": "#, Member::Body),
        (r#""content-encoding": "#, Member::ContentEncoding),
        (r#""content-type": "#, Member::ContentType),
        (r#""headers": "#, Member::Headers),
        (r#""properties": "#, Member::Properties),
    ]);

    fn read(&mut self, json: &'a [u8]) -> Result<(), NotThat> {
        let mut reader = Reader::of(json)?;
        let begun = self.usual(&mut reader)?;
        reader.members(begun, Self::MEMBERS, |member, value| {
            match member {
                Member::Body => self.body = value.string()?,
                Member::ContentEncoding => value.skip()?,
                Member::ContentType => self.content_type = value.text()?,
                Member::Headers => self.headers(value)?,
                Member::Properties => self.properties.read(value)?,
            }
            Ok(())
        })?;
        reader.end()
    }

    /// Members that are what they nearly always are, as far as that goes; says whether there are any.
    fn usual(&mut self, json: &mut Reader<'a>) -> Result<bool, NotThat> {
        let Some(body) = json.after_long(br#"{"body": ""#) else {
            return Ok(false);
        };
        self.body = body;
        if json.passes(br#", "content-encoding": "utf-8", "content-type": "application/json""#) {
            self.content_type = Some(Text::plain("application/json"));
            if json.passes(br#", "headers": "#) {
                self.headers(json)?;
                if json.passes(br#", "properties": "#) {
                    self.properties.read(json)?;
                }
            }
        }
        Ok(true)
    }

    fn headers(&mut self, json: &mut Reader<'a>) -> Result<(), NotThat> {
        self.headers = None;
        if !json.null()? {
            Headers::read(json, self.headers.insert(Headers::default()))?;
        }
        Ok(())
    }
}

/// Members of `properties`.
#[derive(Clone, Copy)]
enum Property {
    CorrelationId,
    ReplyTo,
    DeliveryMode,
    DeliveryInfo,
    Priority,
    BodyEncoding,
    DeliveryTag,
}

impl<'a> Properties<'a> {
    const MEMBERS: Expected<Property> = Expected::new(&[
        (r#""correlation_id": "#, Property::CorrelationId),
        (r#""reply_to": "#, Property::ReplyTo),
        (r#""delivery_mode": "#, Property::DeliveryMode),
        (r#""delivery_info": "#, Property::DeliveryInfo),
        (r#""priority": "#, Property::Priority),
        (r#""body_encoding": "#, Property::BodyEncoding),
        (r#""delivery_tag": "#, Property::DeliveryTag),
    ]);

    fn read(&mut self, json: &mut Reader<'a>) -> Result<(), NotThat> {
        *self = Self::default();
        let begun = self.usual(json)?;
        json.members(begun, Self::MEMBERS, |property, value| {
            match property {
                Property::CorrelationId => self.correlation_id = value.text()?,
                Property::ReplyTo => self.reply_to = value.text()?,
                Property::DeliveryMode => value.skip()?,
                Property::DeliveryInfo if value.null()? => {}
                Property::DeliveryInfo => self.delivery_info.read(value)?,
                Property::Priority => self.priority = value.number()?,
                Property::BodyEncoding => self.body_encoding = value.text()?,
                Property::DeliveryTag => self.delivery_tag = value.text()?,
            }
            Ok(())
        })
    }

    /// As [`Envelope::usual`].
    fn usual(&mut self, json: &mut Reader<'a>) -> Result<bool, NotThat> {
        let Some(correlation_id) = json.after(br#"{"correlation_id": ""#) else {
            return Ok(false);
        };
        self.correlation_id = Some(correlation_id);
        let Some(reply_to) = json.after(br#", "reply_to": ""#) else {
            return Ok(true);
        };
        self.reply_to = Some(reply_to);
        if json.passes(br#", "delivery_mode": 2, "delivery_info": "#) {
            if !json.null()? {
                self.delivery_info.read(json)?;
            }
            if let Some(tag) = json.after(br#", "priority": 0, "body_encoding": "base64", "delivery_tag": ""#)
            {
                self.priority = Some(0);
                self.body_encoding = Some(Text::plain("base64"));
                self.delivery_tag = Some(tag);
            }
        }
        Ok(true)
    }
}

/// Members of `delivery_info`.
#[derive(Clone, Copy)]
enum Delivery {
    Exchange,
    RoutingKey,
    Redelivered,
}

impl<'a> DeliveryInfo<'a> {
    const MEMBERS: Expected<Delivery> = Expected::new(&[
        (r#""exchange": "#, Delivery::Exchange),
        (r#""routing_key": "#, Delivery::RoutingKey),
        (r#""redelivered": "#, Delivery::Redelivered),
    ]);

    fn read(&mut self, json: &mut Reader<'a>) -> Result<(), NotThat> {
        *self = Self::default();
        let mut begun = false;
        if let Some(exchange) = json.after(br#"{"exchange": ""#) {
            begun = true;
            self.exchange = Some(exchange);
            self.routing_key = json.after(br#", "routing_key": ""#);
        }
        json.members(begun, Self::MEMBERS, |member, value| {
            match member {
                Delivery::Exchange => self.exchange = value.text()?,
                Delivery::RoutingKey => self.routing_key = value.text()?,
                Delivery::Redelivered => self.redelivered = value.bool()?,
            }
            Ok(())
        })
    }
}

/// Position of the first `"` that no backslash escapes. A run of backslashes at the very start is of unknown length (its
/// beginning may be missing), so a quote right behind one is refused.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let start = text.iter().take_while(|b| **b == b'\\').count();
    if start > 0 && text.get(start) == Some(&b'"') {
        return None;
    }
    let mut at = start;
    loop {
        let step = memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        at += step;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
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
}
