//! The names of what both halves of the capture count and hold.

use std::sync::LazyLock;

use celeryscope_common::maps::Counter;
use celeryscope_core::{Area, Metric, MetricKind};

use crate::metrics::metric;

const fn own(name: &'static str, meaning: &'static str, unit: &'static str, kind: MetricKind) -> Metric {
    metric(name, meaning, unit, Area::Capture, kind)
}

/// What the user half counts and holds, in the order in which `Live` gives it, and `Tls` after it.
pub(super) static OWN: &[Metric] = &[
    own(
        "captured_records",
        "records given to the core",
        "{record}",
        MetricKind::Counter,
    ),
    own(
        "captured_malformed",
        "records that could not be read: a bug",
        "{record}",
        MetricKind::Counter,
    ),
    own(
        "captured_foreign",
        "records of processes in other network namespaces, left out",
        "{record}",
        MetricKind::Counter,
    ),
    own(
        "descriptions_dropped",
        "descriptions of processes forgotten to make room: they are read and told again",
        "{process}",
        MetricKind::Counter,
    ),
    own(
        "ignored_evicted",
        "connections that are not Celery's, copied again to make room for others in the list",
        "{connection}",
        MetricKind::Counter,
    ),
    own(
        "probes_passed_over",
        "times the kernel did not run a probe; what was lost by it is in missed_bytes and returns_missed",
        "{call}",
        MetricKind::Counter,
    ),
    own(
        "implied_unknown",
        "polls told as repeated of which the first is not known: each is a gap",
        "{record}",
        MetricKind::Counter,
    ),
    own(
        "descriptions_held",
        "processes whose description is remembered",
        "{process}",
        MetricKind::Gauge,
    ),
    own(
        "descriptions_limit",
        "most processes whose description is remembered",
        "{process}",
        MetricKind::Gauge,
    ),
    own(
        "ignored_held",
        "connections that are not copied because they are not Celery's",
        "{connection}",
        MetricKind::Gauge,
    ),
    own(
        "ignored_limit",
        "most connections in the list of those not to copy",
        "{connection}",
        MetricKind::Gauge,
    ),
    own(
        "tls_processes",
        "processes whose TLS library is or was read",
        "{process}",
        MetricKind::Counter,
    ),
    own(
        "tls_processes_not_covered",
        "times a process talked TLS to a broker and no library of it could be read",
        "{process}",
        MetricKind::Counter,
    ),
    own(
        "tls_orders_dropped",
        "processes not looked at for TLS: too many at once",
        "{process}",
        MetricKind::Counter,
    ),
    own(
        "tls_processes_held",
        "processes whose TLS library is read",
        "{process}",
        MetricKind::Gauge,
    ),
    own(
        "tls_processes_limit",
        "most processes whose TLS library is read",
        "{process}",
        MetricKind::Gauge,
    ),
];

/// The kernel half's slots; those without a name are not used.
pub(super) static KERNEL: LazyLock<[Metric; Counter::SLOTS]> = LazyLock::new(|| {
    Counter::NAMES.map(|(name, meaning)| own(name, meaning, unit(name), MetricKind::Counter))
});

/// All, in order.
pub(crate) fn metrics() -> impl Iterator<Item = &'static Metric> {
    let kernel = KERNEL.iter().filter(|metric| !metric.name.is_empty());
    OWN.iter().chain(kernel)
}

fn unit(name: &str) -> &'static str {
    match name {
        "conns_full" => "{connection}",
        "fds_full" | "slots_full" => "{descriptor}",
        "procs_full" => "{process}",
        "calls_full" | "returns_missed" => "{call}",
        "unreadable" | "ignored" => "{transfer}",
        "idle_polls" => "{poll}",
        "heartbeats" => "{heartbeat}",
        _ if name.ends_with("bytes") => "By",
        _ if name.starts_with("lost_") => "{record}",
        _ => "{event}",
    }
}
