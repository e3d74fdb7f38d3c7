//! The identity tags that the host adds: the device and site of a message, escaped.

/// The reason why line protocol cannot carry an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityTagError {
    #[error("{what} {value:?} has the control character {character:?}, which a tag cannot contain")]
    Control { what: &'static str, value: String, character: char },
    #[error("the device is empty, and a tag cannot be empty")]
    EmptyDevice,
    #[error("{what} is longer than 65,536 bytes")]
    TooLong { what: &'static str },
}

/// Appends a tag value with a backslash before each backslash, comma, equals sign and space.
pub fn escape_tag_value(value: &str, out: &mut Vec<u8>) {
    for &byte in value.as_bytes() {
        if matches!(byte, b'\\' | b',' | b'=' | b' ') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// `,device_id=…` and, where there is a site, `,site_id=…`.
///
/// # Errors
/// Line protocol cannot carry the device or the site in a tag.
pub fn identity_tags(device: &str, site: &str) -> Result<Box<[u8]>, IdentityTagError> {
    if device.is_empty() {
        return Err(IdentityTagError::EmptyDevice);
    }
    let mut tags = Vec::with_capacity(device.len() + site.len() + 24);
    for (what, key, value) in [("the device", ",device_id=", device), ("the site", ",site_id=", site)] {
        if value.is_empty() {
            continue;
        }
        if let Some(character) = value.chars().find(|c| c.is_control() && *c != '\u{7f}') {
            return Err(IdentityTagError::Control { what, value: value.into(), character });
        }
        if value.len() > crate::limits::NAME_BYTES_MAX / 2 {
            return Err(IdentityTagError::TooLong { what });
        }
        tags.extend_from_slice(key.as_bytes());
        escape_tag_value(value, &mut tags);
    }
    Ok(tags.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_escaped_and_an_empty_site_is_left_out() {
        let tags = |device, site| String::from_utf8(identity_tags(device, site).unwrap().to_vec()).unwrap();
        assert_eq!(tags("dev-1", "lab 1"), r",device_id=dev-1,site_id=lab\ 1");
        assert_eq!(tags("a,b=c d\\e", ""), r",device_id=a\,b\=c\ d\\e");
    }

    #[test]
    fn what_no_tag_can_carry_is_refused() {
        assert!(matches!(identity_tags("a\nb", ""), Err(IdentityTagError::Control { character: '\n', .. })));
        assert!(matches!(identity_tags("d", "\t"), Err(IdentityTagError::Control { what: "the site", .. })));
        assert_eq!(identity_tags("", "x"), Err(IdentityTagError::EmptyDevice));
    }
}
