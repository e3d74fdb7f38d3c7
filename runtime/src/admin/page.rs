//! The console: the page at `/`, and the files that it is made of. They lie in the program, compressed.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::admin::respond::error;

/// A file of the console, compressed by gzip. A program without the console has none.
#[allow(dead_code)]
struct ConsoleFile {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/console_files.rs"));

/// The policy of the page: it loads, calls and sends nothing but its own address, and no other page shows it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The page of a program without a console.
const WITHOUT_CONSOLE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tidegate</title>\
<h1>Tidegate runs</h1><p>This program was built without the console. To build it in: \
<code>cargo xtask console</code>, then <code>cargo build</code> (it needs node and npm).</p>\
<p>Everything it shows is under <a href=\"/api/v1/openapi.json\">/api/v1</a>; metrics are at \
<a href=\"/metrics\">/metrics</a>.</p></html>\n";

/// The paths; everybody may load the page, which shows nothing by itself.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(index)).route("/assets/{file}", get(asset))
}

async fn index(headers: HeaderMap) -> Response {
    match find("index.html") {
        Some(file) => serve(file, &headers, "no-cache"),
        None => {
            secured(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], WITHOUT_CONSOLE).into_response())
        }
    }
}

/// Names of assets hold a digest of their content.
async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match find(&format!("assets/{name}")) {
        Some(file) => serve(file, &headers, "public, max-age=31536000, immutable"),
        None => error(StatusCode::NOT_FOUND, "NOT_FOUND", format!("no such file: {name:?}")),
    }
}

fn find(path: &str) -> Option<&'static ConsoleFile> {
    CONSOLE_FILES.iter().find(|file| file.path == path)
}

fn serve(file: &'static ConsoleFile, headers: &HeaderMap, cache: &'static str) -> Response {
    let accepted = headers.get(header::ACCEPT_ENCODING).map(|value| value.to_str().unwrap_or_default());
    if accepted.is_some_and(|accepted| !accepted.contains("gzip") && !accepted.contains('*')) {
        let message = "the console is stored in gzip: send Accept-Encoding: gzip".to_owned();
        return error(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message);
    }
    let head = [
        (header::CONTENT_TYPE, file.content_type),
        (header::CONTENT_ENCODING, "gzip"),
        (header::CACHE_CONTROL, cache),
    ];
    secured((head, file.bytes).into_response())
}

fn secured(mut response: Response) -> Response {
    let fixed = [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
