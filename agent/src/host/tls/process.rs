//! Processes that the user names.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};

/// The kernel keeps this much of a process's name.
const COMM: usize = 15;

/// A process, or all of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProcess {
    /// By its id.
    Pid(u32),
    /// By the name of its main thread, as `ps -o comm` shows it.
    Named(String),
}

impl TlsProcess {
    /// Is it this one?
    pub(crate) fn matches(&self, pid: u32, comm: &str) -> bool {
        match self {
            Self::Pid(named) => *named == pid,
            Self::Named(name) => {
                let kept = name.as_bytes();
                kept[..kept.len().min(COMM)] == *comm.as_bytes()
            }
        }
    }
}

impl FromStr for TlsProcess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give a process id, or a process's name such as celery".to_owned();
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let pid = text.parse().ok().filter(|pid| *pid != 0);
            return pid.map(Self::Pid).ok_or_else(wrong);
        }
        if text.contains('/') || text.trim() != text {
            return Err(wrong());
        }
        Ok(Self::Named(text.to_owned()))
    }
}

impl fmt::Display for TlsProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "{pid}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// In a file a number may stand without quotes.
impl<'de> Deserialize<'de> for TlsProcess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            toml::Value::Integer(pid) => pid.to_string(),
            _ => String::new(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: ids, names, a name that is longer than the kernel keeps, and what is neither.
    /// Guarantees: each matches what it names and nothing else; nonsense is refused.
    #[test]
    fn ids_and_names() {
        let parse = |text: &str| text.parse::<TlsProcess>();
        assert_eq!(parse("17"), Ok(TlsProcess::Pid(17)));
        assert_eq!(parse("celery"), Ok(TlsProcess::Named("celery".to_owned())));
        assert!(parse("17").unwrap().matches(17, "18"));
        assert!(!parse("17").unwrap().matches(18, "17"));
        assert!(parse("celery").unwrap().matches(1, "celery"));
        assert!(!parse("celery").unwrap().matches(1, "celerybeat"));
        assert!(
            parse("celery: MainProcess")
                .unwrap()
                .matches(1, "celery: MainPro")
        );
        assert!(!parse("celery: MainProcess").unwrap().matches(1, "celery: MainPr"));
        for wrong in ["", " ", "0", "99999999999", "/usr/bin/python3", "celery "] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
