//! Einstein summation: subscripts read once, operands contracted in pairs by batched matrix products,
//! the cheapest pair first.

use super::*;
use crate::op;
use smallvec::SmallVec;

/// Labels of one operand or of the result. Letters are 0..52, dimensions under an ellipsis follow.
type Labels = SmallVec<[u8; 8]>;

const LETTERS: u8 = 52;
/// Where the ellipsis stands while its width is not known yet.
const DOTS: u8 = u8::MAX;

fn letter(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        _ => None,
    }
}

fn shown(l: u8) -> String {
    match l {
        0..26 => ((b'A' + l) as char).to_string(),
        26..52 => ((b'a' + l - 26) as char).to_string(),
        _ => "...".into(),
    }
}

fn read(text: &str, what: &str) -> Result<Labels> {
    let mut out = Labels::new();
    let b = text.as_bytes();
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            b' ' => {}
            b'.' => {
                ensure!(
                    b[i..].starts_with(b"...") && !out.contains(&DOTS),
                    Runtime,
                    "einsum(): found '.' for {what} that is not part of any ellipsis"
                );
                out.push(DOTS);
                i += 2;
            }
            c => match letter(c) {
                Some(l) => out.push(l),
                None => bail!(
                    Runtime,
                    "einsum(): invalid subscript given at index {i} in the equation string, subscripts must be in [a-zA-Z]"
                ),
            },
        }
        i += 1;
    }
    Ok(out)
}

/// One operand with a label for each dimension.
struct Part {
    t: Tensor,
    labels: Labels,
}

/// Repeated labels of one operand become a diagonal.
fn diagonals(mut p: Part) -> Result<Part> {
    let mut i = 0;
    while i < p.labels.len() {
        match p.labels[i + 1..].iter().position(|l| *l == p.labels[i]) {
            None => i += 1,
            Some(k) => {
                let j = i + 1 + k;
                let (si, sj) = (p.t.shape()[i], p.t.shape()[j]);
                ensure!(
                    si == sj,
                    Shape,
                    "einsum(): subscript {} is repeated for an operand, but the sizes don't match, {sj} != {si}",
                    shown(p.labels[i])
                );
                // The diagonal becomes the last dimension.
                p.t = ops::diagonal(&p.t, 0, i as i64, j as i64)?;
                let l = p.labels[i];
                p.labels.remove(j);
                p.labels.remove(i);
                p.labels.push(l);
            }
        }
    }
    Ok(p)
}

/// Sums over the labels that nobody else needs.
///
/// Sums of one operand alone have the dtype of `sum`; before a product they keep the operand's.
fn drop_unused(p: Part, alone: bool, needed: impl Fn(u8) -> bool) -> Result<Part> {
    let gone: SmallVec<[i64; 8]> =
        (0..p.labels.len()).filter(|i| !needed(p.labels[*i])).map(|i| i as i64).collect();
    if gone.is_empty() {
        return Ok(p);
    }
    let labels = p.labels.iter().copied().filter(|l| needed(*l)).collect();
    Ok(Part { t: ops::sum(&p.t, Some(&gone), false, (!alone).then(|| p.t.dtype()))?, labels })
}

fn size_of(p: &Part, l: u8) -> Option<usize> {
    p.labels.iter().position(|x| *x == l).map(|i| p.t.shape()[i])
}

/// `p` with its dimensions in the order of `groups`, each group flattened to one dimension; absent labels
/// have size 1, and those of size 1 are stretched to `size`.
fn arranged(p: &Part, groups: [&[u8]; 3], size: &dyn Fn(u8) -> usize, stretch: bool) -> Result<Tensor> {
    let mut order: SmallVec<[i64; 8]> = SmallVec::new();
    let mut shape: SmallVec<[i64; 8]> = SmallVec::new();
    let mut flat = [1i64; 3];
    for (g, group) in groups.iter().enumerate() {
        for l in *group {
            if let Some(i) = p.labels.iter().position(|x| x == l) {
                order.push(i as i64);
                let n = if stretch { size(*l) } else { p.t.shape()[i] };
                shape.push(n as i64);
                flat[g] *= n as i64;
            }
        }
    }
    let t = ops::permute(&p.t, &order)?;
    ops::reshape(&ops::expand(&t, &shape)?, &flat)
}

/// Contracts two operands; labels that `needed` does not want are summed over.
fn contract(a: Part, b: Part, needed: &dyn Fn(u8) -> bool) -> Result<Part> {
    // A size-1 dimension that meets a larger one is stretched by a plain product; sum it away first if it
    // can go.
    let in_a = |l: u8| a.labels.contains(&l);
    let in_b = |l: u8| b.labels.contains(&l);
    let (wa, wb) = (a.labels.clone(), b.labels.clone());
    let size = |l: u8| size_of(&a, l).unwrap_or(1).max(size_of(&b, l).unwrap_or(1));
    let size = |l: u8| match (size_of(&a, l), size_of(&b, l)) {
        (Some(0), _) | (_, Some(0)) => 0,
        _ => size(l),
    };
    let batch: Labels = wa.iter().copied().filter(|l| in_b(*l) && needed(*l)).collect();
    let inner: Labels = wa.iter().copied().filter(|l| in_b(*l) && !needed(*l)).collect();
    let left: Labels = wa.iter().copied().filter(|l| !in_b(*l)).collect();
    let right: Labels = wb.iter().copied().filter(|l| !in_a(*l)).collect();
    let x = arranged(&a, [&batch, &left, &inner], &size, true)?;
    let y = arranged(&b, [&batch, &inner, &right], &size, true)?;
    let z = match batch.is_empty() {
        // Nothing is summed: booleans, which have no matrix product, can be multiplied.
        _ if inner.is_empty() && a.t.dtype() == DType::Bool && b.t.dtype() == DType::Bool => {
            ops::mul(&x, &y)?
        }
        true => ops::unsqueeze(&mm(&ops::squeeze(&x, Some(&[0]))?, &ops::squeeze(&y, Some(&[0]))?)?, 0)?,
        false => ops::matmul::bmm(&x, &y)?,
    };
    let labels: Labels = batch.iter().chain(&left).chain(&right).copied().collect();
    let shape: SmallVec<[i64; 8]> = labels.iter().map(|l| size(*l) as i64).collect();
    Ok(Part { t: ops::reshape(&z, &shape)?, labels })
}

pub(super) fn einsum(equation: &str, tensors: &[Tensor]) -> Result<Tensor> {
    ensure!(!tensors.is_empty(), Runtime, "einsum(): must provide at least one operand");
    let (inputs, output) = match equation.split_once("->") {
        Some((i, o)) => (i, Some(o)),
        None => (equation, None),
    };
    let texts: Vec<&str> = inputs.split(',').collect();
    ensure!(
        texts.len() <= tensors.len(),
        Runtime,
        "einsum(): fewer operands were provided than specified in the equation"
    );
    ensure!(
        texts.len() == tensors.len(),
        Runtime,
        "einsum(): more operands were provided than specified in the equation"
    );
    let mut lists = Vec::with_capacity(texts.len());
    let mut width = 0usize;
    for (i, (text, t)) in texts.iter().zip(tensors).enumerate() {
        let l = read(text, &format!("operand {i}"))?;
        let named = l.iter().filter(|x| **x != DOTS).count();
        let dots = l.contains(&DOTS);
        ensure!(
            if dots { named <= t.ndim() } else { named == t.ndim() },
            Runtime,
            "einsum(): the number of subscripts in the equation ({named}) {} the number of dimensions ({}) for operand {i}{}",
            if dots { "is more than" } else { "does not match" },
            t.ndim(),
            if dots { "" } else { " and no ellipsis was given" }
        );
        if dots {
            width = width.max(t.ndim() - named);
        }
        lists.push(l);
    }
    ensure!(
        width < (DOTS - LETTERS) as usize,
        Runtime,
        "einsum(): an ellipsis may stand for at most {} dimensions",
        DOTS - LETTERS - 1
    );
    // The ellipsis' dimensions are aligned at the right.
    let spread = |l: &Labels, here: usize| -> Labels {
        let mut out = Labels::new();
        for x in l {
            match *x {
                DOTS => out.extend((width - here..width).map(|i| LETTERS + i as u8)),
                x => out.push(x),
            }
        }
        out
    };
    let mut parts = Vec::with_capacity(lists.len());
    for (l, t) in lists.iter().zip(tensors) {
        let named = l.iter().filter(|x| **x != DOTS).count();
        parts.push(Part { t: t.clone(), labels: spread(l, t.ndim() - named) });
    }
    let result: Labels = match output {
        Some(o) => spread(&read(o, "the output")?, width),
        None => {
            // Dimensions of the ellipsis, then the labels seen once, in alphabetical order.
            let mut out: Labels = (0..width as u8).map(|i| LETTERS + i).collect();
            let mut once: Labels = (0..LETTERS)
                .filter(|l| {
                    parts.iter().map(|p| p.labels.iter().filter(|x| *x == l).count()).sum::<usize>() == 1
                })
                .collect();
            once.sort_unstable();
            out.extend(once);
            out
        }
    };
    for (i, l) in result.iter().enumerate() {
        ensure!(
            !result[..i].contains(l),
            Runtime,
            "einsum(): output subscript {} appears more than once in the output",
            shown(*l)
        );
        ensure!(
            *l >= LETTERS || parts.iter().any(|p| p.labels.contains(l)),
            Runtime,
            "einsum(): output subscript {} does not appear in the equation for any input operand",
            shown(*l)
        );
    }
    // Sizes agree, or are 1.
    let mut known: [Option<usize>; 256] = [None; 256];
    let mut ready = Vec::with_capacity(parts.len());
    for (i, p) in parts.into_iter().enumerate() {
        let p = diagonals(p)?;
        for (l, s) in p.labels.iter().zip(p.t.shape()) {
            match &mut known[*l as usize] {
                slot @ (None | Some(1)) => *slot = Some(*s),
                Some(k) => ensure!(
                    *s == *k || *s == 1,
                    Shape,
                    "einsum(): subscript {} has size {s} for operand {i} which does not broadcast with previously seen size {k}",
                    shown(*l)
                ),
            }
        }
        ready.push(p);
    }
    let full = |l: u8| known[l as usize].unwrap_or(1);
    let mut parts = ready;
    while parts.len() > 1 {
        // What a pair leaves must be wanted by the result or by another operand.
        let wanted = |parts: &[Part], i: usize, j: usize, l: u8| {
            result.contains(&l)
                || parts.iter().enumerate().any(|(k, p)| k != i && k != j && p.labels.contains(&l))
        };
        let (mut best, mut pick) = (f64::INFINITY, (0, 1));
        if parts.len() > 2 {
            for i in 0..parts.len() {
                for j in i + 1..parts.len() {
                    let mut all: Labels = parts[i].labels.clone();
                    all.extend(parts[j].labels.iter().copied().filter(|l| !parts[i].labels.contains(l)));
                    let work: f64 = all.iter().map(|l| full(*l) as f64).product();
                    let left: f64 =
                        all.iter().filter(|l| wanted(&parts, i, j, **l)).map(|l| full(*l) as f64).product();
                    let old = (parts[i].t.numel() + parts[j].t.numel()) as f64;
                    // Work first; among equals, what leaves least behind.
                    let cost = work + 1e-3 * (left - old);
                    if cost < best {
                        (best, pick) = (cost, (i, j));
                    }
                }
            }
        }
        let (i, j) = pick;
        let needs: Vec<bool> = (0..=u8::MAX).map(|l| wanted(&parts, i, j, l)).collect();
        let b = parts.remove(j);
        let a = parts.remove(i);
        let (la, lb) = (a.labels.clone(), b.labels.clone());
        let a = drop_unused(a, false, |l| needs[l as usize] || lb.contains(&l))?;
        let b = drop_unused(b, false, |l| needs[l as usize] || la.contains(&l))?;
        let c = contract(a, b, &|l| needs[l as usize])?;
        parts.insert(i, c);
    }
    let Some(p) = parts.pop() else { return unknown("einsum()", "must provide at least one operand") };
    let p = drop_unused(p, tensors.len() == 1, |l| result.contains(&l))?;
    // A label of the ellipsis that the result names but no operand has is a dimension of size 1.
    let mut t = p.t;
    let mut labels = p.labels;
    for l in &result {
        if !labels.contains(l) {
            t = ops::unsqueeze(&t, -1)?;
            labels.push(*l);
        }
    }
    let order: SmallVec<[i64; 8]> =
        result.iter().filter_map(|l| labels.iter().position(|x| x == l)).map(|i| i as i64).collect();
    ops::permute(&t, &order)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "_einsum",
        FUNCTION,
        ns = "linalg",
        "Einstein summation over a list of tensors.",
        "equation: str, operands: Tensors",
        |a| Ok(einsum(a.str(0)?, a.tensors(1)?)?.into())
    );
}
