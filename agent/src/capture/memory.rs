//! Memory that is free goes back to the system: the allocator keeps what was freed in case it is wanted again, and after the start, when
//! the kernel's types and the kernel half have been read, or after a rush that is most of what the agent ever held.

use rustix::thread::disable_transparent_huge_pages;

/// What is freed is given back after so many ms, unless it is wanted again. That is longer than the next batch of spans takes to come:
/// to fault in again what was just given back costs an eighth of all that the agent does.
const KEPT_FOR: i64 = 1000;
/// `mi_option_purge_delay`, mimalloc.h; the bindings have no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has memory held in small pages: an agent is judged by what it takes, and huge pages are taken whole for the little that lies in
/// them. What is freed from now on is given back at once: much of what a start takes is wanted only once. To be called before that.
pub(super) fn hold_little() {
    // Kernels without huge pages refuse.
    let _ = disable_transparent_huge_pages(true);
    keep_for(0);
}

/// The start is over.
pub(super) fn started() {
    give_back();
    keep_for(KEPT_FOR);
}

/// Gives back what is free in the books of this thread, and what no thread's books name; takes some tenths of a millisecond. The
/// program's allocator is named in `main.rs`; where it is another one (tests), this does nothing.
pub(crate) fn give_back() {
    // SAFETY: the call has no preconditions; it looks at nothing but the allocator's own books of this thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

fn keep_for(ms: i64) {
    // SAFETY: sets a number of the allocator's own, of which any is allowed.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, ms) }
}
