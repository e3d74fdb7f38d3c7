//! Answers of each product, and the verdicts on them.

use std::time::Duration;

use crate::limits;
use crate::settings::ServerKind;
use crate::verdict::{EndpointResponse, LineRefusal, Verdict, retry_after, verdict};

const V3: ServerKind = ServerKind::InfluxDb3;

const V2: ServerKind = ServerKind::InfluxDb2;

const V1: ServerKind = ServerKind::InfluxDb1;

fn judge(kind: ServerKind, status: u16, body: &str) -> Verdict {
    verdict(
        kind,
        &EndpointResponse { status, retry_after: None, location: None, body: body.as_bytes().to_vec() },
        10,
    )
}

/// The kind of a verdict, short enough for a table.
fn short(verdict: Verdict) -> String {
    match verdict {
        Verdict::Accepted => "accepted".into(),
        Verdict::Partial { refused, limited } => {
            let places = |faults: Vec<LineRefusal>| faults.iter().map(|fault| fault.line).collect::<Vec<_>>();
            format!("partial {:?} {:?}", places(refused), places(limited))
        }
        Verdict::ResendWithout(fault) => format!("without {}", fault.line),
        Verdict::Bisect { explained, .. } => {
            format!("bisect {}", if explained { "explained" } else { "" }).trim().into()
        }
        Verdict::Split { .. } => "split".into(),
        Verdict::SendPlain { .. } => "plain".into(),
        Verdict::Retry { .. } | Verdict::ServerError { .. } => "retry".into(),
        Verdict::Pause { scope, fault, .. } => format!("{scope:?} {fault:?}"),
    }
}

#[test]
fn every_answer_has_its_verdict() {
    let partial = r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"invalid column type","line_number":2,"original_line":"x"},{"error_message":"x","line_number":10,"original_line":"y"}]}"#;
    let limited = r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"Update to schema would exceed number of columns per table limit of 500 columns","line_number":3,"original_line":"x"},{"error_message":"bad","line_number":1,"original_line":"x"}]}"#;
    let object = r#"{"error":"line protocol parsing error","data":{"error_message":"x","line_number":4,"original_line":"x"}}"#;
    let repeated = r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"x","line_number":2},{"error_message":"x","line_number":2}]}"#;
    let beyond = r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"x","line_number":11}]}"#;
    let zero = r#"{"error":"x","data":{"error_message":"x","line_number":0}}"#;
    let none = r#"{"error":"x","data":[]}"#;
    let v1_partial = r#"{"error":"partial write: unable to parse 'm f=oops 1': invalid boolean dropped=0"}"#;
    let v2_partial = r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict dropped=1"}"#;
    for (kind, status, body, expected) in [
        // InfluxDB 3
        (V3, 204, "", "accepted"),
        (V3, 400, partial, "partial [1, 9] []"),
        (V3, 422, partial, "partial [1, 9] []"),
        (V3, 422, limited, "partial [0] [2]"),
        (V3, 400, object, "without 3"),
        (V3, 400, repeated, "bisect"),
        (V3, 400, beyond, "bisect"),
        (V3, 400, zero, "bisect"),
        (V3, 400, none, "bisect"),
        (
            V3,
            422,
            r#"{"error":"Adding a new database would exceed limit of 5 databases"}"#,
            "Database LimitReached",
        ),
        (V3, 400, "incoming write was empty", "bisect"),
        (V3, 400, "body content is not valid utf8: invalid utf-8 sequence", "bisect"),
        (V3, 400, "error decoding gzip stream: invalid gzip header", "plain"),
        (V3, 400, "unacceptable content-encoding: zip", "plain"),
        (V3, 400, "serde error: missing field `db`", "Endpoint BadRequest"),
        (V3, 400, "missing query parameter 'db'", "Endpoint BadRequest"),
        (V3, 400, r#"{"error":"db name did not start with a number or letter"}"#, "Database NotFound"),
        (V3, 400, r#"{"error":"invalid character in database or rp name"}"#, "Database NotFound"),
        (V3, 400, r#"{"error":"cannot write to soft-deleted database 'x'"}"#, "Database NotFound"),
        (V3, 400, r#"{"error": "Authorization header was malformed, ..."}"#, "Endpoint Unauthorized"),
        (V3, 401, r#"{"error": "the request was not authenticated"}"#, "Endpoint Unauthorized"),
        (V3, 401, "", "Endpoint Unauthorized"),
        (V3, 403, "", "Database Forbidden"),
        (V3, 404, "Not found", "Endpoint WrongProduct"),
        (V3, 404, "", "Endpoint WrongProduct"),
        (V3, 405, r#"{"error":"x"}"#, "Endpoint WrongProduct"),
        (V3, 413, "max request size (10485760 bytes) exceeded", "split"),
        (V3, 429, "this service is overloaded, please try again later", "retry"),
        (V3, 500, "write buffer error: error from wal: wal buffer full with 100000 ops", "retry"),
        // Answers of other products
        (V3, 200, "OK", "Endpoint WrongProduct"),
        (V3, 200, "{}", "Endpoint WrongProduct"),
        (V3, 202, "", "Endpoint WrongProduct"),
        (V3, 301, "", "Endpoint WrongProduct"),
        (V3, 302, "", "Endpoint WrongProduct"),
        (V3, 307, "", "Endpoint WrongProduct"),
        (V3, 402, "", "Database BadRequest"),
        (V3, 451, "", "Database BadRequest"),
        (V3, 502, "<html>", "retry"),
        (V3, 503, "", "retry"),
        (V3, 504, "", "retry"),
        (V3, 408, "", "retry"),
        (V3, 425, "", "retry"),
        (V3, 400, "<html>Bad Request</html>", "bisect"),
        // Words of other versions say nothing about single lines here.
        (V3, 400, "unable to parse", "bisect"),
        // InfluxDB 2
        (V2, 204, "", "accepted"),
        (
            V2,
            400,
            r#"{"code":"invalid","message":"unable to parse 'm f=oops': invalid boolean"}"#,
            "bisect explained",
        ),
        (V2, 422, v2_partial, "bisect explained"),
        (V2, 401, r#"{"code":"unauthorized","message":"unauthorized access"}"#, "Endpoint Unauthorized"),
        (
            V2,
            403,
            r#"{"code":"forbidden","message":"insufficient permissions for write"}"#,
            "Database Forbidden",
        ),
        (V2, 404, r#"{"code":"not found","message":"bucket \"x\" not found"}"#, "Database NotFound"),
        (V2, 413, r#"{"code":"request too large","message":"x"}"#, "split"),
        (V2, 429, r#"{"code":"too many requests","message":"x"}"#, "retry"),
        (V2, 503, r#"{"code":"unavailable","message":"x"}"#, "retry"),
        (V2, 500, r#"{"code":"internal error","message":"unexpected error writing points"}"#, "retry"),
        // InfluxDB 1
        (V1, 204, "", "accepted"),
        (V1, 400, v1_partial, "bisect explained"),
        (V1, 400, r#"{"error":"field type conflict"}"#, "bisect"),
        (V1, 400, r#"{"error":"database is required"}"#, "Endpoint BadRequest"),
        (V1, 400, r#"{"error":"unexpected EOF"}"#, "plain"),
        (V1, 401, r#"{"error":"authorization failed"}"#, "Endpoint Unauthorized"),
        (
            V1,
            403,
            r#"{"error":"\"lo\" user is not authorized to write to database \"a\""}"#,
            "Database Forbidden",
        ),
        (V1, 404, r#"{"error":"database not found: \"x\""}"#, "Database NotFound"),
        (V1, 500, r#"{"error":"retention policy not found: nope"}"#, "Database NotFound"),
        (V1, 500, r#"{"error":"timeout"}"#, "retry"),
        (V1, 503, "request throttled, queue full", "retry"),
        // The content of a tenant's line can neither stop others nor pass for the server's words.
        (
            V1,
            400,
            r#"{"error":"partial write: unable to parse 'm,a=gzip f=database is required': x dropped=0"}"#,
            "bisect explained",
        ),
        (
            V2,
            400,
            r#"{"message":"unable to parse 'm,a=gzip f=database is required': x"}"#,
            "bisect explained",
        ),
        (V1, 400, "cannot parse \"database is required\"", "bisect"),
        (V3, 400, "cannot parse \"serde error\"", "bisect"),
        // VictoriaMetrics
        (V1, 400, "remoteAddr: \"127.0.0.1:1\"; requestURI: /write; unsupported path requested", "bisect"),
    ] {
        assert_eq!(short(judge(kind, status, body)), expected, "{kind:?} {status} {body}");
    }
}

#[test]
fn the_database_s_own_words_are_kept() {
    let Verdict::Pause { words, .. } = judge(V3, 403, r#"{"error":"no right"}"#) else { panic!() };
    assert_eq!(words, "403: no right");
    let Verdict::Retry { words, .. } = judge(V3, 503, &"é".repeat(10_000)) else { panic!() };
    assert_eq!(words.chars().count(), "503: ".len() + limits::RESPONSE_SHOWN_CHARS + 1);
}

#[test]
fn retry_after_is_read_as_seconds_and_as_a_date() {
    let now: jiff::Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
    let read = |value| retry_after(value, now);
    assert_eq!(read("120"), Some(Duration::from_secs(120)));
    assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
    assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(read("soon"), None);
    assert_eq!(read("-5"), None);
}
