//! The agent's local API: HTTP over its unix socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The socket of a machine's one agent.
pub(crate) const DEFAULT_SOCKET: &str = "/run/muster/muster.sock";

/// Longest answer in bytes; a status of 10,000 machines is about 4 MB.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Longest word with which an agent turns a question down.
const SAID_BYTES_MAX: usize = 4 << 10;

/// Why an agent was not heard.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// Nobody listens at the socket.
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    Forbidden(PathBuf),
    /// It is not known which socket to ask.
    Nowhere(String),
    /// Something listens, but the answer is not one.
    Broken(PathBuf, String),
}

impl std::fmt::Display for Unheard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unheard::NotRunning(socket) => write!(
                f,
                "no agent listens at {}: is it running (systemctl status muster)? A lab's machine is asked with --machine NAME",
                socket.display()
            ),
            Unheard::Forbidden(socket) => {
                write!(f, "{} may only be used by the user whose agent it is: try sudo", socket.display())
            }
            Unheard::Nowhere(why) => f.write_str(why),
            Unheard::Broken(socket, why) => {
                write!(f, "the agent at {} does not answer as it should: {why}", socket.display())
            }
        }
    }
}

impl std::error::Error for Unheard {}

/// One agent.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The agent that listens at this socket.
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn broken(&self, why: impl ToString) -> Unheard {
        Unheard::Broken(self.socket.clone(), why.to_string())
    }

    async fn get(&self, path: &str) -> Result<Incoming, Unheard> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON, and takes JSON for an answer.
    pub(crate) async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, Unheard> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let answer = Limited::new(self.ask(Method::POST, path, body.into()).await?, ANSWER_BYTES_MAX);
        let answer = answer.collect().await.map_err(|error| self.broken(error))?.to_bytes();
        serde_json::from_slice(&answer).map_err(|error| self.broken(format!("{path}: {error}")))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, Unheard> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unheard::NotRunning(self.socket.clone()),
            io::ErrorKind::PermissionDenied => Unheard::Forbidden(self.socket.clone()),
            _ => self.broken(error),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // Ends with the answer's body; what goes wrong shows there.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "muster");
        let request = request.body(Full::new(body)).map_err(|error| self.broken(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => {
                let said = Limited::new(answer.into_body(), SAID_BYTES_MAX).collect().await;
                let said = said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned()).unwrap_or_default();
                Err(self.broken(format!("{path}: {status} {said}").trim_end()))
            }
        }
    }

    /// A whole answer.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes, Unheard> {
        let body = Limited::new(self.get(path).await?, ANSWER_BYTES_MAX);
        Ok(body.collect().await.map_err(|error| self.broken(error))?.to_bytes())
    }

    /// A JSON answer.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Unheard> {
        serde_json::from_slice(&self.read(path).await?).map_err(|error| self.broken(format!("{path}: {error}")))
    }

    /// Lines as they come, until the agent ends or `take` says that it is enough.
    pub(crate) async fn lines(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<(), Unheard> {
        let mut body = self.get(path).await?;
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(error))?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(String::from_utf8_lossy(&line).trim_end()) {
                    return Ok(());
                }
            }
            if rest.len() > ANSWER_BYTES_MAX {
                return Err(self.broken("a line without end"));
            }
        }
        Ok(())
    }
}
