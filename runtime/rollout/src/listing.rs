//! The listing of guests, for whoever asks.

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
    pub file: String,
    /// `serving`; `refused` when what lies there does not serve (an older one may); `waiting` to be
    /// judged.
    pub state: &'static str,
    /// The version that serves: `name@version#digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The version of the interface that what serves was built for, and whether it keeps state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    pub keeps_state: bool,
    /// Why what lies there does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// While a new version is watched: how many messages it has decoded, and on how many it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probation: Option<ProbationInfo>,
    /// `fast`, or `slow`: too much CPU time a message, on threads of its own.
    pub lane: &'static str,
    /// The ceilings that hold for what serves: `normal`, or `large` where the operator grants it.
    pub class: GuestClass,
    pub messages: u64,
    pub cpu_seconds: f64,
    pub failures: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbationInfo {
    pub messages: u64,
    pub failures: u64,
}

impl GuestStore {
    /// The files of the folder, and the versions that serve.
    pub fn list(&self) -> Vec<GuestInfo> {
        let seen = self.seen.lock();
        seen.iter()
            .map(|((tenant, message_type), seen)| {
                let route = seen.serving.as_ref();
                let serving = route.map(|route| &route.version);
                let stats = serving.map(|version| &version.activity.stats);
                let probation = route.and_then(|route| route.probation.as_ref()).filter(|p| p.runs());
                let slow = serving.is_some_and(|route| route.is_slow());
                GuestInfo {
                    tenant: tenant.clone(),
                    message_type: message_type.clone(),
                    file: seen.path.display().to_string(),
                    state: match (&seen.error, serving) {
                        (Some(_), _) => "refused",
                        (None, Some(_)) => "serving",
                        (None, None) => "waiting",
                    },
                    guest: serving.map(|route| route.guest.tag.to_string()),
                    digest: serving.map(|route| route.guest.digest.clone()),
                    interface: serving.map(|route| route.guest.interface.clone()),
                    keeps_state: serving.is_some_and(|route| route.guest.imports_state),
                    error: seen.error.clone(),
                    probation: probation
                        .map(|p| ProbationInfo { messages: p.messages(), failures: p.failures() }),
                    lane: if slow { "slow" } else { "fast" },
                    class: serving.map_or(GuestClass::Normal, |route| route.rules.class),
                    messages: stats.map_or(0, |stats| stats.messages.load(Ordering::Relaxed)),
                    cpu_seconds: stats.map_or(0.0, |stats| stats.cpu().as_secs_f64()),
                    failures: stats.map(|stats| stats.failures().collect()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// A route's versions, newest first; None where there never was one.
    pub fn history(&self, place: &RouteKey) -> Option<Vec<VersionRecord>> {
        let known = self.seen.lock().get(place).map(|seen| seen.record.clone());
        let record = known.unwrap_or_else(|| self.record(place));
        (!record.versions.is_empty()).then_some(record.versions)
    }

    /// The log of a route's guests, oldest first, and the number of texts that were dropped.
    pub fn log(&self, place: &RouteKey) -> Option<(Vec<LogLine>, u64)> {
        let seen = self.seen.lock();
        let serving = seen.get(place)?.serving.as_ref()?;
        Some(serving.version.activity.log.lines())
    }

    /// (tenant, type, outcome, how often): files that were taken up, or not.
    pub fn swaps(&self) -> Vec<(String, String, &'static str, u64)> {
        let swaps = self.swaps.lock();
        swaps
            .iter()
            .map(|(((tenant, stem), outcome), count)| (tenant.clone(), stem.clone(), *outcome, *count))
            .collect()
    }
}
