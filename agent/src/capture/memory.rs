//! Memory that is free goes back to the system: the allocator keeps what was freed in case it is wanted again, and after the start, when
//! the kernel's types and the kernel half have been read, or after a rush that is most of what the agent ever held.

/// Gives it back; takes some tenths of a millisecond. The program's allocator is named in `main.rs`; where it is another one (tests),
/// this does nothing.
pub(super) fn give_back() {
    // SAFETY: the call has no preconditions; it looks at nothing but the allocator's own books of this thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
