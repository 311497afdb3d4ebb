//! Trace context in Celery headers: W3C (level 1) and Zipkin's B3.

use crate::span::{SpanId, TraceId};

/// The sender's trace context, whichever header carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that was current in the sender.
    pub span_id: SpanId,
    /// The sampled flag.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`. Later versions may have more fields behind; version `ff`, upper case and
    /// all-zero ids are invalid (W3C Trace Context §3.2.2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let version = hex::<1>(fields.next()?)?;
        let trace_id = hex::<16>(fields.next()?)?;
        let span_id = hex::<8>(fields.next()?)?;
        let flags = hex::<1>(fields.next()?)?;
        if version == [0xff] || (version == [0] && fields.next().is_some()) {
            return None;
        }
        Self::new(trace_id, span_id, flags[0] & 1 == 1)
    }

    /// Reads B3's single header: `{trace id}-{span id}[-{sampled}[-{parent}]]`; a lone `0` carries no ids.
    #[must_use]
    pub fn parse_b3(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        Self::parse_b3_fields(fields.next()?, fields.next()?, fields.next())
    }

    /// Reads B3's separate headers. Without a decision the sampled flag counts as set: it is left to the receiver.
    #[must_use]
    pub fn parse_b3_fields(trace_id: &str, span_id: &str, sampled: Option<&str>) -> Option<Self> {
        // 64-bit trace ids are the lower half of 128-bit ones.
        let trace_id = match trace_id.len() {
            16 => {
                let mut wide = [0; 16];
                wide[8..].copy_from_slice(&hex::<8>(trace_id)?);
                wide
            }
            _ => hex::<16>(trace_id)?,
        };
        Self::new(
            trace_id,
            hex::<8>(span_id)?,
            !matches!(sampled, Some("0" | "false")),
        )
    }

    fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            sampled,
        })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a header as the instrumentation writes it, and broken ones.
    /// Guarantees: ids and flag are read; what the specification calls invalid is not taken for a context.
    #[test]
    fn valid_and_invalid() {
        let parsed = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03").unwrap();
        assert_eq!(parsed.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parsed.span_id.to_string(), "b7ad6b7169203331");
        assert!(parsed.sampled);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    /// Scenario: B3 in one header and in several, with short trace ids, without a decision, and broken.
    /// Guarantees: the same ids as the sender's; what has none is no context.
    #[test]
    fn b3() {
        let long = "80f198ee56343ba864fe8b2a57d3eff7";
        let parsed = TraceParent::parse_b3(&format!("{long}-e457b5a2e4d86bd1-0-05e3ac9a4f6e3b90")).unwrap();
        assert_eq!(
            (parsed.trace_id.to_string().as_str(), parsed.sampled),
            (long, false)
        );
        let short = TraceParent::parse_b3_fields("64fe8b2a57d3eff7", "e457b5a2e4d86bd1", None).unwrap();
        assert_eq!(short.trace_id.to_string(), "000000000000000064fe8b2a57d3eff7");
        assert!(short.sampled);
        assert_eq!(TraceParent::parse_b3("0"), None);
        assert_eq!(TraceParent::parse_b3("zz-e457b5a2e4d86bd1"), None);
    }
}
