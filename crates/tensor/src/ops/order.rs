//! Order statistics and friends: `kthvalue`, `median`, `mode`, quantiles, `aminmax`.

use super::Operand;
use super::index::{at_least_1d, gather, value_selecting_backward};
use super::reduce::{amax, amin};
use crate::autograd::{self, Save, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::backend::{Order, Rank};
use pyrite_core::layout::wrap_dim;
use pyrite_core::{DType, Dims, Layout, Result, Scalar, ensure, interrupt};
use smallvec::smallvec;

const PAIR: &[&str] = &["values", "indices"];

/// What one element per line is picked by.
#[derive(Clone, Copy)]
enum Pick {
    Rank(Rank),
    Mode,
}

/// One element of each line along `d` and its position, in PyTorch's shapes.
fn pick(
    name: &'static str,
    node: &'static str,
    t: &Tensor,
    dim: i64,
    keepdim: bool,
    what: Pick,
) -> Result<Vec<Tensor>> {
    let d = wrap_dim(name, dim, t.ndim())?;
    ensure!(
        !t.dtype().is_complex() && (matches!(what, Pick::Mode) || !t.dtype().is_bool()),
        NotImplemented,
        "\"{name}\" is not implemented for '{}'",
        t.dtype().name()
    );
    ensure!(
        t.ndim() == 0 || t.shape()[d] > 0,
        Index,
        "{name}(): Expected reduction dim {d} to have non-zero size."
    );
    let x = at_least_1d(&t.detach())?;
    let mut kept: Dims = x.shape().into();
    kept[d] = 1;
    let val = Tensor::empty(&kept, t.dtype(), t.device())?;
    let idx = Tensor::empty(&kept, DType::I64, t.device())?;
    if val.numel() > 0 {
        let (values, idx, src) = (val.arr(), idx.arr(), x.arr());
        let backend = t.backend()?;
        let order = match what {
            Pick::Rank(rank) => Order::Rank { values, idx, src, dim: d, rank },
            Pick::Mode => Order::Mode { values, idx, src, dim: d },
        };
        interrupt::stoppable_if(t.numel() > super::scan_sort::LONG, || backend.order(order))?;
    }
    let mut shape: Dims = t.shape().into();
    if t.ndim() > 0 {
        if keepdim {
            shape[d] = 1;
        } else {
            shape.remove(d);
        }
    }
    let fit = |v: &Tensor| super::with_layout(v, Layout::contiguous(&shape));
    let (val, idx) = (fit(&val), fit(&idx));
    if needs_grad(&[t]) {
        let (at, from): (Tensor, Dims) = (idx.clone(), t.shape().into());
        autograd::attach_any(node, &[t], &[&val], &[], move |cx| {
            Ok(smallvec![Some(value_selecting_backward(cx, d, &at, &from, keepdim)?)])
        });
    }
    Ok(vec![val, idx])
}

fn kthvalue(t: &Tensor, k: i64, dim: i64, keepdim: bool) -> Result<Vec<Tensor>> {
    let d = wrap_dim("kthvalue", dim, t.ndim())?;
    let n = t.shape().get(d).copied().unwrap_or(1);
    ensure!(n > 0, Index, "kthvalue(): Expected reduction dim {d} to have non-zero size.");
    ensure!(
        k >= 1 && k as usize <= n,
        Runtime,
        "kthvalue(): selected number k out of range for dimension {d} (k = {k}, size {n})"
    );
    pick("kthvalue", "KthvalueBackward0", t, dim, keepdim, Pick::Rank(Rank::Kth(k as usize - 1)))
}

fn median_dim(t: &Tensor, dim: i64, keepdim: bool, ignore_nan: bool) -> Result<Vec<Tensor>> {
    if ignore_nan {
        pick("nanmedian", "NanmedianBackward1", t, dim, keepdim, Pick::Rank(Rank::NanMedian))
    } else {
        pick("median", "MedianBackward1", t, dim, keepdim, Pick::Rank(Rank::Median))
    }
}

/// The median of everything; equal elements share the gradient.
fn median(t: &Tensor, ignore_nan: bool) -> Result<Tensor> {
    let name = if ignore_nan { "nanmedian" } else { "median" };
    if t.numel() == 0 {
        ensure!(
            !t.dtype().is_bool() && !t.dtype().is_complex(),
            NotImplemented,
            "\"{name}\" is not implemented for '{}'",
            t.dtype().name()
        );
        let none = if t.dtype().is_float() { Scalar::Float(f64::NAN) } else { Scalar::Int(i64::MIN) };
        return Tensor::scalar(none, t.dtype(), t.device());
    }
    let flat = super::reshape(&t.detach(), &[-1])?;
    let y = median_dim(&flat, 0, false, ignore_nan)?.swap_remove(0);
    if needs_grad(&[t]) {
        let node = if ignore_nan { "NanmedianBackward0" } else { "MedianBackward0" };
        autograd::attach(node, &[t], &[&y], &[Save::Input(t), Save::Output(0)], |cx| {
            let (g, x, y) = (cx.grad(0)?, cx.saved(0)?.detach(), cx.saved(1)?.detach());
            let hit = super::logical_or(
                &super::eq(&x, &y)?,
                &super::logical_and(&super::isnan(&x)?, &super::isnan(&y)?)?,
            )?;
            let hit = super::to_dtype(&hit, g.dtype())?;
            let share = super::div(&hit, &super::sum(&hit, None, false, None)?)?;
            Ok(smallvec![Some(super::mul(&share, &g)?)])
        });
    }
    Ok(y)
}

/// Values in ascending order along the last dimension; without positions where no gradient needs them.
pub fn sorted_values(t: &Tensor) -> Result<Tensor> {
    let d = t.ndim().saturating_sub(1);
    if needs_grad(&[t]) || t.ndim() == 0 {
        return Ok(super::scan_sort::sort(t, d as i64, false)?.swap_remove(0));
    }
    let y = Tensor::empty(t.shape(), t.dtype(), t.device())?;
    if t.numel() > 0 {
        let (backend, order) = (t.backend()?, Order::Sorted { values: y.arr(), src: t.arr(), dim: d });
        interrupt::stoppable_if(t.numel() > super::scan_sort::LONG, || backend.order(order))?;
    }
    Ok(y)
}

/// How a quantile between two elements is found.
fn check_interpolation(op: &str, how: &str) -> Result<()> {
    ensure!(
        matches!(how, "linear" | "lower" | "higher" | "midpoint" | "nearest"),
        Runtime,
        "{op}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {how}"
    );
    Ok(())
}

fn quantile(
    op: &str,
    t: &Tensor,
    q: &Tensor,
    dim: Option<i64>,
    keepdim: bool,
    how: &str,
    ignore_nan: bool,
) -> Result<Tensor> {
    ensure!(t.numel() > 0, Runtime, "{op}() input tensor must be non-empty");
    ensure!(q.ndim() <= 1, Runtime, "{op}() q must be a scalar or 1D tensor, got {} dimensions", q.ndim());
    ensure!(
        matches!(t.dtype(), DType::F32 | DType::F64),
        Runtime,
        "{op}() input tensor must be either float or double dtype, got {}",
        t.dtype().name()
    );
    ensure!(
        t.dtype() == q.dtype(),
        Runtime,
        "{op}() q tensor must be same dtype as the input tensor ({} and {})",
        q.dtype().name(),
        t.dtype().name()
    );
    check_interpolation(op, how)?;
    let qd = q.detach();
    if q.numel() > 0 {
        let (lo, hi) = (amin(&qd, None, false)?.item()?.f64(), amax(&qd, None, false)?.item()?.f64());
        ensure!(lo >= 0.0 && hi <= 1.0, Runtime, "{op}() q values must be in the range [0, 1]");
    }
    // Lines along the last dimension.
    let (d, x) = match dim {
        None => (0, super::reshape(t, &[-1])?),
        Some(dim) => {
            let d = wrap_dim(op, dim, t.ndim())?;
            let x = at_least_1d(t)?;
            (d, super::movedim(&x, &[d as i64], &[-1])?)
        }
    };
    let n = x.shape()[x.ndim() - 1];
    let sorted = sorted_values(&x)?;
    let plain = sorted.detach();
    let nan = super::isnan(&plain)?;
    let number = |v: f64| Operand::Number(Scalar::Float(v));
    // The ranks, one row of them per line: NaNs are last, so their number says where the others end.
    let mut ranks = if ignore_nan {
        let valid = super::sum(&super::logical_not(&nan)?, Some(&[-1]), true, Some(DType::I64))?;
        let last = super::to_dtype(&super::sub(&valid, Operand::Number(Scalar::Int(1)))?, qd.dtype())?;
        let r = super::mul(&last, q)?;
        super::masked_fill(&r, &super::lt(&r, number(0.0))?, number(0.0))?
    } else {
        let r = super::mul(q, number((n - 1) as f64))?;
        let mut shape: Dims = sorted.shape().into();
        let m = shape.len() - 1;
        shape[m] = q.numel();
        let r = super::expand_to(&at_least_1d(&r)?, &shape)?;
        let any = super::narrow(&nan, -1, n as i64 - 1, 1)?;
        super::masked_fill(&r, &super::expand_to(&any, &shape)?, number((n - 1) as f64))?
    };
    ranks = match how {
        "lower" => super::floor(&ranks)?,
        "higher" => super::ceil(&ranks)?,
        "nearest" => {
            super::elementwise::run(pyrite_core::rows::table::id::ROUND.row(), &[(&ranks).into()], &[])?
        }
        _ => ranks,
    };
    let below = super::to_dtype(&ranks.detach(), DType::I64)?;
    let low = gather(&sorted, -1, &below)?;
    let y = if matches!(how, "linear" | "midpoint") {
        let w = if how == "midpoint" {
            Tensor::full(ranks.shape(), Scalar::Float(0.5), ranks.dtype(), ranks.device())?
        } else {
            super::sub(&ranks, &super::to_dtype(&below, ranks.dtype())?)?
        };
        let high = gather(&sorted, -1, &super::to_dtype(&super::ceil(&ranks.detach())?, DType::I64)?)?;
        super::elementwise::run(
            pyrite_core::rows::table::id::LERP.row(),
            &[(&low).into(), (&high).into(), (&w).into()],
            &[],
        )?
    } else {
        low
    };
    // The quantiles become the first dimension, or vanish for a single q.
    let mut shape: Dims = match dim {
        None => smallvec![],
        Some(_) => x.shape()[..x.ndim() - 1].into(),
    };
    if keepdim && t.ndim() > 0 {
        if dim.is_none() {
            shape = smallvec![1; t.ndim()];
        } else {
            shape.insert(d, 1);
        }
    }
    if t.ndim() == 0 {
        shape.clear();
    }
    let y = super::movedim(&y, &[-1], &[0])?;
    if q.ndim() > 0 {
        shape.insert(0, q.numel());
    }
    super::reshape_to(&y, &shape)
}

fn quantile_args(a: &Args, ignore_nan: bool) -> Result<Value> {
    let op = if ignore_nan { "nanquantile" } else { "quantile" };
    let t = a.tensor(0)?;
    let made;
    let q = match a.operand(1)? {
        Operand::Tensor(q) => q,
        Operand::Number(v) => {
            let v = v.f64();
            ensure!((0.0..=1.0).contains(&v), Runtime, "{op}() q must be in the range [0, 1] but got {v}");
            made = Tensor::scalar(Scalar::Float(v), t.dtype(), t.device())?;
            &made
        }
    };
    Ok(quantile(op, t, q, a.int_opt(2)?, a.bool(3)?, a.str(4)?, ignore_nan)?.into())
}

fn aminmax(t: &Tensor, dim: Option<i64>, keepdim: bool) -> Result<Vec<Tensor>> {
    if dim.is_none() {
        ensure!(
            t.numel() > 0,
            Runtime,
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity."
        );
    } else {
        let d = wrap_dim("aminmax", dim.unwrap_or(0), t.ndim())?;
        ensure!(
            t.ndim() == 0 || t.shape()[d] > 0,
            Index,
            "aminmax(): Expected reduction dim {d} to have non-zero size."
        );
    }
    let dims = dim.map(|d| [d]);
    let dims = dims.as_ref().map(|d| &d[..]);
    Ok(vec![amin(t, dims, keepdim)?, amax(t, dims, keepdim)?])
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "kthvalue",
        FUNCTION | METHOD | OUT,
        "The `k`-th smallest element (from 1) along `dim` and its position.",
        "input: Tensor, k: int, dim: int = -1, keepdim: bool = False",
        |a| Ok(Value::Named("kthvalue", PAIR, kthvalue(a.tensor(0)?, a.int(1)?, a.int(2)?, a.bool(3)?)?))
    );
    op!(list, "median", FUNCTION | METHOD | OUT, "The lower median of all elements; with `dim`, values and positions. NaN if there is one.",
        "input: Tensor", |a| Ok(median(a.tensor(0)?, false)?.into());
        "input: Tensor, dim: int, keepdim: bool = False",
            |a| Ok(Value::Named("median", PAIR, median_dim(a.tensor(0)?, a.int(1)?, a.bool(2)?, false)?)));
    op!(list, "nanmedian", FUNCTION | METHOD | OUT, "`median` of the elements that are not NaN.",
        "input: Tensor", |a| Ok(median(a.tensor(0)?, true)?.into());
        "input: Tensor, dim: int, keepdim: bool = False",
            |a| Ok(Value::Named("nanmedian", PAIR, median_dim(a.tensor(0)?, a.int(1)?, a.bool(2)?, true)?)));
    op!(
        list,
        "mode",
        FUNCTION | METHOD | OUT,
        "The most frequent element along `dim` (the smallest of several) and the position of its last occurrence.",
        "input: Tensor, dim: int = -1, keepdim: bool = False",
        |a| Ok(Value::Named(
            "mode",
            PAIR,
            pick("mode", "ModeBackward0", a.tensor(0)?, a.int(1)?, a.bool(2)?, Pick::Mode)?
        ))
    );
    op!(
        list,
        "quantile",
        FUNCTION | METHOD | OUT,
        "The q-th quantiles (0 <= q <= 1) of all elements or along `dim`; a vector of q becomes the first dimension. interpolation: 'linear', 'lower', 'higher', 'midpoint', 'nearest'.",
        "input: Tensor, q: Operand, dim: int? = None, keepdim: bool = False, *, interpolation: str = 'linear'",
        |a| quantile_args(a, false)
    );
    op!(
        list,
        "nanquantile",
        FUNCTION | METHOD | OUT,
        "`quantile` of the elements that are not NaN.",
        "input: Tensor, q: Operand, dim: int? = None, keepdim: bool = False, *, interpolation: str = 'linear'",
        |a| quantile_args(a, true)
    );
    op!(
        list,
        "aminmax",
        FUNCTION | METHOD | OUT,
        "The smallest and the greatest element, of everything or along `dim`.",
        "input: Tensor, *, dim: int? = None, keepdim: bool = False",
        |a| Ok(Value::Named("aminmax", &["min", "max"], aminmax(a.tensor(0)?, a.int_opt(1)?, a.bool(2)?)?))
    );
}
