//! Turns parsed rows into Rust: zero-sized formula types, static records, the callback macros.

use crate::parse::{Formula, Reduction, Row};
use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use std::fmt::Write;

fn quote_str(s: &str) -> String {
    Literal::string(s).to_string()
}

fn parse(s: &str) -> TokenStream {
    s.parse().unwrap_or_else(|e| panic!("pyrite-table emitted invalid Rust: {e}\n{s}"))
}

/// `{ let s = ...; ... <formula> }` with the row's own spans inside.
fn body(f: &Formula) -> TokenStream {
    let mut out = TokenStream::new();
    for (name, value, _, _) in &f.lets {
        let mut t = parse("let");
        t.extend([TokenTree::from(name.clone())]);
        t.extend(parse(": V ="));
        t.extend(value.clone());
        t.extend(parse(";"));
        out.extend(t);
    }
    out.extend(f.rust.clone());
    out
}

fn braces(ts: TokenStream) -> TokenTree {
    Group::new(Delimiter::Brace, ts).into()
}

fn text_record(f: &Formula) -> String {
    let lets = |i: usize| {
        f.lets.iter().fold(String::new(), |mut s, l| {
            let _ = write!(
                s,
                "({}, {}),",
                quote_str(&l.0.to_string()),
                quote_str(if i == 0 { &l.2 } else { &l.3 })
            );
            s
        })
    };
    format!(
        "crate::rows::Text {{ lets: &[{}], body: {}, cuda_lets: &[{}], cuda: {} }}",
        lets(0),
        quote_str(&f.text),
        lets(1),
        quote_str(&f.cuda)
    )
}

/// The lane trait of a class; with `complex`, the part of it that complex numbers have.
fn class_trait(class: &str, complex: bool) -> &'static str {
    match (class, complex) {
        ("any", _) => "Any",
        ("num", false) => "Num",
        ("num", true) => "Ring",
        ("int", _) => "Int",
        (_, false) => "Float",
        (_, true) => "Field",
    }
}

/// `complex` or `real`, for the callback macros.
fn kind(complex: bool) -> &'static str {
    if complex { "complex" } else { "real" }
}

/// `impl Eval<V> for T { fn eval(x: &[V; 4], p: &[V; 4]) -> ... { let name = x[i]; ...; formula } }`
fn impl_eval(
    ty: &str,
    class: &str,
    complex: bool,
    mask: bool,
    inputs: &[String],
    params: &[String],
    f: &Formula,
    arity: usize,
) -> TokenStream {
    let (tr, out) = if mask { ("EvalMask", "V::M") } else { ("Eval", "V") };
    let mut head = parse(&format!(
        "impl<V: crate::expr::{}> crate::rows::{tr}<V> for {ty}",
        class_trait(class, complex)
    ));
    let mut fun = parse(&format!(
        "const INPUTS: usize = {arity}; const PARAMS: usize = {};
         #[inline(always)] #[allow(unused_variables, unused_parens)] fn eval(x__: &[V; 4], p__: &[V; 4]) -> {out}", params.len()
    ));
    let mut inner = TokenStream::new();
    inner.extend(parse("#[allow(unused_imports)] use crate::expr::vocab::*;"));
    for (i, name) in inputs.iter().enumerate() {
        inner.extend(parse(&format!("let {name} = x__[{i}];")));
    }
    for (i, name) in params.iter().enumerate() {
        inner.extend(parse(&format!("let {name} = p__[{i}];")));
    }
    inner.extend(body(f));
    // The names above have call-site spans, the formula keeps the row's: same hygiene (call_site).
    fun.extend([braces(inner)]);
    head.extend([braces(fun)]);
    head
}

pub fn rows(rows: &[Row]) -> TokenStream {
    let mut out = TokenStream::new();
    let (mut records, mut ids, mut list) = (String::new(), String::new(), String::new());
    for (n, r) in rows.iter().enumerate() {
        let name = r.name.to_string();
        let inputs: Vec<String> = r.inputs.iter().map(|i| i.to_string()).collect();
        let params: Vec<String> = r.params.iter().map(|p| p.0.to_string()).collect();
        let mut module = parse("pub struct Fwd;");
        let complex = r.flags.iter().any(|f| f == "complex");
        let bool_out = r.bool_out;
        let fwd = impl_eval("Fwd", &r.class, complex, bool_out, &inputs, &params, &r.forward, inputs.len());
        module.extend(fwd);
        let mut grads = String::new();
        let mut grad_types = String::new();
        for (i, f) in &r.grads {
            // Operands of the gradient kernel: g, then the inputs and the output it mentions.
            let mut names = vec!["g".to_string()];
            let mut uses = String::new();
            for (k, input) in inputs.iter().enumerate() {
                if f.names.contains(input) {
                    names.push(input.clone());
                    let _ = write!(uses, "crate::rows::Use::Input({k}),");
                }
            }
            if f.names.contains(&"y".to_string()) {
                names.push("y".into());
                uses.push_str("crate::rows::Use::Output,");
            }
            module.extend(parse(&format!("pub struct Grad{i};")));
            // Only floating (and complex) tensors have gradients, whatever the row's class.
            let ty = format!("Grad{i}");
            module.extend(impl_eval(&ty, "float", complex, false, &names, &params, f, names.len()));
            let _ = write!(
                grads,
                "crate::rows::Grad {{ input: {i}, uses: &[{uses}], text: {} }},",
                text_record(f)
            );
            let _ = write!(grad_types, " Grad{i} {i}");
        }
        let mut m: TokenStream = parse("#[allow(clippy::all, unused)] pub mod");
        m.extend([TokenTree::from(Ident::new_raw(&name, Span::call_site())), braces(module)]);
        out.extend(m);
        let strs = |v: &[String]| v.iter().map(|s| quote_str(s) + ",").collect::<String>();
        let params_rec = r.params.iter().fold(String::new(), |mut s, (id, d)| {
            let d = d.as_ref().map_or("None".into(), |d| format!("Some({d} as f64)"));
            let _ = write!(s, "({}, {d}),", quote_str(&id.to_string()));
            s
        });
        let class = r.class[..1].to_uppercase() + &r.class[1..];
        let _ = write!(
            records,
            "crate::rows::Row {{ id: crate::rows::RowId({n}), name: {}, doc: {}, class: crate::rows::Class::{class}, bool_out: {}, inputs: &[{}], params: &[{params_rec}], forward: {}, grads: &[{grads}], namespace: {}, aliases: &[{}], sample: ({}, {}), flags: 0 {} }},",
            quote_str(&name),
            quote_str(&r.docs),
            r.bool_out,
            strs(&inputs),
            text_record(&r.forward),
            quote_str(&r.namespace),
            strs(&r.aliases),
            r.sample.0,
            r.sample.1,
            r.flags.iter().fold(String::new(), |s, f| s + "| crate::rows::flag::" + &f.to_uppercase())
        );
        let _ =
            write!(ids, "pub const {}: crate::rows::RowId = crate::rows::RowId({n});", name.to_uppercase());
        let _ = write!(
            list,
            "[r#{name} {n} {} {} {} {{{grad_types} }}]",
            r.class,
            if r.flags.iter().any(|f| f == "rare") { "rare" } else { kind(complex) },
            if r.bool_out { "mask" } else { "same" }
        );
    }
    out.extend(parse(&format!(
        "/// Every elementwise row, in table order.\npub static ROWS: &[crate::rows::Row] = &[{records}];"
    )));
    out.extend(parse(&format!("/// The rows' ids by name.\n#[allow(missing_docs)] pub mod id {{ {ids} }}")));
    out.extend(parse(&format!(
        "/// Calls `$cb!` with `[module id class complex|real|rare same|mask {{ GradI i ... }}]` for every row.
         #[macro_export] macro_rules! for_each_row {{ ($cb:ident) => {{ $cb! {{ {list} }} }} }}"
    )));
    out
}

pub fn reductions(rows: &[Reduction]) -> TokenStream {
    let mut out = TokenStream::new();
    let (mut records, mut ids, mut list) = (String::new(), String::new(), String::new());
    for (n, r) in rows.iter().enumerate() {
        let name = r.name.to_string();
        let params: Vec<String> = r.params.iter().map(|p| p.0.to_string()).collect();
        let tr = class_trait(&r.class, r.complex);
        let mut imp =
            parse(&format!("pub struct R; impl<V: crate::expr::{tr}> crate::rows::Reduce<V> for R"));
        let mut fns = TokenStream::new();
        for (fun, args, f) in [
            ("start", vec![], &r.start),
            ("map", vec!["x"], &r.map),
            ("combine", vec!["a", "b"], &r.combine),
            ("finish", vec!["a", "n"], &r.finish),
        ] {
            let sig = args.iter().map(|a| format!("{a}: V,")).collect::<String>();
            fns.extend(parse(&format!(
                "#[inline(always)] #[allow(unused_variables)] fn {fun}({sig} p__: &[V; 4]) -> V"
            )));
            let mut inner = parse("#[allow(unused_imports)] use crate::expr::vocab::*;");
            for (i, p) in params.iter().enumerate() {
                inner.extend(parse(&format!("let {p} = p__[{i}];")));
            }
            inner.extend(body(f));
            fns.extend([braces(inner)]);
        }
        imp.extend([braces(fns)]);
        let mut m: TokenStream = parse("#[allow(clippy::all, unused)] pub mod");
        m.extend([TokenTree::from(Ident::new_raw(&name, Span::call_site())), braces(imp)]);
        out.extend(m);
        let _ = write!(
            records,
            "crate::rows::Reduction {{ id: crate::rows::ReduceId({n}), name: {}, doc: {}, class: crate::rows::Class::{}, complex: {}, params: &[{}], start: {}, map: {}, combine: {}, finish: {} }},",
            quote_str(&name),
            quote_str(&r.docs),
            class_trait(&r.class, false),
            r.complex,
            params.iter().map(|p| quote_str(p) + ",").collect::<String>(),
            text_record(&r.start),
            text_record(&r.map),
            text_record(&r.combine),
            text_record(&r.finish)
        );
        let _ = write!(
            ids,
            "pub const {}: crate::rows::ReduceId = crate::rows::ReduceId({n});",
            name.to_uppercase()
        );
        let _ = write!(list, "[r#{name} {n} {} {}]", r.class, kind(r.complex));
    }
    out.extend(parse(&format!(
        "/// Every reduction row.\npub static REDUCTIONS: &[crate::rows::Reduction] = &[{records}];"
    )));
    out.extend(parse(&format!(
        "/// The reductions' ids by name.\n#[allow(missing_docs)] pub mod id {{ {ids} }}"
    )));
    out.extend(parse(&format!(
        "/// Calls `$cb!` with `[module id class complex|real]` for every reduction row.
         #[macro_export] macro_rules! for_each_reduction {{ ($cb:ident) => {{ $cb! {{ {list} }} }} }}"
    )));
    out
}
