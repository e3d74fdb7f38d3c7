//! The evaluation of a candidate: it is made, started, and compared with the version that serves.

use std::sync::{Arc, Weak};

use crate::error::RolloutError;
use crate::folder::Candidate;
use crate::route_file;
use crate::store::GuestStore;
use crate::trial_run::trial_run;
use tidegate_core::route_key::{ANY, RouteKey};
use tidegate_decode::route::rules::RouteRules;
use tidegate_decode::route::stats::RouteActivity;
use tidegate_decode::route::version::RouteVersion;
use tidegate_decode::sandbox::guest::Guest;
use tidegate_decode::sandbox::instance::CallFault;

impl GuestStore {
    /// Lets a candidate pass that may serve in the place of another: it compiles, starts, passes its cases,
    /// and decodes what the other decodes.
    pub(super) fn evaluate(
        &self,
        place: &RouteKey,
        wish: &Candidate,
        before: Option<&RouteVersion>,
    ) -> Result<(Arc<Guest>, RouteRules), RolloutError> {
        let (guest, rules) = self.make(place, &wish.component, &wish.digest, wish.rules.as_deref())?;
        let activity = RouteActivity::of_trial();
        let candidate = RouteVersion::new(guest.clone(), rules.clone(), wish.version(), activity);
        self.start_once(&candidate, place)?;
        if let (Some(runner), Some(cases)) = (&self.cases, &wish.cases) {
            // Cases bring what they need themselves.
            let alone = Arc::new(self.host.single_route(place, candidate.for_trial(), Arc::default()));
            runner.run(alone, cases).map_err(RolloutError::Cases)?;
        }
        if let Some(before) = before {
            let messages = before.activity.recent.lock().messages();
            trial_run(&self.host, place, before, &candidate, messages).map_err(RolloutError::Shadow)?;
        }
        Ok((guest, rules))
    }

    /// Compiles, links and configures a component; the same that serves elsewhere is shared.
    pub(super) fn make(
        &self,
        place: &RouteKey,
        component: &[u8],
        digest: &str,
        rules: Option<&str>,
    ) -> Result<(Arc<Guest>, RouteRules), RolloutError> {
        let rules = match rules {
            Some(text) => {
                route_file::parse(text, self.host.settings(), place).map_err(RolloutError::RouteFile)?
            }
            None => route_file::without_file(self.host.settings(), place),
        };
        let (bytes, most) = (component.len() as u64, rules.component_bytes_max);
        if bytes > most {
            return Err(RolloutError::TooLarge { bytes, most });
        }
        let name = format!("{digest}/{}/{:?}", place.1, rules.class);
        if let Some(guest) = self.loaded.lock().get(&name).and_then(Weak::upgrade) {
            return Ok((guest, rules));
        }
        Guest::check_header(component)?;
        let engine = &self.host.sandbox(rules.class).engine;
        let compiled = self.compilers.of(rules.class).component(engine, component, digest)?;
        let guest = Arc::new(Guest::load(engine, &compiled, component, digest, &place.1)?);
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, guest| guest.strong_count() > 0);
        loaded.insert(name, Arc::downgrade(&guest));
        Ok((guest, rules))
    }

    /// Starts a guest once as it would be started to serve. A guest for any type is started only:
    /// nobody can say what types it will be asked for.
    fn start_once(&self, version: &RouteVersion, (tenant, stem): &RouteKey) -> Result<(), RolloutError> {
        match self.host.start(version, tenant, stem) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if stem == ANY => Ok(()),
            Ok(Err(refusal)) => Err(RolloutError::Configure(refusal)),
            // No instance is free to try it: it is tried by its first message.
            Err(CallFault::Host(_)) => Ok(()),
            Err(CallFault::Guest(reason, what)) => Err(RolloutError::Start(format!("{reason}: {what}"))),
        }
    }
}
