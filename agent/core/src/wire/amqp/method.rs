//! The methods that concern messages (class basic) and what numbers them (confirm, channel, connection).

use super::reader::Reader;

/// A method; those that matter not are [`Method::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// `connection.tune-ok`: what the two agreed on, 0 for no limit.
    TuneOk {
        /// Highest channel.
        channel_max: u16,
        /// Bytes of the largest frame, frame header and end included.
        frame_max: u32,
    },
    /// `connection.close` or `connection.close-ok`: all channels are gone.
    ConnectionClose,
    /// `channel.open`: numbering begins anew.
    ChannelOpen,
    /// `channel.close` or `channel.close-ok`.
    ChannelClose,
    /// `confirm.select`.
    ConfirmSelect,
    /// `basic.consume`.
    Consume {
        /// Where from.
        queue: &'a str,
        /// The client's name for it; empty where the broker is to give one.
        consumer_tag: &'a str,
    },
    /// `basic.consume-ok`.
    ConsumeOk {
        /// The consumer's name, the broker's where the client gave none.
        consumer_tag: &'a str,
    },
    /// `basic.get`.
    Get {
        /// Where from.
        queue: &'a str,
    },
    /// `basic.publish`: content follows.
    Publish {
        /// Exchange, empty for the default one.
        exchange: &'a str,
        /// Routing key.
        routing_key: &'a str,
    },
    /// `basic.deliver`, or `basic.get-ok` with an empty consumer tag: content follows.
    Deliver {
        /// The consumer's tag.
        consumer_tag: &'a str,
        /// Its number on this channel.
        delivery_tag: u64,
        /// It was delivered before.
        redelivered: bool,
        /// Exchange it was published to.
        exchange: &'a str,
        /// Routing key it was published with.
        routing_key: &'a str,
    },
    /// `basic.return`: content follows, of a message that could not be routed; its confirm comes all the same.
    Return,
    /// `basic.ack`, in either direction.
    Ack {
        /// Up to and including, or only, this one.
        delivery_tag: u64,
        /// All up to this one; with tag 0 all.
        multiple: bool,
    },
    /// `basic.nack` or `basic.reject`.
    Reject {
        /// As in an ack.
        delivery_tag: u64,
        /// As in an ack.
        multiple: bool,
        /// Back into the queue.
        requeue: bool,
    },
    /// `basic.recover` or `basic.recover-async`: all that is unacked on the channel goes back to its queue.
    Recover,
    /// Anything else.
    Other,
}

impl<'a> Method<'a> {
    /// Reads the payload of a method frame; `None` when it is cut or broken.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (class, method) = (reader.u16()?, reader.u16()?);
        Some(match (class, method) {
            (10, 31) => Self::TuneOk {
                channel_max: reader.u16()?,
                frame_max: reader.u32()?,
            },
            (10, 50 | 51) => Self::ConnectionClose,
            (20, 10) => Self::ChannelOpen,
            (20, 40 | 41) => Self::ChannelClose,
            (85, 10) => Self::ConfirmSelect,
            (60, 20) => {
                reader.u16()?;
                Self::Consume {
                    queue: reader.short_string()?,
                    consumer_tag: reader.short_string()?,
                }
            }
            (60, 21) => Self::ConsumeOk {
                consumer_tag: reader.short_string()?,
            },
            (60, 40) => {
                reader.u16()?;
                Self::Publish {
                    exchange: reader.short_string()?,
                    routing_key: reader.short_string()?,
                }
            }
            (60, 50) => Self::Return,
            (60, 60) => Self::Deliver {
                consumer_tag: reader.short_string()?,
                delivery_tag: reader.u64()?,
                redelivered: reader.u8()? & 1 != 0,
                exchange: reader.short_string()?,
                routing_key: reader.short_string()?,
            },
            (60, 70) => {
                reader.u16()?;
                Self::Get {
                    queue: reader.short_string()?,
                }
            }
            (60, 71) => Self::Deliver {
                consumer_tag: "",
                delivery_tag: reader.u64()?,
                redelivered: reader.u8()? & 1 != 0,
                exchange: reader.short_string()?,
                routing_key: reader.short_string()?,
            },
            (60, 80) => Self::Ack {
                delivery_tag: reader.u64()?,
                multiple: reader.u8()? & 1 != 0,
            },
            (60, 90) => Self::Reject {
                delivery_tag: reader.u64()?,
                multiple: false,
                requeue: reader.u8()? & 1 != 0,
            },
            (60, 100 | 110) => Self::Recover,
            (60, 120) => {
                let delivery_tag = reader.u64()?;
                let bits = reader.u8()?;
                Self::Reject {
                    delivery_tag,
                    multiple: bits & 1 != 0,
                    requeue: bits & 2 != 0,
                }
            }
            _ => Self::Other,
        })
    }
}
