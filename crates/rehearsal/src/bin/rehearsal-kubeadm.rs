//! The rehearsal kubeadm by itself.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    muster_rehearsal::main(std::env::args_os())
}
