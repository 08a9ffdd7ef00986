//! Special registers: their names, and the types that read them. Only `mov` and `cvt` between integers do.

use super::function::FunctionBuilder;
use super::operand::Width;
use crate::error::LoadError;
use crate::isa::{Class, ClockKind, Constant, Op, Pred, Slot, Special, Type, ZERO_SLOT};
use crate::syntax::ast::Operand;

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// It stays while a warp runs.
    Kept(Special),
    Clock(ClockKind),
}

/// Bits of the types that read a register.
const WORD: &[u8] = &[32];
const LONG: &[u8] = &[64];
/// Those that had 16 bits in PTX 1.x.
const WORD_OR_HALF: &[u8] = &[16, 32];

/// What a register is, and the bits of the types that `mov` reads it as.
fn find(name: &str, component: Option<u8>) -> Option<(Source, &'static [u8])> {
    let (special, sizes) = match (name, component) {
        // The fourth component is always zero.
        ("%tid" | "%ntid" | "%ctaid" | "%nctaid", Some(3)) => (Special::Fixed(0), WORD_OR_HALF),
        ("%clusterid" | "%nclusterid" | "%cluster_ctaid" | "%cluster_nctaid", Some(3)) => {
            (Special::Fixed(0), WORD)
        }
        ("%tid", Some(axis)) => (Special::Tid(axis), WORD_OR_HALF),
        ("%ntid", Some(axis)) => (Special::Ntid(axis), WORD_OR_HALF),
        ("%ctaid", Some(axis)) => (Special::Ctaid(axis), WORD_OR_HALF),
        ("%nctaid", Some(axis)) => (Special::Nctaid(axis), WORD_OR_HALF),
        // A cluster is one block.
        ("%clusterid", Some(axis)) => (Special::Ctaid(axis), WORD),
        ("%nclusterid", Some(axis)) => (Special::Nctaid(axis), WORD),
        ("%cluster_ctaid", Some(_)) | ("%cluster_ctarank", None) => (Special::Fixed(0), WORD),
        ("%cluster_nctaid", Some(_)) | ("%cluster_nctarank", None) => (Special::Fixed(1), WORD),
        ("%laneid", None) => (Special::LaneId, WORD),
        ("%warpid", None) => (Special::WarpId, WORD),
        ("%nwarpid", None) => (Special::NWarpId, WORD),
        ("%smid", None) => (Special::SmId, WORD),
        ("%nsmid", None) => (Special::NSmId, WORD),
        ("%gridid", None) => (Special::GridId, &[16, 32, 64][..]),
        ("%lanemask_eq", None) => (Special::LaneMaskEq, WORD),
        ("%lanemask_le", None) => (Special::LaneMaskLe, WORD),
        ("%lanemask_lt", None) => (Special::LaneMaskLt, WORD),
        ("%lanemask_ge", None) => (Special::LaneMaskGe, WORD),
        ("%lanemask_gt", None) => (Special::LaneMaskGt, WORD),
        ("%dynamic_smem_size", None) => (Special::DynamicSmemSize, WORD),
        ("%total_smem_size", None) => (Special::TotalSmemSize, WORD),
        ("%aggr_smem_size", None) => (Special::AggrSmemSize, WORD),
        // Launches are in no graph here.
        ("%current_graph_exec", None) => (Special::Fixed(0), LONG),
        ("%clock", None) | ("%globaltimer_lo", None) => {
            return Some((Source::Clock(ClockKind::Low), WORD));
        }
        ("%clock_hi", None) | ("%globaltimer_hi", None) => {
            return Some((Source::Clock(ClockKind::High), WORD));
        }
        ("%clock64", None) | ("%globaltimer", None) => {
            return Some((Source::Clock(ClockKind::Full), LONG));
        }
        (name, None) => {
            let number: u8 = name.strip_prefix("%envreg")?.parse().ok()?;
            (number < 32).then_some((Special::EnvReg(number), WORD))?
        }
        _ => return None,
    };
    Some((Source::Kept(special), sizes))
}

/// A name with its component, which is a number from 0 to 3.
fn split<'a>(operand: &Operand<'a>) -> Option<(&'a str, Option<u8>)> {
    match operand {
        Operand::Name(name) => Some((name, None)),
        Operand::Member(name, "x" | "r") => Some((name, Some(0))),
        Operand::Member(name, "y" | "g") => Some((name, Some(1))),
        Operand::Member(name, "z" | "b") => Some((name, Some(2))),
        Operand::Member(name, "w" | "a") => Some((name, Some(3))),
        _ => None,
    }
}

/// Why an operand that is neither a register nor a symbol cannot be read.
pub(super) fn why_not(name: &str, member: Option<&str>) -> String {
    let operand = member.map_or(Operand::Name(name), |member| Operand::Member(name, member));
    let written = member.map_or(name.to_owned(), |member| format!("{name}.{member}"));
    if split(&operand).is_some_and(|(name, component)| find(name, component).is_some()) {
        return format!("`{written}` is a special register: read it with `mov`");
    }
    if member.is_none() && find(name, Some(0)).is_some() {
        return format!("`{name}` is a vector: read `{name}.x`, `.y` or `.z`");
    }
    if name == "%is_explicit_cluster" {
        return "`%is_explicit_cluster` is a predicate: read it with `mov.pred`".to_owned();
    }
    if name.starts_with("%pm") || name.starts_with("%reserved_smem_offset_") {
        return format!("the special register `{written}` is not supported");
    }
    format!("`{written}` is not declared")
}

impl<'a> FunctionBuilder<'a, '_> {
    /// The special register that an operand names, unless the function declares a register of that name.
    fn special(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
        width: Width,
    ) -> Result<Option<Source>, LoadError> {
        let Some((name, component)) = split(operand) else {
            return Ok(None);
        };
        if component.is_none() && self.register(name).is_some() {
            return Ok(None);
        }
        let Some((source, sizes)) = find(name, component) else {
            return Ok(None);
        };
        let fits = match width {
            Width::Exact => sizes.contains(&ty.bits()),
            Width::AtLeast => sizes.iter().any(|&size| size >= ty.bits()),
        };
        if !fits || ty.is_float() || ty == Type::Pred {
            return self.error(format!("`{name}` cannot be read as {ty}"));
        }
        Ok(Some(source))
    }

    /// The kind of clock that an operand is.
    pub(super) fn clock(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
    ) -> Result<Option<ClockKind>, LoadError> {
        Ok(match self.special(operand, ty, Width::Exact)? {
            Some(Source::Clock(kind)) => Some(kind),
            _ => None,
        })
    }

    /// A source operand of `mov` and `cvt`, which may be a special register.
    pub(super) fn src_or_special(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
        width: Width,
    ) -> Result<Slot, LoadError> {
        match self.special(operand, ty, width)? {
            None => self.src_width(operand, ty, width),
            Some(Source::Kept(special)) => Ok(self.constant(Constant::Special {
                special,
                bits: ty.bits(),
            })),
            Some(Source::Clock(kind)) => {
                let slot = self.new_slot();
                self.emit(Op::Clock(kind), slot, [ZERO_SLOT; 4], Class::Other);
                Ok(slot)
            }
        }
    }

    /// A predicate that guards an instruction or is moved, which may be `%is_explicit_cluster`: no launch here has clusters.
    pub(super) fn pred_or_special(&mut self, operand: &Operand<'a>) -> Result<Pred, LoadError> {
        match operand {
            Operand::Name("%is_explicit_cluster") => Ok(Pred {
                negated: true,
                ..Pred::TRUE
            }),
            operand => self.pred(operand),
        }
    }
}
