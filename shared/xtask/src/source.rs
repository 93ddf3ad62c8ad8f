//! What is in a Rust file, and at which line: read with a parser, not with patterns.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use syn::visit::{self, Visit};

/// Something with a name that a reader may look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// `attention`, `Cache`, `KvCache::update_and_fetch`
    pub(crate) name: String,
    /// Its first line after documentation and attributes, from 1.
    pub(crate) line: usize,
    pub(crate) is_function: bool,
}

pub(crate) fn parse(path: &Path) -> Result<syn::File> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse_text(&text).with_context(|| format!("reading {}", path.display()))
}

fn parse_text(text: &str) -> Result<syn::File> {
    syn::parse_file(text)
        .map_err(|error| anyhow!("line {} is no Rust: {error}", error.span().start().line))
}

/// The documentation of the file itself, without the space that follows `//!`.
pub(crate) fn docs(file: &syn::File) -> String {
    let mut text = String::new();
    for attribute in &file.attrs {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            continue;
        };
        if let (
            true,
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(line),
                ..
            }),
        ) = (pair.path.is_ident("doc"), &pair.value)
        {
            let line = line.value();
            text += line.strip_prefix(' ').unwrap_or(&line);
            text += "\n";
        }
    }
    text
}

/// The modules that a file declares as files of their own, tests aside.
pub(crate) fn modules(file: &syn::File) -> Vec<String> {
    let declared = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() => Some(module),
        _ => None,
    });
    declared
        .filter(|module| !module.attrs.iter().any(|a| a.path().is_ident("cfg")))
        .map(|module| module.ident.to_string())
        .collect()
}

/// Takes the test modules out of a file; how many lines they had.
pub(crate) fn take_tests(file: &mut syn::File) -> usize {
    let mut lines = 0;
    file.items.retain(|item| {
        let syn::Item::Mod(module) = item else {
            return true;
        };
        let is_test = module.attrs.iter().any(|a| a.path().is_ident("cfg"));
        if let (true, Some((braces, _))) = (is_test, &module.content) {
            // The attribute's line is above.
            let (first, last) = (module.mod_token.span.start(), braces.span.close().end());
            lines += last.line - first.line + 2;
        }
        !is_test
    });
    lines
}

/// All functions, types and constants of a file, those inside functions and modules included.
pub(crate) fn items(file: &syn::File) -> Vec<Item> {
    let mut walk = Walk::default();
    walk.visit_file(file);
    walk.found
}

#[derive(Default)]
struct Walk {
    found: Vec<Item>,
    /// The type or trait whose block we are in.
    owner: Option<String>,
}

impl Walk {
    fn push(&mut self, name: &syn::Ident, line: usize, is_function: bool) {
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{name}"),
            None => name.to_string(),
        };
        self.found.push(Item {
            name,
            line,
            is_function,
        });
    }

    fn function(&mut self, signature: &syn::Signature) {
        self.push(&signature.ident, signature.fn_token.span.start().line, true);
    }

    fn inside(&mut self, owner: Option<String>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig);
        self.inside(None, |walk| visit::visit_item_fn(walk, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig);
        self.inside(None, |walk| visit::visit_impl_item_fn(walk, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig);
        self.inside(None, |walk| visit::visit_trait_item_fn(walk, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let owner = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        self.inside(owner, |walk| visit::visit_item_impl(walk, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.push(&item.ident, item.trait_token.span.start().line, false);
        let owner = Some(item.ident.to_string());
        self.inside(owner, |walk| visit::visit_item_trait(walk, item));
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.push(&item.ident, item.struct_token.span.start().line, false);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.push(&item.ident, item.enum_token.span.start().line, false);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.push(&item.ident, item.const_token.span.start().line, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"//! Map.
//!
//! - one

mod inner;
#[cfg(test)]
mod tests;

/// A type.
#[derive(Debug)]
pub struct Cache;

impl Cache {
    /// Not counted: it is above.
    pub fn len<T>(
        &self,
    ) -> usize {
        fn helper() {}
        // fn in_a_comment() {
        let text = "fn in_a_string() {";
        text.len()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {}
}

trait Keeps {
    fn keep(&self);
}
"#;

    #[test]
    fn functions_are_found_with_their_owner_and_line() {
        let file = parse_text(CODE).unwrap();
        let told: Vec<_> = items(&file)
            .into_iter()
            .map(|item| (item.name, item.line, item.is_function))
            .collect();
        let told: Vec<_> = told.iter().map(|(n, l, f)| (n.as_str(), *l, *f)).collect();
        assert_eq!(
            told,
            [
                ("Cache", 11, false),
                ("Cache::len", 15, true),
                ("helper", 18, true),
                ("Cache::drop", 26, true),
                ("Keeps", 29, false),
                ("Keeps::keep", 30, true),
            ]
        );
        assert_eq!(modules(&file), ["inner"]);
        assert_eq!(docs(&file), "Map.\n\n- one\n");
    }

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        let error = parse_text("fn a() {}\nfn b( {}\n")
            .err()
            .unwrap()
            .to_string();
        assert!(error.starts_with("line 2 is no Rust: "), "{error}");
    }
}
