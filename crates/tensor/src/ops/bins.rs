//! Search in sorted sequences and counting: `searchsorted`, `bucketize`, `isin`, `bincount`, `histc`.

use super::Operand;
use super::order::sorted_values;
use super::reduce::{amax, amin};
use crate::op;
use crate::registry::{Args, Op};
use crate::tensor::Tensor;
use pyrite_core::backend::{Index, Order, Scatter};
use pyrite_core::{DType, Dims, Kind, Promotion, Result, Scalar, ensure};

/// How the search is asked for.
struct Asked<'a> {
    right: bool,
    int32: bool,
    sorter: Option<&'a Tensor>,
}

/// Positions in `seq` (a vector, or lines) of `values`; dtypes may differ.
fn search(seq: &Tensor, values: &Tensor, asked: &Asked) -> Result<Tensor> {
    ensure!(
        !seq.dtype().is_complex() && !values.dtype().is_complex(),
        NotImplemented,
        "\"searchsorted\" is not implemented for complex numbers"
    );
    let common =
        Promotion::default().tensor(seq.dtype(), seq.ndim()).tensor(values.dtype(), values.ndim()).result();
    let (s, v) = (super::to_dtype(&seq.detach(), common)?, super::to_dtype(&values.detach(), common)?);
    let dtype = if asked.int32 { DType::I32 } else { DType::I64 };
    ensure!(
        !asked.int32 || s.shape().last().is_none_or(|n| *n <= i32::MAX as usize),
        Runtime,
        "torch.searchsorted(): the size of boundaries' last dimension should be less than {} if we set output type as int32",
        i32::MAX
    );
    let y = Tensor::empty(v.shape(), dtype, v.device())?;
    if y.numel() > 0 {
        let sorter = asked.sorter.map(Tensor::arr);
        let (dst, seq, values) = (y.arr(), s.arr(), v.arr());
        y.backend()?.order(Order::Search { dst, seq, values, sorter, right: asked.right })?;
    }
    Ok(y)
}

fn searchsorted(a: &Args) -> Result<Tensor> {
    let (op, seq) = ("torch.searchsorted()", a.tensor(0)?);
    let made;
    let values = match a.operand(1)? {
        Operand::Tensor(t) => t,
        Operand::Number(s) => {
            made = Tensor::scalar(s, s.dtype(), seq.device())?;
            &made
        }
    };
    let right = match (a.bool(3)?, a.str_opt(4)?) {
        (r, None) => r,
        (_, Some("right")) => true,
        (r, Some("left")) => {
            ensure!(
                !r,
                Runtime,
                "{op}: side and right can't be set to opposites, got side of left while right was True"
            );
            false
        }
        (_, Some(s)) => pyrite_core::bail!(Runtime, "{op}: side can only be 'left' or 'right' but got {s}"),
    };
    ensure!(
        seq.ndim() > 0,
        Runtime,
        "{op}: boundaries tensor should have positive dimension, but got 0 dimension"
    );
    ensure!(
        values.ndim() > 0 || seq.ndim() == 1,
        Runtime,
        "{op}: input value can be a scalar only when boundaries tensor dimension is 1, but we got boundaries tensor dim({}) and input value's dim(0) numel(1)",
        seq.ndim()
    );
    let lead = |t: &Tensor| -> Dims { t.shape()[..t.ndim().saturating_sub(1)].into() };
    ensure!(
        seq.ndim() == 1 || (seq.ndim() == values.ndim() && lead(seq) == lead(values)),
        Runtime,
        "{op}: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor and input value tensor must match, but we got boundaries tensor {:?} and input value tensor {:?}",
        seq.shape(),
        values.shape()
    );
    let sorter = a.tensor_opt(5)?;
    if let Some(s) = sorter {
        ensure!(
            s.shape() == seq.shape(),
            Runtime,
            "{op}: boundary and sorter must have the same size, but got boundary tensor {:?} and got sorter tensor {:?}",
            seq.shape(),
            s.shape()
        );
        ensure!(
            s.dtype() == DType::I64,
            Runtime,
            "{op}: sorter must be a tensor of long dtype but got dtype {}",
            s.dtype().name()
        );
        if s.numel() > 0 {
            let (lo, hi) = (amin(s, None, false)?.item()?.i64(), amax(s, None, false)?.item()?.i64());
            let n = seq.shape()[seq.ndim() - 1] as i64;
            ensure!(lo >= 0 && hi < n, Runtime, "{op}: sorter index out of range");
        }
    }
    search(seq, values, &Asked { right, int32: a.bool(2)?, sorter })
}

fn bucketize(a: &Args) -> Result<Tensor> {
    let edges = a.tensor(1)?;
    ensure!(
        edges.ndim() == 1,
        Runtime,
        "boundaries tensor must be 1 dimension, but got dim({})",
        edges.ndim()
    );
    let made;
    let values = match a.operand(0)? {
        Operand::Tensor(t) => t,
        Operand::Number(s) => {
            made = Tensor::scalar(s, s.dtype(), edges.device())?;
            &made
        }
    };
    search(edges, values, &Asked { right: a.bool(3)?, int32: a.bool(2)?, sorter: None })
}

fn isin(elements: Operand, test: Operand, invert: bool) -> Result<Tensor> {
    let device = match (elements, test) {
        (Operand::Tensor(t), _) | (_, Operand::Tensor(t)) => t.device(),
        _ => pyrite_core::bail!(Type, "isin(): elements or test_elements must be a Tensor"),
    };
    let tensor = |o: Operand| match o {
        Operand::Tensor(t) => Ok(t.detach()),
        Operand::Number(s) => Tensor::scalar(s, s.dtype(), device),
    };
    let (x, test) = (tensor(elements)?, tensor(test)?);
    ensure!(
        !x.dtype().is_complex() && !test.dtype().is_complex(),
        Runtime,
        "Unsupported input type encountered for isin(): {} and {}",
        x.dtype().name(),
        test.dtype().name()
    );
    let common = Promotion::default().tensor(x.dtype(), x.ndim()).tensor(test.dtype(), test.ndim()).result();
    let (x, test) = (super::to_dtype(&x, common)?, super::to_dtype(&test, common)?);
    let n = test.numel();
    let hit = if n == 0 || x.numel() == 0 {
        Tensor::full(x.shape(), Scalar::Bool(false), DType::Bool, device)?
    } else {
        let s = sorted_values(&super::reshape(&test, &[-1])?)?;
        let at = search(&s, &x, &Asked { right: false, int32: false, sorter: None })?;
        // Past the end means: not there; any element is then different.
        let last = Tensor::scalar(Scalar::Int(n as i64 - 1), DType::I64, device)?;
        let near = super::index::index(&s, &[Some(super::minimum(&at, &last)?)])?;
        super::eq(&x, &near)?
    };
    if invert { super::logical_not(&hit) } else { Ok(hit) }
}

/// Sums `weights` (or ones) into `n` bins. Positions are int64 in range; the order is theirs.
pub(super) fn count(at: &Tensor, weights: Option<&Tensor>, n: usize, dtype: DType) -> Result<Tensor> {
    let y = Tensor::zeros(&[n], dtype, at.device())?;
    if at.numel() > 0 {
        let one = Tensor::full(&[], Scalar::Int(1), dtype, at.device())?;
        let src = match weights {
            Some(w) => super::to_dtype(w, dtype)?,
            None => super::expand_to(&one, at.shape())?,
        };
        let (dst, src, idx) = (y.arr(), src.arr(), at.arr());
        y.backend()?.index(Index::SelectInto { dst, src, idx, dim: 0, how: Scatter::Add })?;
    }
    Ok(y)
}

fn bincount(t: &Tensor, weights: Option<&Tensor>, minlength: i64) -> Result<Tensor> {
    let op = "bincount";
    ensure!(
        t.dtype().is_int(),
        NotImplemented,
        "\"{op}\" is not implemented for '{}': it takes integers",
        t.dtype().name()
    );
    ensure!(minlength >= 0, Runtime, "minlength should be >= 0, got {minlength}");
    ensure!(
        t.ndim() == 1,
        Runtime,
        "{op} only supports 1-d non-negative integral inputs. Got shape {:?}",
        t.shape()
    );
    if let Some(w) = weights {
        ensure!(
            w.ndim() == 1 && w.numel() == t.numel(),
            Runtime,
            "weights should be 1-d and have the same length as input ({:?} and {:?})",
            w.shape(),
            t.shape()
        );
    }
    let at = super::to_dtype(&t.detach(), DType::I64)?;
    let mut n = minlength;
    if t.numel() > 0 {
        n = n.max(amax(&at, None, false)?.item()?.i64().saturating_add(1));
    }
    let dtype = match weights {
        None => DType::I64,
        Some(w) if w.dtype() == DType::F32 => DType::F32,
        Some(_) => DType::F64,
    };
    // Negative ones are found where they would be counted.
    count(&at, weights.map(Tensor::detach).as_ref(), n.max(0) as usize, dtype).map_err(|e| match e.kind() {
        Kind::Index => {
            pyrite_core::err!(
                Runtime,
                "{op} only supports 1-d non-negative integral inputs. ({})",
                e.message()
            )
        }
        _ => e,
    })
}

fn histc(t: &Tensor, bins: i64, min: f64, max: f64) -> Result<Tensor> {
    let op = "torch.histc";
    ensure!(t.dtype().is_float(), NotImplemented, "\"histc\" is not implemented for '{}'", t.dtype().name());
    ensure!(bins > 0, Runtime, "{op}(): bins must be > 0, but got {bins}");
    let x = super::reshape(&t.detach(), &[-1])?;
    let (mut lo, mut hi) = (min, max);
    if lo == hi && t.numel() > 0 {
        (lo, hi) = (amin(&x, None, false)?.item()?.f64(), amax(&x, None, false)?.item()?.f64());
    }
    if lo == hi {
        (lo, hi) = (lo - 1.0, hi + 1.0);
    }
    ensure!(lo.is_finite() && hi.is_finite(), Runtime, "{op}: range of [{lo}, {hi}] is not finite");
    ensure!(lo < hi, Runtime, "{op}: max must be larger than min (got {lo} and {hi})");
    // In the dtype itself (halves in f32), in PyTorch's order of operations.
    let wide = if t.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let x = super::to_dtype(&x, wide)?;
    let float = |v: f64| Operand::Number(Scalar::Float(v));
    let width = if wide == DType::F32 { (hi as f32 - lo as f32) as f64 } else { hi - lo };
    let pos = super::mul(&super::sub(&x, float(lo))?, float(bins as f64))?;
    // Positions as narrow as the number of bins allows: half the memory.
    let index = if bins < 1 << 30 { DType::I32 } else { DType::I64 };
    let number = |v: i64| Tensor::scalar(Scalar::Int(v), index, t.device());
    let at = super::to_dtype(&super::div(&pos, float(width))?, index)?;
    let at = super::minimum(&at, &number(bins - 1)?)?;
    // What is outside, NaN included, goes to a bin of its own.
    let inside = super::logical_and(&super::ge(&x, float(lo))?, &super::le(&x, float(hi))?)?;
    let at = super::where_(&inside, &at, Operand::Number(Scalar::Int(bins)))?;
    let n = usize::try_from(bins).unwrap_or(usize::MAX).saturating_add(1);
    let y = count(&super::maximum(&at, &number(0)?)?, None, n, DType::I64)?;
    super::to_dtype(&super::narrow(&y, 0, 0, bins)?, t.dtype())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "searchsorted",
        FUNCTION | OUT,
        "For each value the position in its sorted sequence before which it belongs (`right`: behind equal ones). The sequence is a vector, or has the values' shape but for the last dimension.",
        "sorted_sequence: Tensor, input: Operand, *, out_int32: bool = False, right: bool = False, side: str? = None, sorter: Tensor? = None",
        |a| Ok(searchsorted(a)?.into())
    );
    op!(
        list,
        "bucketize",
        FUNCTION | OUT,
        "The bucket of each value between sorted boundaries (`right`: boundaries belong to the bucket before).",
        "input: Operand, boundaries: Tensor, *, out_int32: bool = False, right: bool = False",
        |a| Ok(bucketize(a)?.into())
    );
    op!(
        list,
        "isin",
        FUNCTION | OUT,
        "True where an element is among `test_elements`.",
        "elements: Operand, test_elements: Operand, *, assume_unique: bool = False, invert: bool = False",
        |a| {
            // The answer is the same whether the elements are unique or not, and as fast.
            a.bool(2)?;
            Ok(isin(a.operand(0)?, a.operand(1)?, a.bool(3)?)?.into())
        }
    );
    op!(
        list,
        "bincount",
        FUNCTION | METHOD,
        "How often each of 0, 1, 2, ... occurs in a vector of non-negative integers; with `weights`, the sum of theirs.",
        "input: Tensor, weights: Tensor? = None, minlength: int = 0",
        |a| Ok(bincount(a.tensor(0)?, a.tensor_opt(1)?, a.int(2)?)?.into())
    );
    op!(
        list,
        "histc",
        FUNCTION | METHOD | OUT,
        "Counts of elements in `bins` equal bins between `min` and `max` (both 0: the data's range).",
        "input: Tensor, bins: int = 100, min: float = 0, max: float = 0",
        |a| Ok(histc(a.tensor(0)?, a.int(1)?, a.float(2)?, a.float(3)?)?.into())
    );
}
