//! Tokens to syntax tree, by recursive descent.

use logos::Logos;

use super::ast::{Function, Source, Variable, VariableSpace};
use super::token::Token;
use crate::error::LoadError;

/// Nesting of braces beyond which a text is refused, so that no text can exhaust the stack.
pub(super) const MAX_DEPTH: usize = 64;

/// Parses a whole PTX text.
pub(crate) fn parse(text: &str) -> Result<Source<'_>, LoadError> {
    Parser::new(text)?.source()
}

pub(super) type Parsed<T> = Result<T, LoadError>;

pub(super) struct Parser<'a> {
    pub(super) tokens: Vec<(Token<'a>, u32)>,
    pub(super) at: usize,
    last_line: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parsed<Self> {
        let mut lexer = Token::lexer(text);
        let mut tokens = Vec::with_capacity(text.len() / 4);
        let mut line = 1;
        let mut counted = 0;
        while let Some(token) = lexer.next() {
            let start = lexer.span().start;
            line += text.as_bytes()[counted..start]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            counted = start;
            match token {
                Ok(token) => tokens.push((token, line as u32)),
                Err(()) => {
                    let character = text[start..].chars().next().unwrap_or('?');
                    return Err(LoadError::new(
                        line,
                        format!("unexpected character {character:?}"),
                    ));
                }
            }
        }
        Ok(Self {
            tokens,
            at: 0,
            last_line: text.lines().count().max(1),
        })
    }

    pub(super) fn line(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.last_line, |&(_, line)| line as usize)
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(LoadError::new(self.line(), message))
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|&(token, _)| token)
    }

    pub(super) fn peek_second(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at + 1).map(|&(token, _)| token)
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    pub(super) fn accept(&mut self, token: Token<'_>) -> bool {
        let found = self.peek() == Some(token);
        if found {
            self.at += 1;
        }
        found
    }

    pub(super) fn expect(&mut self, token: Token<'_>) -> Parsed<()> {
        if self.accept(token) {
            return Ok(());
        }
        match self.peek() {
            Some(found) => self.error(format!("expected {token}, found {found}")),
            None => self.error(format!("the text ends where {token} is expected")),
        }
    }

    pub(super) fn ident(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(Token::Ident(name)) => {
                self.at += 1;
                Ok(name)
            }
            Some(found) => self.error(format!("expected a name, found {found}")),
            None => self.error("the text ends where a name is expected"),
        }
    }

    pub(super) fn accept_dot(&mut self) -> Option<&'a str> {
        if let Some(Token::Dot(word)) = self.peek() {
            self.at += 1;
            return Some(word);
        }
        None
    }

    fn text(&mut self) -> Parsed<&'a str> {
        match self.next() {
            Some(Token::Text(text)) => Ok(text),
            _ => {
                self.at -= 1;
                self.error("expected a quoted string")
            }
        }
    }

    fn source(mut self) -> Parsed<Source<'a>> {
        let mut source = Source::default();
        let mut saw_version = false;
        while let Some(token) = self.peek() {
            let Token::Dot(word) = token else {
                return self.error(format!("expected a directive, found {token}"));
            };
            match word {
                "version" => {
                    self.at += 1;
                    source.version = self.version()?;
                    saw_version = true;
                }
                "target" => {
                    self.at += 1;
                    source.target = self.ident()?;
                    while self.accept(Token::Comma) {
                        self.ident()?;
                    }
                }
                "address_size" => {
                    self.at += 1;
                    if self.integer()? != 64 {
                        self.at -= 1;
                        return self.error("only `.address_size 64` is supported");
                    }
                }
                "file" => {
                    self.at += 1;
                    let number = self.integer()?;
                    source.files.push((number, self.text()?));
                    while self.accept(Token::Comma) {
                        self.integer()?;
                    }
                }
                "section" => {
                    self.at += 1;
                    self.section()?;
                }
                "pragma" => {
                    self.at += 1;
                    self.pragma()?;
                }
                _ => self.module_item(&mut source)?,
            }
        }
        if !saw_version {
            return Err(LoadError::new(0, "the text has no `.version` directive"));
        }
        if source.target.is_empty() {
            return Err(LoadError::new(0, "the text has no `.target` directive"));
        }
        Ok(source)
    }

    fn version(&mut self) -> Parsed<(u32, u32)> {
        if let Some(Token::Number(text)) = self.peek()
            && let Some((major, minor)) = text.split_once('.')
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            self.at += 1;
            return Ok((major, minor));
        }
        self.error("expected a version such as 8.0")
    }

    /// The texts of a `.pragma`.
    pub(super) fn pragma(&mut self) -> Parsed<Vec<&'a str>> {
        let mut texts = Vec::new();
        loop {
            texts.push(self.text()?);
            if !self.accept(Token::Comma) {
                self.expect(Token::Semicolon)?;
                return Ok(texts);
            }
        }
    }

    /// Debug sections carry nothing that execution needs.
    fn section(&mut self) -> Parsed<()> {
        if self.accept_dot().is_none() {
            return self.error("expected a section name");
        }
        self.expect(Token::OpenBrace)?;
        loop {
            match self.next() {
                Some(Token::CloseBrace) => return Ok(()),
                Some(_) => {}
                None => return self.error("the text ends inside a `.section`"),
            }
        }
    }

    fn module_item(&mut self, source: &mut Source<'a>) -> Parsed<()> {
        let mut external = false;
        loop {
            let line = self.line();
            match self.accept_dot() {
                Some("visible" | "weak" | "common" | "internal") => {}
                Some("extern") => external = true,
                Some("entry") => {
                    let function = self.function(line, true)?;
                    source.functions.push(function);
                    return Ok(());
                }
                Some("func") => {
                    let function = self.function(line, false)?;
                    source.functions.push(function);
                    return Ok(());
                }
                Some("global") => {
                    return self.variables(
                        VariableSpace::Global,
                        external,
                        line,
                        &mut source.variables,
                    );
                }
                Some("const") => {
                    return self.variables(
                        VariableSpace::Const,
                        external,
                        line,
                        &mut source.variables,
                    );
                }
                Some("shared") => {
                    return self.variables(
                        VariableSpace::Shared,
                        external,
                        line,
                        &mut source.variables,
                    );
                }
                Some(word) => {
                    return Err(LoadError::new(line, format!("unknown directive `.{word}`")));
                }
                None => return self.error("expected a directive"),
            }
        }
    }

    pub(super) fn variables(
        &mut self,
        space: VariableSpace,
        external: bool,
        line: usize,
        into: &mut Vec<Variable<'a>>,
    ) -> Parsed<()> {
        let first = self.variable(space, external, line)?;
        let mut template = first.clone();
        into.push(first);
        while self.accept(Token::Comma) {
            template.line = self.line();
            let mut next = template.clone();
            self.declarator(&mut next)?;
            into.push(next);
        }
        self.expect(Token::Semicolon)
    }

    /// Everything of a declaration after its state space.
    fn variable(
        &mut self,
        space: VariableSpace,
        external: bool,
        line: usize,
    ) -> Parsed<Variable<'a>> {
        let mut variable = Variable {
            line,
            space,
            external,
            align: None,
            vector: 1,
            ty: "",
            name: "",
            count: None,
            dims: Vec::new(),
            init: None,
        };
        while let Some(word) = self.accept_dot() {
            match word {
                "align" => variable.align = Some(self.alignment()?),
                "attribute" => self.skip_parens()?,
                // `.ptr .global .align 4` says what a pointer parameter points to.
                "ptr" => {
                    while let Some(Token::Dot(word)) = self.peek() {
                        self.at += 1;
                        if word == "align" {
                            self.alignment()?;
                        }
                    }
                }
                "v2" => variable.vector = 2,
                "v4" => variable.vector = 4,
                "v8" => variable.vector = 8,
                ty => variable.ty = ty,
            }
        }
        if variable.ty.is_empty() {
            return self.error("a declaration without a type");
        }
        self.declarator(&mut variable)?;
        Ok(variable)
    }

    fn alignment(&mut self) -> Parsed<usize> {
        let value = self.integer()?;
        if value.is_power_of_two() && value <= 1 << 16 {
            return Ok(value as usize);
        }
        self.at -= 1;
        self.error(format!(
            "`.align {value}` is not a power of two up to 65536"
        ))
    }

    /// Name, dimensions and initialiser.
    fn declarator(&mut self, variable: &mut Variable<'a>) -> Parsed<()> {
        variable.name = self.ident()?;
        variable.count = None;
        variable.dims.clear();
        variable.init = None;
        if self.accept(Token::Less) {
            let count = self.integer()?;
            if count > 1 << 24 {
                return self.error(format!("{count} registers are too many"));
            }
            variable.count = Some(count);
            self.expect(Token::Greater)?;
        }
        while self.accept(Token::OpenBracket) {
            if self.accept(Token::CloseBracket) {
                variable.dims.push(None);
            } else {
                variable.dims.push(Some(self.integer()?));
                self.expect(Token::CloseBracket)?;
            }
        }
        if self.accept(Token::Equals) {
            variable.init = Some(self.initializer(0)?);
        }
        Ok(())
    }

    pub(super) fn parameters(&mut self) -> Parsed<Vec<Variable<'a>>> {
        let mut params = Vec::new();
        if !self.accept(Token::OpenParen) {
            return Ok(params);
        }
        if self.accept(Token::CloseParen) {
            return Ok(params);
        }
        loop {
            let line = self.line();
            let space = match self.accept_dot() {
                Some("param") => VariableSpace::Param,
                Some("reg") => VariableSpace::Reg,
                _ => return Err(LoadError::new(line, "expected `.param`")),
            };
            params.push(self.variable(space, false, line)?);
            if self.accept(Token::CloseParen) {
                return Ok(params);
            }
            self.expect(Token::Comma)?;
        }
    }

    fn skip_parens(&mut self) -> Parsed<()> {
        self.expect(Token::OpenParen)?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::OpenParen) => depth += 1,
                Some(Token::CloseParen) => depth -= 1,
                Some(_) => {}
                None => return self.error("the text ends inside parentheses"),
            }
        }
        Ok(())
    }

    fn function(&mut self, line: usize, entry: bool) -> Parsed<Function<'a>> {
        while self.peek() == Some(Token::Dot("attribute")) {
            self.at += 1;
            self.skip_parens()?;
        }
        let returns = if entry {
            Vec::new()
        } else {
            self.parameters()?
        };
        let name = self.ident()?;
        let mut function = Function {
            line,
            entry,
            name,
            returns,
            params: self.parameters()?,
            noreturn: false,
            maxntid: None,
            reqntid: None,
            body: None,
        };
        loop {
            let line = self.line();
            match self.peek() {
                Some(Token::Semicolon) => {
                    self.at += 1;
                    return Ok(function);
                }
                Some(Token::OpenBrace) => {
                    self.at += 1;
                    function.body = Some(self.block(0)?);
                    return Ok(function);
                }
                Some(Token::Dot(word)) => {
                    self.at += 1;
                    match word {
                        "maxntid" => function.maxntid = Some(self.dimensions()?),
                        "reqntid" => function.reqntid = Some(self.dimensions()?),
                        "minnctapersm" | "maxnreg" | "maxclusterrank" => {
                            self.integer()?;
                        }
                        "maxnctapersm" => {
                            self.integer()?;
                        }
                        "noreturn" => function.noreturn = true,
                        "unique" => {}
                        "pragma" => drop(self.pragma()?),
                        _ => {
                            return Err(LoadError::new(
                                line,
                                format!("unknown directive `.{word}` on function `{name}`"),
                            ));
                        }
                    }
                }
                _ => return self.error(format!("expected the body of function `{name}`")),
            }
        }
    }

    fn dimensions(&mut self) -> Parsed<[u32; 3]> {
        let mut dims = [1; 3];
        for (axis, dim) in dims.iter_mut().enumerate() {
            if axis > 0 && !self.accept(Token::Comma) {
                break;
            }
            let value = self.integer()?;
            match u32::try_from(value) {
                Ok(value) if value > 0 => *dim = value,
                _ => {
                    self.at -= 1;
                    return self.error(format!("{value} threads are not possible"));
                }
            }
        }
        Ok(dims)
    }
}
