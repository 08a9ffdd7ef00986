//! `#[gpu_only]`: the device body on the device, a panic on the host.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{ItemFn, Result};

pub fn expand(args: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !args.is_empty() {
        return Err(syn::Error::new_spanned(
            args,
            "`#[gpu_only]` takes no arguments",
        ));
    }
    let function: ItemFn = syn::parse2(item)?;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = &function;
    let name = sig.ident.to_string();
    Ok(quote! {
        #(#attrs)*
        #[cfg(target_arch = "nvptx64")]
        #[inline(always)]
        #vis #sig #block

        #(#attrs)*
        #[cfg(not(target_arch = "nvptx64"))]
        #[allow(unused_variables, clippy::missing_safety_doc)]
        #vis #sig {
            panic!(
                "`{}::{}` runs on the GPU only: call it from a `#[kernel]` compiled for nvptx64-nvidia-cuda",
                module_path!(),
                #name,
            )
        }
    })
}
