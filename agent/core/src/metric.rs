//! What a number that the program tells of itself is called, counted in, and means: written once, for every way it is shown.

/// A number's name and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// `snake_case`, unique in the program.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// By UCUM, as OpenTelemetry's conventions have it: `By`, or what is counted in braces.
    pub unit: &'static str,
    /// Where it belongs.
    pub area: Area,
    /// How it moves.
    pub kind: MetricKind,
}

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is what there is at the moment.
    Gauge,
}

/// Part of the program that a number is about, in the order of the data's way through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// What came from the kernel.
    Capture,
    /// Connections, their bytes, and what was read from them.
    Streams,
    /// Tasks, processes and spans.
    Tasks,
    /// Outputs.
    Export,
    /// The agent's own process.
    Agent,
}

impl Area {
    /// All, in order.
    pub const ALL: [Self; 5] = [
        Self::Capture,
        Self::Streams,
        Self::Tasks,
        Self::Export,
        Self::Agent,
    ];

    /// Its name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Streams => "streams",
            Self::Tasks => "tasks",
            Self::Export => "export",
            Self::Agent => "agent",
        }
    }
}
