//! Content that is all there at once, as it nearly always is: a header frame and one body frame behind the method's.

use std::borrow::Cow;

use super::frame::{Frame, FrameDecoder, FrameKind};
use super::header::ContentHeader;
use crate::stream::Segment;

impl FrameDecoder {
    /// The header and the body of the content that a method on this channel has announced, if all of it is at the front of the
    /// segment, from which it is then taken; the body is not cut. Else [`Self::next`] gives its frames.
    pub(crate) fn content<'s>(
        &mut self,
        channel: u16,
        segment: &mut Segment<'s>,
    ) -> Option<(&'s [u8], &'s [u8])> {
        let (header, rest) = self.at_once(segment.data)?;
        let payload = of(&header, FrameKind::Header, channel)?;
        let size = ContentHeader::body_size(payload)?;
        if size == 0 {
            self.whole(header, rest, segment);
            return Some((payload, &[]));
        }
        let (body, behind) = self.at_once(rest)?;
        let all = of(&body, FrameKind::Body, channel).filter(|all| all.len() as u64 == size)?;
        self.whole(header, rest, segment);
        self.whole(body, behind, segment);
        Some((payload, all))
    }
}

/// The payload, where the frame is of this kind and channel.
fn of<'s>(frame: &Frame<'s>, kind: FrameKind, channel: u16) -> Option<&'s [u8]> {
    match frame.payload {
        Cow::Borrowed(payload) if (frame.kind, frame.channel) == (kind, channel) => Some(payload),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, channel];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xce);
        bytes
    }

    fn header(size: u8) -> Vec<u8> {
        vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0]
    }

    /// Scenario: a header with its body, one without, and what is not all of a content: a body in two frames, one that is cut, frames
    /// of two channels, a body without a header; each with more behind it.
    /// Guarantees: content is given and taken only where it is complete; the accounts are those of the frames one by one.
    #[test]
    fn only_what_is_whole() {
        let (head, body) = (frame(2, 1, &header(3)), frame(3, 1, b"abc"));
        type Case<'a> = (Vec<Vec<u8>>, Option<&'a [u8]>);
        let cases: [Case<'_>; 6] = [
            (vec![head.clone(), body.clone()], Some(b"abc")),
            (vec![frame(2, 1, &header(0)), frame(3, 1, b"x")], Some(b"")),
            (vec![head.clone(), frame(3, 1, b"ab"), frame(3, 1, b"c")], None),
            (vec![head.clone(), body[..9].to_vec()], None),
            (vec![head, frame(3, 2, b"abc")], None),
            (vec![body.clone(), body], None),
        ];
        for (frames, expected) in cases {
            let bytes = frames.concat();
            let segment = Segment {
                data: &bytes,
                begins: true,
                ..Segment::default()
            };
            let (mut at_once, mut rest) = (FrameDecoder::new(&Limits::default()), segment);
            let content = at_once.content(1, &mut rest);
            assert_eq!(content.map(|(_, body)| body), expected, "{frames:?}");
            assert_eq!(rest == segment, expected.is_none(), "{frames:?}");
            while at_once.next(&mut rest).is_some() {}
            let (mut one_by_one, mut rest) = (FrameDecoder::new(&Limits::default()), segment);
            while one_by_one.next(&mut rest).is_some() {}
            assert_eq!(at_once.stats(), one_by_one.stats(), "{frames:?}");
        }
    }
}
