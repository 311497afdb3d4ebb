//! Against the crate `amq-protocol`, which reads whole frames from a buffer.

use std::collections::HashSet;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use celeryscope_core::Limits;
use celeryscope_core::wire::amqp::{ContentHeader, Field, Frame, FrameDecoder, FrameKind, Method, Table};

use crate::feed::{Piece, feed};
use crate::recorded::{directions, frames};

/// Both say the same of a frame.
pub(crate) fn same_frame(ours: &Frame<'_>, theirs: &AMQPFrame) -> bool {
    match (ours.kind, theirs) {
        (FrameKind::Method, AMQPFrame::Method(channel, class)) => {
            ours.channel == *channel
                && Method::parse(ours.whole().expect("a whole frame")).is_some_and(|m| same_method(&m, class))
        }
        (FrameKind::Header, AMQPFrame::Header(channel, header)) => {
            ours.channel == *channel
                && ContentHeader::parse(ours.whole().expect("a whole frame"))
                    .is_some_and(|h| same_header(&h, header))
        }
        (FrameKind::Body, AMQPFrame::Body(channel, body)) => {
            // What is too large to be kept is stepped over.
            (ours.channel, ours.len as usize) == (*channel, body.len())
                && ours.whole().is_none_or(|whole| whole == body)
        }
        (FrameKind::Heartbeat, AMQPFrame::Heartbeat) => ours.channel == 0,
        _ => false,
    }
}

fn same_method(ours: &Method<'_>, theirs: &AMQPClass) -> bool {
    use basic::AMQPMethod as Basic;
    let want = match theirs {
        AMQPClass::Connection(connection::AMQPMethod::TuneOk(m)) => Method::TuneOk {
            channel_max: m.channel_max,
            frame_max: m.frame_max,
        },
        AMQPClass::Connection(connection::AMQPMethod::Close(_) | connection::AMQPMethod::CloseOk(_)) => {
            Method::ConnectionClose
        }
        AMQPClass::Channel(channel::AMQPMethod::Open(_)) => Method::ChannelOpen,
        AMQPClass::Channel(channel::AMQPMethod::Close(_) | channel::AMQPMethod::CloseOk(_)) => {
            Method::ChannelClose
        }
        AMQPClass::Confirm(confirm::AMQPMethod::Select(_)) => Method::ConfirmSelect,
        AMQPClass::Basic(Basic::Consume(m)) => Method::Consume {
            queue: m.queue.as_str(),
            consumer_tag: m.consumer_tag.as_str(),
        },
        AMQPClass::Basic(Basic::ConsumeOk(m)) => Method::ConsumeOk {
            consumer_tag: m.consumer_tag.as_str(),
        },
        AMQPClass::Basic(Basic::Get(m)) => Method::Get {
            queue: m.queue.as_str(),
        },
        AMQPClass::Basic(Basic::Publish(m)) => Method::Publish {
            exchange: m.exchange.as_str(),
            routing_key: m.routing_key.as_str(),
        },
        AMQPClass::Basic(Basic::Deliver(m)) => Method::Deliver {
            consumer_tag: m.consumer_tag.as_str(),
            delivery_tag: m.delivery_tag,
            redelivered: m.redelivered,
            exchange: m.exchange.as_str(),
            routing_key: m.routing_key.as_str(),
        },
        AMQPClass::Basic(Basic::GetOk(m)) => Method::Deliver {
            consumer_tag: "",
            delivery_tag: m.delivery_tag,
            redelivered: m.redelivered,
            exchange: m.exchange.as_str(),
            routing_key: m.routing_key.as_str(),
        },
        AMQPClass::Basic(Basic::Return(_)) => Method::Return,
        AMQPClass::Basic(Basic::Recover(_) | Basic::RecoverAsync(_)) => Method::Recover,
        AMQPClass::Basic(Basic::Ack(m)) => Method::Ack {
            delivery_tag: m.delivery_tag,
            multiple: m.multiple,
        },
        AMQPClass::Basic(Basic::Nack(m)) => Method::Reject {
            delivery_tag: m.delivery_tag,
            multiple: m.multiple,
            requeue: m.requeue,
        },
        AMQPClass::Basic(Basic::Reject(m)) => Method::Reject {
            delivery_tag: m.delivery_tag,
            multiple: false,
            requeue: m.requeue,
        },
        _ => Method::Other,
    };
    *ours == want
}

fn same_header(ours: &ContentHeader<'_>, theirs: &AMQPContentHeader) -> bool {
    let properties = &theirs.properties;
    let text = |ours: Option<&str>, theirs: &Option<amq_protocol::types::ShortString>| {
        ours == theirs.as_ref().map(|text| text.as_str())
    };
    theirs.class_id == 60
        && ours.body_size == theirs.body_size
        && ours.priority == *properties.priority()
        && text(ours.content_type, properties.content_type())
        && text(ours.correlation_id, properties.correlation_id())
        && text(ours.reply_to, properties.reply_to())
        && match (&ours.headers, properties.headers()) {
            (Some(ours), Some(theirs)) => same_table(ours, theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
}

/// Both say the same of a table whose names are all different.
pub(crate) fn same_table(ours: &Table<'_>, theirs: &FieldTable) -> bool {
    let theirs = theirs.inner();
    let ours: Vec<_> = ours.fields().collect();
    ours.len() == theirs.len()
        && ours
            .iter()
            .all(|(name, field)| theirs.get(*name).is_some_and(|value| same_field(field, value)))
}

fn same_field(ours: &Field<'_>, theirs: &AMQPValue) -> bool {
    let int = |n: i64| *ours == Field::Int(n);
    match theirs {
        AMQPValue::Boolean(b) => *ours == Field::Bool(*b),
        AMQPValue::ShortShortInt(n) => int((*n).into()),
        AMQPValue::ShortShortUInt(n) => int((*n).into()),
        AMQPValue::ShortInt(n) => int((*n).into()),
        AMQPValue::ShortUInt(n) => int((*n).into()),
        AMQPValue::LongInt(n) => int((*n).into()),
        AMQPValue::LongUInt(n) => int((*n).into()),
        AMQPValue::LongLongInt(n) => int(*n),
        AMQPValue::Float(x) => matches!(ours, Field::Float(y) if same_float(*y, f64::from(*x))),
        AMQPValue::Double(x) => matches!(ours, Field::Float(y) if same_float(*y, *x)),
        AMQPValue::DecimalValue(d) => {
            *ours
                == Field::Decimal {
                    scale: d.scale,
                    value: d.value.cast_signed(),
                }
        }
        AMQPValue::LongString(s) => *ours == Field::Bytes(s.as_bytes()),
        AMQPValue::ByteArray(s) => *ours == Field::Bytes(s.as_slice()),
        AMQPValue::Timestamp(t) => *ours == Field::Timestamp(*t),
        AMQPValue::Void => *ours == Field::Void,
        AMQPValue::FieldTable(t) => matches!(ours, Field::Table(table) if same_table(table, t)),
        AMQPValue::FieldArray(a) => match ours {
            Field::Array(array) => {
                let values: Vec<_> = array.values().collect();
                let theirs = a.as_slice();
                values.len() == theirs.len() && values.iter().zip(theirs).all(|(a, b)| same_field(a, b))
            }
            _ => false,
        },
        AMQPValue::ShortString(_) => false,
    }
}

fn same_float(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

/// Reads a stream as `amq-protocol` does: frames but for the protocol header, each with the offset behind it.
pub(crate) fn theirs(stream: &[u8]) -> Vec<(u64, AMQPFrame)> {
    let mut out = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (left, frame) = parse_frame(rest).expect("AMQP");
        rest = left;
        if !matches!(frame, AMQPFrame::ProtocolHeader(_)) {
            out.push(((stream.len() - rest.len()) as u64, frame));
        }
    }
    out
}

/// Scenario: both directions of every recorded connection.
/// Guarantees: the same frames at the same places, with the same methods, properties, tables and bodies in them, as the
/// other implementation reads; nothing is left over.
#[test]
fn recorded_frames() {
    let mut count = [0; 2];
    for direction in directions() {
        let stream = direction.stream();
        let ours = frames(&stream, usize::MAX);
        let theirs = theirs(&stream);
        assert_eq!(ours.len(), theirs.len());
        for ((end, ours), (true_end, theirs)) in ours.iter().zip(&theirs) {
            assert_eq!(end, true_end);
            assert!(same_frame(&ours.value, theirs), "{ours:?} is not {theirs:?}");
            assert!(!ours.degraded && !ours.resynced);
            count[usize::from(direction.sent)] += 1;
        }
    }
    assert!(count[0] > 1500 && count[1] > 1500, "only {count:?} frames");
}

/// Scenario: every recorded stream in pieces of one byte, two, three, …; its calls as they were.
/// Guarantees: the same frames as in one piece.
#[test]
fn recorded_pieces() {
    for direction in directions() {
        let stream = direction.stream();
        let want = frames(&stream, usize::MAX);
        for size in [1, 2, 3, 5, 7, 8, 64, 1000] {
            assert_eq!(frames(&stream, size), want, "pieces of {size}");
        }
    }
}

/// Scenario: every pair of neighbours among the frames of every recorded stream, cut at every byte.
/// Guarantees: the same frames as uncut.
#[test]
fn recorded_pairs_cut_at_every_byte() {
    let mut tried = HashSet::new();
    for direction in directions() {
        let stream = direction.stream();
        let ends: Vec<usize> = frames(&stream, usize::MAX)
            .iter()
            .map(|(end, _)| *end as usize)
            .collect();
        for window in ends.windows(3) {
            let part = &stream[window[0]..window[2]];
            // Long bodies are all alike in their middle.
            if part.len() > 3000 || !tried.insert(part.to_vec()) {
                continue;
            }
            let want = frames(part, usize::MAX);
            assert_eq!(want.len(), 2);
            for cut in 1..part.len() {
                let mut decoder = FrameDecoder::new(&Limits::default());
                let pieces = [(&part[..cut], true), (&part[cut..], false)]
                    .map(|(data, begins)| Piece::Bytes { data, begins });
                let got = feed(&mut decoder, &pieces, usize::MAX);
                assert_eq!(got, want, "cut at {cut} of {}", part.escape_ascii());
            }
        }
    }
    assert!(tried.len() > 500, "only {} pairs", tried.len());
}
