//! Logs: where they go, how much of them, and what no line of them shows.
//!
//! What libraries log when asked to is theirs, but a collector's URL may hold a password or a token: of every URL user, password and
//! query are overwritten, whoever writes it.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;

/// What ends a URL in a line.
const ENDS: &[u8] = b" \t\r\n\"'<>`|)]},";
/// Put in place of each byte.
const MASK: u8 = b'*';

/// Logs go to standard error; `log` records (aya's) come along through the subscriber's bridge.
pub(super) fn init() {
    let asked = ["CELERYSCOPE_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    // The exporter's own complaints repeat on every retry; ours come once.
    let quiet = "warn,celeryscope=info,opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off";
    let filter = EnvFilter::builder().parse_lossy(asked.as_deref().unwrap_or(quiet));
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Masked(io::stderr()))
        .with_ansi(colour)
        .with_target(false);
    // A service manager stamps the time itself; a file or a container's log does not.
    let _ = if terminal {
        log.without_time().try_init()
    } else {
        log.try_init()
    };
}

/// Overwrites what URLs hold of secrets. Lines come in one piece each. One that can't be written is gone: whoever reads the log, or
/// the disk it is on, may go while the agent has spans to deliver.
struct Masked<W>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut shown = line.to_vec();
        mask(&mut shown);
        let _ = self.0.write_all(&shown);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

fn mask(line: &mut [u8]) {
    const SCHEME: &[u8] = b"://";
    let mut at = 0;
    while let Some(found) = line[at..]
        .windows(SCHEME.len())
        .position(|window| window == SCHEME)
    {
        let begin = at + found + SCHEME.len();
        let length = line[begin..].iter().position(|byte| ENDS.contains(byte));
        let end = length.map_or(line.len(), |length| begin + length);
        let url = &mut line[begin..end];
        let authority = url
            .iter()
            .position(|byte| b"/?#".contains(byte))
            .unwrap_or(url.len());
        if let Some(user) = url[..authority].iter().rposition(|byte| *byte == b'@') {
            url[..user].fill(MASK);
        }
        if let Some(query) = url.iter().position(|byte| *byte == b'?') {
            url[query + 1..].fill(MASK);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: lines of libraries with URLs in them, with and without secrets, and lines without.
    /// Guarantees: users, passwords and queries are overwritten, everything else stays.
    #[test]
    fn credentials_in_urls() {
        for (line, shown) in [
            ("nothing @ all: a://b\n", "nothing @ all: a://b\n"),
            (
                r#"Error url="http://user:hunter2@c:4318/v1/traces" again"#,
                r#"Error url="http://************@c:4318/v1/traces" again"#,
            ),
            (
                "https://c/v1?key=hunter2 http://hunter2@d, e@f",
                "https://c/v1?*********** http://*******@d, e@f",
            ),
            ("http://a/path@b http://u:p@h@c", "http://a/path@b http://*****@c"),
            ("://", "://"),
        ] {
            let mut out = Vec::new();
            Masked(&mut out).write_all(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }
}
