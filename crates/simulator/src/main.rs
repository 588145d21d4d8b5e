//! `muster-sim`: runs scenarios and says what held.

use std::process::ExitCode;

/// A run is millions of small allocations in one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    muster_simulator::command::main()
}
