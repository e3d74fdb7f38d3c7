//! Whether a version may serve: it is made, started, and compared with what serves.

use std::sync::{Arc, Weak};

use super::GuestStore;
use crate::decode::folder::Wish;
use crate::decode::guest::{Guest, GuestError};
use crate::decode::history::Place;
use crate::decode::instance::CallFault;
use crate::decode::route_file::RouteRules;
use crate::decode::routes::{ANY, Route, RouteState};
use crate::decode::shadow;
use crate::decode::slow::Pace;

impl GuestStore {
    /// Whether a version may serve in the place of another: it compiles, starts, passes its cases,
    /// and decodes what the other decodes.
    pub(super) fn judge(
        &self,
        place: &Place,
        wish: &Wish,
        before: Option<&Route>,
    ) -> Result<(Arc<Guest>, RouteRules), GuestError> {
        let (guest, rules) = self.make(place, &wish.component, &wish.digest, wish.rules.as_deref())?;
        let candidate = Route {
            guest: guest.clone(),
            rules: rules.clone(),
            version: wish.version(),
            state: RouteState::of_trial(),
            pace: Pace::default(),
            probation: None,
        };
        self.try_out(&candidate, place)?;
        if let (Some(runner), Some(cases)) = (&self.cases, &wish.cases) {
            // Cases bring what they need themselves.
            let alone = Arc::new(self.alone(place, candidate.for_trial(), Arc::default()));
            runner.run(alone, cases).map_err(GuestError::Cases)?;
        }
        if let Some(before) = before {
            let messages = before.state.recent.lock().messages();
            shadow::run(self, place, before, &candidate, messages).map_err(GuestError::Shadow)?;
        }
        Ok((guest, rules))
    }

    /// Compiles, links and configures a component; the same that serves elsewhere is shared.
    pub(super) fn make(
        &self,
        place: &Place,
        component: &[u8],
        digest: &str,
        rules: Option<&str>,
    ) -> Result<(Arc<Guest>, RouteRules), GuestError> {
        let rules = match rules {
            Some(text) => RouteRules::parse(text, &self.settings, place).map_err(GuestError::RouteFile)?,
            None => RouteRules::of_gateway(&self.settings, place),
        };
        let (bytes, most) = (component.len() as u64, rules.component_bytes_max);
        if bytes > most {
            return Err(GuestError::TooLarge { bytes, most });
        }
        let name = format!("{digest}/{}/{:?}", place.1, rules.class);
        if let Some(guest) = self.loaded.lock().get(&name).and_then(Weak::upgrade) {
            return Ok((guest, rules));
        }
        let guest = Arc::new(Guest::load(self.sandboxes.of(rules.class), component, digest, &place.1)?);
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, guest| guest.strong_count() > 0);
        loaded.insert(name, Arc::downgrade(&guest));
        Ok((guest, rules))
    }

    /// Starts a guest once as it would be started to serve. A guest for any type is started only:
    /// nobody can say what types it will be asked for.
    fn try_out(&self, route: &Route, (tenant, stem): &Place) -> Result<(), GuestError> {
        match self.start(route, tenant, stem) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if stem == ANY => Ok(()),
            Ok(Err(refusal)) => Err(GuestError::Configure(refusal)),
            // No instance is free to try it: it is tried by its first message.
            Err(CallFault::Host(_)) => Ok(()),
            Err(CallFault::Guest(reason, what)) => Err(GuestError::Start(format!("{reason}: {what}"))),
        }
    }
}
