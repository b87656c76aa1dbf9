//! Functions of matrices: powers and the exponential.

use super::*;
use crate::autograd::{Save, needs_grad};
use crate::op;
use smallvec::smallvec;

pub(super) fn matrix_power(a: &Tensor, n: i64) -> Result<Tensor> {
    let op = "linalg.matrix_power";
    square(op, a, "A")?;
    let size = rows_cols(a).0;
    if n == 0 {
        // A copy of the input overwritten: a constant that belongs to the graph, as PyTorch has it.
        let y = ops::clone(a)?;
        ops::copy_(&y, &eye(size, size, a)?)?;
        return Ok(y);
    }
    let base = if n < 0 { solve::inv("linalg.inv", a)? } else { a.clone() };
    let mut left = n.unsigned_abs();
    if left == 1 {
        return if n < 0 { Ok(base) } else { ops::clone(&base) };
    }
    // Squares for the bits of n, multiplied together.
    let (mut square, mut y) = (base, None);
    loop {
        if left & 1 == 1 {
            y = Some(match y {
                Some(y) => mm(&y, &square)?,
                None => square.clone(),
            });
        }
        left >>= 1;
        if left == 0 {
            break;
        }
        square = mm(&square, &square)?;
    }
    y.map_or_else(|| unknown(op, "no power was computed"), Ok)
}

/// A Pade approximant: the norm it is exact to rounding for, and the numerator's coefficients (the
/// denominator's alternate in sign).
struct Pade(f64, &'static [f64]);

const PADE_64: [Pade; 5] = [
    Pade(1.495585217958292e-2, &[120.0, 60.0, 12.0, 1.0]),
    Pade(2.53939833006323e-1, &[30240.0, 15120.0, 3360.0, 420.0, 30.0, 1.0]),
    Pade(9.504178996162932e-1, &[17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0, 1.0]),
    Pade(
        2.097847961257068,
        &[
            17643225600.0,
            8821612800.0,
            2075673600.0,
            302702400.0,
            30270240.0,
            2162160.0,
            110880.0,
            3960.0,
            90.0,
            1.0,
        ],
    ),
    Pade(
        5.371920351148152,
        &[
            64764752532480000.0,
            32382376266240000.0,
            7771770303897600.0,
            1187353796428800.0,
            129060195264000.0,
            10559470521600.0,
            670442572800.0,
            33522128640.0,
            1323241920.0,
            40840800.0,
            960960.0,
            16380.0,
            182.0,
            1.0,
        ],
    ),
];

/// For f32 the lower degrees reach further (Higham, 2005).
const REACH_32: [f64; 3] = [4.258730016922831e-1, 1.880152677804762, 3.92572478313866];

/// The exponential without history, by scaling and squaring.
fn exp_raw(a: &Tensor) -> Result<Tensor> {
    let n = rows_cols(a).0;
    if a.numel() == 0 {
        return Tensor::empty(a.shape(), a.dtype(), a.device());
    }
    let sums = ops::sum(&ops::abs(a)?, Some(&[-2]), false, None)?;
    let norms = ops::to_dtype(&ops::reduce::amax(&sums, Some(&[-1]), false)?, DType::F64)?;
    let norms = norms.to_vec::<f64>()?;
    let double = a.dtype().real() == DType::F64;
    let reach = |i: usize| if double { PADE_64[i].0 } else { REACH_32[i] };
    let last = if double { 4 } else { 2 };
    // A norm that is not finite gives NaN below, whatever is done.
    let top = norms.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let degree = (0..last).find(|i| top <= reach(*i)).unwrap_or(last);
    let halvings: Vec<i32> = norms
        .iter()
        .map(|v| match v.is_finite() && *v > reach(last) {
            true => (v / reach(last)).log2().ceil() as i32,
            false => 0,
        })
        .collect();
    let most = halvings.iter().copied().max().unwrap_or(0);
    let per_matrix = |f: &dyn Fn(i32) -> f64| -> Result<Tensor> {
        let v: Vec<f64> = halvings.iter().map(|h| f(*h)).collect();
        let t = ops::to_dtype(&Tensor::from_slice(&v, batch_of(a))?, a.dtype().real())?;
        ops::unsqueeze(&ops::unsqueeze(&t, -1)?, -1)
    };
    let a = if most > 0 { ops::mul(a, &per_matrix(&|h| 2f64.powi(-h))?)? } else { a.clone() };
    // A common factor keeps the coefficients in f32's range.
    let c: Vec<f64> = PADE_64[degree].1.iter().map(|v| v / PADE_64[degree].1[0]).collect();
    let one = eye(n, n, &a)?;
    let a2 = mm(&a, &a)?;
    let mut power = a2.clone();
    let mut even = ops::add(&ops::mul(&one, c[0])?, &ops::mul(&a2, c[2])?)?;
    let mut odd = ops::add(&ops::mul(&one, c[1])?, &ops::mul(&a2, c[3])?)?;
    if degree == 4 {
        let (a4, a6) = (mm(&a2, &a2)?, mm(&a2, &mm(&a2, &a2)?)?);
        let part = |i: usize| -> Result<Tensor> {
            let s = ops::add(&ops::mul(&a2, c[i])?, &ops::mul(&a4, c[i + 2])?)?;
            ops::add(&s, &ops::mul(&a6, c[i + 4])?)
        };
        let low = |x: &Tensor, i: usize| -> Result<Tensor> {
            ops::add(x, &ops::add(&ops::mul(&a4, c[i])?, &ops::mul(&a6, c[i + 2])?)?)
        };
        even = ops::add(&low(&even, 4)?, &mm(&a6, &part(8)?)?)?;
        odd = ops::add(&low(&odd, 5)?, &mm(&a6, &part(9)?)?)?;
    } else {
        for i in (4..c.len()).step_by(2) {
            power = mm(&power, &a2)?;
            even = ops::add(&even, &ops::mul(&power, c[i])?)?;
            odd = ops::add(&odd, &ops::mul(&power, c[i + 1])?)?;
        }
    }
    let odd = mm(&a, &odd)?;
    let mut y = solve::unchecked(&ops::sub(&even, &odd)?, &ops::add(&even, &odd)?)?;
    for step in 0..most {
        let squared = mm(&y, &y)?;
        y = match halvings.iter().all(|h| *h == most) {
            true => squared,
            false => ops::where_(&ops::gt(&per_matrix(&|h| h as f64)?, step as f64)?, &squared, &y)?,
        };
    }
    if norms.iter().all(|v| v.is_finite()) {
        return Ok(y);
    }
    let v: Vec<Bool8> = norms.iter().map(|v| Bool8(!v.is_finite() as u8)).collect();
    let bad = Tensor::from_slice(&v, batch_of(&y))?;
    ops::masked_fill(&y, &ops::unsqueeze(&ops::unsqueeze(&bad, -1)?, -1)?, number(f64::NAN))
}

pub(super) fn matrix_exp(a: &Tensor) -> Result<Tensor> {
    let op = "linalg.matrix_exp";
    square(op, a, "A")?;
    floating(op, a)?;
    if kernel::num(a.dtype()).is_none() {
        // Half precision: computed in f32.
        return ops::to_dtype(&matrix_exp(&ops::to_dtype(a, DType::F32)?)?, a.dtype());
    }
    let y = exp_raw(&a.detach())?;
    if needs_grad(&[a]) {
        autograd::attach("LinalgMatrixExpBackward0", &[a], &[&y], &[Save::Input(a)], |cx| {
            // The derivative at A^H in the direction g is the upper right block of a larger exponential.
            let (ah, g) = (mh(cx.saved(0)?)?, cx.grad(0)?);
            let n = rows_cols(&ah).0;
            let zero = Tensor::zeros(ah.shape(), ah.dtype(), ah.device())?;
            let above = ops::shape::cat(&[ah.clone(), g], -1)?;
            let below = ops::shape::cat(&[zero, ah], -1)?;
            let e = matrix_exp(&ops::shape::cat(&[above, below], -2)?)?;
            Ok(smallvec![Some(cols(&rows(&e, 0, n)?, n, 2 * n)?)])
        });
    }
    Ok(y)
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "matrix_power",
        FUNCTION | OUT,
        ns = "linalg",
        "The n-th power of square matrices; a negative `n` is a power of the inverse.",
        "A: Tensor, n: int",
        |a| Ok(matrix_power(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "matrix_power",
        FUNCTION | METHOD | OUT,
        "The n-th power of square matrices: `linalg.matrix_power`.",
        "input: Tensor, n: int",
        |a| Ok(matrix_power(a.tensor(0)?, a.int(1)?)?.into())
    );
    op!(
        list,
        "matrix_exp",
        FUNCTION,
        ns = "linalg",
        "The exponential of square matrices, by scaling and squaring.",
        "A: Tensor",
        |a| Ok(matrix_exp(a.tensor(0)?)?.into())
    );
    op!(
        list,
        "matrix_exp",
        FUNCTION | METHOD,
        "The exponential of square matrices: `linalg.matrix_exp`.",
        "input: Tensor",
        |a| Ok(matrix_exp(a.tensor(0)?)?.into())
    );
}
