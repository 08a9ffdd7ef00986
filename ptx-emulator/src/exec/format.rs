//! What `printf` makes of a format and its arguments: the conversions of CUDA's device `printf`, as C defines them.

/// What a conversion prints. Integers are of the size that the conversion says.
#[derive(Debug, Clone)]
pub(crate) enum Argument {
    Integer(u64),
    Float(f64),
    Text(Vec<u8>),
}

/// What a conversion takes from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Long,
    Double,
    Text,
}

/// One part of a format: text as it is, or a conversion.
#[derive(Debug)]
pub(crate) enum Part<'f> {
    Literal(&'f [u8]),
    Conversion(Spec),
}

/// `%-08.3f` and its like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    pub(crate) width: Amount,
    pub(crate) precision: Amount,
    /// Bits of an integer.
    bits: u32,
    letter: u8,
}

/// A width or precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Amount {
    #[default]
    None,
    Given(usize),
    /// `*`: an argument of its own.
    Argument,
}

/// Widths and precisions beyond this are cut, so that no format can use up memory.
const MAX_AMOUNT: usize = 1 << 12;

impl Spec {
    pub(crate) fn kind(&self) -> Kind {
        match self.letter {
            b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A' => Kind::Double,
            b's' => Kind::Text,
            b'p' => Kind::Long,
            _ if self.bits == 64 => Kind::Long,
            _ => Kind::Int,
        }
    }

    /// Sets what a `*` stands for.
    pub(crate) fn set_width(&mut self, value: i32) {
        self.left |= value < 0;
        self.width = Amount::Given((value.unsigned_abs() as usize).min(MAX_AMOUNT));
    }

    /// A negative precision counts as none.
    pub(crate) fn set_precision(&mut self, value: i32) {
        self.precision = match usize::try_from(value) {
            Ok(value) => Amount::Given(value.min(MAX_AMOUNT)),
            Err(_) => Amount::None,
        };
    }
}

/// Cuts a format into its parts. A conversion that does not exist is printed as it is.
pub(crate) fn parts(format: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < format.len() {
        if format[at] != b'%' {
            at += 1;
            continue;
        }
        if start < at {
            parts.push(Part::Literal(&format[start..at]));
        }
        if format.get(at + 1) == Some(&b'%') {
            parts.push(Part::Literal(b"%"));
            at += 2;
            start = at;
            continue;
        }
        start = at;
        match spec(&format[at + 1..]) {
            Some((spec, length)) => {
                parts.push(Part::Conversion(spec));
                at += 1 + length;
                start = at;
            }
            None => at += 1,
        }
    }
    if start < format.len() {
        parts.push(Part::Literal(&format[start..]));
    }
    parts
}

/// Reads what comes after `%`; returns its length as well.
fn spec(text: &[u8]) -> Option<(Spec, usize)> {
    let mut spec = Spec {
        bits: 32,
        ..Spec::default()
    };
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'-' => spec.left = true,
            b'+' => spec.plus = true,
            b' ' => spec.space = true,
            b'#' => spec.alternate = true,
            b'0' => spec.zero = true,
            _ => break,
        }
        at += 1;
    }
    let amount = |at: &mut usize| {
        if text.get(*at) == Some(&b'*') {
            *at += 1;
            return Amount::Argument;
        }
        let mut value = None;
        while let Some(digit) = text.get(*at).filter(|digit| digit.is_ascii_digit()) {
            let sum = value.unwrap_or(0) * 10 + usize::from(digit - b'0');
            value = Some(sum.min(MAX_AMOUNT));
            *at += 1;
        }
        value.map_or(Amount::None, Amount::Given)
    };
    spec.width = amount(&mut at);
    if text.get(at) == Some(&b'.') {
        at += 1;
        spec.precision = match amount(&mut at) {
            Amount::None => Amount::Given(0),
            amount => amount,
        };
    }
    match text.get(at)? {
        b'h' => {
            at += 1;
            spec.bits = 16;
            if text.get(at) == Some(&b'h') {
                at += 1;
                spec.bits = 8;
            }
        }
        b'l' | b'z' | b'j' | b't' => {
            spec.bits = 64;
            at += 1;
            if text.get(at) == Some(&b'l') {
                at += 1;
            }
        }
        _ => {}
    }
    spec.letter = *text.get(at)?;
    if matches!(spec.letter, b'h') || !b"diouxXcpsfFeEgGaA".contains(&spec.letter) {
        return None;
    }
    Some((spec, at + 1))
}

/// One conversion.
pub(crate) fn convert(spec: &Spec, argument: &Argument) -> Vec<u8> {
    match argument {
        Argument::Text(text) => {
            let length = match spec.precision {
                Amount::Given(most) => text.len().min(most),
                _ => text.len(),
            };
            pad(spec, b"", &text[..length], false)
        }
        Argument::Float(value) => float(spec, *value),
        Argument::Integer(value) => integer(spec, *value),
    }
}

/// Puts a sign or prefix and digits into the width; zeros go between the two.
fn pad(spec: &Spec, prefix: &[u8], digits: &[u8], zeros: bool) -> Vec<u8> {
    let Amount::Given(width) = spec.width else {
        return [prefix, digits].concat();
    };
    let missing = width.saturating_sub(prefix.len() + digits.len());
    if spec.left {
        [prefix, digits, &vec![b' '; missing]].concat()
    } else if zeros {
        [prefix, &vec![b'0'; missing], digits].concat()
    } else {
        [&vec![b' '; missing], prefix, digits].concat()
    }
}

fn sign(spec: &Spec, negative: bool) -> &'static [u8] {
    match (negative, spec.plus, spec.space) {
        (true, _, _) => b"-",
        (false, true, _) => b"+",
        (false, false, true) => b" ",
        _ => b"",
    }
}

fn integer(spec: &Spec, bits: u64) -> Vec<u8> {
    let unused = 64 - spec.bits;
    let unsigned = bits << unused >> unused;
    let (prefix, digits): (&[u8], String) = match spec.letter {
        b'c' => return pad(spec, b"", &[bits as u8], false),
        b'p' if bits == 0 => return pad(spec, b"", b"(nil)", false),
        b'p' => (b"0x", format!("{bits:x}")),
        b'd' | b'i' => {
            let value = (bits << unused) as i64 >> unused;
            (sign(spec, value < 0), value.unsigned_abs().to_string())
        }
        b'u' => (b"", unsigned.to_string()),
        b'o' => (b"", format!("{unsigned:o}")),
        b'x' if spec.alternate && unsigned != 0 => (b"0x", format!("{unsigned:x}")),
        b'X' if spec.alternate && unsigned != 0 => (b"0X", format!("{unsigned:X}")),
        b'x' => (b"", format!("{unsigned:x}")),
        _ => (b"", format!("{unsigned:X}")),
    };
    let mut digits = digits;
    if let Amount::Given(least) = spec.precision {
        if least == 0 && digits == "0" {
            digits.clear();
        }
        digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
    }
    if spec.letter == b'o' && spec.alternate && !digits.starts_with('0') {
        digits.insert(0, '0');
    }
    let zeros = spec.zero && spec.precision == Amount::None;
    pad(spec, prefix, digits.as_bytes(), zeros)
}

fn float(spec: &Spec, value: f64) -> Vec<u8> {
    let upper = spec.letter.is_ascii_uppercase();
    let case = |text: String| {
        if upper {
            text.to_ascii_uppercase()
        } else {
            text
        }
    };
    let sign = sign(spec, value.is_sign_negative());
    if !value.is_finite() {
        let name = if value.is_nan() { "nan" } else { "inf" };
        return pad(spec, sign, case(name.to_owned()).as_bytes(), false);
    }
    let value = value.abs();
    let precision = match spec.precision {
        Amount::Given(precision) => Some(precision),
        _ => None,
    };
    let digits = match spec.letter.to_ascii_lowercase() {
        b'f' => fixed(value, precision.unwrap_or(6), spec.alternate),
        b'e' => exponential(value, precision.unwrap_or(6), spec.alternate),
        b'g' => general(value, precision.unwrap_or(6).max(1), spec.alternate),
        _ => {
            let prefix = [sign, if upper { b"0X" } else { b"0x" }].concat();
            let digits = case(hexadecimal(value, precision, spec.alternate));
            return pad(spec, &prefix, digits.as_bytes(), spec.zero);
        }
    };
    pad(spec, sign, case(digits).as_bytes(), spec.zero)
}

fn fixed(value: f64, precision: usize, point: bool) -> String {
    let mut text = format!("{value:.precision$}");
    if precision == 0 && point {
        text.push('.');
    }
    text
}

/// Rust writes `1.5e-7`, C `1.5e-07`.
fn exponential(value: f64, precision: usize, point: bool) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    let point = if precision == 0 && point { "." } else { "" };
    format!("{mantissa}{point}e{sign}{exponent:0>2}")
}

fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = format!("{value:.*e}", precision - 1);
    let exponent: i64 = scientific
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    let (mut text, tail) = if exponent < -4 || exponent >= precision as i64 {
        let text = exponential(value, precision - 1, keep_zeros);
        let at = text.find('e').unwrap_or(text.len());
        (text[..at].to_owned(), text[at..].to_owned())
    } else {
        let digits = (precision as i64 - 1 - exponent) as usize;
        (fixed(value, digits, keep_zeros), String::new())
    };
    if !keep_zeros && text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + &tail
}

/// Digits and exponent of `%a`, without `0x`.
fn hexadecimal(value: f64, precision: Option<usize>, point: bool) -> String {
    let bits = value.to_bits();
    let mut mantissa = bits & ((1 << 52) - 1);
    let field = bits >> 52;
    let mut lead = u64::from(field != 0);
    let exponent = match field {
        0 if mantissa == 0 => 0,
        0 => -1022,
        field => field as i64 - 1023,
    };
    let digits = match precision {
        Some(precision) if precision < 13 => {
            // Round the whole significand to that many digits, ties to even.
            let drop = 52 - 4 * precision;
            let whole = lead << 52 | mantissa;
            let half = 1u64 << (drop - 1);
            let rest = whole & ((1 << drop) - 1);
            let kept = whole >> drop;
            let up = rest > half || (rest == half && kept & 1 != 0);
            let rounded = (kept + u64::from(up)) << drop;
            lead = rounded >> 52;
            mantissa = rounded & ((1 << 52) - 1);
            format!("{mantissa:013x}")[..precision].to_owned()
        }
        Some(precision) => format!("{:0<precision$}", format!("{mantissa:013x}")),
        None => format!("{mantissa:013x}").trim_end_matches('0').to_owned(),
    };
    let point = if digits.is_empty() && !point { "" } else { "." };
    format!("{lead}{point}{digits}p{exponent:+}")
}
