//! What a load, store or atomic says besides its type: state space, memory model, and hints to caches.

use super::function::FunctionBuilder;
use super::modifiers::Modifiers;
use crate::error::LoadError;
use crate::isa::{AccessSpace, Ordering, Scope};

/// A cluster is one block here.
const SCOPES: [(&str, Scope); 4] = [
    ("cta", Scope::Block),
    ("cluster", Scope::Block),
    ("gpu", Scope::Device),
    ("sys", Scope::Device),
];

/// How a load or store is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// Nothing is said, which means `.weak`.
    Unsaid,
    Weak,
    Volatile,
    /// `.relaxed`, `.acquire` or `.release`, with a scope.
    Scoped,
    /// `.mmio.relaxed.sys`.
    Mmio,
}

/// Hints to caches. They change no value.
#[derive(Debug, Clone, Copy, Default)]
struct Hints {
    /// `.ca` and its like.
    operator: bool,
    /// `.L1::evict_first` and its like.
    priority: bool,
    /// `.L2::cache_hint`: the last operand is a policy.
    policy: bool,
    /// `.L2::128B` and its like.
    prefetch: bool,
}

/// What the words of a load or store say, its type and vector length aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Qualifiers {
    pub(super) space: AccessSpace,
    /// Whose parameters `.param::entry` and `.param::func` say they are.
    pub(super) parameters: Option<AccessSpace>,
    pub(super) ordering: Ordering,
    pub(super) scope: Scope,
    /// The last operand is a cache policy.
    pub(super) policy: bool,
    /// `.mmio`, which has no vectors.
    pub(super) mmio: bool,
    pub(super) non_coherent: bool,
}

impl FunctionBuilder<'_, '_> {
    /// The space of a load, store or atomic, generic where there is none.
    pub(super) fn access_space(modifiers: &mut Modifiers<'_>) -> AccessSpace {
        modifiers
            .choose(&[
                ("global", AccessSpace::Global),
                ("shared", AccessSpace::Shared),
                ("shared::cta", AccessSpace::Shared),
                ("local", AccessSpace::Local),
                ("const", AccessSpace::Const),
                ("param", AccessSpace::KernelParam),
            ])
            .unwrap_or(AccessSpace::Generic)
    }

    /// As [`access_space`](Self::access_space), or `.shared::cluster`, which is the block's own shared memory here.
    pub(super) fn cluster_space(modifiers: &mut Modifiers<'_>) -> AccessSpace {
        if modifiers.flag("shared::cluster") {
            return AccessSpace::Shared;
        }
        Self::access_space(modifiers)
    }

    pub(super) fn memory_scope(modifiers: &mut Modifiers<'_>) -> Option<Scope> {
        modifiers.choose(&SCOPES)
    }

    /// Takes the qualifiers of `ld`, `ldu` or `st`.
    pub(super) fn qualifiers(
        modifiers: &mut Modifiers<'_>,
        store: bool,
    ) -> Result<Qualifiers, LoadError> {
        let (strength, ordering, scope) = Self::strength(modifiers, store)?;
        let parameters = modifiers.choose(&[
            ("param::entry", AccessSpace::KernelParam),
            ("param::func", AccessSpace::FrameParam),
        ]);
        let space = match parameters {
            Some(_) => AccessSpace::KernelParam,
            None => Self::cluster_space(modifiers),
        };
        let anywhere = matches!(space, AccessSpace::Generic | AccessSpace::Global);
        let weak = matches!(strength, Strength::Unsaid | Strength::Weak);
        if strength == Strength::Mmio && !anywhere {
            return modifiers.error("`.mmio` is for `.global`");
        }
        // Nobody else sees local memory: `.volatile` orders nothing there.
        let private = space == AccessSpace::Local && strength == Strength::Volatile;
        if !weak && !private && !anywhere && space != AccessSpace::Shared {
            return modifiers.error("this state space has weak accesses only");
        }
        let non_coherent = !store && modifiers.flag("nc");
        if non_coherent && space != AccessSpace::Global {
            return modifiers.error("`.nc` is for `.global`");
        }
        if non_coherent && strength != Strength::Unsaid {
            return modifiers.error("`.nc` says all there is about order");
        }
        let hints = Self::hints(modifiers, store, non_coherent);
        if hints.operator && hints.priority {
            return modifiers.error("a cache operator and an eviction priority exclude each other");
        }
        if hints.operator && !weak {
            return modifiers.error("a cache operator is for weak accesses");
        }
        if (hints.priority || hints.policy || hints.prefetch) && !anywhere {
            return modifiers.error("this hint is for `.global`");
        }
        let unhinted = strength == Strength::Mmio || strength == Strength::Volatile;
        if unhinted && (hints.priority || hints.policy) {
            return modifiers.error("`.volatile` and `.mmio` take no such hint");
        }
        if strength == Strength::Mmio && hints.prefetch {
            return modifiers.error("`.mmio` takes no prefetch size");
        }
        Ok(Qualifiers {
            space,
            parameters,
            ordering,
            scope,
            policy: hints.policy,
            mmio: strength == Strength::Mmio,
            non_coherent,
        })
    }

    fn strength(
        modifiers: &mut Modifiers<'_>,
        store: bool,
    ) -> Result<(Strength, Ordering, Scope), LoadError> {
        let mmio = modifiers.flag("mmio");
        let word = modifiers.choose(&[
            ("weak", (Strength::Weak, Ordering::Weak)),
            ("volatile", (Strength::Volatile, Ordering::Relaxed)),
            ("relaxed", (Strength::Scoped, Ordering::Relaxed)),
            ("acquire", (Strength::Scoped, Ordering::Acquire)),
            ("release", (Strength::Scoped, Ordering::Release)),
        ]);
        let (strength, ordering) = word.unwrap_or((Strength::Unsaid, Ordering::Weak));
        match ordering {
            Ordering::Release if !store => return modifiers.error("a load cannot release"),
            Ordering::Acquire if store => return modifiers.error("a store cannot acquire"),
            _ => {}
        }
        let system = modifiers.has("sys");
        let scope = Self::memory_scope(modifiers);
        if mmio && !(system && strength == Strength::Scoped) {
            return modifiers.error("`.mmio` needs an order and `.sys`, as in `.relaxed.sys`");
        }
        match (strength, scope) {
            (Strength::Scoped, None) => {
                modifiers.error("needs a scope, one of .cta .cluster .gpu .sys")
            }
            (Strength::Scoped, Some(scope)) if mmio => Ok((Strength::Mmio, ordering, scope)),
            (Strength::Scoped, Some(scope)) => Ok((strength, ordering, scope)),
            (_, Some(_)) => modifiers.error("a scope needs an order, as in `.relaxed`"),
            // `.volatile` is `.relaxed.sys`.
            (_, None) => Ok((strength, ordering, Scope::Device)),
        }
    }

    fn hints(modifiers: &mut Modifiers<'_>, store: bool, non_coherent: bool) -> Hints {
        let operators: &[(&str, ())] = match (store, non_coherent) {
            (true, _) => &[("wb", ()), ("cg", ()), ("cs", ()), ("wt", ())],
            (false, true) => &[("ca", ()), ("cg", ()), ("cs", ())],
            (false, false) => &[("ca", ()), ("cg", ()), ("cs", ()), ("lu", ()), ("cv", ())],
        };
        let priorities = [
            ("L1::evict_normal", ()),
            ("L1::evict_unchanged", ()),
            ("L1::evict_first", ()),
            ("L1::evict_last", ()),
            ("L1::no_allocate", ()),
        ];
        Hints {
            operator: modifiers.choose(operators).is_some(),
            priority: modifiers.choose(&priorities).is_some(),
            policy: modifiers.flag("L2::cache_hint"),
            prefetch: !store && Self::prefetch_size(modifiers),
        }
    }

    /// Takes `.L2::64B` and its like.
    pub(super) fn prefetch_size(modifiers: &mut Modifiers<'_>) -> bool {
        modifiers
            .choose(&[("L2::64B", ()), ("L2::128B", ()), ("L2::256B", ())])
            .is_some()
    }
}
