//! `muster-sim`: runs scenarios and says what held.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_simulator::command::main()
}
