//! The version that a server says it has, and what does not hold with it.

use parking_lot::Mutex;

use crate::settings::ServerKind;

/// The last word of a server about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Empty: it has not said it.
    pub version: String,
    /// Faults of this version, each with the version that mends it.
    pub caveats: Vec<String>,
}

#[derive(Debug, Default)]
pub struct ServerWatch {
    info: Mutex<ServerInfo>,
}

impl ServerWatch {
    pub fn info(&self) -> ServerInfo {
        self.info.lock().clone()
    }

    pub(crate) fn set(&self, info: ServerInfo) {
        *self.info.lock() = info;
    }
}

/// Major, minor and patch of a version's text, as `v2.7.1`, `1.8.10` or `3.11.2-core`.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let text = version.trim().trim_start_matches('v');
    let mut parts = text.split(['.', '-', '+', ' ']);
    let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok());
    Some([next()?, next().unwrap_or(0), next().unwrap_or(0)])
}

/// The faults of versions of InfluxDB 3 that the gateway cannot make good, by the version that mends them.
const INFLUXDB3_FAULTS: [([u64; 3], &str); 3] = [
    (
        [3, 10, 3],
        "a tag key twice in one line makes the server unusable; Tidegate refuses such lines, other clients may not",
    ),
    ([3, 11, 2], "a refused line can spoil a series beside it in the same request"),
    (
        [3, 11, 4],
        "of two values of one point that come within a second, any may stay: corrections are not sure",
    ),
];

/// Whatever does not hold with a version, each with the way out.
pub fn caveats(kind: ServerKind, version: &str) -> Vec<String> {
    let Some(numbers) = numbers(version) else { return Vec::new() };
    let expected = match kind {
        ServerKind::InfluxDb3 => 3,
        ServerKind::InfluxDb2 => 2,
        ServerKind::InfluxDb1 => 1,
    };
    if numbers[0] != expected {
        // VictoriaMetrics and others speak older protocols under numbers of their own.
        let newer = numbers[0] > 3 || numbers[0] == 0;
        let other = format!("output.kind is influxdb{expected}, and the server says it is version {version}");
        return if newer { Vec::new() } else { vec![other] };
    }
    if kind != ServerKind::InfluxDb3 {
        return Vec::new();
    }
    let faults = INFLUXDB3_FAULTS.iter().filter(|(mended, _)| numbers < *mended);
    faults.map(|([a, b, c], fault)| format!("before {a}.{b}.{c}: {fault}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_the_faults_that_later_ones_mend() {
        let count = |kind, version| caveats(kind, version).len();
        for (version, faults) in
            [("3.10.1", 3), ("3.10.3", 2), ("v3.11.2-core", 1), ("3.11.4", 0), ("3.12.0", 0), ("", 0)]
        {
            assert_eq!(count(ServerKind::InfluxDb3, version), faults, "{version}");
        }
        assert_eq!(count(ServerKind::InfluxDb1, "1.6.7"), 0);
        assert_eq!(count(ServerKind::InfluxDb1, "unknown"), 0);
        assert!(caveats(ServerKind::InfluxDb3, "v2.7.1")[0].contains("output.kind is influxdb3"));
    }
}
