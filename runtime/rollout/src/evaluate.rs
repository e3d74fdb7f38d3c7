//! The evaluation of a candidate: it is made, started, and compared with the version that serves.

use std::sync::{Arc, Weak};

use crate::builtin;
use crate::candidate::Candidate;
use crate::comparison::Comparison;
use crate::definition::RouteDefinition;
use crate::error::RolloutError;
use crate::route_file;
use crate::store::GuestStore;
use crate::trial_run::{TrialVerdict, trial_run};
use tidegate_core::route_key::{ANY, DEFAULT, RouteKey, name_of};
use tidegate_core::tenant::budget::Budget;
use tidegate_core::tenant::budget_kind::Resource;
use tidegate_decode::route::recent_messages::RecentMessage;
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::stats::RouteActivity;
use tidegate_decode::route::table::RouteFolder;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;
use tidegate_decode::sandbox::instance::CallFault;

/// A candidate that may serve.
pub(super) struct Evaluated {
    pub(super) guest: Arc<Guest>,
    pub(super) rules: RouteRules,
    /// The trial run beside the version that serves.
    pub(super) comparison: Option<Comparison>,
}

impl GuestStore {
    /// Lets a candidate pass that may serve in the place of another: it compiles, starts, passes its cases,
    /// and decodes what the other decodes.
    pub(super) fn evaluate(
        &self,
        route_key: &RouteKey,
        candidate: &Candidate,
        before: Option<&RouteVersion>,
    ) -> Result<Evaluated, RolloutError> {
        self.disk_use.check(&route_key.0, candidate.own_bytes())?;
        let (guest, rules) =
            self.make(route_key, &candidate.component, &candidate.digest, &candidate.definition)?;
        let activity = RouteActivity::of_trial();
        let version = RouteVersion::new(guest.clone(), rules.clone(), candidate.version(), activity);
        self.start_once(&version, route_key)?;
        if let (Some(runner), Some(cases)) = (&self.cases, &candidate.cases) {
            // Cases bring their own messages and devices.
            let alone = Arc::new(self.host.single_route(route_key, version.for_trial(), Arc::default()));
            runner.run(alone, cases).map_err(RolloutError::Cases)?;
        }
        let comparison = match before {
            None => self.compare_with_default(route_key, &version),
            Some(before) => {
                let messages = before.activity.recent.lock().messages();
                let TrialVerdict { comparison, fault } =
                    trial_run(&self.host, (route_key, before), (route_key, &version), messages);
                match fault {
                    Some(fault) => return Err(RolloutError::Shadow(fault)),
                    None => Some(comparison),
                }
            }
        };
        Ok(Evaluated { guest, rules, comparison })
    }

    /// The comparison of a tenant's first decoder of its own with the one for all tenants, on the tenant's messages. Only
    /// for the verdict: it may decode what the other does not, and the reverse.
    fn compare_with_default(&self, route_key: &RouteKey, candidate: &RouteVersion) -> Option<Comparison> {
        let (tenant, message_type) = (name_of(&route_key.0)?, name_of(&route_key.1)?);
        let (present, folder) = self.host.table().find(&tenant, &message_type)?;
        let RouteFolder::Default = folder else { return None };
        let of_route = |message: &RecentMessage| {
            message.tenant.id.as_str() == tenant && message.message_type.of(&message.topic) == message_type
        };
        let mut messages = present.version.activity.recent.lock().messages();
        messages.retain(of_route);
        let present_key = (DEFAULT.to_owned(), route_key.1.clone());
        let verdict =
            trial_run(&self.host, (&present_key, &present.version), (route_key, candidate), messages);
        Some(verdict.comparison).filter(|comparison| comparison.compared > 0)
    }

    /// Compiles, links and configures a component; the same that serves elsewhere is shared.
    pub(super) fn make(
        &self,
        route_key: &RouteKey,
        component: &[u8],
        digest: &str,
        definition: &RouteDefinition,
    ) -> Result<(Arc<Guest>, RouteRules), RolloutError> {
        let rules = route_file::rules(definition, &self.host.settings(), route_key);
        let rules = rules.map_err(RolloutError::RouteFile)?;
        let built_in = builtin::of_digest(digest);
        let (bytes, most) = (component.len() as u64, rules.component_bytes_max);
        if bytes > most && built_in.is_none() {
            return Err(RolloutError::TooLarge { bytes, most });
        }
        // One that comes with the program names itself: routes of all names share it.
        let stem = built_in.map_or(&*route_key.1, |built_in| built_in.name);
        let name = format!("{digest}/{stem}/{:?}", rules.class);
        if let Some(guest) = self.loaded.lock().get(&name).and_then(Weak::upgrade) {
            return Ok((guest, rules));
        }
        Guest::check_header(component)?;
        let engine = &self.host.sandbox(rules.class).engine;
        let compiled = self.compilers.get(rules.class).component(engine, component, digest)?;
        let guest = Arc::new(Guest::load(engine, &compiled, component, digest, stem)?);
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, guest| guest.strong_count() > 0);
        loaded.insert(name, Arc::downgrade(&guest));
        Ok((guest, rules))
    }

    /// Starts a guest once as it would be started to serve. A guest for any type is started only:
    /// nobody can say what types it will be asked for.
    fn start_once(&self, version: &RouteVersion, (tenant, stem): &RouteKey) -> Result<(), RolloutError> {
        match self.host.start(version, (tenant, &Budget::unlimited(Resource::Memory)), stem) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if stem == ANY => Ok(()),
            Ok(Err(refusal)) => Err(RolloutError::Configure(refusal)),
            // No instance is free to try it: it is tried by its first message.
            Err(CallFault::Host(_)) => Ok(()),
            Err(CallFault::Guest(reason, what)) => Err(RolloutError::Start(format!("{reason}: {what}"))),
        }
    }
}
