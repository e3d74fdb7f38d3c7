//! Floats as Python's `repr` writes them: the shortest digits that read back as the same value,
//! `.0` behind whole numbers, an exponent of at least two digits below 1e-4 and from 1e16 on.

/// Appends a finite float.
pub fn write(value: f64, out: &mut Vec<u8>) {
    if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0.0" } else { b"0.0" });
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let (sign, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    // Whatever layout the digits come in, take them apart: digits, and the power of ten of the first.
    let (mantissa, exponent) = match text.iter().position(|&byte| byte == b'e' || byte == b'E') {
        Some(at) => (&text[..at], integer(&text[at + 1..])),
        None => (text, 0),
    };
    let mut digits = [0; 32];
    let mut count = 0;
    let mut point = None;
    for &byte in mantissa {
        if byte == b'.' {
            point = Some(count);
        } else {
            digits[count] = byte;
            count += 1;
        }
    }
    let point = point.unwrap_or(count) as i32;
    let leading = digits[..count].iter().take_while(|&&digit| digit == b'0').count();
    let trailing = digits[leading..count].iter().rev().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[leading..count - trailing];
    let power = exponent + point - leading as i32 - 1;
    if sign {
        out.push(b'-');
    }
    layout(digits, power, out);
}

fn integer(text: &[u8]) -> i32 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value = digits.iter().fold(0, |value, &digit| value * 10 + i32::from(digit - b'0'));
    if negative { -value } else { value }
}

/// Lays out `d.ddd × 10^power`.
fn layout(digits: &[u8], power: i32, out: &mut Vec<u8>) {
    if !(-4..16).contains(&power) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.push(b'e');
        out.push(if power < 0 { b'-' } else { b'+' });
        let power = power.unsigned_abs();
        if power < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(power).as_bytes());
    } else if power < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', power.unsigned_abs() as usize - 1));
        out.extend_from_slice(digits);
    } else {
        let whole = power as usize + 1;
        if digits.len() > whole {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(digits);
            out.extend(std::iter::repeat_n(b'0', whole - digits.len()));
            out.extend_from_slice(b".0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.2345e21, "1.2345e+21"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-123.456, "-123.456"),
            (1e100, "1e+100"),
            (9007199254740993.0, "9007199254740992.0"),
            (12345678901234567.0, "1.2345678901234568e+16"),
            (21.5, "21.5"),
            (1013.2, "1013.2"),
        ] {
            assert_eq!(text(value), expected);
            assert_eq!(text(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn a_number_that_is_its_shortest_decimal_is_what_would_be_written() {
        let mut seen = [0; 2];
        for whole in ["0", "1", "-0", "-7", "10", "1013", "123456789012345"] {
            for fraction in
                ["0", "00", "1", "10", "25", "0001", "00001", "0000", "000", "123456789", "5", "5e1"]
            {
                let text = format!("{whole}.{fraction}");
                let number = tidegate_json::Reader::new(text.as_bytes()).number().unwrap();
                let shortest = number.is_shortest_decimal();
                seen[usize::from(shortest)] += 1;
                if shortest {
                    assert_eq!(super::tests::text(text.parse().unwrap()), text);
                }
            }
        }
        assert!(seen[0] > 10 && seen[1] > 20, "{seen:?}");
    }
}
