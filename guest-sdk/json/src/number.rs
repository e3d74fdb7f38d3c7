//! The numbers of a JSON text, exact as they are written.

use crate::error::Error;

/// A number, as it stands in the text.
#[derive(Debug, Clone, Copy)]
pub struct Number<'a> {
    text: &'a str,
    negative: bool,
    integer: bool,
    /// The digits before the exponent as one integer, while there are no more than 19.
    mantissa: u64,
    digits: u32,
    /// The value is mantissa times ten to this power. Saturated far beyond the range of a float.
    exponent: i32,
}

/// The reason for which a number is no 64-bit signed integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotI64 {
    /// It has a fraction or an exponent, also if it is `1.0` or `1e2`.
    NotInteger,
    /// It is an integer below -9223372036854775808 or above 9223372036854775807.
    OutOfRange,
}

impl std::fmt::Display for NotI64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotInteger => "not an integer",
            Self::OutOfRange => "an integer beyond 64 bits with sign",
        })
    }
}

impl std::error::Error for NotI64 {}

/// 10^0 to 10^22: those that a 64-bit float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// u64 holds any integer of 19 digits.
const EXACT_DIGITS_MAX: u32 = 19;

impl<'a> Number<'a> {
    /// The number as it stands in the text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// True if it has neither a fraction nor an exponent.
    #[inline]
    pub fn is_integer(&self) -> bool {
        self.integer
    }

    /// The exact value; `-0` is 0.
    ///
    /// # Errors
    /// If it is not written as an integer, or goes beyond 64 bits.
    #[inline]
    pub fn as_i64(&self) -> Result<i64, NotI64> {
        if !self.integer {
            return Err(NotI64::NotInteger);
        }
        if self.digits > EXACT_DIGITS_MAX {
            return Err(NotI64::OutOfRange);
        }
        let value = if self.negative {
            0i64.checked_sub_unsigned(self.mantissa)
        } else {
            i64::try_from(self.mantissa).ok()
        };
        value.ok_or(NotI64::OutOfRange)
    }

    /// The value times ten to `power`, exact; digits behind the point are then cut. `None` beyond 64 bits
    /// with sign.
    pub fn scaled(&self, power: u32) -> Option<i64> {
        let shift = i64::from(self.exponent) + i64::from(power);
        let written = self.text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
        let digits = written.filter(u8::is_ascii_digit).map(|byte| i128::from(byte - b'0'));
        let kept = i64::from(self.digits) + shift.min(0);
        let mut value = 0_i128;
        for digit in digits.take(usize::try_from(kept).unwrap_or(0)) {
            value = value * 10 + digit;
            if value > i128::from(u64::MAX) {
                return None;
            }
        }
        if value != 0 && shift > 0 {
            value = value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
        }
        i64::try_from(if self.negative { -value } else { value }).ok()
    }

    /// True if a 64-bit float holds it without the loss of a digit. A number that is no integer is never
    /// exact; there it is true if the float is finite.
    pub fn fits_f64(&self) -> bool {
        // Up to 15 digits survive always.
        if self.digits <= 15 && self.integer {
            return true;
        }
        let Some(value) = self.as_f64() else { return false };
        !self.integer || format!("{value:.0}") == self.text
    }

    /// The exact value, if it is an integer from 0 to 18446744073709551615.
    pub fn as_u64(&self) -> Option<u64> {
        if !self.integer || (self.negative && self.mantissa != 0) {
            return None;
        }
        if self.digits > EXACT_DIGITS_MAX {
            return self.text.parse().ok();
        }
        Some(self.mantissa)
    }

    /// True if it is written as the shortest decimal of its value, with a point and no exponent: at most 15 digits (which survive the way through a 64-bit float), no zero too many
    /// at its end, and not below 1e-4. Its text can then stand for its value.
    #[inline]
    pub fn is_shortest_decimal(&self) -> bool {
        const POWERS_OF_TEN: [u64; 12] = [
            1,
            10,
            100,
            1_000,
            10_000,
            100_000,
            1_000_000,
            10_000_000,
            100_000_000,
            1_000_000_000,
            10_000_000_000,
            100_000_000_000,
        ];
        // Digits, the point and a sign, and nothing else: no exponent.
        let plain = self.text.len() == self.digits as usize + 1 + usize::from(self.negative);
        if self.integer || !plain || self.digits > 15 {
            return false;
        }
        let fraction = self.exponent.unsigned_abs() as usize;
        let ends_well = fraction == 1 || !self.mantissa.is_multiple_of(10);
        let large_enough = fraction < 4 || self.mantissa >= POWERS_OF_TEN[fraction - 4];
        ends_well && large_enough
    }

    /// True if its text can stand for its value in line protocol: an integer of at most 18 digits, which 64 bits
    /// always hold, or a shortest decimal. `-0` cannot: the integer is 0.
    #[inline]
    pub fn is_verbatim(&self) -> bool {
        if self.integer {
            self.text.len() <= 18 && !(self.negative && self.mantissa == 0)
        } else {
            self.is_shortest_decimal()
        }
    }

    /// The nearest 64-bit float; `None` if that would be infinite.
    #[inline]
    pub fn as_f64(&self) -> Option<f64> {
        // Both operands are exact, so the one division or product rounds once, and right.
        const MANTISSA_MAX: u64 = 1 << 53;
        if self.digits <= EXACT_DIGITS_MAX && self.mantissa <= MANTISSA_MAX {
            let mantissa = self.mantissa as f64;
            let power = POWERS.get(self.exponent.unsigned_abs() as usize);
            if let Some(&power) = power {
                let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
                return Some(if self.negative { -value } else { value });
            }
        }
        self.parse_slowly()
    }

    #[cold]
    fn parse_slowly(&self) -> Option<f64> {
        let value: f64 = self.text.parse().ok()?;
        value.is_finite().then_some(value)
    }
}

/// Reads a number from its first byte, a minus or a digit; gives it and the offset behind it.
#[inline]
pub(crate) fn scan(bytes: &[u8], start: usize) -> Result<(Number<'_>, usize), Error> {
    let mut at = start;
    let negative = bytes.get(at) == Some(&b'-');
    if negative {
        at += 1;
    }
    let mut mantissa = 0u64;
    let integer_at = at;
    at = digits(bytes, at, &mut mantissa);
    let mut count = at - integer_at;
    if count == 0 {
        return Err(Error::expected("a digit", bytes, at));
    }
    if count > 1 && bytes[integer_at] == b'0' {
        return Err(Error::expected(
            "'.', 'e' or the end of the number after a leading 0",
            bytes,
            integer_at + 1,
        ));
    }
    let mut integer = true;
    let mut exponent = 0i64;
    if bytes.get(at) == Some(&b'.') {
        integer = false;
        let fraction_at = at + 1;
        at = digits(bytes, fraction_at, &mut mantissa);
        if at == fraction_at {
            return Err(Error::expected("a digit", bytes, at));
        }
        let fraction = at - fraction_at;
        count += fraction;
        exponent = -(fraction as i64);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        integer = false;
        at += 1;
        let down = bytes.get(at) == Some(&b'-');
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        let exponent_at = at;
        let mut written = 0i64;
        while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
            written = (written * 10 + i64::from(byte - b'0')).min(1 << 40);
            at += 1;
        }
        if at == exponent_at {
            return Err(Error::expected("a digit", bytes, at));
        }
        exponent += if down { -written } else { written };
    }
    // SAFETY: every byte from `start` to `at` was one of `+-.eE` and the digits.
    let text = unsafe { std::str::from_utf8_unchecked(&bytes[start..at]) };
    let number = Number {
        text,
        negative,
        integer,
        mantissa,
        digits: count.min(u32::MAX as usize) as u32,
        exponent: exponent.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
    };
    Ok((number, at))
}

/// Adds the digits from `at` on to the mantissa (which may wrap); gives the offset behind them.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mantissa: &mut u64) -> usize {
    while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        let (number, end) = scan(text.as_bytes(), 0).unwrap();
        assert_eq!(end, text.len());
        number
    }

    #[test]
    fn a_decimal_is_scaled_exactly_and_cut() {
        for (text, power, expected) in [
            ("1780315196.37", 9, Some(1_780_315_196_370_000_000)),
            ("1780315196.123456789", 9, Some(1_780_315_196_123_456_789)),
            ("1780315196.1234567891234567890", 9, Some(1_780_315_196_123_456_789)),
            ("1780315196370.5", 6, Some(1_780_315_196_370_500_000)),
            ("-1.5", 0, Some(-1)),
            ("-0.000000001", 9, Some(-1)),
            ("0.0", 9, Some(0)),
            ("17.8e8", 9, Some(1_780_000_000_000_000_000)),
            ("178E-2", 1, Some(17)),
            ("1e-400", 9, Some(0)),
            ("0e99999", 9, Some(0)),
            ("9223372036.854775807", 9, Some(i64::MAX)),
            ("-9223372036.854775808", 9, Some(i64::MIN)),
            ("9223372036.854775808", 9, None),
            ("1e10", 9, None),
            ("1e99999999999", 0, None),
            ("123456789012345678901234567890", 0, None),
            ("123456789012345678901234567890e-20", 0, Some(1_234_567_890)),
        ] {
            assert_eq!(number(text).scaled(power), expected, "{text} times ten to {power}");
        }
    }

    #[test]
    fn an_integer_fits_a_float_that_keeps_its_digits() {
        for text in ["0", "-0", "9007199254740992", "9007199254740994", "-9007199254740993000", "1.1", "1e22"]
        {
            let exact = number(text).fits_f64();
            assert_eq!(exact, text != "-9007199254740993000", "{text}");
        }
        for text in ["9007199254740993", "-9007199254740993", "12345678901234567890123", "1e999"] {
            assert!(!number(text).fits_f64(), "{text}");
        }
    }
}
