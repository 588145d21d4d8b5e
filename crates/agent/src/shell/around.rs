//! What the shell listens to: signals, the local API, Raft, devices, the mesh, and the clock.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use muster_protocol::Input;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::{AgentError, Shell, console};
use crate::api::Question;
use crate::device::Device;
use crate::net::{Command, Event};

/// However the agent ends, what kubeadm has begun goes on: the next one waits for it.
pub(super) struct Leaves(pub(super) Arc<Device>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.runs.leave();
    }
}

/// What is to be done next.
pub(super) enum Next {
    /// The machine is to be given this.
    Input(Input),
    /// It was seen to.
    Nothing,
    /// The agent is to end.
    Stop,
}

/// All of it.
pub(super) struct Around {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    /// Where the API endpoint is to listen, and whether it does; none once that is known.
    pub(super) listens: (SocketAddr, Option<oneshot::Receiver<Result<(), String>>>),
    pub(super) asked: mpsc::Receiver<Question>,
    pub(super) reported: mpsc::Receiver<bytes::Bytes>,
    pub(super) from_devices: mpsc::Receiver<Input>,
    pub(super) from_mesh: mpsc::Receiver<Event>,
    pub(super) watchdog: Option<tokio::time::Interval>,
    pub(super) console: tokio::time::Interval,
    pub(super) socket: PathBuf,
    pub(super) leaves: Option<Leaves>,
}

impl Around {
    /// Waits for the next thing.
    pub(super) async fn next(&mut self, shell: &mut Shell) -> Result<Next, AgentError> {
        let wakeup = shell.next_wakeup();
        let input = tokio::select! {
            biased;
            _ = self.terminate.recv() => return Ok(Next::Stop),
            _ = self.interrupt.recv() => return Ok(Next::Stop),
            listens = known(&mut self.listens.1) => {
                self.listens(listens)?;
                None
            }
            Some(question) = self.asked.recv() => shell.answer(question),
            Some(report) = self.reported.recv() => {
                for (to, frame) in shell.others.made(report) {
                    shell.tell_mesh(Command::Send(to, frame.encode()));
                }
                None
            }
            Some(event) = shell.raft.events.recv() => shell.raft.heard(event)?,
            Some(done) = shell.raft.done.recv() => {
                shell.raft.is_done(done);
                None
            }
            Some(call) = shell.raft.outgoing.recv() => {
                shell.raft.call(call);
                None
            }
            Some(input) = self.from_devices.recv() => Some(input),
            () = tokio::time::sleep_until(wakeup.into()) => Some(Input::Wake),
            () = tick(&mut self.watchdog) => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                None
            }
            _ = self.console.tick() => {
                shell.show_on_console();
                None
            }
            // Last, because a flood of frames must not keep anything else from being seen to.
            Some(event) = self.from_mesh.recv() => shell.mesh_input(event),
        };
        Ok(input.map_or(Next::Nothing, Next::Input))
    }

    fn listens(&mut self, listens: Result<(), String>) -> Result<(), AgentError> {
        let (at, waits) = &mut self.listens;
        *waits = None;
        listens.map_err(|why| AgentError::System(format!("the API endpoint cannot listen on {at}: {why}")))?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        Ok(())
    }

    /// The agent ends. Returns the socket of its API.
    pub(super) fn ends(self) -> PathBuf {
        drop(self.leaves);
        self.socket
    }
}

async fn known(listens: &mut Option<oneshot::Receiver<Result<(), String>>>) -> Result<(), String> {
    match listens {
        Some(listens) => listens.await.unwrap_or_else(|_| Err("it ended".to_owned())),
        None => std::future::pending().await,
    }
}

/// Half of systemd's watchdog interval, if it watches.
pub(super) fn watchdog() -> Option<tokio::time::Interval> {
    let interval = sd_notify::watchdog_enabled()?;
    Some(tokio::time::interval(interval / 2))
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// How often the console is looked at.
pub(super) fn console() -> tokio::time::Interval {
    tokio::time::interval(console::LOOK)
}
