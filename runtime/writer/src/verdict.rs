//! The verdict on a database's answer: the next step for the lines that were sent.
//!
//! It follows from the status first, then from the shape of the body; from words only if nothing else
//! tells the cases apart. Nothing is ever given up because an answer is unknown: such an answer pauses.
//!
//! It presumes that each line was checked alone before (no blank lines, no comments, no newline in
//! a string), because only then are InfluxDB 3's line numbers those of the body.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::limits;
use crate::settings::ServerKind;

/// An answer as it came.
#[derive(Clone, Debug, Default)]
pub struct EndpointResponse {
    pub status: u16,
    /// The wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// `Location` of a redirect.
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// The databases that a pause concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    Database,
    /// Every database behind the same address.
    Endpoint,
}

/// A fault that retrying alone does not mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointFault {
    /// The token is missing, wrong or expired.
    Unauthorized,
    /// The token may not write to this database.
    Forbidden,
    /// The database, bucket, organisation or retention policy does not exist.
    NotFound,
    /// A ceiling of the server: databases, tables or columns.
    LimitReached,
    /// The configured product does not answer at this address.
    WrongProduct,
    /// The server finds fault with the request itself.
    BadRequest,
}

impl EndpointFault {
    /// Advice for the operator; part of the log's text.
    pub fn advice(self) -> &'static str {
        match self {
            EndpointFault::Unauthorized => "check output.token and its expiry",
            EndpointFault::Forbidden => "give the token the right to write to this database",
            EndpointFault::NotFound => {
                "create the database, or correct output.database, output.org; `tidegate spool retry` tries again at once"
            }
            EndpointFault::LimitReached => "raise the server's limit, or remove databases, tables or columns",
            EndpointFault::WrongProduct => "check output.url and output.kind: another product answers there",
            EndpointFault::BadRequest => {
                "check output.kind, and proxies between the gateway and the database"
            }
        }
    }
}

/// A line of the request, counted from 0, and the database's words about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRefusal {
    pub line: u32,
    pub words: String,
}

/// The next step for the lines of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every line is durable.
    Accepted,
    /// The lines in `refused` are bad; those in `limited` are good but meet a ceiling of the
    /// server; all others are durable.
    Partial { refused: Vec<LineRefusal>, limited: Vec<LineRefusal> },
    /// This line is bad and nothing was written: send the others again.
    ResendWithout(LineRefusal),
    /// Some line is bad, but not named by number. `explained`: the words speak of lines, so that a
    /// single line which gets this answer is surely the culprit.
    Bisect { explained: bool, words: String },
    /// Too large.
    Split { words: String },
    /// The server could not read the compressed body.
    SendPlain { words: String },
    /// The same bytes again, later.
    Retry { after: Option<Duration>, words: String },
    /// 500: the server is in trouble, or refuses a line in this manner. The same bytes again, later, and
    /// smaller bodies after some tries.
    ServerError { words: String },
    /// Nothing can be written until a person mends it; nothing is dropped.
    Pause { scope: FaultScope, fault: EndpointFault, words: String },
}

impl Verdict {
    /// The outcome as the metric `tidegate_writes_total` labels it.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Accepted => "accepted",
            Verdict::Partial { .. } => "partial",
            Verdict::ResendWithout(_) | Verdict::Bisect { .. } => "refused",
            Verdict::Split { .. } => "too_large",
            Verdict::SendPlain { .. } | Verdict::Retry { .. } | Verdict::ServerError { .. } => "retried",
            Verdict::Pause { .. } => "paused",
        }
    }
}

#[derive(Deserialize)]
struct LineError {
    #[serde(default)]
    error_message: String,
    line_number: u64,
}

impl LineError {
    fn fault(self, lines: u32) -> Option<LineRefusal> {
        let line = u32::try_from(self.line_number.checked_sub(1)?).ok()?;
        (line < lines).then(|| LineRefusal { line, words: shown(self.error_message.as_bytes()) })
    }
}

/// Judges the answer to a request of `lines` lines.
pub fn verdict(kind: ServerKind, answer: &EndpointResponse, lines: u32) -> Verdict {
    let words = || shown(&answer.body);
    let pause = |scope, fault| Verdict::Pause { scope, fault, words: status_and_words(answer) };
    match answer.status {
        204 => Verdict::Accepted,
        400 | 406 | 422 => {
            refusal_verdict(kind, &answer.body, lines).unwrap_or_else(|(scope, fault)| pause(scope, fault))
        }
        401 => pause(FaultScope::Endpoint, EndpointFault::Unauthorized),
        403 => pause(FaultScope::Database, EndpointFault::Forbidden),
        404 if json(&answer.body).is_some() => pause(FaultScope::Database, EndpointFault::NotFound),
        200..=399 | 404 | 405 => pause(FaultScope::Endpoint, EndpointFault::WrongProduct),
        413 => Verdict::Split { words: words() },
        500 if words().starts_with("retention policy not found") => {
            pause(FaultScope::Database, EndpointFault::NotFound)
        }
        500 if answer.retry_after.is_none() => Verdict::ServerError { words: status_and_words(answer) },
        408 | 425 | 429 | 500..=599 => {
            Verdict::Retry { after: answer.retry_after, words: status_and_words(answer) }
        }
        // Nobody documents it for a write: nothing may be dropped for it.
        _ => pause(FaultScope::Database, EndpointFault::BadRequest),
    }
}

/// 400, 406 and 422: the lines or the request are refused.
fn refusal_verdict(
    kind: ServerKind,
    body: &[u8],
    lines: u32,
) -> Result<Verdict, (FaultScope, EndpointFault)> {
    if let Some(mut object) = json(body) {
        match object.get_mut("data").map(Value::take) {
            Some(Value::Array(faults)) => {
                return Ok(line_errors_verdict(faults, lines)
                    .unwrap_or_else(|| Verdict::Bisect { explained: false, words: shown(body) }));
            }
            Some(data @ Value::Object(_)) => {
                return Ok(serde_json::from_value::<LineError>(data)
                    .ok()
                    .and_then(|error| error.fault(lines))
                    .map_or_else(
                        || Verdict::Bisect { explained: false, words: shown(body) },
                        Verdict::ResendWithout,
                    ));
            }
            _ => {}
        }
    }
    let words = shown(body);
    // Only by how the words begin: further on they may quote a tenant's line, which must not be
    // able to stop others.
    let begins = |texts: &[&str]| texts.iter().any(|text| words.starts_with(text));
    match kind {
        ServerKind::InfluxDb3 => {
            if begins(&["Adding a new database would exceed", "Update to schema would exceed"]) {
                return Err((FaultScope::Database, EndpointFault::LimitReached));
            }
            if begins(&["cannot write to soft-deleted database", "invalid character in database", "db name "])
            {
                return Err((FaultScope::Database, EndpointFault::NotFound));
            }
            if begins(&["Authorization header was malformed"]) {
                return Err((FaultScope::Endpoint, EndpointFault::Unauthorized));
            }
            if begins(&["serde error", "missing query parameter"]) {
                return Err((FaultScope::Endpoint, EndpointFault::BadRequest));
            }
        }
        ServerKind::InfluxDb2 | ServerKind::InfluxDb1 => {
            let of_lines =
                ["partial write", "unable to parse", "failure writing points to database: partial write"];
            if begins(&of_lines) {
                return Ok(Verdict::Bisect { explained: true, words });
            }
            if begins(&["database is required"]) {
                return Err((FaultScope::Endpoint, EndpointFault::BadRequest));
            }
        }
    }
    if ["gzip", "content-encoding", "unexpected EOF"].iter().any(|text| words.contains(text)) {
        return Ok(Verdict::SendPlain { words });
    }
    Ok(Verdict::Bisect { explained: false, words })
}

/// InfluxDB 3's list of refused lines; `None` unless every entry names another line of the request.
fn line_errors_verdict(errors: Vec<Value>, lines: u32) -> Option<Verdict> {
    let mut seen = std::collections::HashSet::new();
    let (mut refused, mut limited) = (Vec::new(), Vec::new());
    for error in errors {
        let fault = serde_json::from_value::<LineError>(error).ok()?.fault(lines)?;
        if !seen.insert(fault.line) {
            return None;
        }
        match fault.words.starts_with("Update to schema would exceed") {
            true => limited.push(fault),
            false => refused.push(fault),
        }
    }
    (!seen.is_empty()).then_some(Verdict::Partial { refused, limited })
}

fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

/// The words of an answer: its `error` or `message` where it is JSON, else the text; cut.
fn shown(body: &[u8]) -> String {
    let of_json = json(body).and_then(|object| {
        ["error", "message"].iter().find_map(|&key| Some(object.get(key)?.as_str()?.to_owned()))
    });
    let text = of_json.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    match text.char_indices().nth(limits::RESPONSE_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn status_and_words(answer: &EndpointResponse) -> String {
    if let Some(location) = &answer.location {
        let location: String = location.chars().take(limits::RESPONSE_SHOWN_CHARS).collect();
        return format!("{}: a redirect to {location}, which is not followed", answer.status);
    }
    match shown(&answer.body) {
        words if words.is_empty() => answer.status.to_string(),
        words => format!("{}: {words}", answer.status),
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date (RFC 9110 section 10.2.3).
pub fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}
