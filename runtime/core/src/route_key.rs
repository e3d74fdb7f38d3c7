//! File names in the routing folder, made of names that come from topics.
//!
//! No topic can reach `_default`, `_any`, another folder or a hidden file: every byte but letters,
//! digits, `-`, `_` and `.` is percent-encoded, and a leading `_` or `.` too.

/// Folder and file stem of a route, both as they are named on disk.
pub type RouteKey = (String, String);

/// The folder of routes for every tenant.
pub const DEFAULT: &str = "_default";

/// The stem of a route for every message type.
pub const ANY: &str = "_any";

/// The file or folder name that stands for a tenant or a message type.
pub fn file_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if plain && !(index == 0 && matches!(byte, b'_' | b'.')) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// True for a name that `file_name` can produce.
pub fn is_file_name(name: &str) -> bool {
    name_of(name).is_some()
}

/// The tenant or message type that a name of `file_name` stands for.
pub fn name_of(name: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| char::from(digit.unwrap_or(b'x')).to_digit(16));
        let [Some(high), Some(low)] = digits else { return None };
        decoded.push((high * 16 + low) as u8);
    }
    // Linux takes names of 255 bytes, suffixes included.
    let fits = (1..=200).contains(&name.len());
    let decoded = String::from_utf8(decoded).ok()?;
    (fits && file_name(&decoded) == name).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_another_folder_or_a_reserved_one() {
        assert_eq!(file_name("acme-1.eu_x"), "acme-1.eu_x");
        assert_eq!(file_name("_default"), "%5Fdefault");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("../x"), "%2E.%2Fx");
        assert_eq!(file_name("a/b\0ü"), "a%2Fb%00%C3%BC");
        assert_eq!(file_name(""), "");
    }

    #[test]
    fn only_names_that_are_made_so_are_file_names() {
        for name in ["acme", "_default", "..", "a/b\0ü", "%"] {
            assert_eq!(name_of(&file_name(name)).as_deref(), Some(name));
        }
        for name in ["", "_default", "..", "a/b", "a%2fb", "%41", "%", "%4", "%zz"] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
