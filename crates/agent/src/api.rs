//! The local API: HTTP and JSON on a unix socket that only its owner may use.
//!
//! `GET /v1/status`, `/v1/explain`, `/v1/ledger`, `/v1/images`, `/v1/common`, `/v1/metrics`, `/v1/start` (whether a kubelet may start); `/v1/events` and `/v1/logs` give the
//! last lines, and go on with `?follow=true`. Nothing there is secret, nothing there changes anything.
//!
//! `GET /v1/report` tells all that of this machine, with the ends of logs; with `?machine=IDENTITY` that of another one.
//!
//! `POST /v1/wish` asks for what the JSON body says, a [`muster_wire::Wish`]; with `?dry_run=true` it only asks what that would
//! change. `POST /v1/recover` has this machine rebuild the cluster, with `?backup=` from a backup, by its number or the path of a file. Both are answered
//! with a [`muster_protocol::Fate`].
//!
//! `GET /v1/backups` lists the backups of etcd; `POST /v1/backups/fetch?number=` has this machine fetch one, and tells where it is.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use muster_wire::{MachineId, Wish};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::logs::Ring;

/// What the machine's owner is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Status,
    Explain,
    Ledger,
    Images,
    Common,
    Metrics,
    Start,
    Report { machine: Option<MachineId> },
    Wish { wish: Wish, dry_run: bool },
    Recover { dry_run: bool, backup: Option<String> },
    Backups,
    FetchBackup { number: u32 },
}

/// Longest wish in bytes.
const WISH_BYTES_MAX: usize = 64 << 10;

/// A question to the machine's owner, answered with JSON.
pub(crate) type Question = (Subject, oneshot::Sender<String>);

#[derive(Clone)]
struct Api {
    questions: mpsc::Sender<Question>,
    events: Ring,
    logs: Ring,
}

/// Serves until the process ends.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn serve(socket: &Path, questions: mpsc::Sender<Question>, events: Ring, logs: Ring) -> std::io::Result<()> {
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory)?;
    }
    // A former agent's socket: this one holds the state directory's lock, so that agent is gone.
    match fs::remove_file(socket) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let router = Router::new()
        .route("/v1/status", get(|State(api): State<Api>| api.answer(Subject::Status)))
        .route("/v1/explain", get(|State(api): State<Api>| api.answer(Subject::Explain)))
        .route("/v1/ledger", get(|State(api): State<Api>| api.answer(Subject::Ledger)))
        .route("/v1/images", get(|State(api): State<Api>| api.answer(Subject::Images)))
        .route("/v1/common", get(|State(api): State<Api>| api.answer(Subject::Common)))
        .route("/v1/start", get(|State(api): State<Api>| api.answer(Subject::Start)))
        .route("/v1/report", get(report))
        .route("/v1/wish", post(wish).layer(DefaultBodyLimit::max(WISH_BYTES_MAX)))
        .route("/v1/recover", post(recover))
        .route("/v1/backups", get(|State(api): State<Api>| api.answer(Subject::Backups)))
        .route("/v1/backups/fetch", post(fetch_backup))
        .route("/v1/metrics", get(|State(api): State<Api>| api.answer(Subject::Metrics)))
        .route("/v1/events", get(|State(api): State<Api>, query| async move { lines(&api.events, &query) }))
        .route("/v1/logs", get(|State(api): State<Api>, query| async move { lines(&api.logs, &query) }))
        .with_state(Api { questions, events, logs });
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

impl Api {
    async fn answer(self, subject: Subject) -> Response {
        let (sender, answer) = oneshot::channel();
        let asked = self.questions.send((subject, sender)).await;
        match (asked, answer.await) {
            (Ok(()), Ok(json)) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "it is stopping, or what was asked for cannot be had now")
                .into_response(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Asking {
    #[serde(default)]
    dry_run: bool,
}

async fn wish(State(api): State<Api>, Query(asking): Query<Asking>, body: Bytes) -> Response {
    match serde_json::from_slice(&body) {
        Ok(wish) => api.answer(Subject::Wish { wish, dry_run: asking.dry_run }).await,
        Err(why) => (StatusCode::BAD_REQUEST, format!("this is no wish: {why}")).into_response(),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Recovering {
    #[serde(default)]
    dry_run: bool,
    backup: Option<String>,
}

async fn recover(State(api): State<Api>, Query(asking): Query<Recovering>) -> Response {
    api.answer(Subject::Recover { dry_run: asking.dry_run, backup: asking.backup }).await
}

#[derive(Debug, Deserialize)]
struct Fetching {
    number: u32,
}

async fn fetch_backup(State(api): State<Api>, Query(fetching): Query<Fetching>) -> Response {
    api.answer(Subject::FetchBackup { number: fetching.number }).await
}

#[derive(Debug, Default, Deserialize)]
struct Reporting {
    machine: Option<String>,
}

async fn report(State(api): State<Api>, Query(reporting): Query<Reporting>) -> Response {
    let machine = reporting.machine.as_deref().map(|text| MachineId::from_hex(text).ok_or(text));
    match machine.transpose() {
        Ok(machine) => api.answer(Subject::Report { machine }).await,
        Err(text) => (StatusCode::BAD_REQUEST, format!("{text:?} is no machine's identity")).into_response(),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Following {
    #[serde(default)]
    follow: bool,
}

fn lines(ring: &Ring, Query(following): &Query<Following>) -> Response {
    let (kept, coming) = ring.follow();
    let kept = stream::iter(kept);
    let line = |line: String| Ok::<_, Infallible>(Bytes::from(line + "\n"));
    if !following.follow {
        return Body::from_stream(kept.map(line)).into_response();
    }
    let coming = stream::unfold(coming, |mut coming| async move {
        loop {
            match coming.recv().await {
                Ok(line) => return Some((line, coming)),
                // Too slow a reader misses lines; it goes on with the next.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    Body::from_stream(kept.chain(coming).map(line)).into_response()
}
