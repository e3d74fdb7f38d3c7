//! Quarantine over HTTP: listing, showing, removing, replaying.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use serde_json::{Value, json};

use crate::admin::access::{Access, Visitor};
use crate::admin::context::AdminContext;
use crate::admin::query::pairs;
use crate::admin::respond::{ApiError, ApiResult, answer, answer_blocking, blocking, body_of, error};
use crate::admin::schemas::{ApiErrorBody, EntriesBody, EntryBody, QuarantineBody, RemovedBody, ReplayBody};
use crate::admin::scope::Scope;
use crate::audit::AuditEvent;
use crate::limits::{
    ADMIN_BODY_BYTES_MAX, LATEST_REFUSALS_SHOWN, QUARANTINE_LISTED_BYTES_MAX, QUARANTINE_LISTED_MAX,
    REPLAY_ENTRIES_MAX,
};
use crate::pipeline::replay::ReplayError;
use crate::quarantine::{Entry, Filter, Quarantine, QuarantineError, RemovalReason};
use crate::telemetry::handles::Handles;

/// Entries that a listing gives where no limit is named.
const LISTED_BY_DEFAULT: usize = 100;

/// The routes; the operator's token is asked for by the router that they are merged into.
pub(super) fn routes(context: &Arc<AdminContext>) -> Router<Arc<AdminContext>> {
    let changes = Router::new()
        .route("/api/v1/quarantine/replay", post(replay))
        .route("/api/v1/quarantine/entries", axum::routing::delete(remove))
        .route_layer(middleware::from_fn_with_state(context.clone(), needs_token));
    Router::new()
        .route("/api/v1/quarantine", get(summary))
        .route("/api/v1/quarantine/entries", get(entries))
        .route("/api/v1/quarantine/entries/{id}", get(entry))
        .merge(changes)
}

type Context = State<Arc<AdminContext>>;

/// A change needs a token to be set; that it was shown is checked before.
pub(super) async fn needs_token(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    if visitor.access == Access::Reader {
        let message = "this token only reads; a change needs the operator's token".to_owned();
        return error(StatusCode::FORBIDDEN, "FORBIDDEN", message);
    }
    if visitor.access == Access::Nobody && context.tokens.operator.is_empty() {
        let message = "this changes something, so it needs the operator's token: write one into a file, name it in \
                       admin.token_file, start the gateway again, and send it as Authorization: Bearer …";
        return error(StatusCode::FORBIDDEN, "TOKEN_NEEDED", message.into());
    }
    next.run(request).await
}

/// Refused messages by reason and tenant, and the latest of them.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "quarantine",
    responses((status = 200, description = "Counts, and the latest entries", body = QuarantineBody)))]
pub(crate) async fn summary(State(context): Context, Extension(visitor): Extension<Visitor>) -> Response {
    answer_blocking(move || {
        let scope = Scope::of(&visitor);
        Ok(summarise(&context.handles.quarantine, &scope, visitor.sees_payloads()))
    })
    .await
}

/// The latest entries that match, newest last.
#[utoipa::path(get, path = "/api/v1/quarantine/entries", tag = "quarantine",
    params(("tenant" = Option<String>, Query, description = "Of one tenant"),
        ("device" = Option<String>, Query, description = "Of one device"),
        ("type" = Option<String>, Query, description = "Of one message type"),
        ("reason" = Option<String>, Query, description = "Of one reason"),
        ("guest" = Option<String>, Query, description = "Of one decoder"),
        ("since" = Option<String>, Query, description = "RFC 3339"),
        ("until" = Option<String>, Query, description = "RFC 3339"),
        ("limit" = Option<usize>, Query, description = "At most 1000")),
    responses((status = 200, description = "Entries, and how many more match", body = EntriesBody),
        (status = 400, description = "A filter means nothing", body = ApiErrorBody)))]
pub(crate) async fn entries(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    let query = QuarantineQuery::of_url(request.uri().query().unwrap_or_default())
        .and_then(|query| query.within(&Scope::of(&visitor)));
    answer_blocking(move || list(&context.handles.quarantine, &query?, visitor.sees_payloads())).await
}

/// One entry.
#[utoipa::path(get, path = "/api/v1/quarantine/entries/{id}", tag = "quarantine",
    params(("id" = String, Path, description = "The name of the entry")),
    responses((status = 200, description = "The entry", body = EntryBody),
        (status = 404, description = "There is none", body = ApiErrorBody)))]
pub(crate) async fn entry(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    answer_blocking(move || {
        let scope = Scope::of(&visitor);
        find(&context.handles.quarantine, &id, &scope, visitor.sees_payloads())
    })
    .await
}

/// Removes entries for good.
#[utoipa::path(delete, path = "/api/v1/quarantine/entries", tag = "quarantine",
    params(("id" = Option<String>, Query, description = "One entry"),
        ("reason" = Option<String>, Query, description = "Of one reason; other filters as for the listing"),
        ("all" = Option<bool>, Query, description = "true: every entry, without a filter")),
    responses((status = 200, description = "So many are removed", body = RemovedBody),
        (status = 400, description = "No filter", body = ApiErrorBody)))]
pub(crate) async fn remove(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    let query = QuarantineQuery::of_url(request.uri().query().unwrap_or_default())
        .and_then(QuarantineQuery::chosen)
        .and_then(|query| query.within(&Scope::of(&visitor)));
    answer_blocking(move || {
        let query = query?;
        let result = remove_matching(&context.handles.quarantine, &query);
        audit(&context.handles, &visitor, "quarantine rm", &query, result)
    })
    .await
}

/// Sends entries through the gateway again. The body is an object of filters, as `{"reason": "NO_GUEST"}`.
#[utoipa::path(post, path = "/api/v1/quarantine/replay", tag = "quarantine",
    request_body = Object,
    responses((status = 200, description = "How they ended", body = ReplayBody),
        (status = 409, description = "Another replay runs", body = ApiErrorBody)))]
pub(crate) async fn replay(
    State(context): Context,
    Extension(visitor): Extension<Visitor>,
    body: Body,
) -> Response {
    let query = match body_of(body, ADMIN_BODY_BYTES_MAX).await {
        Ok(body) => QuarantineQuery::of_json(&body),
        Err(refusal) => Err(refusal),
    };
    match query.and_then(QuarantineQuery::chosen).and_then(|query| query.within(&Scope::of(&visitor))) {
        Ok(query) => {
            let result = replay_matching(&context.handles, &query).await;
            answer(audit(&context.handles, &visitor, "quarantine replay", &query, result))
        }
        Err(fault) => fault.into_response(),
    }
}

/// Notes a change in the audit log.
fn audit(
    handles: &Handles,
    visitor: &Visitor,
    action: &'static str,
    query: &QuarantineQuery,
    result: ApiResult,
) -> ApiResult {
    let object = query.to_string();
    let outcome = result.as_ref().map_or_else(|refusal| refusal.code, |_| "done");
    let who = visitor.to_string();
    handles.audit.record(&AuditEvent { who: &who, action, object: &object, digest: None, outcome });
    result
}

/// Reasons and counts; with `payloads`, the latest entries with their payloads, secrets masked.
fn summarise(quarantine: &Quarantine, scope: &Scope, payloads: bool) -> Value {
    let (mut reasons, mut tenants) = (BTreeMap::new(), BTreeMap::new());
    for count in quarantine.counts().into_iter().filter(|count| scope.takes(&count.tenant)) {
        *reasons.entry(count.reason).or_insert(0) += count.entries;
        *tenants.entry(count.tenant).or_insert(0) += count.entries;
    }
    let latest = latest(quarantine, scope, payloads);
    if scope.tenant().is_some() {
        return json!({"reasons": reasons, "tenants": tenants, "latest": latest});
    }
    let since_start: BTreeMap<&str, u64> =
        quarantine.refused_since_start().into_iter().map(|(reason, count)| (reason.code(), count)).collect();
    json!({
        "bytes": quarantine.bytes(),
        "reasons": reasons,
        "tenants": tenants,
        "refused_since_start": since_start,
        "latest": latest,
    })
}

/// The last refusals, newest first; payloads only where they may be shown, secrets masked.
fn latest(quarantine: &Quarantine, scope: &Scope, payloads: bool) -> Vec<Value> {
    let filter = Filter { tenant: scope.tenant().map(str::to_owned), ..Filter::default() };
    latest_matching(quarantine, filter, LATEST_REFUSALS_SHOWN, payloads)
}

/// The same for entries that match.
pub(super) fn latest_matching(
    quarantine: &Quarantine,
    filter: Filter,
    most: usize,
    payloads: bool,
) -> Vec<Value> {
    let dir = quarantine.dir();
    let latest = Quarantine::latest(dir, filter, most);
    let found = latest.and_then(|(places, _)| Quarantine::find(dir, &places)).unwrap_or_else(|error| {
        tracing::error!(%error, "quarantine cannot be read");
        Vec::new()
    });
    let mut entries: Vec<_> = found.into_iter().map(|(_, entry)| entry).collect();
    entries.sort_by(|a, b| b.time.cmp(&a.time));
    entries.into_iter().map(|entry| show(entry, payloads)).collect()
}

/// The latest entries that match, newest last, secrets masked.
fn list(quarantine: &Quarantine, query: &QuarantineQuery, payloads: bool) -> ApiResult {
    let dir = quarantine.dir();
    let limit = limit(query, LISTED_BY_DEFAULT, QUARANTINE_LISTED_MAX)?;
    let (places, mut more) = Quarantine::latest(dir, filter(query)?, limit).map_err(unreadable)?;
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for (done, place) in places.iter().rev().enumerate() {
        // One at a time: only what is shown is held.
        for (_, entry) in Quarantine::find(dir, &[*place]).map_err(unreadable)? {
            let entry = show(entry, payloads);
            bytes += entry.to_string().len();
            shown.push(entry);
        }
        if bytes >= QUARANTINE_LISTED_BYTES_MAX {
            more += (places.len() - done - 1) as u64;
            break;
        }
    }
    shown.reverse();
    Ok(json!({"entries": shown, "more": more}))
}

/// One entry, secrets masked.
fn find(quarantine: &Quarantine, id: &str, scope: &Scope, payloads: bool) -> ApiResult {
    let tenant = scope.tenant().map(str::to_owned);
    let filter = Filter { id: Some(id.to_owned()), tenant, ..Filter::default() };
    match quarantine.entries(filter).next().transpose().map_err(unreadable)? {
        Some(entry) => Ok(show(entry, payloads)),
        None => Err(no_such_entry(id)),
    }
}

/// Removes all that matches.
fn remove_matching(quarantine: &Quarantine, query: &QuarantineQuery) -> ApiResult {
    let limit = limit(query, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX)?;
    let filter = filter(query)?;
    let (places, left) = quarantine.matching(filter.clone(), limit).map_err(unreadable)?;
    if let (Some(id), true) = (&filter.id, places.is_empty()) {
        return Err(no_such_entry(id));
    }
    let removed = quarantine.take_out(&places, RemovalReason::Removed).map_err(unreadable)?.len();
    Ok(json!({"removed": removed, "left": left}))
}

/// Replays all that matches, and waits until it is settled.
async fn replay_matching(handles: &Handles, query: &QuarantineQuery) -> ApiResult {
    let limit = limit(query, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX)?;
    let filter = filter(query)?;
    if let Some(id) = &filter.id {
        let (quarantine, filter) = (handles.quarantine.clone(), filter.clone());
        let found = blocking(move || quarantine.matching(filter, 1)).await?.map_err(unreadable)?;
        if found.0.is_empty() {
            return Err(no_such_entry(id));
        }
    }
    match handles.replays.run(filter, limit).await {
        Ok(report) => Ok(serde_json::to_value(report).expect("a report is JSON")),
        Err(error @ ReplayError::Running) => {
            Err(ApiError { status: 409, code: "REPLAY_RUNNING", message: error.to_string() })
        }
        Err(ReplayError::Quarantine(error)) => Err(unreadable(error)),
        Err(error @ ReplayError::Ended(_)) => Err(ApiError::our_fault(error.to_string())),
    }
}

/// The entries that a request is about.
#[derive(Debug, Default, PartialEq, Eq)]
struct QuarantineQuery {
    /// Filters by name, as `Filter::set` reads them.
    filters: Vec<(String, String)>,
    /// Every entry is meant, where no filter is given.
    all: bool,
    limit: Option<usize>,
}

impl fmt::Display for QuarantineQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filters: Vec<String> = self.filters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(if filters.is_empty() { "all" } else { "" })?;
        f.write_str(&filters.join(" "))
    }
}

impl QuarantineQuery {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ApiError> {
        match (key, value) {
            ("all", "true") => self.all = true,
            ("all", "false") => self.all = false,
            ("all", other) => {
                return Err(ApiError::bad_filter(format!("all = {other:?}: expected true or false")));
            }
            ("limit", text) => match text.parse() {
                Ok(limit) if limit > 0 => self.limit = Some(limit),
                _ => return Err(ApiError::bad_filter(format!("limit = {text:?}: expected a number from 1"))),
            },
            _ if self.filters.iter().any(|(known, _)| known == key) => {
                return Err(ApiError::bad_filter(format!("{key} is given twice")));
            }
            _ => self.filters.push((key.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    /// Reads the query of a URL.
    fn of_url(text: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for pair in pairs(text) {
            let (key, value) = pair.map_err(|fault| ApiError::bad_filter(fault.message))?;
            query.set(&key, &value)?;
        }
        Ok(query)
    }

    /// Reads a JSON object of filters.
    fn of_json(body: &[u8]) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_filter("the body is not a JSON object of filters".into());
        let Value::Object(members) = serde_json::from_slice(body).map_err(|_| bad())? else {
            return Err(bad());
        };
        let mut query = Self::default();
        for (key, value) in members {
            match value {
                Value::String(text) => query.set(&key, &text)?,
                Value::Bool(_) | Value::Number(_) => query.set(&key, &value.to_string())?,
                Value::Null => {}
                Value::Array(_) | Value::Object(_) => {
                    return Err(ApiError::bad_filter(format!("{key} is not a text")));
                }
            }
        }
        Ok(query)
    }

    /// Holds the query to the tenants that its caller sees.
    fn within(mut self, scope: &Scope) -> Result<Self, ApiError> {
        let Some(own) = scope.tenant() else { return Ok(self) };
        match self.filters.iter().find(|(key, _)| key == "tenant") {
            Some((_, named)) if named != own => Err(ApiError::not_yours(named)),
            Some(_) => Ok(self),
            None => {
                self.filters.push(("tenant".to_owned(), own.to_owned()));
                Ok(self)
            }
        }
    }

    /// Refuses a change without a filter, unless all entries are meant.
    fn chosen(self) -> Result<Self, ApiError> {
        if self.filters.is_empty() && !self.all {
            let message = "no filter: name what is meant by id, tenant, device, type, reason, guest, since or until; \
                 or all = true";
            return Err(ApiError { status: 400, code: "FILTER_NEEDED", message: message.into() });
        }
        Ok(self)
    }
}

fn filter(query: &QuarantineQuery) -> Result<Filter, ApiError> {
    let mut filter = Filter::default();
    for (key, value) in &query.filters {
        filter.set(key, value).map_err(|error| ApiError::bad_filter(error.to_string()))?;
    }
    Ok(filter)
}

fn limit(query: &QuarantineQuery, default: usize, most: usize) -> Result<usize, ApiError> {
    match query.limit {
        Some(limit) if limit > most => {
            Err(ApiError::bad_filter(format!("limit = {limit}: expected 1 to {most}")))
        }
        limit => Ok(limit.unwrap_or(default)),
    }
}

/// The one entry that was named is not there, or other filters beside its name do not take it.
fn no_such_entry(id: &str) -> ApiError {
    let message = format!("there is no entry {id:?} in quarantine");
    ApiError { status: 404, code: "NO_SUCH_ENTRY", message }
}

fn unreadable(error: QuarantineError) -> ApiError {
    tracing::error!(%error, "quarantine cannot be used");
    ApiError { status: 500, code: "QUARANTINE_UNUSABLE", message: error.to_string() }
}

/// An entry as it may be shown: secrets masked, and what devices sent only where it may be.
fn show(entry: Entry, payloads: bool) -> Value {
    let mut entry = entry.masked();
    if !payloads {
        entry.payload = None;
        entry.payload_base64 = None;
        entry.line = None;
    }
    serde_json::to_value(entry).expect("an entry is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_by_url_or_by_json() {
        let named = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let query = QuarantineQuery::of_url("tenant=a%20b+c&reason=NO_GUEST&limit=7&all=true").unwrap();
        assert_eq!(query.filters, [named("tenant", "a b c"), named("reason", "NO_GUEST")]);
        assert_eq!((query.limit, query.all), (Some(7), true));
        assert_eq!(
            QuarantineQuery::of_json(
                br#"{"tenant":"a b c","reason":"NO_GUEST","limit":7,"all":true,"guest":null}"#
            )
            .unwrap(),
            query
        );
        assert_eq!(QuarantineQuery::of_url("").unwrap(), QuarantineQuery::default());
    }

    #[test]
    fn a_tenants_query_stays_within_its_own_entries() {
        let own = Scope::Tenant { name: "acme".into(), folder: "acme".into() };
        let query = |url: &str| QuarantineQuery::of_url(url).unwrap().within(&own);
        assert_eq!(query("all=true").unwrap().filters, [("tenant".to_owned(), "acme".to_owned())]);
        assert_eq!(query("tenant=acme&reason=NO_GUEST").unwrap().filters.len(), 2);
        assert_eq!(query("tenant=globex").unwrap_err().status, 403);
        assert_eq!(QuarantineQuery::of_url("all=true").unwrap().within(&Scope::All).unwrap().filters, []);
    }

    #[test]
    fn what_is_not_meant_is_not_guessed() {
        for url in ["limit=0", "limit=x", "all=yes", "tenant=a&tenant=b", "tenant=%ff"] {
            assert_eq!(QuarantineQuery::of_url(url).unwrap_err().code, "BAD_FILTER", "{url}");
        }
        for body in ["", "[]", "7", r#"{"tenant":["a"]}"#, r#"{"all":1}"#] {
            assert_eq!(QuarantineQuery::of_json(body.as_bytes()).unwrap_err().code, "BAD_FILTER", "{body}");
        }
        assert_eq!(QuarantineQuery::of_json(b"{}").unwrap().chosen().unwrap_err().code, "FILTER_NEEDED");
        assert!(QuarantineQuery::of_json(br#"{"all":true}"#).unwrap().chosen().is_ok());
    }
}
