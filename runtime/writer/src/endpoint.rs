//! An HTTP endpoint of a database server: makes requests and reads the answers.
//!
//! Plain HTTP without a proxy goes by `http1_client`, at half the cost of a small request; TLS, proxies
//! and credentials in the URL go by reqwest. Both answer in the same way.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{HeaderMap, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::WriterError;
use crate::http1_client::{Http1Client, Http1Error};
use crate::limits;
use crate::settings::{Gzip, HttpSettings, ServerKind};
use crate::verdict::{EndpointResponse, retry_after};
use tidegate_core::ids::DatabaseName;
use tidegate_core::redacted_url::RedactedUrl;

const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct RequestFailed {
    pub words: String,
    /// The connection ended while the request was under way.
    pub broken: bool,
}

/// A client of one server.
pub struct Endpoint {
    transport: HttpTransport,
    kind: ServerKind,
    /// Everything of the address before the database's name.
    before: String,
    after: &'static str,
    /// The headers of every request.
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
    /// The settings' URL without a slash at its end.
    base: String,
    local: bool,
    create_database: bool,
}

enum HttpTransport {
    /// Addresses are a path and a query.
    Http1(Box<Http1Client>),
    /// Addresses are whole.
    Reqwest(reqwest::Client),
}

impl Endpoint {
    /// # Errors
    /// The URL or a credential cannot stand in a request.
    pub fn new(settings: &HttpSettings) -> Result<Self, WriterError> {
        let bad_url = |why: String| WriterError::Url { url: RedactedUrl(&settings.url).to_string(), why };
        let url = reqwest::Url::parse(&settings.url).map_err(|error| bad_url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad_url("expected http:// or https:// and a host".into()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad_url("expected no query and no fragment".into()));
        }
        let local = is_loopback(&url);
        let base = settings.url.trim_end_matches('/');
        let (before, after) = match settings.kind {
            ServerKind::InfluxDb3 => {
                (format!("{base}/api/v3/write_lp?precision=ns&accept_partial=true&no_sync=false&db="), "")
            }
            ServerKind::InfluxDb2 => {
                let org = utf8_percent_encode(&settings.org, QUERY_VALUE);
                (format!("{base}/api/v2/write?org={org}&precision=ns&bucket="), "")
            }
            // `n` is the only name of nanoseconds that every 1.x knows.
            ServerKind::InfluxDb1 => (format!("{base}/write?precision=n&db="), ""),
        };
        let authorization = match settings.kind {
            ServerKind::InfluxDb3 if !settings.token.is_empty() => Some(format!("Bearer {}", settings.token)),
            ServerKind::InfluxDb2 if !settings.token.is_empty() => Some(format!("Token {}", settings.token)),
            ServerKind::InfluxDb1 if !settings.username.is_empty() => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{}:{}", settings.username, settings.password))
            )),
            _ => None,
        };
        let authorization = authorization
            .map(|value| {
                let mut value = HeaderValue::from_str(&value).map_err(|_| WriterError::Credential)?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let gzip = match settings.gzip {
            Gzip::Auto => !local,
            Gzip::Always => true,
            Gzip::Never => false,
        };
        let (kind, timeout) = (settings.kind, settings.request_timeout);
        let (transport, before) = match direct_server(&url, local) {
            Some(server) => {
                let client = Http1Client::new(server, timeout).map_err(|error| bad_url(error.to_string()))?;
                // Escaped, as in a URL.
                let whole = reqwest::Url::parse(&before).map_err(|error| bad_url(error.to_string()))?;
                let query = whole.query().unwrap_or_default();
                (HttpTransport::Http1(Box::new(client)), format!("{}?{query}", whole.path()))
            }
            None => (HttpTransport::Reqwest(reqwest_client(timeout, local)?), before),
        };
        let (base, create_database) = (base.to_owned(), settings.create_database);
        Ok(Self { transport, kind, before, after, headers, gzip, timeout, base, local, create_database })
    }

    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    /// The URL without credentials, as it may be shown.
    pub fn shown_url(&self) -> String {
        let scheme = self.base.split("://").next().unwrap_or_default();
        let path = self.base.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
        format!("{scheme}://{}{path}", self.host())
    }

    /// The server's name and port.
    pub fn host(&self) -> &str {
        let after_scheme = self.base.find("://").map_or(0, |at| at + 3);
        let end = self.base[after_scheme..].find('/').map_or(self.base.len(), |at| after_scheme + at);
        self.base[after_scheme..end].rsplit('@').next().unwrap_or_default()
    }

    /// True if a missing database is to be created.
    pub fn creates_databases(&self) -> bool {
        self.create_database && self.kind == ServerKind::InfluxDb1
    }

    /// The version by `/ping`: a header of InfluxDB 1 and 2, and in the body of InfluxDB 3. `None`: it did
    /// not answer, or did not say it.
    pub async fn version(&self) -> Option<String> {
        let client = reqwest_client(self.timeout, self.local).ok()?;
        let request = client.get(format!("{}/ping", self.base)).headers(self.headers.clone());
        let response = request.send().await.ok().filter(|response| response.status().is_success())?;
        let header = response.headers().get("x-influxdb-version");
        if let Some(version) = header.and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty()) {
            return Some(version.to_owned());
        }
        let body = read_body(response).await.ok()?;
        let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
        Some(json.get("version")?.as_str()?.to_owned())
    }

    /// Creates a database of InfluxDB 1.
    ///
    /// # Errors
    /// The server's words, or that it did not answer.
    pub async fn create(&self, database: &DatabaseName) -> Result<(), String> {
        let name = database.as_str().replace('\\', "\\\\").replace('"', "\\\"");
        let statement = format!("CREATE DATABASE \"{name}\"");
        let address = format!("{}/query?q={}", self.base, utf8_percent_encode(&statement, QUERY_VALUE));
        let client = reqwest_client(self.timeout, self.local).map_err(|error| error.to_string())?;
        let request = client.post(address).headers(self.headers.clone());
        let response = request.send().await.map_err(|error| self.no_answer(&error).words)?;
        let status = response.status();
        let body = read_body(response).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body).into_owned();
        let error = serde_json::from_str::<serde_json::Value>(&body).ok().and_then(|json| {
            let error = json.get("error").or_else(|| json.pointer("/results/0/error"))?;
            Some(error.as_str()?.to_owned())
        });
        match error {
            None if status.is_success() => Ok(()),
            error => Err(format!("{}: {}", status.as_u16(), error.unwrap_or(body))),
        }
    }

    /// Sends lines (each ended by a newline) as one POST and reads the answer.
    ///
    /// # Errors
    /// No complete answer came in time. The lines may have been written or not.
    pub async fn write(
        &self,
        database: &DatabaseName,
        body: Bytes,
        plain: bool,
    ) -> Result<EndpointResponse, RequestFailed> {
        // Lines are joined by newlines, and the last one has none.
        let body = body.slice(..body.len() - 1);
        let name = utf8_percent_encode(database.as_str(), QUERY_VALUE);
        let address = format!("{}{name}{}", self.before, self.after);
        let mut headers = self.headers.clone();
        let body = if self.gzip && !plain {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            compress(body).await
        } else {
            body
        };
        match &self.transport {
            HttpTransport::Http1(client) => self.write_http1(client, &address, &headers, &body).await,
            HttpTransport::Reqwest(client) => self.write_reqwest(client, &address, headers, body).await,
        }
    }

    async fn write_http1(
        &self,
        client: &Http1Client,
        address: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<EndpointResponse, RequestFailed> {
        match tokio::time::timeout(self.timeout, client.post(address, headers, body)).await {
            Ok(Ok(reply)) => {
                let retry_after = retry_after_of(&reply.headers);
                let location = location_of(&reply.headers);
                Ok(EndpointResponse { status: reply.status, retry_after, location, body: reply.body })
            }
            Ok(Err(error)) => {
                let broken = matches!(error, Http1Error::Broken(_));
                Err(RequestFailed { words: with_causes(&error), broken })
            }
            Err(_) => Err(RequestFailed { words: self.no_answer_in_time(), broken: false }),
        }
    }

    async fn write_reqwest(
        &self,
        client: &reqwest::Client,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<EndpointResponse, RequestFailed> {
        let request = client.post(address).headers(headers).body(body);
        let response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after_of(response.headers());
        let location = location_of(response.headers());
        let body = match read_body(response).await {
            Ok(body) => body,
            // The status says it all.
            Err(_) if status == 204 => Vec::new(),
            Err(error) => return Err(self.no_answer(&error)),
        };
        Ok(EndpointResponse { status, retry_after, location, body })
    }

    fn no_answer(&self, error: &reqwest::Error) -> RequestFailed {
        let words = match error.is_timeout() {
            true => self.no_answer_in_time(),
            false => with_causes(error),
        };
        RequestFailed { words, broken: !error.is_timeout() && !error.is_connect() }
    }

    fn no_answer_in_time(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }
}

fn reqwest_client(timeout: Duration, local: bool) -> Result<reqwest::Client, WriterError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only when another thread was faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut client = reqwest::Client::builder()
        // Following one would turn the POST into a GET, and its 200 into a lie.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_max_idle_per_host(limits::ENDPOINT_IDLE_CONNECTIONS_MAX)
        .tcp_nodelay(true);
    if local {
        client = client.no_proxy();
    }
    client.build().map_err(|error| WriterError::Client(with_causes(&error)))
}

/// The server, if plain connections can go to it: without TLS, credentials in the URL, or a proxy that
/// the environment names for it.
fn direct_server(url: &reqwest::Url, local: bool) -> Option<Uri> {
    if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let host = url.host_str()?;
    let server: Uri = format!("http://{host}:{}", url.port().unwrap_or(80)).parse().ok()?;
    (local || Matcher::from_env().intercept(&server).is_none()).then_some(server)
}

/// The beginning of an answer's body: a server may send one without end.
async fn read_body(mut response: reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < limits::RESPONSE_BYTES_MAX
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn retry_after_of(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, jiff::Timestamp::now())
}

fn location_of(headers: &HeaderMap) -> Option<String> {
    Some(String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned())
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An error with all that caused it, without the URL.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

async fn compress(body: Bytes) -> Bytes {
    if body.len() <= limits::GZIP_INLINE_BYTES_MAX {
        return gzip(&body);
    }
    tokio::task::spawn_blocking(move || gzip(&body)).await.expect("compressing does not panic")
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4 + 64), flate2::Compression::fast());
    let zipped = encoder.write_all(body).and_then(|()| encoder.finish());
    zipped.expect("memory takes all that is written").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Gzip, HttpSettings, ServerKind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn settings(kind: ServerKind) -> HttpSettings {
        HttpSettings {
            kind,
            url: "http://127.0.0.1:8181/".into(),
            token: "t".into(),
            org: "my org".into(),
            username: String::new(),
            password: String::new(),
            gzip: Gzip::Auto,
            request_timeout: Duration::from_secs(1),
            create_database: false,
        }
    }

    #[test]
    fn a_url_that_no_request_can_go_to_is_refused() {
        for url in ["", "127.0.0.1:8181", "ftp://host", "http://", "http://host/?db=x"] {
            let settings = HttpSettings { url: url.into(), ..settings(ServerKind::InfluxDb3) };
            assert!(Endpoint::new(&settings).is_err(), "{url:?}");
        }
        assert!(
            Endpoint::new(&HttpSettings { token: "a\nb".into(), ..settings(ServerKind::InfluxDb3) }).is_err()
        );
        assert!(Endpoint::new(&settings(ServerKind::InfluxDb2)).unwrap().before.contains("org=my%20org"));
    }

    /// Answers every request with a body that ends after 64 MiB; gives the bytes that a peer took.
    async fn endless_server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                let part = vec![b' '; 64 << 10];
                while counter.load(Ordering::Relaxed) < 64 << 20 && socket.write_all(&part).await.is_ok() {
                    counter.fetch_add(part.len(), Ordering::Relaxed);
                }
            }
        });
        (url, taken)
    }

    #[tokio::test]
    async fn of_an_answer_without_end_only_the_beginning_is_read() {
        let (url, taken) = endless_server().await;
        let request_timeout = Duration::from_secs(60);
        let settings = HttpSettings { url, request_timeout, ..settings(ServerKind::InfluxDb1) };
        let endpoint = Endpoint::new(&settings).unwrap();
        assert_eq!(endpoint.version().await, None);
        // Its status says that it worked, so the next write tells.
        let _ = endpoint.create(&"db".into()).await;
        endpoint.write(&"db".into(), Bytes::from_static(b"m f=1 1\n"), true).await.unwrap();
        let bytes = taken.load(Ordering::Relaxed);
        assert!(bytes < 48 << 20, "{bytes} bytes of three answers");
    }

    #[test]
    fn auto_compresses_only_what_leaves_the_machine() {
        for (url, zips) in [
            ("http://localhost:1", false),
            ("http://[::1]:1", false),
            ("http://127.8.0.1", false),
            ("http://192.0.2.1", true),
            ("https://influx.example", true),
        ] {
            let settings = HttpSettings { url: url.into(), ..settings(ServerKind::InfluxDb3) };
            assert_eq!(Endpoint::new(&settings).unwrap().gzip, zips, "{url}");
        }
    }
}
