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
    /// Why it may not serve; then nothing has changed but the history.
    pub fn put_now(
        &self,
        place: &RouteKey,
        component: Vec<u8>,
        who: &str,
    ) -> Result<PutResult, RolloutError> {
        let bytes = component.len() as u64;
        let most = self.component_bytes_max(place);
        if bytes > most {
            return Err(self.too_large(place, bytes, most));
        }
        let folder = self.folder.join(&place.0);
        let path = self.path_of(place);
        let wish = Candidate::beside(&self.folder, &path, component)?;
        let before = self.seen.lock().get(place).and_then(|seen| seen.serving.clone());
        let lay = || -> Result<CandidateStamps, RolloutError> {
            fs::create_dir_all(&folder)?;
            if !fs::canonicalize(&folder)?.starts_with(fs::canonicalize(&self.folder)?) {
                return Err(RolloutError::Outside);
            }
            history::replace(&path, &wish.component).map_err(|error| {
                RolloutError::Host(format!("the guests folder cannot be written to: {error}"))
            })?;
            Ok(CandidateStamps::of(&path))
        };
        if let Some(before) = &before
            && before.version.id == wish.version()
        {
            let stamps = lay()?;
            if let Some(known) = self.seen.lock().get_mut(place) {
                known.settle(stamps);
                known.error = None;
            }
            let (guest, digest) = (before.version.guest.tag.to_string(), before.version.guest.digest.clone());
            return Ok(PutResult { guest, digest, state: "unchanged" });
        }
        let (guest, rules) = match self.evaluate(place, &wish, before.as_ref().map(|before| &*before.version))
        {
            Ok(judged) => judged,
            Err(error) => {
                self.refuse(place, None, Some(&wish), &error, who);
                return Err(error);
            }
        };
        let put = PutResult { guest: guest.tag.to_string(), digest: guest.digest.clone(), state: "serving" };
        let stamps = lay()?;
        self.activate(place, stamps, &wish, guest, rules, who);
        Ok(put)
    }

    /// Takes a guest out of the folder; its history stays.
    ///
    /// # Errors
    /// There is none, or the folder cannot be written to.
    pub fn remove(&self, place: &RouteKey) -> Result<(), RolloutError> {
        let mut seen = self.seen.lock();
        let path = self.path_of(place);
        if !seen.contains_key(place) && !path.exists() {
            return Err(RolloutError::NotThere);
        }
        fs::remove_file(&path)?;
        self.retire(&mut seen, place);
        self.swap_table(&seen);
        Ok(())
    }
}
