//! Components that are put in place, or taken away, from outside.

use std::fs;

use serde::Serialize;

use super::GuestStore;
use crate::decode::folder::{Stamps, Wish};
use crate::decode::guest::GuestError;
use crate::decode::history::{self, Place};

/// What became of a component that was put in place.
#[derive(Clone, Debug, Serialize)]
pub struct Put {
    pub guest: String,
    pub digest: String,
    /// `serving`, or `unchanged`: it served already.
    pub state: &'static str,
}

impl GuestStore {
    /// Judges a component, lays it into the folder, and lets it serve. Takes as long as compiling,
    /// cases and shadow run take.
    ///
    /// # Errors
    /// Why it may not serve; then nothing has changed but the history.
    pub fn put_now(&self, place: &Place, component: Vec<u8>, who: &str) -> Result<Put, GuestError> {
        let bytes = component.len() as u64;
        let most = self.component_bytes_max(place);
        if bytes > most {
            return Err(self.too_large(place, bytes, most));
        }
        let folder = self.folder.join(&place.0);
        let path = self.path_of(place);
        let wish = Wish::beside(&self.folder, &path, component)?;
        let before = self.seen.lock().get(place).and_then(|seen| seen.serving.clone());
        let lay = || -> Result<Stamps, GuestError> {
            fs::create_dir_all(&folder)?;
            if !fs::canonicalize(&folder)?.starts_with(fs::canonicalize(&self.folder)?) {
                return Err(GuestError::Outside);
            }
            history::replace(&path, &wish.component).map_err(|error| {
                GuestError::Host(format!("the guests folder cannot be written to: {error}"))
            })?;
            Ok(Stamps::of(&path))
        };
        if let Some(before) = &before
            && before.version == wish.version()
        {
            let stamps = lay()?;
            if let Some(known) = self.seen.lock().get_mut(place) {
                known.settle(stamps);
                known.error = None;
            }
            let (guest, digest) = (before.guest.tag.to_string(), before.guest.digest.clone());
            return Ok(Put { guest, digest, state: "unchanged" });
        }
        let (guest, rules) = match self.judge(place, &wish, before.as_deref()) {
            Ok(judged) => judged,
            Err(error) => {
                self.refuse(place, None, Some(&wish), &error, who);
                return Err(error);
            }
        };
        let put = Put { guest: guest.tag.to_string(), digest: guest.digest.clone(), state: "serving" };
        let stamps = lay()?;
        self.activate(place, stamps, &wish, guest, rules, who);
        Ok(put)
    }

    /// Takes a guest out of the folder; its history stays.
    ///
    /// # Errors
    /// There is none, or the folder cannot be written to.
    pub fn remove(&self, place: &Place) -> Result<(), GuestError> {
        let mut seen = self.seen.lock();
        let path = self.path_of(place);
        if !seen.contains_key(place) && !path.exists() {
            return Err(GuestError::NotThere);
        }
        fs::remove_file(&path)?;
        self.take_out(&mut seen, place);
        self.swap_table(&seen);
        Ok(())
    }
}
