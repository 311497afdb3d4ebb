//! What the core holds at the moment, beside the caps of [`Limits`](crate::Limits): nothing here may exceed its own.

use crate::metric::{Area, Metric, MetricKind};

macro_rules! gauges {
    ($($area:ident: $($(#[doc = $doc:literal])+ $name:ident $unit:literal,)+)+) => {
        /// How much there is of everything that has a cap.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Held {
            $($($(#[doc = $doc])+ pub $name: u64,)+)+
        }

        impl Held {
            /// Name and meaning of each number, in order.
            pub const METRICS: &'static [Metric] = &[
                $($(Metric {
                    name: stringify!($name),
                    meaning: concat!($($doc),+).trim_ascii_start(),
                    unit: $unit,
                    area: Area::$area,
                    kind: MetricKind::Gauge,
                },)+)+
            ];

            /// The numbers, in the order of [`Self::METRICS`].
            pub fn values(&self) -> impl Iterator<Item = u64> + use<> {
                [$($(self.$name,)+)+].into_iter()
            }
        }
    };
}

gauges! {
    Streams:
    /// Connections followed.
    connections_held "{connection}",
    /// Most connections that are followed at once.
    connections_limit "{connection}",
    /// Bytes that decoders hold of what is not complete.
    stream_bytes_held "By",
    /// Most bytes that decoders may hold.
    stream_bytes_limit "By",
    /// Bytes read of commands and replies that are not complete, missing ones included.
    resp_pending_bytes "By",
    /// Bytes read of AMQP frames that are not complete, missing ones included.
    amqp_pending_bytes "By",

    Tasks:
    /// Attempts under way.
    attempts_held "{attempt}",
    /// Most attempts that may be under way.
    attempts_limit "{attempt}",
    /// Runs that are over and wait for the record of their publish.
    runs_held "{run}",
    /// Most runs that may wait.
    runs_limit "{run}",
    /// Publishes that wait for the broker's answer.
    publishes_held "{publish}",
    /// Most publishes that may wait.
    publishes_limit "{publish}",
    /// Bytes of the messages of these attempts and publishes.
    message_bytes_held "By",
    /// Most bytes of messages that are held.
    message_bytes_limit "By",
    /// Task ids known.
    tasks_held "{task}",
    /// Most task ids that are known.
    tasks_limit "{task}",
    /// Groups known.
    groups_held "{group}",
    /// Most groups that are known.
    groups_limit "{group}",
    /// Processes known.
    processes_held "{process}",
    /// Most processes that are known.
    processes_limit "{process}",
    /// Forks whose child has not been heard of.
    forks_held "{process}",
    /// Timers set.
    timers_held "{timer}",
}
