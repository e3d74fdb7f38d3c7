//! Quarantine as the admin side reaches it.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::admin::quarantine::{ApiError, Desk, QuarantineQuery};
use crate::admin::status::AdminContext;
use crate::limits::{
    ADMIN_BODY_BYTES_MAX, QUARANTINE_LISTED_BYTES_MAX, QUARANTINE_LISTED_MAX, REPLAY_ENTRIES_MAX,
};
use crate::pipeline::replay::ReplayError;
use crate::quarantine::{Entry, Filter, Quarantine, QuarantineError, RemovalReason};

/// Entries that a listing gives where no limit is named.
const LISTED_BY_DEFAULT: usize = 100;

impl Desk for AdminContext {
    fn entries(&self, query: &QuarantineQuery, payloads: bool) -> Result<Value, ApiError> {
        let dir = self.store().dir();
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

    fn entry(&self, id: &str, payloads: bool) -> Result<Value, ApiError> {
        let filter = Filter { id: Some(id.to_owned()), ..Filter::default() };
        match self.store().entries(filter).next().transpose().map_err(unreadable)? {
            Some(entry) => Ok(show(entry, payloads)),
            None => Err(no_such_entry(id)),
        }
    }

    fn remove(&self, query: &QuarantineQuery) -> Result<Value, ApiError> {
        let limit = limit(query, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX)?;
        let filter = filter(query)?;
        let (places, left) = self.store().matching(filter.clone(), limit).map_err(unreadable)?;
        if let (Some(id), true) = (&filter.id, places.is_empty()) {
            return Err(no_such_entry(id));
        }
        let removed = self.store().take_out(&places, RemovalReason::Removed).map_err(unreadable)?.len();
        tracing::info!(removed, filters = ?query.filters, "the operator removed entries of quarantine");
        Ok(json!({"removed": removed, "left": left}))
    }

    async fn replay(&self, query: &QuarantineQuery) -> Result<Value, ApiError> {
        let limit = limit(query, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX)?;
        let filter = filter(query)?;
        if let Some(id) = &filter.id {
            let (quarantine, filter) = (self.store().clone(), filter.clone());
            let found = tokio::task::spawn_blocking(move || quarantine.matching(filter, 1)).await;
            let found = found.map_err(|ended| our_fault(ended.to_string()))?.map_err(unreadable)?;
            if found.0.is_empty() {
                return Err(no_such_entry(id));
            }
        }
        match self.replays().run(filter, limit).await {
            Ok(report) => Ok(serde_json::to_value(report).expect("a report is JSON")),
            Err(error @ ReplayError::Running) => Err(ApiError {
                status: StatusCode::CONFLICT,
                code: "REPLAY_RUNNING",
                message: error.to_string(),
            }),
            Err(ReplayError::Quarantine(error)) => Err(unreadable(error)),
            Err(error @ ReplayError::Ended(_)) => Err(our_fault(error.to_string())),
        }
    }

    fn body_bytes_max(&self) -> usize {
        ADMIN_BODY_BYTES_MAX
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
    ApiError { status: StatusCode::NOT_FOUND, code: "NO_SUCH_ENTRY", message }
}

fn our_fault(message: String) -> ApiError {
    ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, code: "OUR_FAULT", message }
}

fn unreadable(error: QuarantineError) -> ApiError {
    tracing::error!(%error, "quarantine cannot be used");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiError { status, code: "QUARANTINE_UNUSABLE", message: error.to_string() }
}

/// An entry as it may be shown: secrets masked, and what devices sent only where it may be.
pub(crate) fn show(entry: Entry, payloads: bool) -> Value {
    let mut entry = entry.masked();
    if !payloads {
        entry.payload = None;
        entry.payload_base64 = None;
        entry.line = None;
    }
    serde_json::to_value(entry).expect("an entry is JSON")
}
