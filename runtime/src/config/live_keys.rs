//! The keys that a running gateway takes from a configuration that is read again.

use crate::config::checks::listener::connect_credentials;
use crate::config::sections::{Config, GuestsLargeSection, GuestsSection};

/// `was`, with the keys of `is` that need no restart: `[tenants]`, `[admission.types]`, and the limits in
/// `[guests]`.
pub(crate) fn with_live_keys(was: &Config, is: &Config) -> Config {
    let mut config = Config { tenants: is.tenants.clone(), ..was.clone() };
    config.admission.types = is.admission.types.clone();
    // The listener asks for a proof at CONNECT, or does not, from its start on.
    if connect_credentials(&config) != connect_credentials(was) {
        config.admission.types = was.admission.types.clone();
    }
    let (then, now) = (&was.guests, &is.guests);
    config.guests = GuestsSection {
        deadline_ms: now.deadline_ms,
        cpu_share: now.cpu_share,
        // The sandbox was made for so much at most.
        memory_bytes_max: match now.memory_bytes_max <= then.memory_bytes_max {
            true => now.memory_bytes_max,
            false => then.memory_bytes_max,
        },
        component_bytes_max: now.component_bytes_max,
        tenant_decoders_max: now.tenant_decoders_max,
        tenant_disk_bytes_max: now.tenant_disk_bytes_max,
        large: large(&then.large, &now.large),
        ..then.clone()
    };
    config
}

/// The sandbox of the class large is made at the start or not at all.
fn large(was: &GuestsLargeSection, is: &GuestsLargeSection) -> GuestsLargeSection {
    if was.routes.is_empty() || is.routes.is_empty() {
        return was.clone();
    }
    GuestsLargeSection {
        routes: is.routes.clone(),
        deadline_ms: is.deadline_ms,
        memory_bytes_max: is.memory_bytes_max,
        component_bytes_max: is.component_bytes_max,
        ..was.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::differences::differences;

    #[test]
    fn limits_and_types_are_taken_and_the_rest_needs_a_restart() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap();
        let was = config("[guests]\ndeadline_ms = 10\nmemory_bytes_max = 100000\n");
        let is = config(
            "[guests]\ndeadline_ms = 20\nmemory_bytes_max = 200000\nthreads = 7\ntenant_decoders_max = 3\n\
             [guests.large]\nroutes = [\"a/b\"]\n\
             [admission.types.lp]\ncredentials = \"broker\"\n[output]\nbatch_lines = 6\n",
        );
        let taken = with_live_keys(&was, &is);
        assert_eq!((taken.guests.deadline_ms, taken.guests.tenant_decoders_max), (20, 3));
        assert!(taken.admission.types.contains_key("lp"));
        let restart =
            ["guests.large.routes", "guests.memory_bytes_max", "guests.threads", "output.batch_lines"];
        let mut found = differences(&taken, &is);
        found.sort();
        assert_eq!(found, restart);
        let listener = config("[admission.types.lp]\ncredentials = \"listener\"\n");
        assert_eq!(differences(&with_live_keys(&was, &listener), &listener)[0], "admission.types.lp");
        let (was, is) =
            (config("[guests.large]\nroutes = [\"a/b\"]"), config("[guests.large]\nroutes = [\"a/c\"]"));
        assert!(differences(&with_live_keys(&was, &is), &is).is_empty());
    }
}
