//! How large the recording is, while it grows: a line that is rewritten on a terminal, elsewhere a line in the log now and then.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::recording::Size;

/// Between two states of the line on a terminal.
const REWRITE: Duration = Duration::from_millis(500);
/// Between two lines in the log.
const LOG: Duration = Duration::from_secs(60);

/// Tells how large a recording is.
#[derive(Debug)]
pub(super) struct Progress {
    name: String,
    masked: bool,
    terminal: bool,
    /// When it was told last, and how large the recording was then.
    told: (Instant, Size),
}

impl Progress {
    /// Begins now, with nothing recorded.
    pub(super) fn start(path: &Path, masked: bool) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            name: name.to_string_lossy().escape_debug().to_string(),
            masked,
            terminal: io::stderr().is_terminal(),
            told: (Instant::now(), Size::default()),
        }
    }

    /// Tells it where it is time to.
    pub(super) fn turn(&mut self, size: Size) {
        let now = Instant::now();
        let every = if self.terminal { REWRITE } else { LOG };
        let passed = now.saturating_duration_since(self.told.0);
        if passed < every {
            return;
        }
        let line = line(&self.name, self.masked, size, self.told.1, passed);
        self.told = (now, size);
        if self.terminal {
            rewrite(&line);
        } else {
            tracing::info!("{line}");
        }
    }

    /// Makes way for what is said at the end.
    pub(super) fn end(&self) {
        if self.terminal {
            rewrite("");
        }
    }
}

/// `recording shop.rec: 1234 records, 5.1 MiB, 0.2 MiB/s, masked`.
fn line(name: &str, masked: bool, size: Size, before: Size, passed: Duration) -> String {
    let rate = mib(size.bytes.saturating_sub(before.bytes)) / passed.as_secs_f64().max(0.001);
    let files = match size.files {
        0 | 1 => String::new(),
        files => format!(" in {files} files"),
    };
    format!(
        "recording {name}: {} records, {:.1} MiB{files}, {rate:.1} MiB/s, {}",
        size.records,
        mib(size.bytes),
        if masked { "masked" } else { "with payloads" },
    )
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The cursor stays at the line's start, so that whatever else is written replaces it.
fn rewrite(line: &str) {
    let width = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let room = if width == 0 { 80 } else { width }.saturating_sub(1);
    let shown: String = line.chars().take(room).collect();
    // A terminal that is gone ends nothing.
    let _ = write!(io::stderr().lock(), "\r{shown}\x1b[K\r");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a masked recording in one file, one with payloads in several; nothing new since the last time.
    /// Guarantees: records, size, rate since the last time, files where there are several, and whether it is masked.
    #[test]
    fn what_is_told() {
        let size = Size {
            records: 1234,
            bytes: 5 << 20,
            files: 1,
        };
        let second = Duration::from_secs(2);
        assert_eq!(
            line("shop.rec", true, size, Size::default(), second),
            "recording shop.rec: 1234 records, 5.0 MiB, 2.5 MiB/s, masked"
        );
        let size = Size { files: 3, ..size };
        assert_eq!(
            line("shop.rec", false, size, size, second),
            "recording shop.rec: 1234 records, 5.0 MiB in 3 files, 0.0 MiB/s, with payloads"
        );
    }
}
