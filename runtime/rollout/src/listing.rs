//! The listing of guests.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::history::VersionRecord;
use crate::store::GuestStore;
use tidegate_core::route_key::RouteKey;
use tidegate_decode::GuestClass;
use tidegate_decode::route::guest_log::LogLine;

/// A file of the folder, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct GuestInfo {
    /// The folder: a tenant, or `_default`.
    pub tenant: String,
    /// The message type, or `_any`.
    #[serde(rename = "type")]
    pub message_type: String,
    /// The file that makes the route: a component, or the route file of a built-in decoder.
    pub file: String,
    /// The name of the built-in decoder that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_in: Option<String>,
    /// `serving`; `refused` if the file does not serve (an older version may); `waiting` to be evaluated.
    pub state: &'static str,
    /// `serving`, `refused` or `waiting`; `set_aside` if the file is a version that was rolled back.
    pub file_state: &'static str,
    /// The version that serves: `name@version#digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version that serves, with its texts: what `expect_version` of a put is held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version of the interface that the serving version was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    pub keeps_state: bool,
    /// The reason why the file does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Set while a new version is on probation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probation: Option<ProbationInfo>,
    /// `fast`, or `slow`: too much CPU time a message, on threads of its own.
    pub lane: &'static str,
    /// The ceilings that hold for the serving version: `normal`, or `large` if the operator grants it.
    pub class: GuestClass,
    pub messages: u64,
    pub cpu_seconds: f64,
    pub failures: BTreeMap<&'static str, u64>,
    /// Values that the decoder left out and reported, by kind.
    pub ignored: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbationInfo {
    pub messages: u64,
    pub failures: u64,
}

impl GuestStore {
    /// The files of the folder, and the versions that serve.
    pub fn list(&self) -> Vec<GuestInfo> {
        let entries = self.entries.lock();
        entries
            .iter()
            .map(|((tenant, message_type), entry)| {
                let route = entry.serving.as_ref();
                let serving = route.map(|route| &route.version);
                let stats = serving.map(|version| &version.activity.stats);
                let probation = route.and_then(|route| route.probation.as_ref()).filter(|p| p.runs());
                let slow = serving.is_some_and(|route| route.is_slow());
                GuestInfo {
                    tenant: tenant.clone(),
                    message_type: message_type.clone(),
                    file: entry.path.display().to_string(),
                    built_in: serving
                        .and_then(|version| entry.record.find(&version.id))
                        .and_then(|version| version.built_in.clone()),
                    state: match (&entry.error, serving) {
                        (Some(_), _) => "refused",
                        (None, Some(_)) => "serving",
                        (None, None) => "waiting",
                    },
                    file_state: match (&entry.error, serving) {
                        (Some(_), _) if entry.set_aside => "set_aside",
                        (Some(_), _) => "refused",
                        (None, Some(_)) => "serving",
                        (None, None) => "waiting",
                    },
                    guest: serving.map(|route| route.guest.tag.to_string()),
                    digest: serving.map(|route| route.guest.digest.clone()),
                    version: serving.map(|route| route.id.clone()),
                    interface: serving.map(|route| route.guest.interface.clone()),
                    keeps_state: serving.is_some_and(|route| route.guest.imports_state),
                    error: entry.error.clone(),
                    probation: probation
                        .map(|p| ProbationInfo { messages: p.messages(), failures: p.failures() }),
                    lane: if slow { "slow" } else { "fast" },
                    class: serving.map_or(GuestClass::Normal, |route| route.rules.class),
                    messages: stats.map_or(0, |stats| stats.messages.load(Ordering::Relaxed)),
                    cpu_seconds: stats.map_or(0.0, |stats| stats.cpu().as_secs_f64()),
                    failures: stats.map(|stats| stats.failures().collect()).unwrap_or_default(),
                    ignored: stats.map(|stats| stats.ignored().collect()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// A route's versions, newest first; None where there never was one.
    pub fn history(&self, route_key: &RouteKey) -> Option<Vec<VersionRecord>> {
        let known = self.entries.lock().get(route_key).map(|entry| entry.record.clone());
        let record = known.unwrap_or_else(|| self.record(route_key));
        (!record.versions.is_empty()).then_some(record.versions)
    }

    /// The log of a route's guests, oldest first, and the number of texts that were dropped.
    pub fn log(&self, route_key: &RouteKey) -> Option<(Vec<LogLine>, u64)> {
        let entries = self.entries.lock();
        let serving = entries.get(route_key)?.serving.as_ref()?;
        Some(serving.version.activity.log.lines())
    }

    /// (tenant, type, outcome, count): candidates that were activated, or not.
    pub fn swaps(&self) -> Vec<(String, String, &'static str, u64)> {
        let swaps = self.swaps.lock();
        swaps
            .iter()
            .map(|(((tenant, stem), outcome), count)| (tenant.clone(), stem.clone(), *outcome, *count))
            .collect()
    }
}
