//! What the two ends of a connection have agreed on.

/// Bytes of a frame that are not payload.
const OVERHEAD: u32 = 8;
/// No broker sends larger frames; what claims to be one is not a frame.
pub(super) const LARGEST: u32 = 1 << 30;

/// What the two ends have agreed on (`connection.tune-ok`), and what is taken for granted where that was not seen: the
/// numbers of RabbitMQ and py-amqp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Largest frame, head and end included.
    frame_max: u32,
    /// Highest channel.
    channel_max: u16,
    /// Seen, not assumed: what goes beyond is no frame.
    pub(super) seen: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            frame_max: 131_072,
            channel_max: 2047,
            seen: false,
        }
    }
}

impl Tuning {
    /// The smallest `frame_max` that the protocol allows (`frame-min-size`).
    const FRAME_MIN: u32 = 4096;

    /// From the numbers of a tune-ok, 0 for no limit each.
    #[must_use]
    pub fn new(frame_max: u32, channel_max: u16) -> Self {
        Self {
            frame_max: match frame_max {
                0 => LARGEST,
                agreed => agreed.clamp(Self::FRAME_MIN, LARGEST),
            },
            channel_max: if channel_max == 0 { u16::MAX } else { channel_max },
            seen: true,
        }
    }

    pub(super) fn allows(&self, channel: u16, len: u32) -> bool {
        len.saturating_add(OVERHEAD) <= self.frame_max && channel <= self.channel_max
    }
}
