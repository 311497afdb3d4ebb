//! What the host knows about processes, read from /proc. Every reader takes the root of /proc, so that tests have
//! their own.
//!
//! Process ids are those of the pid namespace that the given /proc belongs to.

pub(crate) mod celery;
pub(crate) mod proc;
pub(crate) mod resource;
pub(crate) mod sockets;
pub(crate) mod tls;

#[cfg(test)]
pub(crate) mod fake;
