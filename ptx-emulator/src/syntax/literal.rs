//! Numbers, as the ISA writes them.

use super::ast::Number;
use super::parser::{Parsed, Parser};
use super::token::Token;
use crate::error::LoadError;

impl Parser<'_> {
    pub(super) fn number(&mut self) -> Parsed<Number> {
        let negative = self.accept(Token::Minus);
        let text = match self.peek() {
            Some(Token::Number(text)) => text,
            // The one constant that has a name.
            Some(Token::Ident("WARP_SZ")) => "32",
            _ => return self.error("expected a number"),
        };
        let number = match (negative, literal(text)) {
            (_, None) => return self.error(format!("`{text}` is not a number")),
            (false, Some(number)) => number,
            (true, Some(Number::Integer(value))) => Number::Integer(value.wrapping_neg()),
            (true, Some(Number::F64(value))) => Number::F64(-value),
            (true, Some(Number::F32(bits))) => {
                let negated = bits ^ 0x8000_0000;
                return self.error(format!("`{text}` takes no sign: write `0f{negated:08X}`"));
            }
        };
        self.at += 1;
        Ok(number)
    }

    pub(super) fn integer(&mut self) -> Parsed<u64> {
        let line = self.line();
        match self.number()? {
            Number::Integer(value) => Ok(value),
            _ => Err(LoadError::new(line, "expected an integer")),
        }
    }
}

/// Reads a literal as the ISA writes them.
pub(super) fn literal(text: &str) -> Option<Number> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f") {
        if hex.len() == 8 {
            return u32::from_str_radix(hex, 16).ok().map(Number::F32);
        }
        return None;
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        if hex.len() == 16 {
            return u64::from_str_radix(hex, 16)
                .ok()
                .map(|bits| Number::F64(f64::from_bits(bits)));
        }
        return None;
    }
    if !lower.starts_with("0x") && lower.contains(['.', 'e']) {
        return lower.parse().ok().map(Number::F64);
    }
    let digits = text.strip_suffix('U').unwrap_or(text);
    let digits = digits.to_ascii_lowercase();
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    value.ok().map(Number::Integer)
}
