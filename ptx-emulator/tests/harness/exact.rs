//! Floating-point results from exact rational arithmetic: every format, every rounding, no host arithmetic involved.

use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// A binary interchange format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub exponent: u32,
    pub mantissa: u32,
}

pub const F16: Format = Format {
    exponent: 5,
    mantissa: 10,
};
pub const BF16: Format = Format {
    exponent: 8,
    mantissa: 7,
};
pub const F32: Format = Format {
    exponent: 8,
    mantissa: 23,
};
pub const F64: Format = Format {
    exponent: 11,
    mantissa: 52,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// Ties away from zero.
    Away,
}

pub const ROUNDS: [(&str, Round); 4] = [
    ("rn", Round::Nearest),
    ("rz", Round::Zero),
    ("rm", Round::Down),
    ("rp", Round::Up),
];

fn power(exponent: i64) -> BigRational {
    let two = BigRational::from_integer(2.into());
    num_traits::pow::Pow::pow(two, exponent as i32)
}

impl Format {
    pub fn bits(self) -> u32 {
        1 + self.exponent + self.mantissa
    }

    pub fn sign(self) -> u64 {
        1 << (self.exponent + self.mantissa)
    }

    pub fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    /// The NaN that PTX gives.
    pub fn nan(self) -> u64 {
        match self.bits() {
            64 => 0xfff8_0000_0000_0000,
            _ => self.sign() - 1,
        }
    }

    pub fn is_nan(self, bits: u64) -> bool {
        bits & (self.sign() - 1) > self.infinity()
    }

    pub fn is_finite(self, bits: u64) -> bool {
        bits & self.infinity() != self.infinity()
    }

    pub fn is_negative(self, bits: u64) -> bool {
        bits & self.sign() != 0
    }

    pub fn is_zero(self, bits: u64) -> bool {
        bits & (self.sign() - 1) == 0
    }

    pub fn is_subnormal(self, bits: u64) -> bool {
        bits & self.infinity() == 0 && !self.is_zero(bits)
    }

    /// The number; infinity counts as the power of two after the largest number.
    pub fn value(self, bits: u64) -> BigRational {
        let field = bits & ((1 << self.mantissa) - 1);
        let exponent = (bits & self.infinity()) >> self.mantissa;
        let bias = (1i64 << (self.exponent - 1)) - 1;
        let (significand, exponent) = if exponent == 0 {
            (field, 1)
        } else {
            (field | 1 << self.mantissa, exponent as i64)
        };
        let magnitude = BigRational::from_integer(significand.into())
            * power(exponent - bias - i64::from(self.mantissa));
        if self.is_negative(bits) {
            -magnitude
        } else {
            magnitude
        }
    }

    /// The bits of a rounded number. An exact zero is positive.
    pub fn round(self, exact: &BigRational, round: Round) -> u64 {
        let magnitude = exact.abs();
        let (mut low, mut high) = (0, self.infinity() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.value(middle) <= magnitude {
                low = middle;
            } else {
                high = middle;
            }
        }
        let sign = if exact.is_negative() { self.sign() } else { 0 };
        let below = self.value(low);
        if below == magnitude && low < self.infinity() {
            return low | sign;
        }
        // At or beyond the largest number.
        let low = low.min(self.infinity() - 1);
        let (to_low, to_high) = (
            &magnitude - self.value(low),
            (self.value(low + 1) - &magnitude).abs(),
        );
        let beyond = magnitude >= self.value(self.infinity());
        let up = match round {
            Round::Zero => false,
            Round::Down => exact.is_negative(),
            Round::Up => !exact.is_negative(),
            Round::Nearest if beyond => true,
            Round::Nearest => to_high < to_low || (to_high == to_low && low & 1 != 0),
            Round::Away => beyond || to_high <= to_low,
        };
        (low + u64::from(up)) | sign
    }

    /// The square root of a positive number.
    pub fn sqrt(self, x: &BigRational, round: Round) -> u64 {
        let (mut low, mut high) = (0, self.infinity());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let root = self.value(middle);
            if &root * &root <= *x {
                low = middle;
            } else {
                high = middle;
            }
        }
        let root = self.value(low);
        if &root * &root == *x {
            return low;
        }
        let half = (self.value(low) + self.value(high)) / (BigRational::one() + BigRational::one());
        match round {
            Round::Zero | Round::Down => low,
            Round::Up => high,
            // A root is never half way between two numbers.
            Round::Nearest | Round::Away => {
                if &half * &half < *x {
                    high
                } else {
                    low
                }
            }
        }
    }

    pub fn flush(self, bits: u64, ftz: bool) -> u64 {
        if ftz && self.is_subnormal(bits) {
            bits & self.sign()
        } else {
            bits
        }
    }

    /// What `.sat` makes of a result.
    pub fn saturate(self, bits: u64) -> u64 {
        let one = self.round(&BigRational::one(), Round::Nearest);
        if self.is_nan(bits) || self.is_negative(bits) {
            0
        } else {
            bits.min(one)
        }
    }

    /// `a * b + c`. Without `b` it is a sum, with `c` None a product.
    pub fn fma(self, a: u64, b: Option<u64>, c: Option<u64>, round: Round) -> u64 {
        let operands: Vec<u64> = [Some(a), b, c].into_iter().flatten().collect();
        if operands.iter().any(|&bits| self.is_nan(bits)) {
            return self.nan();
        }
        let infinite = |bits: u64| !self.is_finite(bits);
        let negative_product = self.is_negative(a) != b.is_some_and(|b| self.is_negative(b));
        let infinite_product = infinite(a) || b.is_some_and(infinite);
        let zero_product = self.is_zero(a) || b.is_some_and(|b| self.is_zero(b));
        if infinite_product && zero_product {
            return self.nan();
        }
        let signed = |negative: bool, bits: u64| if negative { bits | self.sign() } else { bits };
        if infinite_product {
            return match c {
                Some(c) if infinite(c) && self.is_negative(c) != negative_product => self.nan(),
                _ => signed(negative_product, self.infinity()),
            };
        }
        if let Some(c) = c.filter(|&c| infinite(c)) {
            return c;
        }
        let product = self.value(a) * b.map_or_else(BigRational::one, |b| self.value(b));
        let exact = match c {
            Some(c) => &product + self.value(c),
            None => product.clone(),
        };
        if !exact.is_zero() {
            return self.round(&exact, round);
        }
        match c {
            None => signed(negative_product, 0),
            // Zeros of one sign keep it; others cancel to the zero of the rounding.
            Some(c) if product.is_zero() && self.is_negative(c) == negative_product => {
                signed(negative_product, 0)
            }
            Some(_) => signed(round == Round::Down, 0),
        }
    }

    pub fn div(self, a: u64, b: u64, round: Round) -> u64 {
        let negative = self.is_negative(a) != self.is_negative(b);
        let signed = |bits: u64| if negative { bits | self.sign() } else { bits };
        let (finite_a, finite_b) = (self.is_finite(a), self.is_finite(b));
        if self.is_nan(a)
            || self.is_nan(b)
            || (!finite_a && !finite_b)
            || (self.is_zero(a) && self.is_zero(b))
        {
            self.nan()
        } else if !finite_a || self.is_zero(b) {
            signed(self.infinity())
        } else if !finite_b || self.is_zero(a) {
            signed(0)
        } else {
            self.round(&(self.value(a) / self.value(b)), round)
        }
    }
}

/// Positive floats at the ends of what there is, and 1.
pub fn specials(format: Format) -> [u64; 9] {
    [
        0,
        1,
        (1 << format.mantissa) - 1,
        1 << format.mantissa,
        format.infinity() - 1,
        format.infinity(),
        format.infinity() | 1 << (format.mantissa - 1),
        format.infinity() | 1,
        format.round(&BigRational::one(), Round::Nearest),
    ]
}

/// Bits of floats: every kind, and pairs that are close to each other.
pub fn float(format: Format) -> impl proptest::strategy::Strategy<Value = u64> {
    use proptest::prelude::*;
    let special = specials(format).to_vec();
    let mask = u64::MAX >> (64 - format.bits());
    let one = format.round(&BigRational::one(), Round::Nearest);
    let (mantissa, sign) = (format.mantissa, format.sign());
    prop_oneof![
        2 => (prop::sample::select(special), any::<bool>())
            .prop_map(move |(bits, negative)| if negative { bits | sign } else { bits }),
        3 => any::<u64>().prop_map(move |bits| bits & mask),
        // Around 1, where sums cancel and products stay in range.
        4 => (any::<u64>(), -6i64..6, any::<bool>()).prop_map(move |(bits, exponent, negative)| {
            let field = bits & ((1 << mantissa) - 1);
            let bits = (one & !((1 << mantissa) - 1)).wrapping_add_signed(exponent << mantissa) | field;
            if negative { bits | sign } else { bits }
        }),
    ]
}

/// Tuples of operands of a format, some of them zeros, equals and opposites.
pub fn floats(format: Format) -> impl proptest::strategy::Strategy<Value = Vec<super::Operands>> {
    use proptest::prelude::*;
    let one = || float(format);
    let sign = format.sign();
    let related = move |([a, b, c, e], relation): (super::Operands, u32)| match relation {
        0 => [a, a, c, e],
        1 => [a, a ^ sign, c, e],
        2 => [a & sign, b & sign, c & sign, e],
        _ => [a, b, c, e],
    };
    proptest::collection::vec(
        ([one(), one(), one(), one()], 0u32..8).prop_map(related),
        64,
    )
}
