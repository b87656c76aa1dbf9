//! Reads rows from tokens and checks every word of every formula against the vocabulary.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// The vocabulary (`core/src/expr.rs`, module `vocab`; `kernels/prelude.cuh`), with arity.
const FUNCTIONS: &[(&str, usize)] = &[
    ("abs", 1),
    ("conj", 1),
    ("sqrt", 1),
    ("floor", 1),
    ("ceil", 1),
    ("trunc", 1),
    ("round", 1),
    ("exp", 1),
    ("exp2", 1),
    ("expm1", 1),
    ("log", 1),
    ("log2", 1),
    ("log10", 1),
    ("log1p", 1),
    ("sin", 1),
    ("cos", 1),
    ("tan", 1),
    ("asin", 1),
    ("acos", 1),
    ("atan", 1),
    ("sinh", 1),
    ("cosh", 1),
    ("tanh", 1),
    ("asinh", 1),
    ("acosh", 1),
    ("atanh", 1),
    ("sigmoid", 1),
    ("erf", 1),
    ("erfc", 1),
    ("erfinv", 1),
    ("lgamma", 1),
    ("digamma", 1),
    ("signbit", 1),
    ("negate", 1),
    ("maximum", 2),
    ("minimum", 2),
    ("fmod", 2),
    ("trunc_div", 2),
    ("floor_div", 2),
    ("remainder", 2),
    ("pow", 2),
    ("shl", 2),
    ("shr", 2),
    ("gcd", 2),
    ("atan2", 2),
    ("hypot", 2),
    ("copysign", 2),
    ("nextafter", 2),
    ("eq", 2),
    ("ne", 2),
    ("lt", 2),
    ("le", 2),
    ("gt", 2),
    ("ge", 2),
    ("both", 2),
    ("either", 2),
    ("differ", 2),
    ("lcm", 2),
    ("fma", 3),
    ("select", 3),
];

/// Functions of `pyrite-special`, with arity: a formula that calls one runs element by element, in one
/// loop that no instruction set has a copy of.
const RARE: &[(&str, usize)] = &[
    ("i0", 1),
    ("i0e", 1),
    ("i1", 1),
    ("i1e", 1),
    ("bessel_j0", 1),
    ("bessel_j1", 1),
    ("bessel_y0", 1),
    ("bessel_y1", 1),
    ("modified_bessel_k0", 1),
    ("modified_bessel_k1", 1),
    ("scaled_modified_bessel_k0", 1),
    ("scaled_modified_bessel_k1", 1),
    ("airy_ai", 1),
    ("erfcx", 1),
    ("ndtr", 1),
    ("log_ndtr", 1),
    ("ndtri", 1),
    ("frexp_mantissa", 1),
    ("frexp_exponent", 1),
    ("power_of_two", 1),
    ("zeta", 2),
    ("polygamma", 2),
    ("gammainc", 2),
    ("gammaincc", 2),
    ("chebyshev_polynomial_t", 2),
    ("chebyshev_polynomial_u", 2),
    ("chebyshev_polynomial_v", 2),
    ("chebyshev_polynomial_w", 2),
    ("shifted_chebyshev_polynomial_t", 2),
    ("shifted_chebyshev_polynomial_u", 2),
    ("shifted_chebyshev_polynomial_v", 2),
    ("shifted_chebyshev_polynomial_w", 2),
    ("hermite_polynomial_h", 2),
    ("hermite_polynomial_he", 2),
    ("laguerre_polynomial_l", 2),
    ("legendre_polynomial_p", 2),
];

/// Constants a formula may name.
const CONSTANTS: &[(&str, &str)] =
    &[("inf", "f64::INFINITY"), ("nan", "f64::NAN"), ("pi", "std::f64::consts::PI")];

pub struct Error(pub Span, pub String);

impl Error {
    pub fn into_compile_error(self) -> TokenStream {
        let msg = TokenStream::from(TokenTree::from(Literal::string(&self.1)));
        let mut bang = Punct::new('!', Spacing::Alone);
        bang.set_span(self.0);
        let mut args = Group::new(Delimiter::Brace, msg);
        args.set_span(self.0);
        [TokenTree::from(Ident::new("compile_error", self.0)), bang.into(), args.into()].into_iter().collect()
    }
}

type Result<T> = std::result::Result<T, Error>;

/// A formula in its three printed forms and the names it mentions.
pub struct Formula {
    /// Rust over lane types, spans kept.
    pub rust: TokenStream,
    /// As written: read again by `core::text`.
    pub text: String,
    /// With literals wrapped for CUDA's `A`.
    pub cuda: String,
    pub names: Vec<String>,
    pub lets: Vec<(Ident, TokenStream, String, String)>,
}

impl Formula {
    /// Does it call one of the rare functions?
    fn is_rare(&self) -> bool {
        let calls = |text: &str, name: &str| {
            text.match_indices(&format!("{name}("))
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        RARE.iter().any(|(f, _)| calls(&self.text, f) || self.lets.iter().any(|l| calls(&l.2, f)))
    }
}

pub struct Row {
    pub docs: String,
    pub name: Ident,
    pub class: String,
    pub inputs: Vec<Ident>,
    pub params: Vec<(Ident, Option<String>)>,
    pub bool_out: bool,
    pub forward: Formula,
    pub grads: Vec<(usize, Formula)>,
    pub namespace: String,
    pub aliases: Vec<String>,
    pub sample: (String, String),
    pub flags: Vec<String>,
}

pub struct Reduction {
    pub docs: String,
    pub name: Ident,
    pub class: String,
    /// Takes complex numbers as well.
    pub complex: bool,
    pub params: Vec<(Ident, Option<String>)>,
    pub start: Formula,
    pub map: Formula,
    pub combine: Formula,
    pub finish: Formula,
}

struct Cursor {
    tokens: Vec<TokenTree>,
    at: usize,
    end: Span,
}

impl Cursor {
    fn new(ts: TokenStream, end: Span) -> Cursor {
        Cursor { tokens: ts.into_iter().collect(), at: 0, end }
    }
    fn peek(&self) -> Option<&TokenTree> {
        self.tokens.get(self.at)
    }
    fn peek_punct(&self, c: char) -> bool {
        matches!(self.peek(), Some(TokenTree::Punct(p)) if p.as_char() == c)
    }
    fn peek_ident(&self) -> Option<String> {
        match self.peek() {
            Some(TokenTree::Ident(i)) => Some(i.to_string()),
            _ => None,
        }
    }
    fn next(&mut self) -> Option<TokenTree> {
        let t = self.tokens.get(self.at).cloned();
        self.at += 1;
        t
    }
    fn span(&self) -> Span {
        self.peek().map_or(self.end, |t| t.span())
    }
    fn punct(&mut self, c: char) -> Result<()> {
        let span = self.span();
        match self.next() {
            Some(TokenTree::Punct(p)) if p.as_char() == c => Ok(()),
            _ => Err(Error(span, format!("expected `{c}`"))),
        }
    }
    fn ident(&mut self) -> Result<Ident> {
        let span = self.span();
        match self.next() {
            Some(TokenTree::Ident(i)) => Ok(i),
            _ => Err(Error(span, "expected a name".into())),
        }
    }
    fn group(&mut self) -> Result<Group> {
        let span = self.span();
        match self.next() {
            Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis => Ok(g),
            _ => Err(Error(span, "expected `(`".into())),
        }
    }
    fn string(&mut self) -> Result<String> {
        let span = self.span();
        match self.next() {
            Some(TokenTree::Literal(l)) if l.to_string().starts_with('"') => {
                Ok(l.to_string().trim_matches('"').into())
            }
            _ => Err(Error(span, "expected a string".into())),
        }
    }
    /// A number with an optional minus sign.
    fn number(&mut self) -> Result<String> {
        let sign = if self.peek_punct('-') {
            self.next();
            "-"
        } else {
            ""
        };
        let span = self.span();
        match self.next() {
            Some(TokenTree::Literal(l)) => Ok(format!("{sign}{l}")),
            _ => Err(Error(span, "expected a number".into())),
        }
    }
    /// Tokens up to `;` or the word `where`.
    fn until_end(&mut self) -> Vec<TokenTree> {
        let mut out = Vec::new();
        while let Some(t) = self.peek() {
            match t {
                TokenTree::Punct(p) if p.as_char() == ';' => break,
                TokenTree::Ident(i) if i.to_string() == "where" => break,
                _ => out.push(t.clone()),
            }
            self.at += 1;
        }
        out
    }
    fn docs(&mut self) -> String {
        let mut docs = String::new();
        while self.peek_punct('#') {
            self.next();
            if let Some(TokenTree::Group(g)) = self.next()
                && let Some(TokenTree::Literal(l)) = g.stream().into_iter().nth(2)
            {
                let s = l.to_string();
                let s = s.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(&s);
                docs.push_str(s.strip_prefix(' ').unwrap_or(s));
                docs.push('\n');
            }
        }
        docs.trim_end().replace("\\\"", "\"").replace("\\\\", "\\")
    }
}

/// One formula, up to and with its `;`. `known` are the names it may mention.
fn formula(c: &mut Cursor, known: &[String]) -> Result<Formula> {
    let start = c.span();
    let body = c.until_end();
    if body.is_empty() {
        return Err(Error(start, "expected a formula".into()));
    }
    let mut lets = Vec::new();
    let mut names = Vec::new();
    let mut known = known.to_vec();
    if c.peek_ident().as_deref() == Some("where") {
        c.next();
        // `where s = ..., t = ...`: split the tokens at top-level commas.
        let tokens = c.until_end();
        for part in tokens.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
            let mut p = Cursor::new(part.iter().cloned().collect(), start);
            let name = p.ident()?;
            p.punct('=')?;
            let mut f =
                Printer { known: &known, names: Vec::new(), text: String::new(), cuda: String::new() };
            let rust = f.walk(&p.tokens[p.at..])?;
            let Printer { names: used, text, cuda, .. } = f;
            names.extend(used);
            known.push(name.to_string());
            lets.push((name, rust, text, cuda));
        }
    }
    c.punct(';')?;
    let mut f = Printer { known: &known, names: Vec::new(), text: String::new(), cuda: String::new() };
    let rust = f.walk(&body)?;
    names.extend(f.names);
    let local: Vec<String> = lets.iter().map(|l| l.0.to_string()).collect();
    names.retain(|n| !local.contains(n));
    names.sort();
    names.dedup();
    Ok(Formula { rust, text: f.text, cuda: f.cuda, names, lets })
}

/// Walks a formula's tokens once, checks them and prints the three forms.
struct Printer<'a> {
    known: &'a [String],
    names: Vec<String>,
    text: String,
    cuda: String,
}

impl Printer<'_> {
    fn put(&mut self, s: &str) {
        self.text.push_str(s);
        self.cuda.push_str(s);
    }

    fn walk(&mut self, tokens: &[TokenTree]) -> Result<TokenStream> {
        let mut out: Vec<TokenTree> = Vec::new();
        let mut i = 0;
        while i < tokens.len() {
            match &tokens[i] {
                TokenTree::Literal(l) => {
                    let s = l.to_string();
                    if !s.contains('.') && !s.contains('e') {
                        return Err(Error(
                            l.span(),
                            format!("write `{s}.0`: numbers in a formula are floating literals"),
                        ));
                    }
                    out.extend(lit(&s, l.span()));
                    self.text.push_str(&s);
                    self.cuda.push_str(&format!("A({s})"));
                }
                TokenTree::Ident(id) => {
                    let name = id.to_string();
                    let call = matches!(tokens.get(i + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
                    if call {
                        let Some((_, arity)) = FUNCTIONS.iter().chain(RARE).find(|f| f.0 == name) else {
                            return Err(Error(
                                id.span(),
                                format!("`{name}` is not in the vocabulary (core/src/expr.rs)"),
                            ));
                        };
                        let Some(TokenTree::Group(g)) = tokens.get(i + 1) else { unreachable!() };
                        let args: Vec<TokenTree> = g.stream().into_iter().collect();
                        let n = 1 + args
                            .iter()
                            .filter(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ','))
                            .count();
                        if n != *arity {
                            return Err(Error(
                                id.span(),
                                format!("`{name}` takes {arity} arguments, got {n}"),
                            ));
                        }
                        out.push(id.clone().into());
                        self.put(&name);
                        self.put("(");
                        let inner = self.walk(&args)?;
                        self.put(")");
                        let mut group = Group::new(Delimiter::Parenthesis, inner);
                        group.set_span(g.span());
                        out.push(group.into());
                        i += 1;
                    } else if let Some((_, value)) = CONSTANTS.iter().find(|c| c.0 == name) {
                        // `-inf` is one constant: negating the integers' stand-in for infinity is not
                        // their lowest value.
                        let dash = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == '-');
                        let before = out.len().checked_sub(2).map(|i| &out[i]);
                        if out.last().is_some_and(dash)
                            && !matches!(before, Some(t) if !matches!(t, TokenTree::Punct(_)))
                        {
                            out.pop();
                            out.extend(lit(&format!("-{value}"), id.span()));
                        } else {
                            out.extend(lit(value, id.span()));
                        }
                        self.text.push_str(&name);
                        self.cuda.push_str(&format!("A_{}", name.to_uppercase()));
                    } else if self.known.contains(&name) {
                        self.names.push(name.clone());
                        out.push(id.clone().into());
                        self.put(&name);
                    } else {
                        return Err(Error(
                            id.span(),
                            format!("`{name}` is neither an input, a parameter nor a where-name of this row"),
                        ));
                    }
                }
                TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis => {
                    self.put("(");
                    let inner = self.walk(&g.stream().into_iter().collect::<Vec<_>>())?;
                    self.put(")");
                    let mut group = Group::new(Delimiter::Parenthesis, inner);
                    group.set_span(g.span());
                    out.push(group.into());
                }
                TokenTree::Punct(p) if "+-*/,&|^!".contains(p.as_char()) => {
                    // `-x` at the start keeps no space, so that text and CUDA stay readable.
                    let c = p.as_char();
                    let unary = self.text.is_empty() || self.text.ends_with(['(', '+', '-', '*', '/', ' ']);
                    match c {
                        ',' => self.put(", "),
                        '-' | '!' if unary => self.put(&c.to_string()),
                        _ => self.put(&format!(" {c} ")),
                    }
                    out.push(p.clone().into());
                }
                t => {
                    return Err(Error(
                        t.span(),
                        format!("`{t}` can't stand in a formula: operators, literals, vocabulary only"),
                    ));
                }
            }
            i += 1;
        }
        Ok(out.into_iter().collect())
    }
}

/// `V::lit(<value>)` at a span.
fn lit(value: &str, span: Span) -> TokenStream {
    let ts: TokenStream = format!("V::lit({value})").parse().unwrap_or_default();
    respan(ts, span)
}

fn respan(ts: TokenStream, span: Span) -> TokenStream {
    ts.into_iter()
        .map(|mut t| {
            if let TokenTree::Group(g) = &t {
                let mut g2 = Group::new(g.delimiter(), respan(g.stream(), span));
                g2.set_span(span);
                return g2.into();
            }
            t.set_span(span);
            t
        })
        .collect()
}

/// `(a: class, b: class; p = 1.0, q)`.
fn signature(g: Group) -> Result<(Vec<Ident>, String, Vec<(Ident, Option<String>)>)> {
    let mut c = Cursor::new(g.stream(), g.span_close());
    let (mut inputs, mut params, mut class) = (Vec::new(), Vec::new(), String::new());
    loop {
        inputs.push(c.ident()?);
        c.punct(':')?;
        let k = c.ident()?;
        if !["any", "num", "int", "float"].contains(&k.to_string().as_str()) {
            return Err(Error(k.span(), "the class is one of any, num, int, float".into()));
        }
        if !class.is_empty() && class != k.to_string() {
            return Err(Error(
                k.span(),
                "all inputs of a row have one class: they are computed in one dtype".into(),
            ));
        }
        class = k.to_string();
        if c.peek_punct(',') {
            c.next();
        } else {
            break;
        }
    }
    if c.peek_punct(';') {
        c.next();
        loop {
            let name = c.ident()?;
            let default = if c.peek_punct('=') {
                c.next();
                Some(c.number()?)
            } else {
                None
            };
            params.push((name, default));
            if c.peek_punct(',') {
                c.next();
            } else {
                break;
            }
        }
    }
    if c.peek().is_some() {
        return Err(Error(c.span(), "expected `)`".into()));
    }
    Ok((inputs, class, params))
}

pub fn rows(ts: TokenStream) -> Result<Vec<Row>> {
    let mut c = Cursor::new(ts, Span::call_site());
    let mut rows = Vec::new();
    while c.peek().is_some() {
        let docs = c.docs();
        let name = c.ident()?;
        let (inputs, class, params) = signature(c.group()?)?;
        let bool_out = c.peek_punct('-');
        if bool_out {
            c.punct('-')?;
            c.punct('>')?;
            let t = c.ident()?;
            if t.to_string() != "bool" {
                return Err(Error(t.span(), "a row's result is its class, or `bool`".into()));
            }
        }
        c.punct('=')?;
        let mut known: Vec<String> = inputs.iter().map(|i| i.to_string()).collect();
        known.extend(params.iter().map(|p| p.0.to_string()));
        let forward = formula(&mut c, &known)?;
        known.extend(["g".into(), "y".into()]);
        let mut row = Row {
            docs,
            name,
            class,
            inputs,
            params,
            bool_out,
            forward,
            grads: Vec::new(),
            namespace: String::new(),
            aliases: Vec::new(),
            sample: ("-2.0".into(), "2.0".into()),
            flags: Vec::new(),
        };
        while let (Some(word), false) =
            (c.peek_ident(), matches!(c.tokens.get(c.at + 1), Some(TokenTree::Group(_))))
        {
            let span = c.span();
            c.next();
            match word.as_str() {
                "grad" => {
                    let wrt = c.ident()?;
                    let Some(i) = row.inputs.iter().position(|x| x.to_string() == wrt.to_string()) else {
                        return Err(Error(wrt.span(), format!("`{wrt}` is not an input of this row")));
                    };
                    c.punct(':')?;
                    row.grads.push((i, formula(&mut c, &known)?));
                    continue;
                }
                "at" => row.namespace = c.string()?,
                "alias" => row.aliases.push(c.string()?),
                "sample" => {
                    let lo = c.number()?;
                    c.punct(',')?;
                    row.sample = (lo, c.number()?);
                }
                "flag" => row.flags.push(c.ident()?.to_string()),
                _ => {
                    return Err(Error(
                        span,
                        format!("`{word}`: expected grad, at, alias, sample, flag or the next row"),
                    ));
                }
            }
            c.punct(';')?;
        }
        if row.forward.is_rare() || row.grads.iter().any(|g| g.1.is_rare()) {
            row.flags.push("rare".into());
        }
        rows.push(row);
    }
    Ok(rows)
}

pub fn reductions(ts: TokenStream) -> Result<Vec<Reduction>> {
    let mut c = Cursor::new(ts, Span::call_site());
    let mut rows = Vec::new();
    while c.peek().is_some() {
        let docs = c.docs();
        let name = c.ident()?;
        let (_, class, params) = signature(c.group()?)?;
        c.punct(':')?;
        let p: Vec<String> = params.iter().map(|p| p.0.to_string()).collect();
        let mut part = |word: &str, names: &[&str]| -> Result<Formula> {
            let id = c.ident()?;
            if id.to_string() != word {
                return Err(Error(id.span(), format!("expected `{word}`")));
            }
            let known: Vec<String> = names.iter().map(|s| s.to_string()).chain(p.clone()).collect();
            formula(&mut c, &known)
        };
        let start = part("start", &[])?;
        let map = part("map", &["x"])?;
        let combine = part("combine", &["a", "b"])?;
        let finish = part("finish", &["a", "n"])?;
        let mut complex = false;
        // A row's name is followed by its inputs.
        if c.peek_ident().as_deref() == Some("flag")
            && !matches!(c.tokens.get(c.at + 1), Some(TokenTree::Group(_)))
        {
            c.next();
            let flag = c.ident()?;
            if flag.to_string() != "complex" {
                return Err(Error(flag.span(), "the only flag of a reduction is `complex`".into()));
            }
            c.punct(';')?;
            complex = true;
        }
        rows.push(Reduction { docs, name, class, complex, params, start, map, combine, finish });
    }
    Ok(rows)
}
