//! Components that are put in place, or taken away, from outside.

use std::fs;

use crate::error::RolloutError;
use crate::folder::{Candidate, CandidateStamps};
use crate::history;
use crate::queue::PutResult;
use crate::store::GuestStore;
use tidegate_core::route_key::RouteKey;

impl GuestStore {
    /// Judges a component, lays it into the folder, and lets it serve. Takes as long as compiling,
    /// cases and shadow run take.
    ///
    /// # Errors
    /// The reason why it may not serve; then nothing has changed but the history.
    pub fn put_now(
        &self,
        route_key: &RouteKey,
        component: Vec<u8>,
        who: &str,
    ) -> Result<PutResult, RolloutError> {
        let bytes = component.len() as u64;
        let most = self.component_bytes_max(route_key);
        if bytes > most {
            return Err(self.too_large(route_key, bytes, most));
        }
        let folder = self.folder.join(&route_key.0);
        let path = self.path_of(route_key);
        let candidate = Candidate::beside(&self.folder, &path, component)?;
        let before = self.entries.lock().get(route_key).and_then(|entry| entry.serving.clone());
        let lay = || -> Result<CandidateStamps, RolloutError> {
            fs::create_dir_all(&folder)?;
            if !fs::canonicalize(&folder)?.starts_with(fs::canonicalize(&self.folder)?) {
                return Err(RolloutError::Outside);
            }
            history::replace(&path, &candidate.component).map_err(|error| {
                RolloutError::Host(format!("the guests folder cannot be written to: {error}"))
            })?;
            Ok(CandidateStamps::read(&path))
        };
        if let Some(before) = &before
            && before.version.id == candidate.version()
        {
            let stamps = lay()?;
            if let Some(known) = self.entries.lock().get_mut(route_key) {
                known.settle(stamps);
                known.error = None;
            }
            let (guest, digest) = (before.version.guest.tag.to_string(), before.version.guest.digest.clone());
            return Ok(PutResult { guest, digest, state: "unchanged" });
        }
        let (guest, rules) =
            match self.evaluate(route_key, &candidate, before.as_ref().map(|before| &*before.version)) {
                Ok(judged) => judged,
                Err(error) => {
                    self.refuse(route_key, None, Some(&candidate), &error, who);
                    return Err(error);
                }
            };
        let put = PutResult { guest: guest.tag.to_string(), digest: guest.digest.clone(), state: "serving" };
        let stamps = lay()?;
        self.activate(route_key, stamps, &candidate, guest, rules, who);
        Ok(put)
    }

    /// Takes a guest out of the folder; its history stays.
    ///
    /// # Errors
    /// There is none, or the folder cannot be written to.
    pub fn remove(&self, route_key: &RouteKey) -> Result<(), RolloutError> {
        let mut entries = self.entries.lock();
        let path = self.path_of(route_key);
        if !entries.contains_key(route_key) && !path.exists() {
            return Err(RolloutError::NotThere);
        }
        fs::remove_file(&path)?;
        self.retire(&mut entries, route_key);
        self.swap_table(&entries);
        Ok(())
    }
}
