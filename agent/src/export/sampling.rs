//! `OTEL_TRACES_SAMPLER`: which traces are exported.
//!
//! The decision hangs on the trace id and on the sampled flag that came with the message, so every agent and every
//! SDK that sees part of a trace decides alike. The rule for ratios is the SDK's own.

use celeryscope_core::Span;
use opentelemetry::TraceId;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

/// A sampler as the standard variables describe it.
#[derive(Clone, Debug)]
pub(super) struct Sampling {
    parent_based: bool,
    root: Sampler,
}

impl Default for Sampling {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self {
            parent_based: true,
            root: Sampler::AlwaysOn,
        }
    }
}

impl Sampling {
    /// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; a value that means nothing here is logged and the
    /// default used, as the specification wants.
    pub(super) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let Some(name) = env("OTEL_TRACES_SAMPLER") else {
            return Self::default();
        };
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let root = match root {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => Sampler::TraceIdRatioBased(ratio(env("OTEL_TRACES_SAMPLER_ARG"))),
            _ => {
                tracing::warn!("OTEL_TRACES_SAMPLER={name} is not supported: using parentbased_always_on");
                return Self::default();
            }
        };
        Self { parent_based, root }
    }

    /// Whether the span is to be exported.
    pub(super) fn keeps(&self, span: &Span) -> bool {
        if let (true, Some(sampled)) = (self.parent_based, span.sampled) {
            return sampled;
        }
        let id = TraceId::from_bytes(span.trace_id.0);
        let result = self
            .root
            .should_sample(None, id, &span.name, &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

fn ratio(arg: Option<String>) -> f64 {
    let Some(arg) = arg else { return 1.0 };
    match arg.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            tracing::warn!("OTEL_TRACES_SAMPLER_ARG={arg} is not a number from 0 to 1: using 1");
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeryscope_core::{SpanId, SpanKind, TraceId};

    fn sampling(name: &'static str, arg: &'static str) -> Sampling {
        Sampling::from_env(&|variable| {
            let value = if variable.ends_with("ARG") { arg } else { name };
            (!value.is_empty()).then(|| value.to_owned())
        })
    }

    fn span(low: u64, sampled: Option<bool>) -> Span {
        let mut span = Span::new(SpanKind::Run, TraceId([1; 16]), SpanId([1; 8]), "run t");
        span.trace_id = TraceId(((1_u128 << 64) | u128::from(low)).to_be_bytes());
        span.sampled = sampled;
        span
    }

    /// Scenario: each sampler of the specification against flagged and unflagged spans.
    /// Guarantees: parent-based ones follow the flag, the others don't; unknown names fall back to keeping.
    #[test]
    fn flag_and_sampler() {
        for (name, none, yes, no) in [
            ("", true, true, false),
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
            ("jaeger_remote", true, true, false),
        ] {
            let sampling = sampling(name, "");
            assert_eq!(sampling.keeps(&span(1, None)), none, "{name}");
            assert_eq!(sampling.keeps(&span(1, Some(true))), yes, "{name}");
            assert_eq!(sampling.keeps(&span(1, Some(false))), no, "{name}");
        }
    }

    /// Scenario: a quarter of the traces, by the low half of the trace id as the SDKs read it.
    /// Guarantees: the line is where other SDKs draw it, for every span of the trace alike.
    #[test]
    fn ratio_is_the_sdks() {
        let quarter = sampling("traceidratio", "0.25");
        // The SDKs compare the low 8 bytes, shifted right once, with ratio * 2^63.
        assert!(quarter.keeps(&span((1 << 62) - 2, None)));
        assert!(!quarter.keeps(&span(1 << 62, None)));
        assert!(sampling("traceidratio", "nonsense").keeps(&span(u64::MAX, None)));
        assert!(!sampling("parentbased_traceidratio", "0").keeps(&span(0, None)));
    }
}
