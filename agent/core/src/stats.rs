//! Everything that was seen, skipped, lost or evicted, by name.
//!
//! They add up: `records` is the sum of `records_transfer`, `records_pipe`, `records_process`, `records_control` and
//! `records_rejected`; `resp_bytes + resp_gap_bytes` is `resp_item_bytes + resp_skipped_bytes` plus what is under way.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of the core; all only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Stats {
            /// Name, meaning and value of each counter, in order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii_start(), self.$name),)+].into_iter()
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)+
            }
        }
    };
}

counters! {
    /// Records fed to the core.
    records,
    /// Records of bytes on connections.
    records_transfer,
    /// Records of pool pipes.
    records_pipe,
    /// Records about processes.
    records_process,
    /// Records of connections opening and closing, clocks and losses.
    records_control,
    /// Records that contradict themselves.
    records_rejected,
    /// Records that the capture lost.
    records_lost,

    /// Connections seen.
    connections,
    /// Connections forgotten to make room.
    connections_evicted,
    /// Connections that proved not to be Celery's.
    connections_ignored,
    /// Connections that speak AMQP.
    connections_amqp,
    /// Connections that speak TLS.
    connections_tls,

    /// Captured bytes of connections.
    stream_bytes,
    /// Gaps in streams.
    stream_gaps,
    /// Bytes in those gaps.
    stream_gap_bytes,
    /// Bytes seen twice.
    stream_overlap_bytes,
    /// Records without a place in their stream.
    stream_rejected,

    /// Bytes read as RESP.
    resp_bytes,
    /// Bytes missing in RESP.
    resp_gap_bytes,
    /// Bytes of commands and replies.
    resp_item_bytes,
    /// Bytes that belong to no command or reply.
    resp_skipped_bytes,
    /// Commands and replies with bytes missing.
    resp_degraded,
    /// Commands and replies not kept whole because of a limit.
    resp_truncated,
    /// How often sync was lost.
    resp_sync_losses,
    /// How often sync was found again.
    resp_resyncs,
    /// How often bytes were not RESP.
    resp_protocol_errors,
    /// Commands.
    commands,
    /// Replies.
    replies,
    /// Replies to no known command.
    replies_unpaired,
    /// Commands without a reply.
    commands_unpaired,
    /// Commands in flight beyond the limit.
    in_flight_dropped,

    /// Bytes read as AMQP.
    amqp_bytes,
    /// Bytes missing in AMQP.
    amqp_gap_bytes,
    /// Bytes of frames.
    amqp_frame_bytes,
    /// Bytes that belong to no frame.
    amqp_skipped_bytes,
    /// Frames.
    amqp_frames,
    /// Frames with bytes missing.
    amqp_degraded,
    /// How often AMQP's sync was lost.
    amqp_sync_losses,
    /// How often it was found again.
    amqp_resyncs,
    /// How often bytes were no frame.
    amqp_protocol_errors,
    /// Methods.
    amqp_methods,
    /// Channels forgotten to make room.
    amqp_channels_evicted,

    /// Messages that claim to be a task's but can't be read.
    messages_malformed,
    /// Messages that are no task's.
    messages_other,
    /// Messages whose headers were not captured.
    messages_cut,
    /// Messages that RabbitMQ could not route and sent back.
    messages_returned,
    /// Copies of delivered messages in the unacked set.
    unacked_copies,
    /// Results that can't be read.
    results_malformed,

    /// Frames of pool pipes.
    pool_frames,
    /// Bytes on pool pipes that are no frame.
    pool_frames_unknown,
    /// Frames of jobs whose beginning was not seen.
    pool_jobs_unknown,

    /// Task messages sent.
    publishes,
    /// Publishes put out without the broker's answer.
    publishes_unanswered,
    /// Publishes put out early to make room.
    publishes_evicted,
    /// Task messages received.
    deliveries,
    /// Messages put back into their queue.
    requeues,
    /// Acks of messages whose delivery was not seen.
    acks_unknown,
    /// Results stored or sent.
    results,
    /// Results of attempts that are not known.
    results_unknown,
    /// Events about tasks that workers sent.
    task_events,
    /// Attempts seen: each becomes a run or is unstarted, or is still under way.
    attempts,
    /// Attempts whose delivery was not seen.
    attempts_undelivered,
    /// Attempts put out early to make room.
    attempts_evicted,
    /// Deliveries that never became a run here.
    attempts_unstarted,
    /// Runs put out.
    runs,
    /// Runs put out without having seen their end.
    runs_without_end,
    /// Task ids forgotten to make room.
    tasks_evicted,
    /// Processes forgotten to make room.
    processes_evicted,
    /// Spans put out.
    spans,
}
