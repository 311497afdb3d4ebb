//! Trace trees for people, on standard output.
//!
//! A trace is printed once it has been quiet for a while; spans that come later are printed as its continuation. A
//! replay has no clock to be quiet by: there everything is printed at the end, in order of start. What is held is
//! bounded, the oldest trace goes first.

mod render;
mod text;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use celeryscope_core::{Span, SpanId, TraceId};

use super::intake::Intake;
use render::Style;

/// How long a trace must be quiet before it is printed.
pub(super) const QUIET: Duration = Duration::from_millis(1500);

/// Spans held at once.
const HELD: usize = 50_000;
/// Span ids of printed traces remembered, to tell a continuation from an orphan.
const REMEMBERED: usize = 50_000;

/// Prints what comes, until no more comes.
pub(super) async fn run(mut intake: Intake, quiet: Option<Duration>) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut forest = Forest::default();
    let mut printer = Printer::new();
    let mut looked = Duration::ZERO;
    loop {
        let wait = quiet.filter(|_| forest.spans > 0).map(|quiet| quiet / 3);
        let Some(span) = intake.next(wait).await else {
            break;
        };
        let now = began.elapsed();
        let mut ripe = span.map_or_else(Vec::new, |span| forest.push(span, now));
        // Not for each span: the look costs as much as there are traces.
        if let Some(quiet) = quiet
            && now >= looked + quiet / 3
        {
            looked = now;
            ripe.extend(forest.quiet_since(now.saturating_sub(quiet)));
        }
        if !printer.print(&ripe, &intake)? {
            return Ok(());
        }
    }
    printer.print(&forest.rest(), &intake)?;
    Ok(())
}

/// One trace, or what has come of it since it was last printed.
#[derive(Debug)]
struct Trace {
    id: TraceId,
    spans: Vec<Arc<Span>>,
    /// Spans printed before: their children are no orphans. None where nothing was.
    printed: Option<HashSet<SpanId>>,
    first: u64,
    last: Duration,
}

impl Trace {
    fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start.0).min().unwrap_or(0)
    }
}

/// The traces held back, and what was printed lately.
#[derive(Debug, Default)]
struct Forest {
    held: HashMap<TraceId, Trace>,
    /// Those in `held`, by when they were first heard of.
    by_age: BTreeMap<u64, TraceId>,
    spans: usize,
    arrivals: u64,
    printed: HashMap<TraceId, HashSet<SpanId>>,
    printed_order: VecDeque<TraceId>,
    remembered: usize,
}

impl Forest {
    /// Takes a span; gives the traces that must go to make room.
    fn push(&mut self, span: Arc<Span>, now: Duration) -> Vec<Trace> {
        self.arrivals += 1;
        let first = self.arrivals;
        let trace = self.held.entry(span.trace_id).or_insert_with(|| {
            self.by_age.insert(first, span.trace_id);
            Trace {
                id: span.trace_id,
                spans: Vec::new(),
                printed: None,
                first,
                last: now,
            }
        });
        trace.last = now;
        trace.spans.push(span);
        self.spans += 1;
        let mut out = Vec::new();
        while self.spans > HELD
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            out.extend(self.take(oldest));
        }
        out
    }

    /// The traces without a span since `then`, in order of start.
    fn quiet_since(&mut self, then: Duration) -> Vec<Trace> {
        let ids: Vec<_> = self
            .held
            .values()
            .filter(|trace| trace.last <= then)
            .map(|trace| trace.id)
            .collect();
        self.take_all(ids)
    }

    /// Everything that is left, in order of start.
    fn rest(&mut self) -> Vec<Trace> {
        let ids = self.held.keys().copied().collect();
        self.take_all(ids)
    }

    fn take_all(&mut self, ids: Vec<TraceId>) -> Vec<Trace> {
        let mut traces: Vec<_> = ids.into_iter().filter_map(|id| self.take(id)).collect();
        traces.sort_by_key(|trace| (trace.start(), trace.first));
        traces
    }

    fn take(&mut self, id: TraceId) -> Option<Trace> {
        let mut trace = self.held.remove(&id)?;
        self.by_age.remove(&trace.first);
        self.spans -= trace.spans.len();
        trace.printed = self.printed.get(&id).cloned();
        if trace.printed.is_none() {
            self.printed_order.push_back(id);
        }
        let ids = self.printed.entry(id).or_default();
        let before = ids.len();
        ids.extend(trace.spans.iter().map(|span| span.span_id));
        self.remembered += ids.len() - before;
        while self.remembered > REMEMBERED {
            let Some(oldest) = self.printed_order.pop_front() else {
                break;
            };
            self.remembered -= self.printed.remove(&oldest).map_or(0, |ids| ids.len());
        }
        Some(trace)
    }
}

struct Printer {
    style: Style,
    begun: bool,
}

/// Columns where nobody says how many there are: wide enough for names in full.
const WIDTH_OF_A_PIPE: usize = 120;

impl Printer {
    fn new() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let window = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten();
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = window
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0)
            .or_else(columns)
            .unwrap_or(if terminal { 80 } else { WIDTH_OF_A_PIPE });
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            style: Style {
                width,
                colour: terminal && !no_colour,
            },
            begun: false,
        }
    }

    /// Prints; false when nobody reads any more.
    fn print(&mut self, traces: &[Trace], intake: &Intake) -> anyhow::Result<bool> {
        for trace in traces {
            let mut page = String::new();
            if !self.begun {
                self.begun = true;
                page.push_str(&self.style.legend());
            }
            page.push_str(&self.style.trace(trace));
            let mut out = std::io::stdout().lock();
            match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => intake.counts.exported(trace.spans.len()),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(error).context("can't write to standard output"),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeryscope_core::SpanKind;

    fn span(trace: u8, id: u8, start: u64) -> Arc<Span> {
        let mut span = Span::new(SpanKind::Publish, TraceId([1; 16]), SpanId([1; 8]), "publish t");
        span.trace_id = TraceId([trace; 16]);
        span.span_id = SpanId([id; 8]);
        span.start.0 = start;
        Arc::new(span)
    }

    /// Scenario: two traces, one goes quiet before the other; then a late span of the printed one.
    /// Guarantees: only the quiet one is given; the late span comes as its continuation.
    #[test]
    fn quiet_traces_ripen() {
        let at = Duration::from_secs;
        let mut forest = Forest::default();
        forest.push(span(1, 1, 0), at(0));
        forest.push(span(2, 2, 0), at(5));
        let ripe = forest.quiet_since(at(3));
        assert_eq!(
            ripe.iter().map(|trace| trace.id).collect::<Vec<_>>(),
            [TraceId([1; 16])]
        );
        assert!(ripe[0].printed.is_none());
        forest.push(span(1, 3, 0), at(6));
        let late = forest.quiet_since(at(6));
        assert_eq!(late.len(), 2);
        let again = late.iter().find(|trace| trace.id == TraceId([1; 16])).unwrap();
        assert_eq!(again.printed, Some(HashSet::from([SpanId([1; 8])])));
        assert_eq!((forest.spans, forest.held.len(), forest.by_age.len()), (0, 0, 0));
    }

    /// Scenario: a replay holds traces that arrived in another order than they began.
    /// Guarantees: they are given in order of start.
    #[test]
    fn rest_is_sorted_by_start() {
        let mut forest = Forest::default();
        for (trace, start) in [(1, 30), (2, 10), (3, 20)] {
            forest.push(span(trace, 1, start), Duration::ZERO);
        }
        let order: Vec<_> = forest.rest().iter().map(|trace| trace.id.0[0]).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    /// Scenario: more spans than may be held, each of a trace of its own, printed and remembered.
    /// Guarantees: memory stays bounded; the oldest trace is given early.
    #[test]
    fn memory_is_bounded() {
        let mut forest = Forest::default();
        let mut early = Vec::new();
        for n in 0..u64::try_from(HELD + REMEMBERED + 10).unwrap() {
            let mut one = (*span(1, 1, n)).clone();
            one.trace_id.0[..8].copy_from_slice(&n.to_be_bytes());
            early.extend(forest.push(Arc::new(one), Duration::ZERO));
        }
        assert_eq!(forest.spans, HELD);
        assert_eq!(early.len(), REMEMBERED + 10);
        assert!(early.windows(2).all(|pair| pair[0].start() < pair[1].start()));
        assert!(forest.remembered <= REMEMBERED && forest.printed.len() <= REMEMBERED);
    }
}
