//! `muster-sim`: runs scenarios and says what held.

use std::process::ExitCode;

/// A run is millions of small allocations in one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A reader that has seen enough, as `head`, ends the program: that is no mistake of its own, and needs no backtrace.
#[expect(
    clippy::disallowed_methods,
    reason = "a printing that fails has nowhere to return to, and a run leaves nothing behind"
)]
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            // As a shell counts a program that SIGPIPE ended.
            std::process::exit(128 + 13);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    end_with_the_reader();
    muster_simulator::command::main()
}
