//! `shared_array!`: a `.shared` variable has no Rust syntax, so each use declares one in assembly.

use std::sync::atomic::{AtomicU32, Ordering};

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Expr, Result, Token, Type};

/// Numbers the arrays of a crate. rustc expands a crate's macros in one fixed order, in one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

struct Array {
    element: Type,
    len: Expr,
}

impl Parse for Array {
    fn parse(input: ParseStream) -> Result<Self> {
        let element = input.parse()?;
        input.parse::<Token![;]>()?;
        let len = input.parse()?;
        if !input.is_empty() {
            return Err(input.error("`shared_array!` takes `[T; LEN]` and nothing after it"));
        }
        Ok(Self { element, len })
    }
}

pub fn expand(input: TokenStream) -> Result<TokenStream> {
    let Array { element, len } = syn::parse2(input)?;
    let crate_name = std::env::var("CARGO_CRATE_NAME").unwrap_or_default();
    // Two versions of a crate can be in one module.
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = version.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let symbol = format!(
        "shared_array_{crate_name}_{version}_{}",
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let declare = format!(".shared .align {{0}} .b8 {symbol}[{{1}}];");
    let address = format!("mov.u32 {{0}}, {symbol};");
    Ok(quote! {{
        const _: () = ::core::assert!(
            ::core::mem::size_of::<#element>() * (#len) > 0,
            "an array in shared memory has at least one byte"
        );
        #[cfg(target_arch = "nvptx64")]
        {
            // `global_asm!` is an item that rustc accepts only directly in a module.
            // Nothing in it has a name that would hide a constant or type of the caller's.
            mod __shared_array {
                #[allow(unused_imports)]
                use super::*;
                ::core::arch::global_asm!(
                    #declare,
                    // 16: the widest access, so that an array of a narrow type can still be read four words at a time.
                    const if ::core::mem::align_of::<#element>() > 16 {
                        ::core::mem::align_of::<#element>()
                    } else {
                        16
                    },
                    const ::core::mem::size_of::<#element>() * (#len),
                );
            }
            let address: u32;
            // SAFETY: only reads the address of the variable declared above.
            unsafe {
                ::core::arch::asm!(#address, out(reg32) address, options(pure, nomem, nostack, preserves_flags));
            }
            ::cuda_std::shared::SharedPtr::<#element>::from_address(address)
        }
        #[cfg(not(target_arch = "nvptx64"))]
        {
            ::cuda_std::shared::dynamic_shared_mem::<#element>()
        }
    }})
}
