//! Service identity.
