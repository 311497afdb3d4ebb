//! The `celeryscope` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    celeryscope::cli::main()
}
