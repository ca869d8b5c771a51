//! The attribute macro of `weir-faults`, which documents and re-exports it.

use proc_macro::TokenStream;
use proc_macro2::Span;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, ItemFn, LitStr, ReturnType, Token, Type, parenthesized, parse_macro_input};

/// The words between the attribute's parentheses.
struct Arguments {
    context: Expr,
    errors: Vec<Ident>,
    class: Option<LitStr>,
}

/// Lets a function be made to return one of the errors that it allows, before its body has run.
///
/// ```ignore
/// #[error_injectable(ctx = self.faults, errors(EIO, ENOSPC))]
/// async fn write_back(&self, page: &Page) -> Result<(), CacheError> { .. }
/// ```
/// `ctx` is an expression of type `FaultContext` or a reference to one; the first error is the default; the error type
/// is `From<Errno>`. `class = "words:like:this"` may follow, and is else the crate's folder and `function`. An `async
/// fn` can also be delayed and paused.
#[proc_macro_attribute]
pub fn error_injectable(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    expand(&arguments, function)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand(arguments: &Arguments, mut function: ItemFn) -> syn::Result<proc_macro2::TokenStream> {
    if !returns_result(&function.sig.output) {
        return Err(syn::Error::new_spanned(
            &function.sig,
            "an error-injectable function must return a Result",
        ));
    }
    if let Some(constness) = &function.sig.constness {
        return Err(syn::Error::new_spanned(
            constness,
            "a const fn can't be error-injectable",
        ));
    }
    let Arguments {
        context,
        errors,
        class,
    } = arguments;
    let class = match class {
        Some(class) => quote!(#class),
        None => quote! {
            ::weir_faults::__private::folder_class(::core::concat!(::core::env!("CARGO_PKG_NAME"), ":function"))
        },
    };
    let waits = function.sig.asyncness.is_some();
    let check = if waits {
        quote!((#context).pass(&WEIR_FAULT_POINT).await)
    } else {
        quote!((#context).check(&WEIR_FAULT_POINT))
    };
    let guard = quote! {
        {
            ::weir_faults::__record!(Function, #class, [#(#errors),*], can_wait: #waits);
            if let ::core::result::Result::Err(errno) = #check {
                return ::core::result::Result::Err(::core::convert::From::from(errno));
            }
        }
    };
    let body = &function.block;
    let body = quote!({ #guard #body });
    *function.block = syn::parse2(body)?;
    Ok(quote!(#function))
}

fn returns_result(output: &ReturnType) -> bool {
    let ReturnType::Type(_, returned) = output else {
        return false;
    };
    match &**returned {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "Result"),
        _ => false,
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut context, mut errors, mut class) = (None, None, None);
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            let repeated = if word == "ctx" {
                input.parse::<Token![=]>()?;
                context.replace(input.parse()?).is_some()
            } else if word == "errors" {
                let list;
                parenthesized!(list in input);
                let names = Punctuated::<Ident, Token![,]>::parse_terminated(&list)?;
                errors
                    .replace(names.into_iter().collect::<Vec<_>>())
                    .is_some()
            } else if word == "class" {
                input.parse::<Token![=]>()?;
                class.replace(input.parse()?).is_some()
            } else {
                return Err(syn::Error::new(
                    word.span(),
                    format!("`{word}`: expected ctx, errors or class"),
                ));
            };
            if repeated {
                return Err(syn::Error::new(
                    word.span(),
                    format!("`{word}` is given twice"),
                ));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what: &str| syn::Error::new(Span::call_site(), format!("missing {what}"));
        Ok(Self {
            context: context.ok_or_else(|| missing("ctx = EXPRESSION"))?,
            errors: errors
                .filter(|list| !list.is_empty())
                .ok_or_else(|| missing("errors(NAME, ...)"))?,
            class,
        })
    }
}

#[cfg(test)]
mod tests;
