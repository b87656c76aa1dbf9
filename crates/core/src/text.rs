//! Reads a formula's text back into a small tree. `tensor` evaluates it over whole tensors: that is
//! the differentiable form of a gradient, used when a graph of the backward is wanted
//! (`create_graph=True`). The proc macro has already checked every word, so reading cannot fail on
//! a row of the table; it still returns an error rather than panic.

use crate::rows::Text;
use crate::{Result, bail};

#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    Number(f64),
    Name(&'static str),
    Call(&'static str, Vec<Expr>),
}

/// A formula: its where-bindings in order, then its body. Operators are calls of `add`, `sub`,
/// `mul`, `div`, `neg`, `bitand`, `bitor`, `bitxor`, `not`.
pub struct Formula {
    pub lets: Vec<(&'static str, Expr)>,
    pub body: Expr,
}

pub fn parse(t: &'static Text) -> Result<Formula> {
    let lets = t.lets.iter().map(|(n, e)| Ok((*n, Parser::run(e)?))).collect::<Result<_>>()?;
    Ok(Formula { lets, body: Parser::run(t.body)? })
}

struct Parser {
    src: &'static str,
    at: usize,
}

impl Parser {
    fn run(src: &'static str) -> Result<Expr> {
        let mut p = Parser { src, at: 0 };
        let e = p.binary(0)?;
        if p.peek().is_some() {
            bail!(Runtime, "op table: trailing text in formula `{src}`");
        }
        Ok(e)
    }
    fn peek(&mut self) -> Option<u8> {
        let b = self.src.as_bytes();
        while b.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        b.get(self.at).copied()
    }
    fn binary(&mut self, level: usize) -> Result<Expr> {
        const LEVELS: &[&[(u8, &str)]] = &[
            &[(b'|', "bitor")],
            &[(b'^', "bitxor")],
            &[(b'&', "bitand")],
            &[(b'+', "add"), (b'-', "sub")],
            &[(b'*', "mul"), (b'/', "div")],
        ];
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(c) = self.peek() {
            let Some((_, name)) = LEVELS[level].iter().find(|o| o.0 == c) else {
                break;
            };
            self.at += 1;
            left = Expr::Call(name, vec![left, self.binary(level + 1)?]);
        }
        Ok(left)
    }
    fn unary(&mut self) -> Result<Expr> {
        let op = match self.peek() {
            Some(b'-') => "neg",
            Some(b'!') => "not",
            _ => return self.atom(),
        };
        self.at += 1;
        Ok(match (op, self.unary()?) {
            ("neg", Expr::Number(v)) => Expr::Number(-v),
            (op, e) => Expr::Call(op, vec![e]),
        })
    }
    fn atom(&mut self) -> Result<Expr> {
        let src: &'static str = self.src;
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let e = self.binary(0)?;
                self.close()?;
                Ok(e)
            }
            Some(c) if c.is_ascii_digit() => {
                let start = self.at;
                while src.as_bytes().get(self.at).is_some_and(|c| c.is_ascii_digit() || *c == b'.') {
                    self.at += 1;
                }
                match src[start..self.at].parse() {
                    Ok(v) => Ok(Expr::Number(v)),
                    Err(_) => bail!(Runtime, "op table: bad number in formula `{src}`"),
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
                let start = self.at;
                while src.as_bytes().get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
                    self.at += 1;
                }
                let name = &src[start..self.at];
                if src.as_bytes().get(self.at) != Some(&b'(') {
                    return Ok(match name {
                        "inf" => Expr::Number(f64::INFINITY),
                        "nan" => Expr::Number(f64::NAN),
                        "pi" => Expr::Number(std::f64::consts::PI),
                        _ => Expr::Name(name),
                    });
                }
                self.at += 1;
                let mut args = vec![self.binary(0)?];
                while self.peek() == Some(b',') {
                    self.at += 1;
                    args.push(self.binary(0)?);
                }
                self.close()?;
                Ok(Expr::Call(name, args))
            }
            _ => bail!(Runtime, "op table: cannot read formula `{src}` at {}", self.at),
        }
    }
    fn close(&mut self) -> Result<()> {
        if self.peek() == Some(b')') {
            self.at += 1;
            return Ok(());
        }
        bail!(Runtime, "op table: missing `)` in formula `{}`", self.src)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test a panic is the report.
mod tests {
    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn every_formula_reads() {
        for r in ROWS {
            parse(&r.forward).unwrap();
            for g in r.grads {
                parse(&g.text).unwrap();
            }
        }
    }

    #[test]
    fn precedence() {
        let e = Parser::run("a + b * -c").unwrap();
        assert_eq!(
            format!("{e:?}"),
            r#"Call("add", [Name("a"), Call("mul", [Name("b"), Call("neg", [Name("c")])])])"#
        );
    }
}
