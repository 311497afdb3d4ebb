//! As much of AMQP's framing as it takes to repeat messages on a connection: where they begin, and where the numbers of
//! their deliveries stand.

use std::ops::Range;

/// What a client sends first; no frame.
const PREAMBLE: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A frame of one direction of a connection, by offsets in its stream.
pub(crate) struct Frame {
    /// Its first byte.
    pub(crate) at: usize,
    /// What it carries.
    payload: Range<usize>,
    is_method: bool,
    pub(crate) channel: u16,
}

/// The frames of a direction that was recorded from its first byte.
pub(crate) fn frames(stream: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = if stream.starts_with(PREAMBLE) {
        PREAMBLE.len()
    } else {
        0
    };
    while let Some(&[kind, c0, c1, l0, l1, l2, l3]) = stream.get(at..at + 7) {
        let payload = at + 7..at + 7 + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let end = payload.end + 1;
        frames.push(Frame {
            at,
            payload,
            is_method: kind == 1,
            channel: u16::from_be_bytes([c0, c1]),
        });
        at = end;
    }
    frames
}

/// Where the message begins that has this offset in it: at its method, which header and body follow.
pub(crate) fn message_begin(frames: &[Frame], offset: usize) -> usize {
    let methods = frames.iter().filter(|frame| frame.is_method);
    methods
        .map(|frame| frame.at)
        .take_while(|at| *at <= offset)
        .last()
        .unwrap_or(0)
}

/// Where a delivery's number stands in the stream, and whether the frame is the delivery itself and no answer to it.
pub(crate) fn delivery_number(stream: &[u8], frame: &Frame) -> Option<(usize, bool)> {
    let at = frame.payload.start;
    match stream.get(frame.payload.clone())? {
        // basic.deliver: the consumer's name comes first.
        [0, 60, 0, 60, len, ..] if frame.is_method => Some((at + 5 + usize::from(*len), true)),
        // basic.ack, basic.reject, basic.nack.
        [0, 60, 0, 80 | 90 | 120, ..] if frame.is_method => Some((at + 4, false)),
        _ => None,
    }
}
