//! What decoders keep, as it is shown to people: `tidegate guest state`.

use std::path::Path;
use std::sync::Arc;

use crate::app::guests::open_store;
use crate::config::{Config, ConfigError, settings};
use crate::core::decoder_state::StateSnapshot;
use crate::rollout::{GuestStore, RolloutError, RolloutEvent};
use crate::spool::{Spool, SpoolError};

/// The guests that a gateway would serve: what is refused or rolled back is not what lies in the
/// folder. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn open_read_only(config: &Config) -> Result<GuestStore, ConfigError> {
    let mut persistence = settings::without_persistence(config);
    persistence.data = Some(settings::guests_data(config));
    open_store(config, Arc::default(), persistence).map(|(guests, _)| guests)
}

/// What lies in the folder, and whether it may serve. Changes nothing.
///
/// # Errors
/// As `open`.
pub fn check(config: &Config) -> Result<(GuestStore, Vec<RolloutEvent>), ConfigError> {
    open_store(config, Arc::default(), settings::without_persistence(config))
}

pub(crate) fn refused(config: &Config, error: RolloutError) -> ConfigError {
    ConfigError::value("guests.dir", &config.guests.dir, format!("a guests folder: {error}"))
}

/// How often a spool is read whose gateway may be running: segments may go while it is read.
const TRIES: u32 = 5;

/// What decoders keep, from the files; its gateway may be running.
///
/// # Errors
/// They cannot be read.
pub fn state_on_disk(config: &Config) -> Result<StateSnapshot, SpoolError> {
    let dir = Path::new(&config.data_dir).join("spool");
    if !dir.exists() {
        return Ok(StateSnapshot::default());
    }
    let mut read = Spool::read_state(&dir);
    for _ in 1..TRIES {
        if read.is_ok() {
            break;
        }
        read = Spool::read_state(&dir);
    }
    read
}

#[cfg(test)]
mod tests {

    use crate::admin::decoder_state::show;
    use crate::core::decoder_state::{StateScope, StateSnapshot, StateWrite};
    use serde_json::json;

    #[test]
    fn state_is_shown_by_the_names_of_folder_and_file() {
        let mut image = StateSnapshot::default();
        let scope = StateScope { tenant: "acme".into(), message_type: "_meter".into() };
        let write = |partition: &str, key: &str, value: &[u8]| StateWrite {
            partition: partition.into(),
            key: key.into(),
            value: Some(value.into()),
        };
        image.apply(&scope, [write("d2", "n", &7u64.to_le_bytes()), write("d1", "t", b"text")]);
        let all = show(&image, "acme", "%5Fmeter", None).unwrap();
        assert_eq!(all["partitions"][0]["partition"], "d1");
        assert_eq!(all["partitions"][0]["values"][0]["text"], "text");
        assert_eq!(all["partitions"][1]["values"][0]["u64"], 7);
        let one = show(&image, "acme", "%5Fmeter", Some("d2")).unwrap();
        assert_eq!(one["partitions"].as_array().unwrap().len(), 1);
        assert_eq!(show(&image, "acme", "other", None).unwrap()["partitions"], json!([]));
        assert_eq!(show(&image, "acme", "%5Fmeter", Some("d3")).unwrap_err().status, 404);
        assert_eq!(show(&image, "_default", "x", None).unwrap_err().status, 400);
        assert_eq!(show(&image, "..", "x", None).unwrap_err().status, 400);
    }
}
