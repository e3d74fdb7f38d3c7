//! An HTTP server that gives one text, with an ETag, and can be made to fail in each way that a server can.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// The way in which the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    Chunked,
    /// The announced length is more than what comes.
    Half,
    /// The last chunk is missing.
    HalfChunked,
    /// No length, and the end of the connection as the end of the text.
    Endless,
    /// More bytes than anybody reads.
    Huge,
    /// The text of another digest than the header says.
    WrongDigest,
    Redirect,
    Status(u16),
    /// It accepts and closes.
    Nothing,
}

/// The text, its ETag, and how it is given.
struct Script {
    text: String,
    tag: String,
    answer: Answer,
    /// The bearer token that it wants; empty: none.
    token: String,
    /// Answers with a text, and those without one because the version was known.
    given: usize,
    known: usize,
}

/// The server, on a free port of the loopback; it ends with the process.
pub struct ConfigServer {
    pub url: String,
    script: Arc<Mutex<Script>>,
}

impl ConfigServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/tidegate.toml", listener.local_addr().unwrap());
        let (text, tag, token) = Default::default();
        let script =
            Arc::new(Mutex::new(Script { text, tag, answer: Answer::Nothing, token, given: 0, known: 0 }));
        let served = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || answer(stream, &served));
            }
        });
        Self { url, script }
    }

    pub fn give(&self, text: &str, tag: &str, answer: Answer) {
        let mut script = self.script.lock();
        (script.text, script.tag, script.answer) = (text.into(), tag.into(), answer);
    }

    pub fn want(&self, token: &str) {
        self.script.lock().token = token.into();
    }

    /// Answers with a text, and those that said that the version is known.
    pub fn counts(&self) -> (usize, usize) {
        let script = self.script.lock();
        (script.given, script.known)
    }
}

fn answer(mut stream: TcpStream, script: &Mutex<Script>) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(read @ 1..) => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let mut script = script.lock();
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
    };
    if !script.token.is_empty()
        && header("authorization") != format!("bearer {}", script.token.to_lowercase())
    {
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let is_known = !script.tag.is_empty() && header("if-none-match").split(", ").any(|tag| tag == script.tag);
    if is_known && matches!(script.answer, Answer::Whole | Answer::Chunked) {
        script.known += 1;
        let _ = stream.write_all(
            format!(
                "HTTP/1.1 304 Not Modified\r\nETag: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                script.tag
            )
            .as_bytes(),
        );
        return;
    }
    let (text, begin) =
        (&script.text, format!("HTTP/1.1 200 OK\r\nETag: {}\r\nConnection: close\r\n", script.tag));
    let length = text.len();
    let sent = match script.answer {
        Answer::Nothing => return,
        Answer::Whole => format!("{begin}Content-Length: {length}\r\n\r\n{text}"),
        Answer::Chunked => {
            format!("{begin}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n")
        }
        Answer::Half => format!("{begin}Content-Length: {}\r\n\r\n{text}", length + 10),
        Answer::HalfChunked => format!("{begin}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{text}\r\n"),
        Answer::Endless => format!("{begin}\r\n{text}"),
        Answer::Huge => format!("{begin}Content-Length: 1000000000\r\n\r\n{}", "#".repeat(8 << 20)),
        Answer::WrongDigest => format!(
            "{begin}Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\nContent-Length: {length}\r\n\r\n{text}"
        ),
        Answer::Redirect => {
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".into()
        }
        Answer::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
    };
    script.given += 1;
    drop(script);
    let _ = stream.write_all(sent.as_bytes());
}
