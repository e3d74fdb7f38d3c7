//! The names of WASI 0.2 that a component may import.

/// The packages, whatever the last part of their version.
pub const PACKAGES: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

/// The name of an interface of WASI 0.2 without its version; `None` for everything else.
pub fn interface(import: &str) -> Option<&str> {
    let (name, version) = import.split_once('@')?;
    let (package, _) = name.split_once('/')?;
    let last = version.strip_prefix("0.2.")?;
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && PACKAGES.contains(&package)).then_some(name)
}

/// True if an interface answers differently for each message, so that a call may have one only: in a batch that is
/// decoded again after a fault, a message would see another answer.
pub fn differs_by_message(interface: &str) -> bool {
    matches!(
        interface,
        "wasi:clocks/wall-clock"
            | "wasi:clocks/monotonic-clock"
            | "wasi:random/random"
            | "wasi:random/insecure"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_0_2_is_wasi_and_nothing_else() {
        for version in ["0", "1", "9", "12", "345"] {
            let import = format!("wasi:io/streams@0.2.{version}");
            assert_eq!(interface(&import), Some("wasi:io/streams"));
        }
        for import in [
            "wasi:io/streams",
            "wasi:io/streams@0.3.0",
            "wasi:io/streams@0.2.",
            "wasi:io/streams@0.2.0-rc-2023-12-05",
            "wasi:io@0.2.0",
            "wasi:keyvalue/store@0.2.0",
            "evil:io/streams@0.2.0",
            "tidegate:ingest/log@0.2.0",
        ] {
            assert_eq!(interface(import), None, "{import}");
        }
    }
}
