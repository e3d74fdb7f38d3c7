//! Payloads that are written as hexadecimal digits.

/// The bytes of hexadecimal digits; characters for which `is_between` holds may stand among them. None: there is something
/// else, or one digit too many.
pub fn bytes(text: &str, is_between: impl Fn(char) -> bool) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> =
        text.chars().filter(|character| !is_between(*character)).map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes_in_pairs() {
        let bytes = |text| bytes(text, |character| character.is_whitespace() || character == ':');
        assert_eq!(bytes("01 64:0F\n"), Some(vec![1, 0x64, 15]));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("0x01"), None);
        assert_eq!(bytes("+f"), None);
        assert_eq!(super::bytes("01:02", char::is_whitespace), None);
    }
}
