//! A client of one server by plain HTTP/1.1. It spares what a general client does for each request: no
//! layers, no task and no timer a connection. A connection is polled by the request that has it.
//!
//! Deliberately absent: redirects, proxies, TLS, decompression. Requests that need one of them go by
//! reqwest (`endpoint`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{InvalidUri, PathAndQuery};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::limits;

/// The answer of a server.
pub struct HttpReply {
    pub status: u16,
    pub headers: HeaderMap,
    /// At most `limits::RESPONSE_BYTES_MAX`, and the rest of the last piece.
    pub body: Vec<u8>,
}

/// No whole answer came.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    #[error("{0}")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Broken(#[source] hyper::Error),
    #[error("the address is not a valid HTTP address: {0}")]
    Address(#[from] InvalidUri),
}

/// One server, and the connections to it that are open and idle.
pub struct Http1Client {
    connector: HttpConnector,
    server: Uri,
    host: HeaderValue,
    idle: Arc<Mutex<IdleConnections>>,
    /// The age at which a connection is not used again.
    age_max: Duration,
}

/// Connections that wait for a request.
#[derive(Default)]
struct IdleConnections {
    /// The one that was used last stands last.
    connections: Vec<(Box<OpenConnection>, Instant)>,
    /// A task closes those that are idle for too long.
    watched: bool,
}

/// A connection and its two ends.
struct OpenConnection {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    opened: Instant,
    /// The connection has come to its end, and must not be polled again.
    ended: bool,
}

impl Http1Client {
    /// `server` is `http://` with the host and port that connections go to.
    ///
    /// # Errors
    /// The host can stand in no header.
    pub fn new(server: Uri, connect_timeout: Duration) -> Result<Self, hyper::http::Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let authority = server.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority.strip_suffix(":80").unwrap_or(authority))?;
        let age_max = Duration::from_secs(limits::CONNECTION_AGE_MAX_S);
        Ok(Self { connector, server, host, idle: Arc::default(), age_max })
    }

    /// Posts `body` to `address`, a path with its query, and reads the answer. On a connection that
    /// the server has closed since it was used last it is sent once more: every line is the same
    /// point however often it comes.
    ///
    /// # Errors
    /// There is no connection, or it broke.
    pub async fn post(
        &self,
        address: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<HttpReply, Http1Error> {
        let address = PathAndQuery::try_from(address)?;
        if let Some(mut open) = self.take_idle().await {
            match open.exchange(self.request(&address, headers, body)).await {
                Ok(reply) => {
                    self.keep(open);
                    return Ok(reply);
                }
                Err(error) if error.is_parse() => return Err(Http1Error::Broken(error)),
                Err(error) => tracing::debug!(%error, "an idle connection was closed"),
            }
        }
        let mut open = self.connect().await?;
        let reply = open.exchange(self.request(&address, headers, body)).await.map_err(Http1Error::Broken)?;
        self.keep(open);
        Ok(reply)
    }

    fn request(&self, address: &PathAndQuery, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(address.clone());
        headers.clone_into(request.headers_mut());
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    async fn connect(&self) -> Result<Box<OpenConnection>, Http1Error> {
        let connecting = self.connector.clone().call(self.server.clone());
        let stream = connecting.await.map_err(|error| Http1Error::Connect(error.into()))?;
        let (sender, connection) = handshake(stream).await.map_err(Http1Error::Broken)?;
        Ok(Box::new(OpenConnection { sender, connection, opened: Instant::now(), ended: false }))
    }

    /// The idle connection that was used last and that the server has not closed.
    async fn take_idle(&self) -> Option<Box<OpenConnection>> {
        loop {
            let (mut open, _) = self.idle.lock().connections.pop()?;
            if open.is_usable().await {
                return Some(open);
            }
        }
    }

    /// Keeps a connection for the next request. An old one is closed, so that the host's name is looked up
    /// again though its old address answers.
    fn keep(&self, open: Box<OpenConnection>) {
        if open.ended || open.opened.elapsed() > self.age_max {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.connections.len() == limits::ENDPOINT_IDLE_CONNECTIONS_MAX {
            idle.connections.remove(0);
        }
        idle.connections.push((open, Instant::now()));
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(watch(Arc::downgrade(&self.idle)));
        }
    }
}

/// Closes connections that are idle for too long, while there are any.
async fn watch(idle: Weak<Mutex<IdleConnections>>) {
    let most = Duration::from_secs(limits::ENDPOINT_IDLE_S);
    loop {
        // So often, too, because a timer that is the first of its runtime costs a system call, and
        // the deadlines of requests are not the first while this one runs.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = idle.lock();
        let stale = idle.connections.iter().take_while(|(_, since)| since.elapsed() > most).count();
        idle.connections.drain(..stale);
        idle.watched = !idle.connections.is_empty();
        if !idle.watched {
            return;
        }
    }
}

impl OpenConnection {
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<HttpReply> {
        let response = {
            let mut response = pin!(self.sender.send_request(request));
            let (connection, ended) = (&mut self.connection, &mut self.ended);
            poll_fn(|cx| {
                drive(connection, ended, cx);
                response.as_mut().poll(cx)
            })
            .await?
        };
        let (head, body) = Response::into_parts(response);
        let mut reply = HttpReply { status: head.status.as_u16(), headers: head.headers, body: Vec::new() };
        match self.read(body, &mut reply.body).await {
            Ok(()) => {}
            // The status says it all.
            Err(_) if reply.status == 204 => self.ended = true,
            Err(error) => return Err(error),
        }
        Ok(reply)
    }

    async fn read(&mut self, mut body: Incoming, into: &mut Vec<u8>) -> hyper::Result<()> {
        loop {
            let frame = poll_fn(|cx| {
                drive(&mut self.connection, &mut self.ended, cx);
                Pin::new(&mut body).poll_frame(cx)
            });
            match frame.await.transpose()? {
                None => return Ok(()),
                Some(frame) => into.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
            if into.len() >= limits::RESPONSE_BYTES_MAX {
                // The unread rest would be taken for the next answer.
                self.ended = true;
                return Ok(());
            }
        }
    }

    /// True if a request can be sent on it now.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            drive(&mut self.connection, &mut self.ended, cx);
            Poll::Ready(!self.ended && self.sender.is_ready())
        })
        .await
    }
}

/// Polls the connection. The request that waits for an answer gets the connection's error.
fn drive(
    connection: &mut Connection<TokioIo<TcpStream>, Full<Bytes>>,
    ended: &mut bool,
    cx: &mut Context<'_>,
) {
    *ended = *ended || Pin::new(connection).poll(cx).is_ready();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use bytes::Bytes;
    use hyper::HeaderMap;
    use hyper::header::HeaderValue;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::net::TcpStream as StdStream;
    use std::thread::JoinHandle;
    use std::time::Duration;

    /// A server that answers requests with these, a connection each; an empty answer: it closes the
    /// connection. Gives the heads that it was sent.
    fn server(connections: Vec<Vec<&'static str>>) -> (Http1Client, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for answers in connections {
                let (stream, _) = listener.accept().unwrap();
                let mut requests = BufReader::new(stream.try_clone().unwrap());
                for answer in answers {
                    heads.push(read(&mut requests));
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
            }
            heads
        });
        (Http1Client::new(url.parse().unwrap(), Duration::from_secs(10)).unwrap(), serving)
    }

    fn read(requests: &mut BufReader<StdStream>) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(requests.read_line(&mut head).unwrap() > 0, "{head:?}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        requests.read_exact(&mut body).unwrap();
        assert_eq!(body, b"lines");
        head
    }

    async fn post(client: &Http1Client) -> Result<HttpReply, Http1Error> {
        let mut headers = HeaderMap::new();
        headers.insert("x-more", HeaderValue::from_static("1"));
        client.post("/write?db=a%20b", &headers, &Bytes::from_static(b"lines")).await
    }

    #[tokio::test]
    async fn requests_share_a_connection_and_a_new_one_stands_in_for_one_that_was_closed() {
        const NONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        const CHUNKS: &str =
            "HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        const REST: &str = "HTTP/1.1 503 No\r\nretry-after: 7\r\nconnection: close\r\n\r\nall the rest";
        // The second connection ends while the request is under way; so the third gets it again.
        let (client, serving) = server(vec![vec![NONE, CHUNKS, NONE], vec![NONE, ""], vec![REST]]);
        for (status, body) in [(204, ""), (400, "abcde"), (204, ""), (204, ""), (503, "all the rest")] {
            let reply = post(&client).await.unwrap();
            assert_eq!((reply.status, &*String::from_utf8(reply.body).unwrap()), (status, body));
            if status == 503 {
                assert_eq!(reply.headers["retry-after"], "7");
            }
        }
        let heads = serving.join().unwrap();
        assert_eq!(heads.len(), 6);
        assert!(heads[0].starts_with("POST /write?db=a%20b HTTP/1.1\r\n"), "{}", heads[0]);
        assert!(heads.iter().all(|head| *head == heads[0] && head.contains("x-more: 1\r\n")));
        assert!(heads[0].contains("host: 127.0.0.1:"), "{}", heads[0]);
        assert!(client.idle.lock().connections.is_empty(), "it was closed");
    }

    #[tokio::test]
    async fn an_old_connection_is_not_used_again() {
        const NONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        let (client, serving) = server(vec![vec![NONE], vec![NONE]]);
        let client = Http1Client { age_max: Duration::ZERO, ..client };
        for _ in 0..2 {
            assert_eq!(post(&client).await.unwrap().status, 204);
        }
        assert_eq!(serving.join().unwrap().len(), 2, "a connection for each");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_and_one_that_there_is_not_are_told_apart() {
        let (client, serving) = server(vec![vec![""]]);
        assert!(matches!(post(&client).await, Err(Http1Error::Broken(_))));
        serving.join().unwrap();
        let error = post(&client).await.err().unwrap();
        assert!(matches!(error, Http1Error::Connect(_)), "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_and_its_connection_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read(&mut BufReader::new(stream.try_clone().unwrap()));
            let _ = stream.write_all(b"HTTP/1.1 400 Bad\r\ncontent-length: 1000000000\r\n\r\n");
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        });
        let client = Http1Client::new(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
        let body = post(&client).await.unwrap().body;
        assert!((limits::RESPONSE_BYTES_MAX..limits::RESPONSE_BYTES_MAX + (1 << 20)).contains(&body.len()));
        assert!(client.idle.lock().connections.is_empty());
    }
}
