//! File names in the routing folder, made of names that come from topics.
//!
//! No topic can reach `_default`, `_any`, another folder or a hidden file: what is not a letter, a
//! digit, `-`, `_` or `.` is percent-encoded, and a leading `_` or `.` too.

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
}
