//! How the programs of a test reach its servers.

use super::loopback::Family;
use super::tls::Tls;

/// By which address, and past which guards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) family: Family,
    /// None: in clear.
    pub(crate) tls: Option<Tls>,
    /// What Redis asks for.
    pub(crate) password: Option<&'static str>,
}

impl From<Family> for Way {
    /// In clear.
    fn from(family: Family) -> Self {
        Self {
            family,
            tls: None,
            password: None,
        }
    }
}

impl From<Tls> for Way {
    /// Over 127.0.0.1.
    fn from(tls: Tls) -> Self {
        Self {
            tls: Some(tls),
            ..Family::V4.into()
        }
    }
}
