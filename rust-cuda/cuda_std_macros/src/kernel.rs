//! `#[kernel]`: an entry point on the device, its typed description on the host.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, FnArg, Ident, ItemFn, Pat, Result, ReturnType, Token, Type};

/// Types that a kernel takes by value: those whose layout in the parameter space is one register.
const SCALARS: [&str; 6] = ["u32", "i32", "u64", "i64", "f32", "f64"];

struct LaunchBounds {
    max_threads: Expr,
    min_blocks: Option<Expr>,
}

#[derive(Default)]
struct KernelArgs {
    launch_bounds: Option<LaunchBounds>,
}

impl Parse for KernelArgs {
    fn parse(input: ParseStream) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self::default());
        }
        let name: Ident = input.parse()?;
        if name != "launch_bounds" {
            return Err(Error::new(
                name.span(),
                format!(
                    "`#[kernel]` has no option `{name}`: it takes `launch_bounds(max_threads)` or \
                     `launch_bounds(max_threads, min_blocks)`"
                ),
            ));
        }
        let inner;
        syn::parenthesized!(inner in input);
        let bounds = Punctuated::<Expr, Token![,]>::parse_terminated(&inner)?;
        let mut bounds = bounds.into_iter();
        let (Some(max_threads), min_blocks, None) = (bounds.next(), bounds.next(), bounds.next())
        else {
            return Err(Error::new(
                name.span(),
                "`launch_bounds` takes one or two constants: `launch_bounds(max_threads, min_blocks)`",
            ));
        };
        if !input.is_empty() {
            return Err(input.error("`#[kernel]` takes `launch_bounds(...)` and nothing after it"));
        }
        Ok(Self {
            launch_bounds: Some(LaunchBounds {
                max_threads,
                min_blocks,
            }),
        })
    }
}

pub fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let args: KernelArgs = syn::parse2(args)?;
    let function: ItemFn = syn::parse2(item)?;
    let params = check(&function)?;

    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = &function;
    let name = &sig.ident;
    let name_text = name.unraw().to_string();
    let inputs = &sig.inputs;
    let param_names = params.iter().map(|(name, _)| name.unraw().to_string());
    let param_types = params.iter().map(|(_, ty)| ty);
    // What the macro cannot see: an alias of a slice, a structure whose last field is one.
    let widths = params.iter().map(|(name, ty)| {
        let message =
            format!("parameter `{name}` is wider than 8 bytes: it points to an unsized type");
        quote_spanned! {ty.span()=>
            const _: () = ::core::assert!(::core::mem::size_of::<#ty>() <= 8, #message);
        }
    });

    let (directive, max_threads, min_blocks) = match &args.launch_bounds {
        None => (quote!(), quote!(None), quote!(None)),
        Some(LaunchBounds {
            max_threads,
            min_blocks,
        }) => {
            let line = format!("//cuda_builder.launch_bounds {name_text} {{0}} {{1}}");
            let blocks = match min_blocks {
                Some(blocks) => quote!(#blocks),
                None => quote!(0),
            };
            (
                quote! {
                    #[cfg(target_arch = "nvptx64")]
                    ::core::arch::global_asm!(#line, const #max_threads as u32, const #blocks as u32);
                },
                quote!(Some(#max_threads)),
                match min_blocks {
                    Some(blocks) => quote!(Some(#blocks)),
                    None => quote!(None),
                },
            )
        }
    };
    let description =
        format!("Host-side description of the kernel [`{name_text}`](fn@{name_text}).");

    Ok(quote! {
        #directive
        #(#widths)*

        #[cfg(target_arch = "nvptx64")]
        #(#attrs)*
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn #name(#inputs) #block

        #[cfg(not(target_arch = "nvptx64"))]
        #(#attrs)*
        #[allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
        #vis unsafe fn #name(#inputs) #block

        #[cfg(not(target_arch = "nvptx64"))]
        #[doc = #description]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        #vis enum #name {}

        #[cfg(not(target_arch = "nvptx64"))]
        impl ::cuda_std::kernel::Kernel for #name {
            const NAME: &'static str = #name_text;
            type Params = (#(#param_types,)*);
            const PARAM_NAMES: &'static [&'static str] = &[#(#param_names),*];
            const MAX_THREADS: Option<u32> = #max_threads;
            const MIN_BLOCKS: Option<u32> = #min_blocks;
        }
    })
}

/// Rejects what the kernel ABI cannot carry; returns the parameters' names and types.
fn check(function: &ItemFn) -> Result<Vec<(Ident, Type)>> {
    let sig = &function.sig;
    let name = &sig.ident;
    let mut errors: Option<Error> = None;
    let mut fail = |span: Span, message: String| {
        let error = Error::new(span, message);
        match &mut errors {
            Some(all) => all.combine(error),
            None => errors = Some(error),
        }
    };

    if !matches!(sig.safety, syn::Safety::Unsafe(_)) {
        fail(
            sig.fn_token.span,
            format!(
                "kernel `{name}` must be an `unsafe fn`: it is called with pointers that nothing on the device can check"
            ),
        );
    }
    if let Some(token) = &sig.asyncness {
        fail(
            token.span,
            format!("kernel `{name}` cannot be `async`: remove it"),
        );
    }
    if let Some(token) = &sig.constness {
        fail(
            token.span,
            format!("kernel `{name}` cannot be `const`: remove it"),
        );
    }
    if let Some(abi) = &sig.abi {
        fail(
            abi.span(),
            format!("`#[kernel]` sets the ABI of `{name}`: remove `extern`"),
        );
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        let span = if sig.generics.params.is_empty() {
            sig.generics.where_clause.span()
        } else {
            sig.generics.params.span()
        };
        fail(
            span,
            format!(
                "kernel `{name}` cannot be generic: an entry point is one symbol. Make a generic `#[inline(always)]` \
                 function and one kernel for each instance"
            ),
        );
    }
    if let ReturnType::Type(_, ty) = &sig.output {
        fail(
            ty.span(),
            format!(
                "kernel `{name}` cannot return a value: write the result through a `*mut` parameter"
            ),
        );
    }
    if let Some(variadic) = &sig.variadic {
        fail(
            variadic.span(),
            format!("kernel `{name}` cannot be variadic"),
        );
    }

    let mut params = Vec::new();
    for input in &sig.inputs {
        match input {
            FnArg::Receiver(receiver) => fail(
                receiver.span(),
                format!("kernel `{name}` cannot take `self`: make it a free function"),
            ),
            FnArg::Typed(param) => {
                let is_cfg = |attr: &&Attribute| {
                    attr.path().is_ident("cfg") || attr.path().is_ident("cfg_attr")
                };
                if let Some(attr) = param.attrs.iter().find(is_cfg) {
                    fail(
                        attr.span(),
                        format!(
                            "a parameter of kernel `{name}` cannot have a `#[cfg]`: the host's signature would not be the \
                             device's. Make two kernels, each with a `#[cfg]` of its own"
                        ),
                    );
                }
                let ident = match &*param.pat {
                    Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => &pat.ident,
                    other => {
                        fail(
                            other.span(),
                            format!(
                                "a parameter of kernel `{name}` must be a plain name, not a pattern"
                            ),
                        );
                        continue;
                    }
                };
                match reject_param(ident, &param.ty) {
                    Some(message) => fail(param.ty.span(), message),
                    None => params.push((ident.clone(), (*param.ty).clone())),
                }
            }
        }
    }
    match errors {
        Some(errors) => Err(errors),
        None => Ok(params),
    }
}

/// Why a parameter of type `ty` cannot be passed to a kernel; `None` when it can.
fn reject_param(ident: &Ident, ty: &Type) -> Option<String> {
    match peel(ty) {
        Type::Ptr(pointer) => match peel(&pointer.elem) {
            Type::Slice(_) | Type::TraitObject(_) => Some(format!(
                "parameter `{ident}` points to an unsized type: pass `*const T` or `*mut T` to the first element and \
                 the length as a `u32`"
            )),
            Type::Path(path) if path.path.is_ident("str") => Some(format!(
                "parameter `{ident}` points to an unsized type: pass a `*const u8` and the length as a `u32`"
            )),
            _ => None,
        },
        Type::Path(path) => {
            let known = path.qself.is_none() && SCALARS.iter().any(|s| path.path.is_ident(s));
            if known {
                return None;
            }
            let shown = quote!(#ty).to_string();
            let fix = match shown.as_str() {
                "usize" | "isize" => "pass a `u64` (or a `u32`, which is cheaper on the device)",
                "bool" => "pass a `u32` that is 0 or 1",
                "u8" | "u16" | "char" => "pass a `u32`",
                "i8" | "i16" => "pass an `i32`",
                _ => "pass a pointer to it, or its fields one by one",
            };
            Some(format!(
                "parameter `{ident}` has type `{shown}`: a kernel takes raw pointers and {} by value; {fix}",
                SCALARS.join(", ")
            ))
        }
        Type::Reference(reference) => {
            let pointer = if reference.mutability.is_some() {
                "*mut"
            } else {
                "*const"
            };
            Some(match peel(&reference.elem) {
                Type::Slice(_) => format!(
                    "parameter `{ident}` is a slice reference: pass `{pointer} T` to the first element and the length \
                     as a `u32`"
                ),
                _ => format!(
                    "parameter `{ident}` is a reference: every thread of the grid would hold it at once; pass \
                     `{pointer} T`"
                ),
            })
        }
        _ => Some(format!(
            "parameter `{ident}` cannot be passed to a kernel: it takes raw pointers and {} by value",
            SCALARS.join(", ")
        )),
    }
}

/// Strips the invisible groups that `macro_rules!` leaves around a `$t:ty`, and parentheses.
fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        _ => ty,
    }
}
