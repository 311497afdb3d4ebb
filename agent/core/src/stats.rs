//! Everything that was seen, skipped, lost or evicted, by name.
//!
//! They add up, at any moment, with what is held ([`Held`](crate::Held)); `tests/sums.rs` holds them to it:
//!
//! - `records` is the sum of `records_transfer`, `records_pipe`, `records_process`, `records_control`, `records_idle` and
//!   `records_rejected`;
//! - `connections` is `connections_closed`, `connections_evicted` and those held;
//! - `resp_bytes + resp_gap_bytes` is `resp_item_bytes + resp_skipped_bytes + resp_unfinished_bytes` plus what is under way
//!   (`resp_pending_bytes`), and so for AMQP, where items are frames;
//! - `stream_bytes` is `resp_bytes + amqp_bytes`, and `stream_gap_bytes` is `resp_gap_bytes + amqp_gap_bytes`; `stream_idle_bytes` are in neither;
//! - `attempts` is `runs + attempts_unstarted` and the attempts and runs held; `attempts_evicted` of them were put out early;
//! - `publishes` and `runs` are `spans` and the publishes held.

use crate::metric::{Area, Metric, MetricKind};

macro_rules! counters {
    ($($area:ident: $($(#[doc = $doc:literal])+ $name:ident $unit:literal,)+)+) => {
        /// Counters of the core; all only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($($(#[doc = $doc])+ pub $name: u64,)+)+
        }

        impl Stats {
            /// Name and meaning of each counter, in order.
            pub const METRICS: &'static [Metric] = &[
                $($(Metric {
                    name: stringify!($name),
                    meaning: concat!($($doc),+).trim_ascii_start(),
                    unit: $unit,
                    area: Area::$area,
                    kind: MetricKind::Counter,
                },)+)+
            ];

            /// The counters, in the order of [`Self::METRICS`].
            pub fn values(&self) -> impl Iterator<Item = u64> + use<> {
                [$($(self.$name,)+)+].into_iter()
            }

            /// Name, meaning and value of each counter, in order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                Self::METRICS.iter().zip(self.values()).map(|(metric, value)| (metric.name, metric.meaning, value))
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                $($(self.$name = self.$name.saturating_add(other.$name);)+)+
            }
        }
    };
}

counters! {
    Capture:
    /// Records fed to the core.
    records "{record}",
    /// Records of bytes on connections.
    records_transfer "{record}",
    /// Records of pool pipes.
    records_pipe "{record}",
    /// Records about processes.
    records_process "{record}",
    /// Records of connections opening and closing, clocks and losses.
    records_control "{record}",
    /// Records that tell how much was left out of a connection because nothing happened on it.
    records_idle "{record}",
    /// Records that contradict themselves.
    records_rejected "{record}",
    /// Records that the capture lost.
    records_lost "{record}",

    Streams:
    /// Connections seen.
    connections "{connection}",
    /// Connections closed.
    connections_closed "{connection}",
    /// Connections forgotten to make room.
    connections_evicted "{connection}",
    /// Connections that proved not to be Celery's.
    connections_ignored "{connection}",
    /// Connections that speak AMQP.
    connections_amqp "{connection}",
    /// Connections that speak TLS.
    connections_tls "{connection}",

    /// Captured bytes of connections.
    stream_bytes "By",
    /// Gaps in streams.
    stream_gaps "{gap}",
    /// Bytes in gaps in streams.
    stream_gap_bytes "By",
    /// Bytes seen twice.
    stream_overlap_bytes "By",
    /// Bytes of polls that found nothing, and of heartbeats, that were left out and stepped over.
    stream_idle_bytes "By",
    /// Records without a place in their stream.
    stream_rejected "{record}",
    /// Connections whose half-read messages were dropped to make room.
    streams_shed "{connection}",
    /// Bytes of half-read messages dropped to make room.
    streams_shed_bytes "By",

    /// Bytes read as RESP.
    resp_bytes "By",
    /// Bytes missing in RESP.
    resp_gap_bytes "By",
    /// Bytes of commands and replies.
    resp_item_bytes "By",
    /// Bytes that belong to no command or reply.
    resp_skipped_bytes "By",
    /// Bytes of what was not complete when its connection ended.
    resp_unfinished_bytes "By",
    /// Commands and replies with bytes missing.
    resp_degraded "{item}",
    /// Commands and replies not kept whole because of a limit.
    resp_truncated "{item}",
    /// How often sync was lost.
    resp_sync_losses "{loss}",
    /// How often sync was found again.
    resp_resyncs "{resync}",
    /// How often bytes were not RESP.
    resp_protocol_errors "{error}",
    /// Redis commands.
    commands "{command}",
    /// Redis replies.
    replies "{reply}",
    /// Replies to no known command.
    replies_unpaired "{reply}",
    /// Commands without a reply.
    commands_unpaired "{command}",
    /// Commands in flight beyond the limit.
    in_flight_dropped "{command}",
    /// Events of transactions beyond the limit.
    transaction_dropped "{event}",

    /// Bytes read as AMQP.
    amqp_bytes "By",
    /// Bytes missing in AMQP.
    amqp_gap_bytes "By",
    /// Bytes of AMQP frames.
    amqp_frame_bytes "By",
    /// Bytes that belong to no AMQP frame.
    amqp_skipped_bytes "By",
    /// Bytes of AMQP frames that were not complete when their connection ended.
    amqp_unfinished_bytes "By",
    /// AMQP frames.
    amqp_frames "{frame}",
    /// AMQP frames with bytes missing.
    amqp_degraded "{frame}",
    /// How often AMQP's sync was lost.
    amqp_sync_losses "{loss}",
    /// How often AMQP's sync was found again.
    amqp_resyncs "{resync}",
    /// How often bytes were no AMQP frame.
    amqp_protocol_errors "{error}",
    /// AMQP methods.
    amqp_methods "{method}",
    /// AMQP channels forgotten to make room.
    amqp_channels_evicted "{channel}",
    /// AMQP consumers forgotten to make room.
    amqp_consumers_evicted "{consumer}",
    /// Deliveries over AMQP that wait for their ack, forgotten to make room.
    amqp_unacked_evicted "{delivery}",

    /// Messages that claim to be a task's but can't be read.
    messages_malformed "{message}",
    /// Messages that are no task's.
    messages_other "{message}",
    /// Messages whose headers were not captured.
    messages_cut "{message}",
    /// Messages that RabbitMQ could not route and sent back.
    messages_returned "{message}",
    /// Copies of delivered messages in the unacked set.
    unacked_copies "{message}",
    /// Results that can't be read.
    results_malformed "{result}",

    Tasks:
    /// Frames of pool pipes.
    pool_frames "{frame}",
    /// Bytes on pool pipes that are no frame.
    pool_frames_unknown "{frame}",
    /// Frames of jobs whose beginning was not seen.
    pool_jobs_unknown "{job}",

    /// Task messages sent.
    publishes "{publish}",
    /// Publishes put out without the broker's answer.
    publishes_unanswered "{publish}",
    /// Publishes put out early to make room.
    publishes_evicted "{publish}",
    /// Copies of a message that one publish put into further queues; in no other number.
    publishes_copied "{message}",
    /// Publishes of a task id that many were sent of, forgotten to make room.
    publishes_forgotten "{publish}",
    /// Task messages received.
    deliveries "{delivery}",
    /// Messages put back into their queue.
    requeues "{message}",
    /// Acks of messages whose delivery was not seen.
    acks_unknown "{ack}",
    /// Results stored or sent.
    results "{result}",
    /// Results of attempts that are not known.
    results_unknown "{result}",
    /// Events about tasks that workers sent.
    task_events "{event}",
    /// Attempts seen: each becomes a run or is unstarted, or is still under way.
    attempts "{attempt}",
    /// Attempts whose delivery was not seen.
    attempts_undelivered "{attempt}",
    /// Attempts put out early to make room.
    attempts_evicted "{attempt}",
    /// Deliveries that never became a run here.
    attempts_unstarted "{attempt}",
    /// Runs put out.
    runs "{run}",
    /// Runs put out to make room before the record of their publish may have come.
    runs_evicted "{run}",
    /// Runs put out without having seen their end.
    runs_without_end "{run}",
    /// Task ids forgotten to make room.
    tasks_evicted "{task}",
    /// Groups forgotten to make room.
    groups_evicted "{group}",
    /// Tasks of large groups that a chord's callback will not be linked to.
    group_links_dropped "{link}",
    /// Processes forgotten to make room.
    processes_evicted "{process}",
    /// Forks forgotten to make room before the child was heard of.
    forks_evicted "{process}",
    /// Threads whose last run was forgotten to make room.
    threads_evicted "{thread}",
    /// Spans put out.
    spans "{span}",
}
