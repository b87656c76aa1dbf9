//! Scalar functions written once in a small part of Rust: they stay the Rust they are, and are printed as
//! C for the CUDA kernels.
//!
//! The part: `fn` of f64 parameters and f64 result, `let`, assignments, `if`/`else` and `while` as
//! statements, `return`, calls by name, constants of f64 and arrays of them, `usize` locals as indices.
//! Anything else is reported at its token.

use crate::parse::Error;
use proc_macro::{Delimiter, Spacing, Span, TokenStream, TokenTree};

type Result<T> = std::result::Result<T, Error>;

/// The items with lints for their style switched off, and `CUDA`: their text in C.
pub fn functions(ts: TokenStream) -> Result<TokenStream> {
    let tokens: Vec<TokenTree> = ts.into_iter().collect();
    let mut rust = TokenStream::new();
    let mut c = String::new();
    let mut names = String::new();
    let mut i = 0;
    while i < tokens.len() {
        let start = i;
        let mut public = false;
        // Documentation.
        while is_punct(tokens.get(i), '#') {
            i += 2;
        }
        if word(tokens.get(i)).as_deref() == Some("pub") {
            public = true;
            i += 1;
        }
        let span = tokens.get(i).map_or(Span::call_site(), |t| t.span());
        match word(tokens.get(i)).as_deref() {
            Some("const") => {
                let name = name(tokens.get(i + 1))?;
                let end = tokens[i..].iter().position(|t| is_punct(Some(t), ';')).map(|n| i + n);
                let Some(end) = end else { return Err(Error(span, "expected `;`".into())) };
                let eq = tokens[i..end].iter().position(|t| is_punct(Some(t), '=')).map(|n| i + n);
                let Some(eq) = eq else { return Err(Error(span, "expected `=`".into())) };
                match tokens.get(eq + 1) {
                    Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Bracket => {
                        let mut list = String::new();
                        body(&g.stream().into_iter().collect::<Vec<_>>(), &mut list)?;
                        c.push_str(&format!("SP_TABLE double {name}[] = {{{}}};\n", list.trim()));
                    }
                    _ => {
                        let mut value = String::new();
                        body(&tokens[eq + 1..end], &mut value)?;
                        c.push_str(&format!("static constexpr double {name} = {};\n", value.trim()));
                    }
                }
                i = end + 1;
                rust.extend(tokens[start..i].iter().cloned());
            }
            Some("fn") => {
                let name = name(tokens.get(i + 1))?;
                let (Some(TokenTree::Group(params)), Some(TokenTree::Group(code))) =
                    (tokens.get(i + 2), tokens.get(i + 6))
                else {
                    return Err(Error(span, "expected `fn name(...) -> f64 { ... }`".into()));
                };
                let inputs: Vec<TokenTree> = params.stream().into_iter().collect();
                let list: Vec<String> = inputs
                    .split(|t| is_punct(Some(t), ','))
                    .filter(|p| !p.is_empty())
                    .map(|p| {
                        let at = usize::from(word(p.first()).as_deref() == Some("mut"));
                        Ok(format!("double {}", self::name(p.get(at))?))
                    })
                    .collect::<Result<_>>()?;
                c.push_str(&format!("SP_FN double {name}({}) {{\n", list.join(", ")));
                body(&code.stream().into_iter().collect::<Vec<_>>(), &mut c)?;
                c.push_str("\n}\n");
                if public {
                    names.push_str(&format!("(\"{name}\", {}),", list.len()));
                }
                i += 7;
                rust.extend(
                    "#[allow(clippy::all, clippy::pedantic)]".parse::<TokenStream>().unwrap_or_default(),
                );
                rust.extend(tokens[start..i].iter().cloned());
            }
            _ => return Err(Error(span, "expected `fn` or `const`".into())),
        }
    }
    let text = proc_macro::Literal::string(&c).to_string();
    let tail = format!(
        "/// The items above in C.\npub(crate) const CUDA: &str = {text};\n#[allow(dead_code)]\n/// Name and arity of the public ones.\npub(crate) const NAMES: &[(&str, usize)] = &[{names}];"
    );
    rust.extend(tail.parse::<TokenStream>().unwrap_or_default());
    Ok(rust)
}

fn is_punct(t: Option<&TokenTree>, c: char) -> bool {
    matches!(t, Some(TokenTree::Punct(p)) if p.as_char() == c)
}

fn word(t: Option<&TokenTree>) -> Option<String> {
    match t {
        Some(TokenTree::Ident(i)) => Some(i.to_string()),
        _ => None,
    }
}

fn name(t: Option<&TokenTree>) -> Result<String> {
    word(t).ok_or_else(|| Error(t.map_or(Span::call_site(), |t| t.span()), "expected a name".into()))
}

/// Statements or an expression, printed.
fn body(tokens: &[TokenTree], c: &mut String) -> Result<()> {
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            TokenTree::Ident(id) => match id.to_string().as_str() {
                "let" => {
                    i += 1;
                    if word(tokens.get(i)).as_deref() == Some("mut") {
                        i += 1;
                    }
                    let n = name(tokens.get(i))?;
                    let mut kind = "double";
                    if is_punct(tokens.get(i + 1), ':') {
                        kind = match word(tokens.get(i + 2)).as_deref() {
                            Some("f64") => "double",
                            Some("bool") => "bool",
                            Some("usize") => "int",
                            _ => return Err(Error(id.span(), "a local is f64, bool or usize".into())),
                        };
                        i += 2;
                    }
                    c.push_str(&format!("{kind} {n} "));
                }
                w @ ("if" | "while") => {
                    let end = tokens[i..]
                        .iter()
                        .position(|t| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace));
                    let Some(end) = end.map(|n| i + n) else {
                        return Err(Error(id.span(), "expected `{`".into()));
                    };
                    c.push_str(&format!("{w} ("));
                    body(&tokens[i + 1..end], c)?;
                    c.push_str(") ");
                    i = end;
                    continue;
                }
                // Only `as f64`, which C does by itself.
                "as" => {
                    if word(tokens.get(i + 1)).as_deref() != Some("f64") {
                        return Err(Error(id.span(), "only `as f64` can be printed as C".into()));
                    }
                    i += 1;
                }
                w @ ("match" | "for" | "loop" | "fn" | "mod" | "unsafe") => {
                    return Err(Error(id.span(), format!("`{w}` can't be printed as C")));
                }
                w => c.push_str(&format!("{w} ")),
            },
            TokenTree::Literal(l) => c.push_str(&format!("{l} ")),
            TokenTree::Punct(p) => match (p.as_char(), p.spacing()) {
                // A reference to a table; `&&` comes as a joint pair.
                ('&', Spacing::Alone) => {}
                ('&', Spacing::Joint) => {
                    c.push_str("&& ");
                    i += 1;
                }
                (';', _) => c.push_str(";\n"),
                (ch, Spacing::Joint) => c.push(ch),
                (ch, Spacing::Alone) => c.push_str(&format!("{ch} ")),
            },
            TokenTree::Group(g) => {
                let (open, close) = match g.delimiter() {
                    Delimiter::Brace => ("{\n", "}\n"),
                    Delimiter::Bracket => ("[", "] "),
                    _ => ("(", ") "),
                };
                c.push_str(open);
                body(&g.stream().into_iter().collect::<Vec<_>>(), c)?;
                c.push_str(close);
            }
        }
        i += 1;
    }
    Ok(())
}
