//! An InfluxDB 3 as seen by a writer, in front of a real 1.x engine: `POST /api/v3/write_lp` is
//! checked as version 3 does it, and accepted lines are stored by `/write`. With switches for the
//! ways in which servers and networks fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response};
use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};
use parking_lot::Mutex;
use serde_json::json;

use super::{client, query};

/// A fault of one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Status {
        status: u16,
        retry_after: Option<&'static str>,
        body: &'static str,
    },
    Redirect(String),
    /// The connection ends before anything is stored or answered.
    Drop,
    /// Everything is stored, then the connection ends.
    ApplyThenDrop,
    /// The answer's body breaks off.
    BreakAnswer,
    /// Nothing is ever answered.
    Hang,
    /// The body is read slowly, then all is well.
    SlowRead,
    /// The body is not read; the connection ends.
    CloseUpload,
}

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    pub database: String,
    pub lines: usize,
    pub body: Bytes,
    pub gzip: bool,
    pub query: String,
    pub at: std::time::Instant,
}

const BODY_BYTES_MAX: usize = 10 << 20;
const DATABASES_MAX: usize = 5;
const TABLES_MAX: usize = 2000;
const COLUMNS_MAX: usize = 500;

/// For each table, column names with `tag` or a field type.
type Table = BTreeMap<String, &'static str>;

struct State {
    influxdb: String,
    token: Option<String>,
    schema: Mutex<BTreeMap<String, BTreeMap<String, Table>>>,
    faults: Mutex<VecDeque<Fault>>,
    database_faults: Mutex<BTreeMap<String, Fault>>,
    seen: Mutex<Vec<RecordedRequest>>,
    /// The delay of every answer.
    latency: Mutex<Duration>,
    client: reqwest::Client,
}

pub struct FakeInfluxdb3 {
    state: Arc<State>,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeInfluxdb3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeInfluxdb3 {
    /// Starts it before the 1.x at `influxdb`; if a token is set, other requests are refused.
    pub async fn start(influxdb: &str, token: Option<&str>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            influxdb: influxdb.to_owned(),
            token: token.map(str::to_owned),
            schema: Mutex::default(),
            faults: Mutex::default(),
            database_faults: Mutex::default(),
            seen: Mutex::default(),
            latency: Mutex::default(),
            client: client(),
        });
        state.read_schema().await;
        let task = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = state.clone();
                    tokio::spawn(async move {
                        let service =
                            hyper::service::service_fn(move |request| serve(state.clone(), request));
                        let io = hyper_util::rt::TokioIo::new(stream);
                        let _ =
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    });
                }
            }
        });
        Self { state, port, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets the faults of the next requests, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().extend(faults);
    }

    /// Sets the fault of every request for a database, until `None`.
    pub fn fail_database(&self, database: &str, fault: Option<Fault>) {
        let mut faults = self.state.database_faults.lock();
        match fault {
            Some(fault) => faults.insert(database.to_owned(), fault),
            None => faults.remove(database),
        };
    }

    /// Forgets the columns of a table, as if it was dropped: new ones have room again.
    pub fn forget_table(&self, database: &str, table: &str) {
        self.state.schema.lock().get_mut(database).expect("a database").remove(table).expect("a table");
    }

    /// Sets the delay of every answer, as of a server that answers at its next flush.
    pub fn slow_down(&self, latency: Duration) {
        *self.state.latency.lock() = latency;
    }

    /// Requests whose body was read, whatever their answer.
    pub fn seen(&self) -> Vec<RecordedRequest> {
        self.state.seen.lock().clone()
    }
}

/// A body that breaks off, or does not.
enum Answer {
    Whole(Full<Bytes>),
    Broken(bool),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Answer::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never: Infallible| match never {}))),
            Answer::Broken(sent) if !*sent => {
                *sent = true;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{\"error\":\"par")))))
            }
            Answer::Broken(_) => Poll::Ready(Some(Err(std::io::Error::other("breaks off")))),
        }
    }
}

type Reply = Result<Response<Answer>, std::io::Error>;

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let answer = Response::builder().status(status).header("cluster-uuid", "front");
    Ok(answer.body(Answer::Whole(Full::new(body.into()))).unwrap())
}

fn reply_json(status: u16, body: serde_json::Value) -> Reply {
    reply(status, body.to_string())
}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Reply {
    // Where a redirect leads: takes anything, stores nothing.
    if request.uri().path() == "/elsewhere" {
        return reply(204, "");
    }
    if request.uri().path() != "/api/v3/write_lp" {
        return reply(404, "Not found");
    }
    if request.method() != "POST" {
        return reply(405, "");
    }
    let query_text = request.uri().query().unwrap_or_default().to_owned();
    let params: BTreeMap<String, String> = query_text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| {
            (key.to_owned(), percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
        })
        .collect();
    let Some(database) = params.get("db").cloned() else {
        return reply(400, "missing query parameter 'db'");
    };
    let fault = state.database_faults.lock().get(&database).cloned();
    let fault = fault.or_else(|| state.faults.lock().pop_front());
    if fault == Some(Fault::CloseUpload) {
        return Err(std::io::Error::other("closed"));
    }
    if let Some(refusal) = state.authenticate(&request) {
        return refusal;
    }
    let gzip = match request.headers().get("content-encoding").map(|value| value.as_bytes()) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return reply(400, "unacceptable content-encoding"),
    };
    if fault == Some(Fault::SlowRead) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let latency = *state.latency.lock();
    tokio::time::sleep(latency).await;
    let raw = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let mut body = raw.clone();
    if gzip {
        let mut plain = Vec::new();
        let read = flate2::read::MultiGzDecoder::new(&raw[..])
            .take(BODY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut plain);
        if let Err(error) = read {
            return reply(400, format!("error decoding gzip stream: {error}"));
        }
        body = plain.into();
    }
    let lines = body.split(|&byte| byte == b'\n').count();
    let at = std::time::Instant::now();
    let seen = RecordedRequest {
        database: database.clone(),
        lines,
        body: body.clone(),
        gzip,
        query: query_text,
        at,
    };
    state.seen.lock().push(seen);
    match fault {
        Some(Fault::Status { status, retry_after, body }) => {
            let mut answer = reply(status, body)?;
            if let Some(value) = retry_after {
                answer.headers_mut().insert("retry-after", value.parse().unwrap());
            }
            return Ok(answer);
        }
        Some(Fault::Redirect(to)) => {
            let mut answer = reply(302, "")?;
            answer.headers_mut().insert("location", to.parse().unwrap());
            return Ok(answer);
        }
        Some(Fault::Drop) => return Err(std::io::Error::other("dropped")),
        Some(Fault::BreakAnswer) => {
            return Ok(Response::builder().status(400).body(Answer::Broken(false)).unwrap());
        }
        Some(Fault::Hang) => std::future::pending().await,
        _ => {}
    }
    if raw.len() > BODY_BYTES_MAX || body.len() > BODY_BYTES_MAX {
        return reply(413, format!("max request size ({BODY_BYTES_MAX} bytes) exceeded"));
    }
    let Ok(text) = std::str::from_utf8(&body) else {
        return reply(400, "body content is not valid utf8: invalid utf-8 sequence");
    };
    let answer = state.write(&database, &params, text).await;
    match fault {
        Some(Fault::ApplyThenDrop) => Err(std::io::Error::other("dropped")),
        _ => answer,
    }
}

impl State {
    fn authenticate(&self, request: &Request<Incoming>) -> Option<Reply> {
        let token = self.token.as_ref()?;
        let unauthenticated = || Some(reply_json(401, json!({"error": "the request was not authenticated"})));
        let Some(value) = request.headers().get("authorization").and_then(|value| value.to_str().ok()) else {
            return unauthenticated();
        };
        let given = match value.split_once(' ') {
            Some(("Bearer" | "Token", given)) => given.to_owned(),
            Some(("Basic", given)) => {
                use base64::Engine as _;
                let decoded = base64::engine::general_purpose::STANDARD.decode(given).unwrap_or_default();
                String::from_utf8_lossy(&decoded)
                    .split_once(':')
                    .map(|(_, token)| token.to_owned())
                    .unwrap_or_default()
            }
            _ => return Some(reply_json(400, json!({"error": "Authorization header was malformed"}))),
        };
        if given == *token { None } else { unauthenticated() }
    }

    /// Reads the schema that the engine has already.
    async fn read_schema(&self) {
        let databases = self.ask("", "SHOW DATABASES").await;
        let mut schema = BTreeMap::new();
        for name in rows(&databases).map(|(_, row)| row[0].as_str().unwrap().to_owned()) {
            if name == "_internal" {
                continue;
            }
            let mut tables: BTreeMap<String, Table> = BTreeMap::new();
            for (table, row) in rows(&self.ask(&name, "SHOW TAG KEYS").await) {
                tables.entry(table).or_default().insert(row[0].as_str().unwrap().to_owned(), "tag");
            }
            for (table, row) in rows(&self.ask(&name, "SHOW FIELD KEYS").await) {
                let kind = match row[1].as_str().unwrap() {
                    "integer" => "integer",
                    "float" => "float",
                    "boolean" => "boolean",
                    _ => "string",
                };
                tables.entry(table).or_default().insert(row[0].as_str().unwrap().to_owned(), kind);
            }
            schema.insert(name, tables);
        }
        *self.schema.lock() = schema;
    }

    async fn ask(&self, database: &str, statement: &str) -> serde_json::Value {
        let url = format!("{}/query?{}", self.influxdb, query(&[("db", database), ("q", statement)]));
        match self.client.post(url).send().await {
            Ok(answer) => {
                serde_json::from_slice(&answer.bytes().await.unwrap_or_default()).unwrap_or_default()
            }
            Err(_) => serde_json::Value::Null,
        }
    }

    async fn write(&self, database: &str, params: &BTreeMap<String, String>, text: &str) -> Reply {
        let valid = database.starts_with(|first: char| first.is_ascii_alphanumeric())
            && database.chars().all(|c| c.is_ascii_alphanumeric() || "_-/".contains(c));
        if !valid {
            return reply_json(400, json!({"error": "invalid character in database or rp name"}));
        }
        let partial = params.get("accept_partial").is_none_or(|value| value == "true");
        let precision = params.get("precision").map_or("auto", String::as_str);
        let new_database = !self.schema.lock().contains_key(database);
        if new_database && self.schema.lock().len() >= DATABASES_MAX {
            let words = format!("Adding a new database would exceed limit of {DATABASES_MAX} databases");
            return reply_json(422, json!({"error": words}));
        }
        let mut good = String::new();
        let mut errors = Vec::new();
        {
            let mut schema = self.schema.lock();
            let other_tables: usize = schema.values().map(BTreeMap::len).sum();
            let tables = schema.entry(database.to_owned()).or_default();
            let originals: Vec<&str> = text.split('\n').collect();
            for (place, parsed) in parse_lines(text).enumerate() {
                let line = parsed.map_err(|error| error.to_string());
                let taken = line.and_then(|line| take(tables, other_tables, &line, precision));
                match taken {
                    Ok(line) => good.push_str(&line),
                    Err(words) => {
                        // As version 3 picks it: by plain newlines, cut to 20 bytes.
                        let mut original = originals.get(place).copied().unwrap_or_default().to_owned();
                        original.truncate(
                            (0..=20.min(original.len()))
                                .rev()
                                .find(|&n| original.is_char_boundary(n))
                                .unwrap_or(0),
                        );
                        errors.push(json!({"error_message": words, "line_number": place + 1, "original_line": original}));
                    }
                }
            }
        }
        if good.is_empty() && errors.is_empty() {
            return reply(400, "incoming write was empty");
        }
        if !partial && !errors.is_empty() {
            return reply_json(400, json!({"error": "line protocol parsing error", "data": errors[0]}));
        }
        if new_database {
            self.ask("", &format!("CREATE DATABASE \"{database}\"")).await;
        }
        if !good.is_empty() {
            let url = format!("{}/write?{}", self.influxdb, query(&[("db", database), ("precision", "n")]));
            match self.client.post(url).body(good).send().await {
                Ok(answer) if answer.status() == 204 => {}
                Ok(answer) => return reply(500, answer.text().await.unwrap_or_default()),
                Err(error) => {
                    // The engine may have lost the database with its folder: ask again next time.
                    self.schema.lock().remove(database).filter(|_| new_database);
                    return reply(500, error.to_string());
                }
            }
        }
        if errors.is_empty() {
            return reply(204, "");
        }
        let limit = |error: &serde_json::Value| {
            error["error_message"]
                .as_str()
                .is_some_and(|words| words.starts_with("Update to schema would exceed"))
        };
        let status = if errors.iter().any(limit) { 422 } else { 400 };
        reply_json(status, json!({"error": "partial write of line protocol occurred", "data": errors}))
    }
}

fn rows(answer: &serde_json::Value) -> impl Iterator<Item = (String, Vec<serde_json::Value>)> {
    let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
    series.into_iter().flat_map(|series| {
        let name = series["name"].as_str().unwrap_or_default().to_owned();
        let rows = series["values"].as_array().cloned().unwrap_or_default();
        rows.into_iter().map(move |row| (name.clone(), row.as_array().cloned().unwrap_or_default()))
    })
}

/// Checks a line as version 3 does, and writes it in the form of 1.x.
fn take(
    tables: &mut BTreeMap<String, Table>,
    other_tables: usize,
    line: &ParsedLine,
    precision: &str,
) -> Result<String, String> {
    let name = line.series.measurement.to_string();
    if !tables.contains_key(&name) && other_tables >= TABLES_MAX {
        return Err(format!("Update to schema would exceed number of tables limit of {TABLES_MAX} tables"));
    }
    let table = tables.entry(name.clone()).or_default();
    let mut columns: Vec<(String, &'static str)> = Vec::new();
    let mut written = escape(&name, ", ");
    for (key, value) in line.series.tag_set.iter().flatten() {
        columns.push((key.to_string(), "tag"));
        written += &format!(",{}={}", escape(key.as_ref(), ", ="), escape(value.as_ref(), ", ="));
    }
    let mut separator = ' ';
    let mut fields = BTreeSet::new();
    for (key, value) in &line.field_set {
        if !fields.insert(key.to_string()) {
            return Err(format!("invalid line protocol - multiple instances of '{key}' field found"));
        }
        let (kind, value) = match value {
            FieldValue::I64(value) => ("integer", format!("{value}i")),
            FieldValue::U64(value) => ("uint", format!("{}i", i64::try_from(*value).unwrap_or(i64::MAX))),
            FieldValue::F64(value) => ("float", format!("{value:?}")),
            FieldValue::Boolean(value) => ("boolean", value.to_string()),
            FieldValue::String(value) if value.len() > 64 << 10 => {
                return Err("String is greater than 64KB".into());
            }
            FieldValue::String(value) => ("string", format!("\"{}\"", escape(value.as_ref(), "\"\\"))),
        };
        columns.push((key.to_string(), kind));
        written += &format!("{separator}{}={value}", escape(key.as_ref(), ", ="));
        separator = ',';
    }
    for (column, kind) in columns {
        if column == "time" {
            return Err("'time' is a reserved column".into());
        }
        match table.get(&column) {
            Some(&known) if known == kind || (known == "integer" && kind == "uint") => {}
            Some(known) => {
                return Err(format!(
                    "invalid column type for column '{column}', expected {known}, got {kind}"
                ));
            }
            None if table.len() >= COLUMNS_MAX => {
                return Err(format!(
                    "Update to schema would exceed number of columns per table limit of {COLUMNS_MAX}"
                ));
            }
            None => {
                table.insert(column, kind);
            }
        }
    }
    let time = match line.timestamp {
        None => jiff::Timestamp::now().as_nanosecond() as i64,
        Some(time) => {
            let factor = match precision {
                "s" | "second" => 1_000_000_000,
                "ms" | "millisecond" => 1_000_000,
                "us" | "u" | "microsecond" => 1_000,
                "auto" => match time.unsigned_abs() / 1_000_000_000 {
                    0..5 => 1_000_000_000,
                    5..5_000 => 1_000_000,
                    5_000..5_000_000 => 1_000,
                    _ => 1,
                },
                _ => 1,
            };
            let out_of_range = || format!("timestamp, {time}, out of range for precision: {precision}");
            time.checked_mul(factor).ok_or_else(out_of_range)?
        }
    };
    Ok(format!("{written} {time}\n"))
}

fn escape(text: &str, special: &str) -> String {
    let escape = |c: char| if special.contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escape).collect()
}
