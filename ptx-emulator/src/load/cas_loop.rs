//! The first read of a loop around `atom.cas`.
//!
//! CUDA's programming guide builds atomics out of a plain load and a loop in which `atom.cas` tests the value and tries another
//! one; LLVM does so too. The load races with the other threads' atomics by the letter of the memory model, but an outdated value
//! only costs another round. So such a load counts as a relaxed one.

use std::collections::HashMap;

use super::function::Function;
use crate::isa::{AccessSpace, AtomicKind, Op, Ordering, Scope, Slot};

/// Where and what is compared: the address, the bytes and the register that is tested.
type Tested = (AccessSpace, Slot, i64, u8, Slot);

/// Makes the loads relaxed whose result an `atom.cas` at the same address tests.
pub(super) fn relax_first_reads(function: &mut Function) {
    let mut tested: HashMap<Tested, Scope> = HashMap::new();
    for inst in &function.code {
        let Op::Atomic(index) = inst.op else { continue };
        let access = &function.accesses[index as usize];
        if access
            .atomic
            .is_some_and(|atomic| atomic.kind == AtomicKind::Cas)
        {
            let [base, compared, ..] = inst.src;
            let key = (access.space, base, access.offset, access.bytes, compared);
            tested.insert(key, access.scope);
        }
    }
    if tested.is_empty() {
        return;
    }
    for inst in &function.code {
        let Op::Load(index) = inst.op else { continue };
        let access = &mut function.accesses[index as usize];
        let &[result] = access.elements.as_slice() else {
            continue;
        };
        let key = (
            access.space,
            inst.src[0],
            access.offset,
            access.bytes,
            result,
        );
        if let (Ordering::Weak, Some(&scope)) = (access.ordering, tested.get(&key)) {
            access.ordering = Ordering::Relaxed;
            access.scope = scope;
        }
    }
}
