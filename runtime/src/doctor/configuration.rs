//! The newest version of a configuration from afar.

use crate::config::ConfigError;
use crate::config::remote::origin::RemoteOrigin;
use crate::doctor::finding::{Finding, Level};

const CHECK: &str = "configuration";

/// Judges it by its faults, as the checks of `validate` found them.
pub fn judge(origin: &RemoteOrigin, faults: anyhow::Result<Vec<String>>) -> Finding {
    let refused = |why: String| {
        Finding::new(
            CHECK,
            Level::Error,
            format!("The newest version at {origin} is refused: {}.", why.trim_end_matches('.')),
            "A gateway that runs keeps the last good version. Mend the new one; see `tidegate validate`.",
        )
    };
    match faults {
        Ok(faults) if faults.is_empty() => {
            Finding::ok(CHECK, format!("The newest version at {origin} passes all checks."))
        }
        Ok(faults) => refused(faults.join("; ")),
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(ConfigError::Remote { why, .. }) => Finding::new(
                CHECK,
                Level::Error,
                format!("No version can be had at {origin}: {}.", why.trim_end_matches('.')),
                "A gateway that runs keeps the last good version, and one that starts takes it. Look at the server.",
            ),
            _ => refused(format!("{error:#}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_cannot_be_had_and_one_that_is_refused_are_told_apart() {
        let origin = RemoteOrigin::Checkout("/etc/tidegate".into());
        assert_eq!(judge(&origin, Ok(Vec::new())).level, Level::Ok);
        let refused = judge(&origin, Ok(vec!["a".into(), "b".into()]));
        assert!(refused.level == Level::Error && refused.state.contains("is refused: a; b."), "{refused:?}");
        let none = ConfigError::Remote { place: "p".into(), why: "no answer".into() };
        assert!(
            judge(&origin, Err(none.into()))
                .state
                .contains("No version can be had at /etc/tidegate: no answer.")
        );
        let bad = ConfigError::value("mqtt.qos", 2, "1");
        assert!(judge(&origin, Err(bad.into())).state.contains("refused"));
    }
}
