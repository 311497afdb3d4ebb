//! Frames at random, written by the other implementation.

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, queue};
use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString, ShortString};
use celeryscope_core::Limits;
use celeryscope_core::wire::amqp::{FrameDecoder, Table};
use proptest::prelude::*;

use crate::feed::{Piece, feed};
use crate::oracle::{same_frame, same_table};

fn short() -> impl Strategy<Value = ShortString> {
    ".{0,40}".prop_map(|text| ShortString::from(text.as_str()))
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        prop::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| AMQPValue::LongString(LongString::from(bytes))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            fields(inner).prop_map(AMQPValue::FieldTable),
        ]
    })
}

fn fields(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    prop::collection::btree_map("[a-z_é]{0,12}", value, 0..6).prop_map(|map| {
        let mut table = FieldTable::default();
        for (name, value) in map {
            table.insert(name.as_str().into(), value);
        }
        table
    })
}

fn method() -> impl Strategy<Value = AMQPClass> {
    use basic::AMQPMethod as Basic;
    let number = any::<u64>;
    let flag = any::<bool>;
    prop_oneof![
        (any::<u16>(), any::<u32>(), any::<u16>()).prop_map(|(channel_max, frame_max, heartbeat)| {
            AMQPClass::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
                channel_max,
                frame_max,
                heartbeat,
            }))
        }),
        (any::<u16>(), short()).prop_map(|(reply_code, reply_text)| {
            AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
                reply_code,
                reply_text,
                class_id: 0,
                method_id: 0,
            }))
        }),
        Just(AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))),
        Just(AMQPClass::Channel(channel::AMQPMethod::CloseOk(
            channel::CloseOk {}
        ))),
        flag().prop_map(|nowait| AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait }))),
        (short(), flag(), fields(value())).prop_map(|(queue, flag, arguments)| {
            AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue,
                passive: flag,
                durable: !flag,
                exclusive: flag,
                auto_delete: !flag,
                nowait: flag,
                arguments,
            }))
        }),
        (short(), short(), flag(), fields(value())).prop_map(|(queue, consumer_tag, flag, arguments)| {
            AMQPClass::Basic(Basic::Consume(basic::Consume {
                queue,
                consumer_tag,
                no_local: flag,
                no_ack: !flag,
                exclusive: flag,
                nowait: !flag,
                arguments,
            }))
        }),
        short()
            .prop_map(|consumer_tag| AMQPClass::Basic(Basic::ConsumeOk(basic::ConsumeOk { consumer_tag }))),
        (short(), flag())
            .prop_map(|(queue, no_ack)| AMQPClass::Basic(Basic::Get(basic::Get { queue, no_ack }))),
        (short(), short(), flag()).prop_map(|(exchange, routing_key, flag)| {
            AMQPClass::Basic(Basic::Publish(basic::Publish {
                exchange,
                routing_key,
                mandatory: flag,
                immediate: !flag,
            }))
        }),
        (short(), number(), flag(), short(), short()).prop_map(
            |(consumer_tag, delivery_tag, redelivered, exchange, routing_key)| {
                AMQPClass::Basic(Basic::Deliver(basic::Deliver {
                    consumer_tag,
                    delivery_tag,
                    redelivered,
                    exchange,
                    routing_key,
                }))
            }
        ),
        (number(), flag(), short(), short(), any::<u32>()).prop_map(
            |(delivery_tag, redelivered, exchange, routing_key, message_count)| {
                AMQPClass::Basic(Basic::GetOk(basic::GetOk {
                    delivery_tag,
                    redelivered,
                    exchange,
                    routing_key,
                    message_count,
                }))
            }
        ),
        (any::<u16>(), short(), short(), short()).prop_map(
            |(reply_code, reply_text, exchange, routing_key)| {
                AMQPClass::Basic(Basic::Return(basic::Return {
                    reply_code,
                    reply_text,
                    exchange,
                    routing_key,
                }))
            }
        ),
        (number(), flag()).prop_map(|(delivery_tag, multiple)| {
            AMQPClass::Basic(Basic::Ack(basic::Ack {
                delivery_tag,
                multiple,
            }))
        }),
        (number(), flag(), flag()).prop_map(|(delivery_tag, multiple, requeue)| {
            AMQPClass::Basic(Basic::Nack(basic::Nack {
                delivery_tag,
                multiple,
                requeue,
            }))
        }),
        (number(), flag()).prop_map(|(delivery_tag, requeue)| {
            AMQPClass::Basic(Basic::Reject(basic::Reject {
                delivery_tag,
                requeue,
            }))
        }),
        flag().prop_map(|requeue| AMQPClass::Basic(Basic::Recover(basic::Recover { requeue }))),
        Just(AMQPClass::Basic(Basic::CancelOk(basic::CancelOk {
            consumer_tag: "c".into()
        }))),
    ]
}

/// Properties with any of the fourteen set.
fn properties() -> impl Strategy<Value = basic::AMQPProperties> {
    let which = any::<u16>();
    (which, short(), short(), fields(value()), any::<(u8, u64)>()).prop_map(
        |(which, text, id, table, (small, large))| {
            let mut p = basic::AMQPProperties::default();
            let set = |bit: u16| which & (1 << bit) != 0;
            macro_rules! with {
                ($($bit:literal $name:ident = $value:expr;)+) => {
                    $(if set($bit) { p = p.$name($value); })+
                };
            }
            with! {
                0 with_content_type = text.clone();
                1 with_content_encoding = text.clone();
                2 with_headers = table;
                3 with_delivery_mode = small;
                4 with_priority = small;
                5 with_correlation_id = id.clone();
                6 with_reply_to = text.clone();
                7 with_expiration = text.clone();
                8 with_message_id = id.clone();
                9 with_timestamp = large;
                10 with_type = text.clone();
                11 with_user_id = text.clone();
                12 with_app_id = text;
                13 with_cluster_id = id;
            }
            p
        },
    )
}

fn frame() -> impl Strategy<Value = AMQPFrame> {
    prop_oneof![
        4 => (any::<u16>(), method()).prop_map(|(channel, method)| AMQPFrame::Method(channel, method)),
        3 => (any::<u16>(), any::<u64>(), properties()).prop_map(|(channel, body_size, properties)| {
            AMQPFrame::Header(channel, AMQPContentHeader { class_id: 60, body_size, properties })
        }),
        2 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(channel, body)| AMQPFrame::Body(channel, body)),
        1 => Just(AMQPFrame::Heartbeat),
    ]
}

fn written(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new()))
        .expect("it can be written")
        .into_inner()
        .0
}

/// One value of a table with this letter, of random bytes and, where it has one, a short length.
fn lettered() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop::sample::select(&b"tbBsUuIilLfdDSxTV"[..]);
    (letter, prop::collection::vec(any::<u8>(), 9)).prop_map(|(letter, bytes)| {
        let len = match letter {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'S' | b'x' | b'V' => 0,
            _ => 8,
        };
        let mut out = vec![letter];
        if let b'S' | b'x' = letter {
            out.extend([0, 0, 0, 9]);
            out.extend(bytes);
        } else {
            out.extend(&bytes[..len]);
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Scenario: up to eight random frames (every method that is read, all properties, tables of every type), in calls of a
    /// random size.
    /// Guarantees: what was written is read, all of it.
    #[test]
    fn frames(frames in prop::collection::vec(frame(), 0..8), size in 1..300_usize) {
        let stream: Vec<u8> = frames.iter().flat_map(written).collect();
        let mut decoder = FrameDecoder::new(&Limits::default());
        let whole = [Piece::Bytes { data: &stream, begins: true }];
        let got = feed(&mut decoder, &whole, size);
        prop_assert_eq!(got.len(), frames.len());
        for ((_, ours), theirs) in got.iter().zip(&frames) {
            prop_assert!(same_frame(&ours.value, theirs), "{:?} is not {:?}", ours, theirs);
        }
        prop_assert_eq!(decoder.pending(), 0);
    }

    /// Scenario: a table of values under every letter that the specification or RabbitMQ has.
    /// Guarantees: both implementations read the same.
    #[test]
    fn letters(values in prop::collection::vec(lettered(), 0..12)) {
        let mut bytes = Vec::new();
        for (n, value) in values.iter().enumerate() {
            bytes.extend([1, b'a' + n as u8]);
            bytes.extend(value);
        }
        let mut sized = (bytes.len() as u32).to_be_bytes().to_vec();
        sized.extend(&bytes);
        let (_, theirs) = parse_field_table(&sized[..]).expect("a table");
        prop_assert_eq!(Table::new(&bytes).fields().count(), values.len());
        prop_assert!(same_table(&Table::new(&bytes), &theirs), "{:?}", theirs);
    }
}
