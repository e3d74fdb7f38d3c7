//! The arithmetic behind a value: `* 0.1 - 40`. It is exact: `272 * 0.1` is 27.2, and not 27.200000000000003.

use tidegate_objects::Leaf;

/// `(value * factor + term) / divisor`, all whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    factor: i64,
    term: i64,
    divisor: i64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { factor: 1, term: 0, divisor: 1 }
    }
}

/// A decimal number: `digits / divisor`.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: i64,
    divisor: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number =
            !whole.is_empty() && (whole.bytes().chain(fraction.bytes())).all(|c| c.is_ascii_digit());
        let is_number = is_number && (mantissa == whole || !fraction.is_empty());
        if !is_number {
            return None;
        }
        let digits: i64 = format!("{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()? - exponent;
        let power = 10_i64.checked_pow(places.unsigned_abs())?;
        match places {
            0.. => Some(Self { digits, divisor: power }),
            _ => Some(Self { digits: digits.checked_mul(power)?, divisor: 1 }),
        }
    }
}

impl Scale {
    /// Reads operators and numbers, from left to right.
    ///
    /// # Errors
    /// The fault, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scale = Self::default();
        let mut words = text.split_whitespace();
        let mut has_sum = false;
        while let Some(operator) = words.next() {
            if !["*", "/", "+", "-"].contains(&operator) {
                return Err(format!(
                    "{operator:?} is no operator: expected *, /, + or -, with blanks around it, as in * 0.1"
                ));
            }
            let Some(number) = words.next() else {
                return Err(format!("nothing stands behind {operator}: expected a number, as in * 0.1"));
            };
            let Some(decimal) = Decimal::parse(number) else {
                return Err(format!("{number:?} behind {operator} is no number: expected one such as 0.1"));
            };
            if matches!(operator, "*" | "/") && has_sum {
                return Err(format!(
                    "{operator} stands behind a sum: expected all of * and / before + and -"
                ));
            }
            has_sum |= matches!(operator, "+" | "-");
            if operator == "/" && decimal.digits == 0 {
                return Err("a division by 0: expected another number".into());
            }
            scale = scale.then(operator, decimal).ok_or_else(|| {
                format!("{operator} {number} has too many digits: expected at most some 15 in all")
            })?;
        }
        Ok(scale)
    }

    fn then(self, operator: &str, Decimal { digits, divisor }: Decimal) -> Option<Self> {
        let Self { factor, term, divisor: by } = self;
        let (factor, term, divisor) = match operator {
            "*" => (factor.checked_mul(digits)?, term.checked_mul(digits)?, by.checked_mul(divisor)?),
            "/" => (factor.checked_mul(divisor)?, term.checked_mul(divisor)?, by.checked_mul(digits)?),
            _ => {
                let added = digits.checked_mul(by)?;
                let added = if operator == "-" { -added } else { added };
                let term = term.checked_mul(divisor)?.checked_add(added)?;
                (factor.checked_mul(divisor)?, term, by.checked_mul(divisor)?)
            }
        };
        let common =
            gcd(gcd(factor.unsigned_abs(), term.unsigned_abs()), divisor.unsigned_abs()).max(1) as i64;
        Some(Self { factor: factor / common, term: term / common, divisor: divisor / common })
    }

    /// True if a whole number stays one.
    pub fn is_whole(self) -> bool {
        self.divisor == 1
    }

    pub fn is_identity(self) -> bool {
        self == Self::default()
    }

    /// The dividend and the divisor for a whole number. `None`: the dividend is outside 64 bits.
    #[inline]
    pub fn whole(self, value: i64) -> Option<(i64, i64)> {
        Some((value.checked_mul(self.factor)?.checked_add(self.term)?, self.divisor))
    }

    /// The value behind the arithmetic. Texts and booleans have none.
    #[inline]
    pub fn apply<'a>(self, leaf: Leaf<'a>) -> Leaf<'a> {
        if self.is_identity() {
            return leaf;
        }
        let whole = match &leaf {
            Leaf::Integer(value) => Some(*value),
            Leaf::Float(_) => None,
            leaf => leaf.as_i64(),
        };
        let scaled = whole.and_then(|value| Some(self.whole(value)?.0));
        match (scaled, leaf.as_f64()) {
            (Some(scaled), _) if self.divisor == 1 => Leaf::Integer(scaled),
            (Some(scaled), _) => Leaf::Float(scaled as f64 / self.divisor as f64),
            (None, Some(value)) => {
                Leaf::Float((value * self.factor as f64 + self.term as f64) / self.divisor as f64)
            }
            (None, None) => leaf,
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(text: &str, value: i64) -> Option<f64> {
        Scale::parse(text).unwrap().apply(Leaf::Integer(value)).as_f64()
    }

    #[test]
    fn a_decimal_factor_is_exact() {
        for (text, value, expected) in [
            ("", 7, 7.0),
            ("* 0.1", 272, 27.2),
            ("* 0.01", 2537, 25.37),
            ("* 0.1 - 40", 673, 27.3),
            ("/ 10 + 0.5", 3, 0.8),
            ("* 0.0625", -1, -0.0625),
            ("* 1e-3", 5, 0.005),
            ("* 2.5e2", 2, 500.0),
            ("/ 3", 1, 1.0 / 3.0),
            ("- 5", 3, -2.0),
        ] {
            assert_eq!(scaled(text, value), Some(expected), "{value} {text}");
        }
        assert!(matches!(Scale::parse("* 4 + 1").unwrap().apply(Leaf::Integer(3)), Leaf::Integer(13)));
        assert_eq!(scaled("* 1000", i64::MAX), Some(i64::MAX as f64 * 1e3));
        assert_eq!(Scale::parse("* 0.5").unwrap().apply(Leaf::Float(0.25)).as_f64(), Some(0.125));
    }

    #[test]
    fn what_is_no_arithmetic_is_refused_with_what_would_be() {
        for (text, word) in [
            ("*", "number"),
            ("* x", "\"x\""),
            ("0.1", "operator"),
            ("*0.1", "blanks"),
            ("+ 5 * 2", "before"),
            ("/ 0", "division by 0"),
            ("* 0.", "no number"),
            ("* -1", "no number"),
            ("* 1e30", "no number"),
            ("* 0.123456789012345 * 0.123456789012345", "digits"),
        ] {
            let error = Scale::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
