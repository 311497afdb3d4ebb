//! Waiting until the ring fills, somebody else has something to say, or the time is over: one system call and one way back into the
//! program for each wait, since an idle agent does nothing else.
//!
//! By epoll, which knows edges: the kernel calls the ring readable for as long as there is anything in it, and nearly all
//! records are put there without waking anybody.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Who is waited for, in one thread.
pub(super) struct Waiter(OwnedFd);

impl Waiter {
    /// For the ring.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub(super) fn new(ring: BorrowedFd<'_>) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("cannot make a descriptor to wait with")?;
        let waiter = Self(epoll);
        waiter.also(ring)?;
        Ok(waiter)
    }

    /// For this, too. Something that comes ends one wait, the one under way or the next, whether or not it is read.
    ///
    /// # Errors
    /// It can't be waited for.
    pub(super) fn also(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.0, fd, EventData::new_u64(0), edge).context("cannot wait on a descriptor")
    }

    /// Waits no longer than this, in whole milliseconds.
    pub(super) fn wait(&self, at_most: Duration) {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; 2];
        let timeout = Timespec::try_from(at_most).ok();
        match epoll::wait(&self.0, &mut events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!("cannot wait on the ring buffer, looking at it from time to time: {error}");
                std::thread::sleep(at_most);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn is_woken(waiter: &Waiter, at_most: Duration) -> bool {
        let begun = Instant::now();
        waiter.wait(at_most);
        begun.elapsed() < at_most
    }

    /// Scenario: something is written to what stands for the ring, and nobody reads it; then something to what else is waited for.
    /// Guarantees: each ends one wait and not the next, and so does what comes after it.
    #[test]
    fn each_ends_one_wait() {
        let (ring, writer) = UnixStream::pair().unwrap();
        let (other, caller) = UnixStream::pair().unwrap();
        let waiter = Waiter::new(ring.as_fd()).unwrap();
        waiter.also(other.as_fd()).unwrap();
        assert!(!is_woken(&waiter, SHORT));
        for mut writer in [&writer, &caller, &writer] {
            writer.write_all(b"a record").unwrap();
            assert!(is_woken(&waiter, LONG));
            assert!(!is_woken(&waiter, SHORT));
        }
    }
}
