//! Content: what a method announced, the frames that follow it, and the message that they make.

use std::borrow::Cow;

use crate::celery::document;
use crate::time::Mono;
use crate::wire::amqp::{ContentHeader, Frame, FrameKind};
use crate::wire::resp::Item;

/// What a method announced: content that follows.
#[derive(Clone, Debug)]
pub(super) struct Announced<'a> {
    pub(super) exchange: Cow<'a, str>,
    pub(super) routing_key: Cow<'a, str>,
    /// Publishes: the number under which the broker will confirm it.
    pub(super) confirm: Option<u64>,
    /// Deliveries: number, whether it was delivered before, and from which consumer.
    pub(super) delivery: Option<(u64, bool, Cow<'a, str>)>,
    /// When the call that moved its first byte began.
    pub(super) first: Mono,
}

impl Announced<'_> {
    fn into_owned(self) -> Announced<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Announced {
            exchange: own(self.exchange),
            routing_key: own(self.routing_key),
            delivery: self
                .delivery
                .map(|(tag, redelivered, consumer)| (tag, redelivered, own(consumer))),
            ..self
        }
    }
}

/// A message, complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) announced: &'a Announced<'a>,
    /// Payload of the header frame.
    pub(super) header: &'a [u8],
    /// The body, unless it is larger than what is kept or says nothing.
    pub(super) body: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// One that came all at once, its body no longer than what is kept.
    pub(super) fn whole(announced: &'a Announced<'a>, header: &'a [u8], body: &'a [u8]) -> Self {
        Self {
            announced,
            header,
            body: is_of_use(header).then_some(body),
        }
    }
}

/// A message whose frames are coming in.
#[derive(Debug)]
pub(super) struct Content {
    announced: Announced<'static>,
    /// Payload of the header frame; empty until it came.
    header: Vec<u8>,
    /// The body so far, unless it is larger than what is kept or says nothing.
    body: Option<Vec<u8>>,
    /// Bytes of body still to come; unknown before the header.
    left: Option<u64>,
}

impl Content {
    pub(super) fn new(announced: Announced<'_>) -> Self {
        Self {
            announced: announced.into_owned(),
            header: Vec::new(),
            body: None,
            left: None,
        }
    }

    /// The message, when it is complete.
    pub(super) fn message(&self) -> Message<'_> {
        Message {
            announced: &self.announced,
            header: &self.header,
            body: self.body.as_deref(),
        }
    }

    /// Bytes of memory behind it.
    pub(super) fn held(&self) -> usize {
        let body = self.body.as_ref().map_or(0, Vec::capacity);
        self.header.capacity().saturating_add(body)
    }

    /// Takes a header or body frame. `Some(true)`: the message is complete; `None`: the frame does not belong.
    pub(super) fn add(&mut self, item: &Item<Frame<'_>>, keep: usize) -> Option<bool> {
        let frame = &item.value;
        match (frame.kind, self.left) {
            (FrameKind::Header, None) => {
                let header = frame.whole()?;
                let size = ContentHeader::body_size(header)?;
                self.header = header.to_vec();
                self.left = Some(size);
                self.body = (size <= keep as u64 && is_of_use(header)).then(Vec::new);
                Some(size == 0)
            }
            (FrameKind::Body, Some(left)) => {
                let left = left.checked_sub(u64::from(frame.len))?;
                self.left = Some(left);
                self.body = match (self.body.take(), frame.whole()) {
                    (Some(mut body), Some(more)) => {
                        body.extend_from_slice(more);
                        Some(body)
                    }
                    _ => None,
                };
                Some(left == 0)
            }
            _ => None,
        }
    }
}

/// Whether a body is of a kind that can be read.
fn is_of_use(header: &[u8]) -> bool {
    ContentHeader::content_type(header).is_some_and(document::is_readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: FrameKind, payload: &[u8]) -> Item<Frame<'static>> {
        let mut decoder = crate::wire::amqp::FrameDecoder::new(&crate::Limits::default());
        let mut bytes = vec![if kind == FrameKind::Header { 2 } else { 3 }, 0, 1];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xce);
        let mut segment = crate::stream::Segment {
            data: &bytes,
            begins: true,
            call: crate::stream::Call::default(),
        };
        let frame = decoder.next(&mut segment).expect("a frame");
        frame.map(Frame::into_owned)
    }

    /// Scenario: contents of JSON, of no type, of pickle, of a picture, and of JSON beyond the limit, each complete.
    /// Guarantees: only a body that may be of use is kept.
    #[test]
    fn bodies_of_use() {
        let kept = |content_type: &str, body: &[u8]| {
            let announced = Announced {
                exchange: "".into(),
                routing_key: "".into(),
                confirm: None,
                delivery: None,
                first: Mono(0),
            };
            let mut header = vec![0, 60, 0, 0];
            header.extend((body.len() as u64).to_be_bytes());
            header.extend([0x80, 0, content_type.len() as u8]);
            header.extend(content_type.bytes());
            let mut content = Content::new(announced);
            assert_eq!(content.add(&item(FrameKind::Header, &header), 64), Some(false));
            assert_eq!(content.add(&item(FrameKind::Body, body), 64), Some(true));
            content.body
        };
        assert_eq!(
            kept("application/json", b"[[], {}, {}]").as_deref(),
            Some(&b"[[], {}, {}]"[..])
        );
        assert_eq!(kept("", b"{}").as_deref(), Some(&b"{}"[..]));
        assert_eq!(
            kept("application/x-python-serialize", b"\x80\x02}.").as_deref(),
            Some(&b"\x80\x02}."[..])
        );
        assert_eq!(kept("image/png", b"\x89PNG"), None);
        assert_eq!(kept("application/json", &[b' '; 65]), None);
    }
}
