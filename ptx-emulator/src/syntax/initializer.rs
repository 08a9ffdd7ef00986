//! Initialisers of module variables.

use super::ast::Init;
use super::parser::{Parsed, Parser};
use super::token::Token;

impl<'a> Parser<'a> {
    pub(super) fn initializer(&mut self, depth: usize) -> Parsed<Init<'a>> {
        if depth > 16 {
            return self.error("an initialiser is nested too deeply");
        }
        if self.accept(Token::OpenBrace) {
            let mut list = Vec::new();
            if self.accept(Token::CloseBrace) {
                return Ok(Init::List(list));
            }
            loop {
                list.push(self.initializer(depth + 1)?);
                if self.accept(Token::CloseBrace) {
                    return Ok(Init::List(list));
                }
                self.expect(Token::Comma)?;
                // A trailing comma is allowed.
                if self.accept(Token::CloseBrace) {
                    return Ok(Init::List(list));
                }
            }
        }
        match self.peek() {
            Some(Token::Ident(_)) => self.symbol(None),
            Some(Token::Number(_) | Token::Minus) => {
                let number = self.number()?;
                // `0xFF00(symbol)` takes some bits of an address.
                if let super::ast::Number::Integer(mask) = number
                    && self.accept(Token::OpenParen)
                {
                    let symbol = self.symbol(Some(mask))?;
                    self.expect(Token::CloseParen)?;
                    return Ok(symbol);
                }
                Ok(Init::Number(number))
            }
            _ => self.error("expected an initialiser"),
        }
    }

    fn symbol(&mut self, mask: Option<u64>) -> Parsed<Init<'a>> {
        let mut name = self.ident()?;
        let generic = name == "generic" && self.accept(Token::OpenParen);
        if generic {
            name = self.ident()?;
        }
        let mut offset = 0;
        if generic {
            offset += self.offset()?;
            self.expect(Token::CloseParen)?;
        }
        offset = self.offset()?.wrapping_add(offset);
        Ok(Init::Symbol {
            name,
            offset,
            generic,
            mask,
        })
    }
}
