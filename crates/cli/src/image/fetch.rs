//! Fetching an image from a web server: HTTP and HTTPS, as the machine's own certificates allow.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, LOCATION};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use muster_image::{LENGTH_MAX, room};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::print;

/// Whom the machine trusts: Debian's, Fedora's and SUSE's place.
const CERTIFICATES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How often a server may send elsewhere.
const ELSEWHERE_MAX: usize = 5;

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Fetches what is at `url` into a new file.
///
/// # Errors
/// When the server cannot be reached, says something else, or there is no room.
pub(super) async fn fetch(url: &str, to: &Path, json: bool) -> anyhow::Result<()> {
    let mut url = url.to_owned();
    // It would stand in the server's log and in what is told here.
    if url.split('/').nth(2).is_some_and(|authority| authority.contains('@')) {
        bail!("the URL has a name or a password in it, which is not sent: serve the image without");
    }
    for _ in 0..=ELSEWHERE_MAX {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let answer = patient(ask(&uri)).await.with_context(|| url.clone())?;
        if answer.status().is_redirection() {
            let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            url = elsewhere(&uri, place.with_context(|| format!("{url} leads nowhere"))?)?;
            continue;
        }
        if !answer.status().is_success() {
            bail!("{url}: {}", answer.status());
        }
        return keep(answer, to, json).await.with_context(|| url.clone());
    }
    bail!("{url}: it leads from one place to the next")
}

async fn patient<T>(act: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let silent = || format!("nothing was heard for {} s", SILENCE.as_secs());
    tokio::time::timeout(SILENCE, act).await.with_context(silent)?
}

/// Where a server sends to: another URL, or a path of its own. From HTTPS nobody is sent to HTTP.
fn elsewhere(from: &Uri, place: &str) -> anyhow::Result<String> {
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map(ToString::to_string).unwrap_or_default();
    let to = match place {
        place if ["http://", "https://"].iter().any(|scheme| place.starts_with(scheme)) => place.to_owned(),
        place if place.starts_with("//") => format!("{scheme}:{place}"),
        place if place.starts_with('/') => format!("{scheme}://{authority}{place}"),
        place => {
            let (above, _) = from.path().rsplit_once('/').unwrap_or_default();
            format!("{scheme}://{authority}{above}/{place}")
        }
    };
    if scheme == "https" && !to.starts_with("https://") {
        bail!("{from} sends to {to}, which is not encrypted");
    }
    Ok(to)
}

async fn ask(uri: &Uri) -> anyhow::Result<Response<Incoming>> {
    let host = uri.host().context("it names no server")?.trim_matches(['[', ']']).to_owned();
    let (port, is_secret) = match uri.scheme_str() {
        Some("http") => (80, false),
        Some("https") => (443, true),
        _ => bail!("it is neither http nor https"),
    };
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(port))).await;
    let stream = stream.with_context(|| format!("{host} does not answer"))?;
    let stream: Box<dyn Stream> = if is_secret {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trust()?));
        let name = ServerName::try_from(host.clone()).with_context(|| format!("{host} is no name of a server"))?;
        Box::new(connector.connect(name, stream).await.with_context(|| format!("{host} is not trusted"))?)
    } else {
        Box::new(stream)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body; what goes wrong shows there.
    tokio::spawn(connection);
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

fn trust() -> anyhow::Result<ClientConfig> {
    let file = CERTIFICATES.iter().find(|file| Path::new(file).exists());
    let file = file.context("this machine has no list of those whom it trusts (package ca-certificates)")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(|| format!("{file} cannot be read"))? {
        // Of many some are of kinds that are not known; a server of theirs is not trusted.
        let _ = certificate.map_err(anyhow::Error::from).and_then(|one| Ok(roots.add(one)?));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn keep(answer: Response<Incoming>, to: &Path, json: bool) -> anyhow::Result<()> {
    let length = answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(length.unwrap_or_default()) };
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>7}  {bytes} of {total_bytes}, {bytes_per_sec}") {
        bar.set_style(style);
    }
    let at_once = length.unwrap_or_default();
    if at_once > LENGTH_MAX {
        bail!("it has {} GiB, and no image has", at_once >> 30);
    }
    room(to, at_once)?;
    let mut file = tokio::fs::File::create_new(to).await.with_context(|| format!("{} cannot be made", to.display()))?;
    let mut body = answer.into_body();
    let mut kept = 0;
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let Some(frame) = frame.with_context(|| format!("nothing was heard for {} s", SILENCE.as_secs()))? else {
            break;
        };
        let Ok(data) = frame.context("it broke off")?.into_data() else { continue };
        kept += data.len() as u64;
        if kept > LENGTH_MAX {
            bail!("it has no end");
        }
        room(to, data.len() as u64)?;
        file.write_all(&data).await.context("there is no room for it")?;
        bar.set_position(kept);
    }
    file.flush().await.context("there is no room for it")?;
    bar.finish_and_clear();
    if json {
        print::line(&json!({ "fetched": kept }).to_string())?;
    }
    match length {
        Some(length) if length != kept => bail!("it broke off after {kept} of {length} bytes"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_send_elsewhere_and_not_out_of_secrecy() {
        let from = |url: &str, place: &str| elsewhere(&url.parse().expect("a URL"), place);
        assert_eq!(from("http://a:8080/x/y", "/z").expect("a path"), "http://a:8080/z");
        assert_eq!(from("http://a/x/y", "z?q").expect("a name"), "http://a/x/z?q");
        assert_eq!(from("https://a/x", "https://b/y").expect("another"), "https://b/y");
        assert_eq!(from("https://a/x", "//b/y").expect("another"), "https://b/y");
        assert_eq!(from("https://a/x", "/b?next=https://c").expect("a path"), "https://a/b?next=https://c");
        assert!(from("https://a/x", "http://a/x").is_err());
    }

    /// A server of this test's own.
    async fn served(answers: Vec<String>) -> String {
        use tokio::io::AsyncReadExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("asked");
                let mut asked = [0; 1024];
                let _ = stream.read(&mut asked).await;
                stream.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        format!("http://{address}/image.raw")
    }

    #[tokio::test]
    async fn what_is_served_is_kept_and_what_breaks_off_is_not_taken_for_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nimage".to_owned();
        let there =
            "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let url = served(vec![there, whole]).await;
        let to = directory.path().join("a");
        fetch(&url, &to, true).await.expect("fetched");
        assert_eq!(std::fs::read_to_string(&to).expect("read"), "image");
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nimage".to_owned();
        let url = served(vec![cut]).await;
        assert!(fetch(&url, &directory.path().join("b"), true).await.is_err());
        let url =
            served(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()]).await;
        let told = fetch(&url, &directory.path().join("c"), true).await.expect_err("not there").to_string();
        assert!(told.ends_with("404 Not Found"), "{told}");
        let told = fetch("http://me:secret@10.0.0.1/x", &directory.path().join("d"), true).await;
        assert!(!told.expect_err("a password").to_string().contains("secret"));
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX >> 1);
        let told = fetch(&served(vec![long]).await, &directory.path().join("e"), true).await.expect_err("too long");
        assert!(format!("{told:#}").contains("no image has"), "{told:#}");
    }
}
