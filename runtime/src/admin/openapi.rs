//! The OpenAPI document of the admin side, made of the types and handlers themselves.

use axum::response::Response;
use serde_json::Value;
use utoipa::OpenApi;

use crate::admin::respond::json_answer;
use crate::admin::tap::{TapMessage, TapMissed};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        description = "The admin side of a gateway. The operator's token is for everything, a tenant's token for its \
                       own; without a token, on loopback, what holds no payload. Send it as Authorization: Bearer …, or \
                       log in for a session."
    ),
    paths(
        crate::admin::session::show,
        crate::admin::session::log_in,
        crate::admin::session::log_out,
        crate::admin::overview::overview,
        crate::admin::history::history,
        crate::admin::books,
        crate::admin::tenants::all,
        crate::admin::tenants::one,
        crate::admin::devices::devices,
        crate::admin::devices::device,
        crate::admin::tap::tap,
        crate::admin::tap::tapped,
        crate::admin::quarantine::summary,
        crate::admin::quarantine::entries,
        crate::admin::quarantine::entry,
        crate::admin::quarantine::remove,
        crate::admin::quarantine::replay,
        crate::admin::spool,
        crate::admin::spool::retry,
        crate::admin::decoders,
        crate::admin::guests::list,
        crate::admin::guests::put_guest,
        crate::admin::guests::remove,
        crate::admin::guests::history,
        crate::admin::guests::log,
        crate::admin::guests::source,
        crate::admin::guests::state,
        crate::admin::guests::roll_back,
        crate::admin::playground::leads_to,
        crate::admin::playground::playground,
        crate::admin::configuration::configuration,
        crate::admin::drain::show,
        crate::admin::drain::begin,
        crate::admin::drain::end,
        crate::admin::fleet::gateways,
        crate::admin::fleet::books,
    ),
    // Events of a stream, which no answer names.
    components(schemas(TapMessage, TapMissed))
)]
struct Document;

/// The document. Each operation is named by its method and path: handlers of several nouns have one name.
pub fn json() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).expect("a document is JSON");
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let place = path.trim_start_matches("/api/v1/").replace(['{', '}'], "").replace('/', "_");
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            operation["operationId"] = format!("{method}_{place}").into();
        }
    }
    document
}

/// Everybody may read it: it is the same for every gateway of this version.
pub(super) async fn document() -> Response {
    json_answer(json())
}
