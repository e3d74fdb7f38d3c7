//! Quarantine as the admin side reaches it.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::replay::ReplayError;
use super::view::Shown;
use crate::admin::quarantine::{Desk, Fault, Query};
use crate::domain::limits::{
    ADMIN_BODY_BYTES_MAX, QUARANTINE_LISTED_BYTES_MAX, QUARANTINE_LISTED_MAX, REPLAY_ENTRIES_MAX,
};
use crate::quarantine::{Entry, Filter, Leaving, Quarantine, QuarantineError};

/// Entries that a listing gives where no limit is named.
const LISTED_BY_DEFAULT: usize = 100;

impl Desk for Shown {
    fn entries(&self, query: &Query, payloads: bool) -> Result<Value, Fault> {
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

    fn entry(&self, id: &str, payloads: bool) -> Result<Value, Fault> {
        let filter = Filter { id: Some(id.to_owned()), ..Filter::default() };
        match self.store().entries(filter).next().transpose().map_err(unreadable)? {
            Some(entry) => Ok(show(entry, payloads)),
            None => Err(no_such_entry(id)),
        }
    }

    fn remove(&self, query: &Query) -> Result<Value, Fault> {
        let limit = limit(query, REPLAY_ENTRIES_MAX, REPLAY_ENTRIES_MAX)?;
        let filter = filter(query)?;
        let (places, left) = self.store().matching(filter.clone(), limit).map_err(unreadable)?;
        if let (Some(id), true) = (&filter.id, places.is_empty()) {
            return Err(no_such_entry(id));
        }
        let removed = self.store().take_out(&places, Leaving::Removed).map_err(unreadable)?.len();
        tracing::info!(removed, filters = ?query.filters, "the operator removed entries of quarantine");
        Ok(json!({"removed": removed, "left": left}))
    }

    async fn replay(&self, query: &Query) -> Result<Value, Fault> {
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
            Err(error @ ReplayError::Running) => Err(Fault {
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

fn filter(query: &Query) -> Result<Filter, Fault> {
    let mut filter = Filter::default();
    for (key, value) in &query.filters {
        filter.set(key, value).map_err(|error| Fault::bad_filter(error.to_string()))?;
    }
    Ok(filter)
}

fn limit(query: &Query, default: usize, most: usize) -> Result<usize, Fault> {
    match query.limit {
        Some(limit) if limit > most => {
            Err(Fault::bad_filter(format!("limit = {limit}: expected 1 to {most}")))
        }
        limit => Ok(limit.unwrap_or(default)),
    }
}

/// The one entry that was named is not there, or other filters beside its name do not take it.
fn no_such_entry(id: &str) -> Fault {
    let message = format!("there is no entry {id:?} in quarantine");
    Fault { status: StatusCode::NOT_FOUND, code: "NO_SUCH_ENTRY", message }
}

fn our_fault(message: String) -> Fault {
    Fault { status: StatusCode::INTERNAL_SERVER_ERROR, code: "OUR_FAULT", message }
}

fn unreadable(error: QuarantineError) -> Fault {
    tracing::error!(%error, "quarantine cannot be used");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Fault { status, code: "QUARANTINE_UNUSABLE", message: error.to_string() }
}

/// An entry as it may be shown: secrets masked, and what devices sent only where it may be.
pub(super) fn show(entry: Entry, payloads: bool) -> Value {
    let mut entry = entry.masked();
    if !payloads {
        entry.payload = None;
        entry.payload_base64 = None;
        entry.line = None;
    }
    serde_json::to_value(entry).expect("an entry is JSON")
}
