//! Other settings while decoders serve: the rules of each route are made anew, and its guest stays.

use crate::folder::CandidateStamps;
use crate::route_file;
use crate::store::{FileEntry, GuestStore};
use crate::tenant_limits::TenantLimits;
use tidegate_core::route_key::RouteKey;
use tidegate_decode::DecodeSettings;
use tidegate_decode::route::table::Route;
use tidegate_decode::route::version::RouteVersion;

impl GuestStore {
    /// Applies other limits. A version whose route file asks for more than is allowed now has what is allowed;
    /// a file that did not serve is evaluated again.
    pub fn apply_settings(&self, settings: DecodeSettings, tenant_limits: TenantLimits) {
        self.set_tenant_limits(tenant_limits);
        if !self.host.apply_settings(settings) {
            return;
        }
        let mut entries = self.entries.lock();
        for (route_key, entry) in entries.iter_mut() {
            if entry.error.is_some() {
                entry.stamps = CandidateStamps::default();
            }
            self.make_rules_anew(route_key, entry);
        }
        self.swap_table(&entries);
    }

    fn make_rules_anew(&self, route_key: &RouteKey, entry: &mut FileEntry) {
        let Some(Route { version, probation }) = &entry.serving else { return };
        let settings = self.host.settings();
        let definition = self.history.as_ref().zip(entry.record.find(&version.id));
        let definition = definition.map(|(history, version)| history.definition(route_key, version));
        let definition = definition.unwrap_or_default();
        let rules = route_file::rules(&definition, &settings, route_key);
        let ceilings = settings.ceilings(version.rules.class);
        let mut rules = match rules {
            Ok(rules) => rules,
            Err(why) => {
                let (tenant, message_type) = route_key;
                tracing::warn!(tenant, message_type, why, "a route's file asks for more than is allowed now");
                let mut rules = version.rules.clone();
                rules.deadline_ms = rules.deadline_ms.min(ceilings.deadline_ms);
                rules.memory_bytes_max = rules.memory_bytes_max.min(ceilings.memory_bytes_max);
                rules
            }
        };
        // A guest was compiled for its class: another takes effect when a version is put.
        if rules.class != version.rules.class {
            return;
        }
        rules.component_bytes_max = ceilings.component_bytes_max;
        if rules == version.rules {
            return;
        }
        let (guest, activity) = (version.guest.clone(), version.activity.clone());
        let version = RouteVersion::new(guest, rules, version.id.clone(), activity);
        let probation = probation.clone();
        entry.serving = Some(Route { version, probation });
    }
}
