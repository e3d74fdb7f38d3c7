//! base64url without padding (RFC 4648 section 5).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn encode(data: &[u8]) -> String {
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// The bytes of a text.
///
/// # Errors
/// The fault of the text.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    if text.len() % 4 == 1 {
        return Err(format!("{} characters", text.len()));
    }
    let mut data = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0);
    for (place, character) in text.chars().enumerate() {
        let digit = match character {
            'A'..='Z' => character as u32 - 'A' as u32,
            'a'..='z' => character as u32 - 'a' as u32 + 26,
            '0'..='9' => character as u32 - '0' as u32 + 52,
            '-' => 62,
            '_' => 63,
            _ => return Err(format!("{character:?} as character {place}")),
        };
        word = word << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            data.push((word >> bits) as u8);
        }
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_other_texts_are_refused() {
        let data: Vec<u8> = (0..=255).collect();
        for length in 0..data.len() {
            assert_eq!(decode(&encode(&data[..length])).unwrap(), data[..length]);
        }
        assert_eq!(encode(b"hi \n"), "aGkgCg");
        for text in ["a", "aGkg=", "+/+/", "aG kgCg", "é"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
