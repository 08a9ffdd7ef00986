//! Which division by zero left a register without a value.

use std::collections::{BTreeMap, HashSet};

use super::block::locate;
use crate::device::Launch;
use crate::isa::{AccessSpace, Inst, IntOp, Op, Slot};
use crate::load::Function;

/// The PTX line of a division whose result can be what a register holds at a site: it got there by instructions that copy what has
/// no value. `divisions` are the sites where the warp divided by zero, and the lanes that did.
pub(super) fn origin(
    launch: &Launch<'_>,
    divisions: &BTreeMap<usize, u32>,
    site: usize,
    register: &str,
    lane: u32,
) -> Option<usize> {
    if divisions.is_empty() {
        return None;
    }
    let (reader, _) = locate(launch, site);
    let mut search = Search {
        rows: reader
            .function
            .slot_names
            .iter()
            .filter(|(_, name)| *name == register)
            .map(|(&slot, _)| (reader.first_site, slot))
            .collect(),
        memory: false,
        lanes: lane,
    };
    loop {
        let known = (search.rows.len(), search.memory, search.lanes);
        for image in &launch.images {
            let code = image.function.code.iter().enumerate();
            for (pc, inst) in code.rev() {
                if search.step(image.first_site, image.function, inst) {
                    let by_zero = divisions.get(&(image.first_site + pc));
                    if by_zero.is_some_and(|lanes| lanes & search.lanes != 0) {
                        return Some(image.function.lines[pc] as usize);
                    }
                }
            }
        }
        if known == (search.rows.len(), search.memory, search.lanes) {
            return None;
        }
    }
}

/// Where the value may have been before.
struct Search {
    /// In a row of the function with this first site.
    rows: HashSet<(usize, Slot)>,
    /// In local memory or in parameters, of any function.
    memory: bool,
    /// In these lanes.
    lanes: u32,
}

impl Search {
    /// Follows an instruction back from its results to what it copied. Returns whether it is a division that can have given the value.
    fn step(&mut self, of: usize, function: &Function, inst: &Inst) -> bool {
        let is_wanted = |slot: &Slot| self.rows.contains(&(of, *slot));
        let sources = match inst.op {
            Op::Int(IntOp::Div | IntOp::Rem, _) => return is_wanted(&inst.dst),
            Op::Mov if is_wanted(&inst.dst) => &inst.src[..1],
            Op::Selp(_) if is_wanted(&inst.dst) => &inst.src[..2],
            Op::Shfl { .. } if is_wanted(&inst.dst) => {
                self.lanes = u32::MAX;
                &inst.src[..1]
            }
            Op::Pack(elements) if is_wanted(&inst.dst) => function.elements(elements),
            Op::Unpack(elements) if function.elements(elements).iter().any(is_wanted) => {
                &inst.src[..1]
            }
            Op::Load(index) => {
                let access = &function.accesses[index as usize];
                self.memory |= passes_on(access.space) && access.elements.iter().any(is_wanted);
                return false;
            }
            Op::Store(index)
                if self.memory && passes_on(function.accesses[index as usize].space) =>
            {
                &function.accesses[index as usize].elements
            }
            _ => return false,
        };
        self.rows.extend(sources.iter().map(|&slot| (of, slot)));
        false
    }
}

/// Whether a space can hold what has no value.
fn passes_on(space: AccessSpace) -> bool {
    matches!(
        space,
        AccessSpace::Local | AccessSpace::FrameParam | AccessSpace::Generic
    )
}
