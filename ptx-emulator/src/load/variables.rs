//! Variables of modules and parameters: what they are, and where they lie.

use crate::error::LoadError;
use crate::isa::{Constant, ParamPlace, Type};
use crate::syntax::ast::{self, Init};

/// A variable of module scope, or a `.shared` one of a function.
#[derive(Debug)]
pub(crate) struct ModuleVariable {
    pub(crate) name: String,
    pub(crate) kind: VariableKind,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Bytes at start, and addresses to be put there.
    pub(crate) bytes: Vec<u8>,
    pub(crate) addresses: Vec<Initial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VariableKind {
    Global,
    Const,
    Shared,
    /// `.extern .shared x[]`: starts where static shared memory ends.
    DynamicShared,
    /// Declared, but not defined.
    Undefined,
}

/// An address within an initialiser.
#[derive(Debug, Clone)]
pub(crate) struct Initial {
    pub(crate) at: usize,
    pub(crate) size: usize,
    pub(crate) symbol: Constant,
    pub(crate) mask: Option<u64>,
}

/// Where each kernel parameter lies in the parameter space, and its alignment.
pub(super) fn param_layout(
    params: &[ast::Variable<'_>],
) -> Result<(Vec<ParamPlace>, Vec<usize>), LoadError> {
    let mut end = 0;
    let mut places = Vec::with_capacity(params.len());
    let mut aligns = Vec::with_capacity(params.len());
    for param in params {
        let (size, align) = size_and_align(param)?;
        let offset = align_up(end, align);
        end = offset + size;
        if end > 32764 {
            return Err(LoadError::new(
                param.line,
                "kernel parameters take more than 32764 bytes",
            ));
        }
        places.push(ParamPlace {
            offset: offset as u32,
            size: size as u32,
        });
        aligns.push(align);
    }
    Ok((places, aligns))
}

/// Rounds up to a multiple of a power of two.
pub(crate) fn align_up(value: usize, align: usize) -> usize {
    (value + align - 1) & !(align - 1)
}

pub(super) fn variable_type(variable: &ast::Variable<'_>) -> Result<Type, LoadError> {
    match Type::parse(variable.ty) {
        Some(ty) if ty.is_fundamental() => Ok(ty),
        Some(ty) => Err(LoadError::new(
            variable.line,
            format!(
                "`{}`: {ty} is a type of instructions; use `.b{}`",
                variable.name,
                ty.bits()
            ),
        )),
        None => Err(LoadError::new(
            variable.line,
            format!(
                "`{}`: `.{}` is not a known type",
                variable.name, variable.ty
            ),
        )),
    }
}

/// Bytes and alignment of a variable that lives in memory.
pub(super) fn size_and_align(variable: &ast::Variable<'_>) -> Result<(usize, usize), LoadError> {
    let error = |message: &str| {
        Err(LoadError::new(
            variable.line,
            format!("`{}`: {message}", variable.name),
        ))
    };
    let ty = variable_type(variable)?;
    if ty == Type::Pred {
        return error("predicates cannot be in memory");
    }
    let element = usize::from(ty.bits() / 8) * variable.vector;
    let mut size = element;
    for (axis, dim) in variable.dims.iter().enumerate() {
        let count = match (dim, &variable.init) {
            (Some(count), _) => *count as usize,
            (None, Some(Init::List(list))) if axis == 0 => list.len(),
            (None, _) => 0,
        };
        size = match size.checked_mul(count) {
            Some(size) if size <= 1 << 32 => size,
            _ => return error("the array is too large"),
        };
    }
    Ok((size, variable.align.unwrap_or(element)))
}
