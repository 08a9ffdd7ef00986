//! Bodies of functions: statements, instructions and their operands.

use super::ast::{
    Address, AddressBase, Instruction, Number, Operand, Prototype, Statement, VariableSpace,
};
use super::literal::literal;
use super::parser::{MAX_DEPTH, Parsed, Parser};
use super::token::Token;
use crate::error::LoadError;

impl<'a> Parser<'a> {
    pub(super) fn block(&mut self, depth: usize) -> Parsed<Vec<Statement<'a>>> {
        if depth > MAX_DEPTH {
            return self.error("blocks are nested too deeply");
        }
        let mut statements = Vec::new();
        loop {
            let line = self.line();
            match self.peek() {
                None => return self.error("the text ends inside a function"),
                Some(Token::CloseBrace) => {
                    self.at += 1;
                    return Ok(statements);
                }
                Some(Token::OpenBrace) => {
                    self.at += 1;
                    statements.push(Statement::Block(self.block(depth + 1)?));
                }
                Some(Token::Semicolon) => self.at += 1,
                Some(Token::Dot(word)) => {
                    self.at += 1;
                    self.body_directive(word, line, &mut statements)?;
                }
                Some(Token::Ident(name)) if self.peek_second() == Some(Token::Colon) => {
                    self.at += 2;
                    match self.peek() {
                        Some(Token::Dot("branchtargets" | "calltargets")) => {
                            self.at += 1;
                            let mut targets = vec![self.ident()?];
                            while self.accept(Token::Comma) {
                                targets.push(self.ident()?);
                            }
                            self.expect(Token::Semicolon)?;
                            statements.push(Statement::Targets { name, targets });
                        }
                        Some(Token::Dot("callprototype")) => {
                            self.at += 1;
                            let returns = self.parameters()?;
                            self.ident()?;
                            let params = self.parameters()?;
                            let mut noreturn = false;
                            while let Some(word) = self.accept_dot() {
                                noreturn |= word == "noreturn";
                            }
                            self.expect(Token::Semicolon)?;
                            let prototype = Prototype {
                                returns,
                                params,
                                noreturn,
                            };
                            statements.push(Statement::Prototype { name, prototype });
                        }
                        _ => statements.push(Statement::Label(name)),
                    }
                }
                Some(Token::Ident(_) | Token::At) => {
                    statements.push(Statement::Instruction(self.instruction(line)?));
                }
                Some(token) => {
                    return self.error(format!("expected an instruction, found {token}"));
                }
            }
        }
    }

    fn body_directive(
        &mut self,
        word: &'a str,
        line: usize,
        statements: &mut Vec<Statement<'a>>,
    ) -> Parsed<()> {
        let space = match word {
            "reg" => VariableSpace::Reg,
            "param" => VariableSpace::Param,
            "local" => VariableSpace::Local,
            "shared" => VariableSpace::Shared,
            "global" => VariableSpace::Global,
            "const" => VariableSpace::Const,
            "pragma" => {
                for text in self.pragma()? {
                    let Some(mask) = text.strip_prefix("used_bytes_mask ") else {
                        continue;
                    };
                    match literal(mask.trim()) {
                        Some(Number::Integer(mask)) => {
                            statements.push(Statement::UsedBytes(mask as u32));
                        }
                        _ => {
                            let message = format!("`{mask}` is not a mask of bytes");
                            return Err(LoadError::new(line, message));
                        }
                    }
                }
                return Ok(());
            }
            "loc" => {
                let file = self.integer()?;
                let source_line = self.integer()?;
                self.integer()?;
                // `, function_name sym+n, inlined_at f l c`
                while self.accept(Token::Comma) {
                    self.ident()?;
                    while matches!(
                        self.peek(),
                        Some(Token::Ident(_) | Token::Number(_) | Token::Plus)
                    ) && !self.starts_statement()
                    {
                        self.at += 1;
                    }
                }
                statements.push(Statement::Location {
                    file,
                    line: source_line,
                });
                return Ok(());
            }
            _ => {
                return Err(LoadError::new(line, format!("unknown directive `.{word}`")));
            }
        };
        let mut variables = Vec::new();
        self.variables(space, false, line, &mut variables)?;
        statements.extend(variables.into_iter().map(Statement::Variable));
        Ok(())
    }

    /// `.loc` has no terminator: what follows on another line is the next statement.
    fn starts_statement(&self) -> bool {
        self.at > 0
            && self.tokens.get(self.at).map(|token| token.1) != Some(self.tokens[self.at - 1].1)
    }

    fn instruction(&mut self, line: usize) -> Parsed<Instruction<'a>> {
        let guard = if self.accept(Token::At) {
            let negated = self.accept(Token::Bang);
            Some((self.ident()?, negated))
        } else {
            None
        };
        let opcode = self.ident()?;
        let mut modifiers = Vec::new();
        while let Some(word) = self.accept_dot() {
            modifiers.push(word);
        }
        match self.operands() {
            Ok(operands) => Ok(Instruction {
                line,
                guard,
                opcode,
                modifiers,
                operands,
            }),
            Err(error) => {
                let name = [&[opcode], modifiers.as_slice()].concat().join(".");
                let message = format!("`{name}`: {}", error.message);
                Err(LoadError { message, ..error })
            }
        }
    }

    fn operands(&mut self) -> Parsed<Vec<Operand<'a>>> {
        let mut operands = Vec::new();
        if self.accept(Token::Semicolon) {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand(0)?);
            if self.accept(Token::Semicolon) {
                return Ok(operands);
            }
            self.expect(Token::Comma)?;
        }
    }

    fn operand_list(&mut self, close: Token<'_>, depth: usize) -> Parsed<Vec<Operand<'a>>> {
        let mut list = Vec::new();
        if self.accept(close) {
            return Ok(list);
        }
        loop {
            list.push(self.operand(depth + 1)?);
            if self.accept(close) {
                return Ok(list);
            }
            self.expect(Token::Comma)?;
        }
    }

    fn operand(&mut self, depth: usize) -> Parsed<Operand<'a>> {
        if depth > MAX_DEPTH {
            return self.error("operands are nested too deeply");
        }
        match self.peek() {
            Some(Token::OpenBrace) => {
                self.at += 1;
                Ok(Operand::Vector(
                    self.operand_list(Token::CloseBrace, depth)?,
                ))
            }
            Some(Token::OpenParen) => {
                self.at += 1;
                Ok(Operand::List(self.operand_list(Token::CloseParen, depth)?))
            }
            Some(Token::OpenBracket) => {
                self.at += 1;
                let address = self.address()?;
                if self.accept(Token::Comma) {
                    self.operand_list(Token::CloseBracket, depth)?;
                    return Ok(Operand::Coordinates);
                }
                self.expect(Token::CloseBracket)?;
                Ok(Operand::Address(address))
            }
            Some(Token::Bang) => {
                self.at += 1;
                Ok(Operand::Not(self.ident()?))
            }
            Some(Token::Number(_) | Token::Minus | Token::Ident("WARP_SZ")) => {
                Ok(Operand::Number(self.number()?))
            }
            Some(Token::Ident(name)) => {
                self.at += 1;
                let operand = match self.peek() {
                    Some(Token::Dot(member)) => {
                        self.at += 1;
                        Operand::Member(name, member)
                    }
                    Some(Token::Plus) => Operand::NameOffset(name, self.offset()?),
                    _ => Operand::Name(name),
                };
                if self.accept(Token::Pipe) {
                    let second = self.operand(depth + 1)?;
                    if let (Operand::Name("_"), Operand::Name("_")) = (&operand, &second) {
                        return self.error("one of two results may be `_`, not both");
                    }
                    return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
                }
                Ok(operand)
            }
            Some(token) => self.error(format!("expected an operand, found {token}")),
            None => self.error("the text ends inside an instruction"),
        }
    }

    /// Any number of `+4` and `+-4`.
    pub(super) fn offset(&mut self) -> Parsed<i64> {
        let mut offset = 0i64;
        while self.accept(Token::Plus) {
            offset = offset.wrapping_add(self.integer()? as i64);
        }
        Ok(offset)
    }

    fn address(&mut self) -> Parsed<Address<'a>> {
        let base = match self.peek() {
            Some(Token::Ident(name)) => {
                self.at += 1;
                AddressBase::Name(name)
            }
            Some(Token::Number(_) | Token::Minus) => AddressBase::Absolute(self.integer()?),
            _ => return self.error("expected an address"),
        };
        let offset = self.offset()?;
        Ok(Address { base, offset })
    }
}
