//! The `celeryscope` binary.

use std::process::ExitCode;

/// Spans come and go by the thousand, from one thread to another: glibc's allocator costs a third of the agent there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    celeryscope::cli::main()
}
