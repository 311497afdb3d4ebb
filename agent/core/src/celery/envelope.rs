//! The JSON envelope that kombu's virtual transports (Redis) put around every message
//! (`kombu/transport/virtual/base.py`: `Message`, `prepare_message`).
//!
//! `{"body": …, "content-encoding": …, "content-type": …, "headers": {…}, "properties": {…}}`.

mod contiguous;

pub use contiguous::{Contiguous, EnvelopeError};

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
        self.body = Text::plain(body);
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
        self.correlation_id = Some(Text::plain(correlation_id));
        let Some(reply_to) = json.after(br#", "reply_to": ""#) else {
            return Ok(true);
        };
        self.reply_to = Some(Text::plain(reply_to));
        if json.passes(br#", "delivery_mode": 2, "delivery_info": "#) {
            if !json.null()? {
                self.delivery_info.read(json)?;
            }
            if let Some(tag) = json.after(br#", "priority": 0, "body_encoding": "base64", "delivery_tag": ""#)
            {
                self.priority = Some(0);
                self.body_encoding = Some(Text::plain("base64"));
                self.delivery_tag = Some(Text::plain(tag));
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
            self.exchange = Some(Text::plain(exchange));
            self.routing_key = json.after(br#", "routing_key": ""#).map(Text::plain);
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

#[cfg(test)]
mod tests;
