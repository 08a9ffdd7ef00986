//! Tokens of PTX text.

use std::fmt;

use logos::Logos;

/// One token. Words that start with a dot (directives, types, modifiers) are one token each, so that an
/// instruction is an identifier followed by dot words.
#[derive(Logos, Debug, Clone, Copy, PartialEq, Eq)]
#[logos(skip r"[ \t\r\n\f]+")]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
#[logos(skip r"/\*([^*]|\*+[^*/])*\*+/")]
pub(crate) enum Token<'a> {
    /// `%r1`, `foo`, `$L__BB0_1`.
    #[regex(r"[a-zA-Z][a-zA-Z0-9_$]*|[_$%][a-zA-Z0-9_$]*")]
    Ident(&'a str),
    /// `.global`, `.L1::no_allocate`, `.x`; the slice leaves out the dot.
    #[regex(r"\.[a-zA-Z0-9_]+(::[a-zA-Z0-9_]+)*", |lex| &lex.slice()[1..])]
    Dot(&'a str),
    /// Integers in every base, decimals, `0f3F800000`, `0d…`.
    #[regex(r"[0-9]+(\.[0-9]+)?([eE][+-][0-9]+)?[0-9a-zA-Z]*")]
    Number(&'a str),
    /// A quoted string, without the quotes.
    #[regex(r#""[^"\n]*""#, |lex| { let s = lex.slice(); &s[1..s.len() - 1] })]
    Text(&'a str),
    #[token("{")]
    OpenBrace,
    #[token("}")]
    CloseBrace,
    #[token("(")]
    OpenParen,
    #[token(")")]
    CloseParen,
    #[token("[")]
    OpenBracket,
    #[token("]")]
    CloseBracket,
    #[token("<")]
    Less,
    #[token(">")]
    Greater,
    #[token(",")]
    Comma,
    #[token(";")]
    Semicolon,
    #[token(":")]
    Colon,
    #[token("@")]
    At,
    #[token("!")]
    Bang,
    #[token("|")]
    Pipe,
    #[token("=")]
    Equals,
    #[token("+")]
    Plus,
    #[token("-")]
    Minus,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = match self {
            Self::Ident(text) | Self::Number(text) => text,
            Self::Dot(word) => return write!(f, "`.{word}`"),
            Self::Text(text) => return write!(f, "\"{text}\""),
            Self::OpenBrace => "{",
            Self::CloseBrace => "}",
            Self::OpenParen => "(",
            Self::CloseParen => ")",
            Self::OpenBracket => "[",
            Self::CloseBracket => "]",
            Self::Less => "<",
            Self::Greater => ">",
            Self::Comma => ",",
            Self::Semicolon => ";",
            Self::Colon => ":",
            Self::At => "@",
            Self::Bang => "!",
            Self::Pipe => "|",
            Self::Equals => "=",
            Self::Plus => "+",
            Self::Minus => "-",
        };
        write!(f, "`{symbol}`")
    }
}
