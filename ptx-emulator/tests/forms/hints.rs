//! Prefetches, priorities, policies and fences: values are the same with them.

use super::family::{Code, Family, gives_all, shared_integers};
use super::harness::Operands;

/// The operands, through an instruction and a load that may follow it.
fn unchanged(syntax: &'static str, text: &'static str) -> Family {
    Family::new(
        syntax,
        move |_| Code::new(text, &[64; 2], &[64; 2]),
        shared_integers(),
        gives_all(|_, [a, b, ..]| [a, b, 0, 0]),
    )
}

/// A policy, for a load and a store.
fn policies(syntax: &'static str, text: &'static str) -> Family {
    Family::new(
        syntax,
        move |_| {
            let text = format!(
                ".reg .b64 %policy;
{text}
ld.global.L2::cache_hint.v2.b64 {{{{d}}, {{d1}}}}, [{{input}}], %policy;
st.global.L2::cache_hint.v2.b64 [%global], {{{{d1}}, {{d}}}}, %policy;
ld.global.v2.b64 {{{{d2}}, {{d3}}}}, [%global];"
            );
            Code::new(text, &[64; 4], &[64; 2])
        },
        shared_integers(),
        gives_all(|_, [a, b, ..]| [a, b, b, a]),
    )
}

/// A message from each thread to its namesake in the other warp: the first warp's data before its flag, the second one's
/// flag before the data. `before` and `after` are the fences of writer and reader, in the places of `{form}`.
fn messages(syntax: &'static str, before: &'static str, after: &'static str) -> Family {
    Family::new(
        syntax,
        move |_| {
            let text = format!(
                ".reg .pred %first, %there;
.reg .b32 %flag, %other;
st.shared.v2.b64 [%shared], {{{{a}}, {{b}}}};
mov.b64 {{d}}, {{a}};
mov.b64 {{d1}}, {{b}};
// The second warp's bytes hold the message, and the flag after it.
add.u32 %other, %shared, 2048;
setp.lt.u32 %first, %thread, 32;
bar.sync 0;
@!%first st.relaxed.sys.shared.b32 [%shared+32], 0;
bar.sync 0;
@!%first bra read;
st.shared.v2.b64 [%other+16], {{{{b}}, {{a}}}};
{before};
st.relaxed.sys.shared.b32 [%other+32], 1;
bra done;
read:
ld.relaxed.sys.shared.b32 %flag, [%shared+32];
setp.ne.u32 %there, %flag, 1;
@%there bra read;
{after};
ld.shared.v2.b64 {{{{d}}, {{d1}}}}, [%shared+16];
done:
bar.sync 0;"
            );
            Code::new(text, &[64; 2], &[64; 2])
        },
        shared_integers(),
        |form, inputs, outputs| {
            for (thread, (got, own)) in outputs.iter().zip(inputs).enumerate() {
                let [a, b, ..]: Operands = match thread {
                    0..32 => *own,
                    _ => {
                        let [a, b, ..] = inputs[thread - 32];
                        [b, a, 0, 0]
                    }
                };
                if *got != [a, b, 0, 0] {
                    return Err(format!("thread {thread} of {form} gets {got:x?}"));
                }
            }
            Ok(())
        },
    )
}

pub fn families() -> Vec<Family> {
    vec![
        unchanged(
            "prefetch{.global}.{L1,L2,L2::evict_last,L2::evict_normal}",
            "{form} [{input}];\nld.global.v2.b64 {{d}, {d1}}, [{input}];",
        ),
        unchanged(
            "prefetch.local.{L1,L2}",
            "st.local.v2.b64 [%local], {{a}, {b}};\n{form} [%local];\nld.local.v2.b64 {{d}, {d1}}, [%local];",
        ),
        unchanged(
            "prefetchu.L1",
            "{form} [{input}];\nldu.global.v2.b64 {{d}, {d1}}, [{input}];",
        ),
        unchanged(
            "applypriority{.global}.L2::evict_normal",
            "{form} [{input}], 128;\nld.global.v2.b64 {{d}, {d1}}, [{input}];",
        ),
        policies(
            "createpolicy.fractional.{L2::evict_last,L2::evict_normal,L2::evict_first,L2::evict_unchanged}\
{.L2::evict_first,.L2::evict_unchanged}.b64",
            "{form} %policy;",
        ),
        policies(
            "createpolicy.fractional.{L2::evict_last,L2::evict_normal,L2::evict_first,L2::evict_unchanged}\
{.L2::evict_first,.L2::evict_unchanged}.b64",
            "{form} %policy, 0.25;",
        ),
        policies(
            "createpolicy.range{.global}.{L2::evict_last,L2::evict_normal,L2::evict_first,L2::evict_unchanged}\
{.L2::evict_first,.L2::evict_unchanged}.b64",
            "{form} %policy, [{input}], 128, 256;",
        ),
        policies("createpolicy.cvt.L2.b64", "{form} %policy, {a};"),
        messages(
            "fence{.sc,.acq_rel}.{cta,cluster,gpu,sys}",
            "{form}",
            "{form}",
        ),
        messages("membar.{cta,gl,sys}", "{form}", "{form}"),
        messages(
            "fence.release.{cta,cluster,gpu,sys}",
            "{form}",
            "fence.acq_rel.cta",
        ),
        messages(
            "fence.acquire.{cta,cluster,gpu,sys}",
            "fence.acq_rel.cta",
            "{form}",
        ),
        messages(
            "fence.release.sync_restrict::shared::cta.cluster",
            "{form}",
            "fence.acq_rel.cta",
        ),
        messages(
            "fence.acquire.sync_restrict::shared::cluster.cluster",
            "fence.acq_rel.cta",
            "{form}",
        ),
        // The fences of proxies order what other instructions have ordered already.
        messages(
            "fence.proxy.{alias,async,async.global,async.shared::cta,async.shared::cluster}",
            "fence.acq_rel.cta;\n{form}",
            "{form};\nfence.acq_rel.cta",
        ),
        messages(
            "membar.proxy.{alias,async}",
            "fence.acq_rel.cta;\n{form}",
            "{form};\nfence.acq_rel.cta",
        ),
        messages(
            "fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster",
            "fence.acq_rel.cta;\n{form}",
            "fence.acq_rel.cta",
        ),
        messages(
            "fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster",
            "fence.acq_rel.cta",
            "{form};\nfence.acq_rel.cta",
        ),
        unchanged(
            "fence.mbarrier_init.release.cluster",
            "mbarrier.init.shared.b64 [%shared], 1;\n{form};\nmbarrier.inval.shared.b64 [%shared];
st.shared.v2.b64 [%shared], {{a}, {b}};\nld.shared.v2.b64 {{d}, {d1}}, [%shared];",
        ),
    ]
}
