//! The short-time Fourier transform and its inverse: frames are a view of the signal, and the transform
//! reads them where they are.

use super::fft::{irfft_last, rfft_last};
use super::{Operand, elementwise};
use crate::autograd::{self, GradMode, needs_grad};
use crate::op;
use crate::registry::{Args, Op, Value};
use crate::tensor::Tensor;
use pyrite_core::rows::table::id;
use pyrite_core::{DType, Result, Scalar, bail, ensure};
use smallvec::smallvec;

/// What both directions are called with.
struct Frame<'a> {
    op: &'static str,
    n: i64,
    hop: i64,
    width: i64,
    window: Option<&'a Tensor>,
}

impl<'a> Frame<'a> {
    /// From the arguments n_fft, hop_length, win_length and window at position 1 on.
    fn read(op: &'static str, a: &'a Args) -> Result<Frame<'a>> {
        let n = a.int(1)?;
        Ok(Frame {
            op,
            n,
            hop: a.int_opt(2)?.unwrap_or(n / 4),
            width: a.int_opt(3)?.unwrap_or(n),
            window: a.tensor_opt(4)?,
        })
    }

    fn check_window(&self) -> Result<()> {
        let Frame { op, n, width, .. } = *self;
        ensure!(
            0 < width && width <= n,
            Runtime,
            "{op}: expected 0 < win_length <= n_fft ({n}), but got win_length={width}"
        );
        if let Some(w) = self.window {
            ensure!(
                w.ndim() == 1 && w.shape()[0] as i64 == width,
                Runtime,
                "{op}: expected a 1D window tensor of size equal to win_length={width}, but got window with size {:?}",
                w.shape()
            );
        }
        Ok(())
    }

    fn complex_window(&self) -> bool {
        self.window.is_some_and(|w| w.dtype().is_complex())
    }

    /// The window with zeros around it up to `n`; `None` is all ones.
    fn padded(&self, dtype: DType, like: &Tensor) -> Result<Option<Tensor>> {
        let short = self.width < self.n;
        let w = match self.window {
            Some(w) => w.clone(),
            None if short => Tensor::full(&[self.width as usize], Scalar::Int(1), dtype, like.device())?,
            None => return Ok(None),
        };
        let left = (self.n - self.width) / 2;
        if !short {
            return Ok(Some(w));
        }
        super::pad::pad(&w, &[left, self.n - self.width - left], 0.0).map(Some)
    }
}

fn times(x: Tensor, w: &Option<Tensor>) -> Result<Tensor> {
    match w {
        Some(w) => super::mul(&x, w),
        None => Ok(x),
    }
}

/// `p` elements more at both ends of the last dimension.
fn extend(x: &Tensor, p: i64, mode: &str) -> Result<Tensor> {
    let n = x.shape().last().copied().unwrap_or(1) as i64;
    let piece = |start: i64, len: i64| super::narrow(x, -1, start, len);
    let flipped = |t: Tensor| super::shape::flip(&t, &[-1]);
    let too_long = |limit: i64| {
        ensure!(
            p <= limit,
            Runtime,
            "stft: Padding size should be less than the corresponding input dimension, but got: padding ({p}, {p}) at the last dimension of input {:?}",
            x.shape()
        );
        Ok(())
    };
    let (left, right) = match mode {
        "reflect" => {
            too_long(n - 1)?;
            (flipped(piece(1, p)?)?, flipped(piece(n - 1 - p, p)?)?)
        }
        "circular" => {
            too_long(n)?;
            (piece(n - p, p)?, piece(0, p)?)
        }
        "replicate" => {
            ensure!(n > 0, Runtime, "stft: an empty signal has no border to repeat");
            let mut shape: Vec<i64> = x.shape().iter().map(|s| *s as i64).collect();
            if let Some(s) = shape.last_mut() {
                *s = p;
            }
            (super::expand(&piece(0, 1)?, &shape)?, super::expand(&piece(n - 1, 1)?, &shape)?)
        }
        "constant" => return super::pad::pad(x, &[p, p], 0.0),
        m => bail!(NotImplemented, "Unrecognised padding mode {m}"),
    };
    super::shape::cat(&[left, x.clone(), right], -1)
}

fn stft(a: &Args) -> Result<Tensor> {
    let f = Frame::read("stft", a)?;
    let input = a.tensor(0)?;
    let (center, mode, normalized) = (a.bool(5)?, a.str(6)?, a.bool(7)?);
    let flag = |i: usize| if a.is_none(i) { Ok(None) } else { a.bool(i).map(Some) };
    let (onesided, return_complex, align) = (flag(8)?, flag(9)?, flag(10)?);
    let any_complex = input.dtype().is_complex() || f.complex_window();
    let return_complex = match return_complex {
        Some(r) => r,
        None if any_complex => true,
        None => bail!(
            Runtime,
            "stft requires the return_complex parameter be given for real inputs, and will further require that return_complex=True in a future PyTorch release."
        ),
    };
    ensure!(
        input.dtype().is_differentiable(),
        Runtime,
        "stft: expected a tensor of floating point or complex values, but got {}",
        input.dtype()
    );
    ensure!(
        !matches!(input.dtype(), DType::F16 | DType::BF16),
        Runtime,
        "stft: Unsupported dtype {}: convert to float32 first",
        input.dtype()
    );
    ensure!(
        input.ndim() == 1 || input.ndim() == 2,
        Runtime,
        "stft: expected a 1D or 2D tensor, but got {} dimensions",
        input.ndim()
    );
    ensure!(
        align.is_none() || !center,
        Runtime,
        "stft align_to_window should only be set when center = false"
    );
    ensure!(f.n > 0, Runtime, "stft: expected 0 < n_fft, but got n_fft={}", f.n);
    ensure!(f.hop > 0, Runtime, "stft: expected hop_length > 0, but got hop_length={}", f.hop);
    let mut x = if input.ndim() == 1 { super::unsqueeze(input, 0)? } else { input.clone() };
    if center {
        x = extend(&x, f.n / 2, mode)?;
    }
    f.check_window()?;
    if align == Some(true) {
        // The first window, not the first frame, begins with the signal.
        let left = (f.n - f.width) / 2;
        x = super::pad::pad(&x, &[left, f.n - f.width - left], 0.0)?;
    }
    let len = x.shape()[1] as i64;
    ensure!(
        f.n <= len,
        Runtime,
        "stft: expected 0 < n_fft <= {len} (the signal's length with its padding), but got n_fft={}",
        f.n
    );
    let onesided = onesided.unwrap_or(!any_complex);
    ensure!(!onesided || !any_complex, Runtime, "Cannot have onesided output if window or input is complex");
    let frames = times(super::unfold(&x, 1, f.n, f.hop)?, &f.padded(x.dtype(), &x)?)?;
    let scale = if normalized { 1.0 / (f.n as f64).sqrt() } else { 1.0 };
    let mut y = super::transpose(&rfft_last(&frames, onesided, scale)?, 1, 2)?;
    if input.ndim() == 1 {
        y = super::squeeze(&y, Some(&[0]))?;
    }
    if return_complex { Ok(y) } else { super::complex::view_as_real(&y) }
}

/// Adds up frames `[batch, frames, n]` that start `hop` apart: `[batch, (frames - 1) hop + n]`. The
/// adjoint of `unfold`.
fn overlap_add(frames: &Tensor, hop: i64) -> Result<Tensor> {
    let &[batch, count, n] = frames.shape() else {
        bail!(Runtime, "overlap_add: expected three dimensions, got {:?}", frames.shape())
    };
    let parts = n.div_ceil(hop as usize);
    let y = {
        let _quiet = GradMode::new(false);
        let f = frames.detach();
        // Rows of `hop`: part r of every frame lies r rows below its first.
        let rows = Tensor::zeros(&[batch, count + parts - 1, hop as usize], f.dtype(), f.device())?;
        for r in 0..parts as i64 {
            let width = hop.min(n as i64 - r * hop);
            let to = super::narrow(&super::narrow(&rows, 1, r, count as i64)?, 2, 0, width)?;
            let from = super::narrow(&f, 2, r * hop, width)?;
            let one = [Scalar::Int(1)];
            elementwise::run_inplace(id::ADD.row(), &[Operand::Tensor(&to), Operand::Tensor(&from)], &one)?;
        }
        let flat = super::flatten(&rows, 1, -1)?;
        super::contiguous(&super::narrow(&flat, 1, 0, (count as i64 - 1) * hop + n as i64)?)?
    };
    if needs_grad(&[frames]) {
        autograd::attach("UnfoldBackwardBackward0", &[frames], &[&y], &[], move |cx| {
            Ok(smallvec![Some(super::unfold(&cx.grad(0)?, 1, n as i64, hop)?)])
        });
    }
    Ok(y)
}

fn istft(a: &Args) -> Result<Tensor> {
    let f = Frame::read("istft", a)?;
    let input = a.tensor(0)?;
    let (center, normalized) = (a.bool(5)?, a.bool(6)?);
    let onesided = if a.is_none(7) { None } else { Some(a.bool(7)?) };
    let (length, return_complex) = (a.int_opt(8)?, a.bool(9)?);
    ensure!(
        input.dtype().is_complex(),
        Runtime,
        "istft requires a complex-valued input tensor matching the output from stft with return_complex=True."
    );
    ensure!(
        input.ndim() == 2 || input.ndim() == 3,
        Runtime,
        "istft: expected a tensor with 2 or 3 dimensions (batch, frequencies, frames), but got {}",
        input.ndim()
    );
    ensure!(input.numel() > 0, Runtime, "istft: input tensor cannot be empty.");
    let x = if input.ndim() == 2 { super::unsqueeze(input, 0)? } else { input.clone() };
    let (frequencies, count) = (x.shape()[1] as i64, x.shape()[2] as i64);
    ensure!(f.n > 0, Runtime, "istft: expected 0 < n_fft, but got n_fft={}", f.n);
    let onesided = onesided.unwrap_or(frequencies != f.n);
    let (want, rule) = if onesided { (f.n / 2 + 1, "n_fft / 2 + 1") } else { (f.n, "n_fft") };
    ensure!(
        frequencies == want,
        Runtime,
        "istft: expected the frequency dimension of the input tensor to match {rule} ({want}) when onesided={}, but got {frequencies}",
        if onesided { "True" } else { "False" }
    );
    ensure!(
        0 < f.hop && f.hop <= f.width,
        Runtime,
        "istft: expected 0 < hop_length <= win_length ({}), but got hop_length={}",
        f.width,
        f.hop
    );
    f.check_window()?;
    ensure!(
        return_complex || !f.complex_window(),
        Runtime,
        "Complex windows are incompatible with return_complex=False"
    );
    ensure!(
        !(return_complex && onesided),
        Runtime,
        "Cannot have onesided output if window or input is complex"
    );
    if let Some(l) = length {
        ensure!(l >= 0, Runtime, "istft: length must not be negative, but got {l}");
    }
    let scale = if normalized { 1.0 / (f.n as f64).sqrt() } else { 1.0 / f.n as f64 };
    let frames = irfft_last(&super::transpose(&x, 1, 2)?, f.n as usize, !return_complex, scale)?;
    let real = if frames.dtype().is_complex() { x.dtype().real() } else { frames.dtype() };
    let window = match f.padded(real, &x)? {
        Some(w) => w,
        None => Tensor::full(&[f.n as usize], Scalar::Int(1), real, x.device())?,
    };
    let sum = overlap_add(&super::mul(&frames, &window)?, f.hop)?;
    let weights = super::expand(&super::mul(&window, &window)?, &[1, count, f.n])?;
    let envelope = overlap_add(&weights, f.hop)?;
    let start = if center { f.n / 2 } else { 0 };
    let total = f.n + f.hop * (count - 1);
    let end = match length {
        Some(l) => start + l,
        None if center => total - f.n / 2,
        None => total,
    };
    let kept = (end.min(total) - start).max(0);
    let sum = super::narrow(&sum, 1, start.min(total), kept)?;
    let envelope = super::narrow(&envelope, 1, start.min(total), kept)?;
    if kept > 0 {
        let least = super::reduce::amin(&super::abs(&envelope.detach())?, None, false)?.item()?.f64();
        ensure!(
            least > 1e-11,
            Runtime,
            "istft: window overlap add min: {least:e}: the window is zero (or nearly so) where frames must overlap, so that the signal cannot be recovered there (hop_length={}, win_length={}, center={center})",
            f.hop,
            f.width
        );
    }
    let mut y = super::div(&sum, &envelope)?;
    if end > total {
        y = super::pad::pad(&y, &[0, end - total.max(start)], 0.0)?;
    }
    if input.ndim() == 2 { super::squeeze(&y, Some(&[0])) } else { Ok(y) }
}

fn stft_value(a: &Args) -> Result<Value> {
    Ok(stft(a)?.into())
}

fn istft_value(a: &Args) -> Result<Value> {
    Ok(istft(a)?.into())
}

pub fn register(list: &mut Vec<Op>) {
    op!(
        list,
        "stft",
        FUNCTION | METHOD,
        "The Fourier transforms of overlapping frames of a signal (or a batch of them): a tensor [batch,] frequencies, frames. `center` pads the signal by `n_fft // 2` on both sides, so that frame t is centred on sample `t * hop_length`; `align_to_window` (without `center`) lets the first window begin with the signal.",
        "input: Tensor, n_fft: int, hop_length: int? = None, win_length: int? = None, window: Tensor? = None, center: bool = True, pad_mode: str = 'reflect', normalized: bool = False, onesided: bool? = None, return_complex: bool? = None, align_to_window: bool? = None",
        stft_value
    );
    op!(
        list,
        "istft",
        FUNCTION | METHOD,
        "The signal whose `stft` the input is: frames are transformed back, windowed, added up and divided by the sum of the squared windows, which must not vanish.",
        "input: Tensor, n_fft: int, hop_length: int? = None, win_length: int? = None, window: Tensor? = None, center: bool = True, normalized: bool = False, onesided: bool? = None, length: int? = None, return_complex: bool = False",
        istft_value
    );
}
