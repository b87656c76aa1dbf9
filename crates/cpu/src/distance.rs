//! Distances between all pairs of rows of one matrix (`pdist`), each pair once, and their gradient.
//!
//! Lanes are pairs: a panel of rows is transposed, so that one component of 32 rows lies side by side, and
//! four rows at a time are compared with it. Nothing is added up across lanes. Components are summed in
//! blocks, and the blocks' sums then, which keeps long f32 sums accurate.

use crate::gemm::transpose::transpose;
use crate::oom;
use crate::pool::{chunks, parallel, with_scratch};
use crate::real::{Failure, Real};
use crate::simd::{Arch, ArchKernel, FloatLanes, dispatch};
use crate::strided::Ptr;
use pyrite_core::{Arr, DType, Result, bail};

/// Rows of a panel.
const PANEL: usize = 32;
/// Rows that are compared with it at once.
const ROWS: usize = 4;
/// Components per block of a sum.
const BLOCK: usize = 256;
/// Components of a panel that is held at a time: 256 KB of f32.
const DEPTH: usize = 2048;

/// Pairs of `n` rows.
pub fn pairs(n: usize) -> usize {
    if n < 2 { 0 } else { n * (n - 1) / 2 }
}

/// Where the pair (i, i + 1) lies: pairs are counted row by row of the upper triangle.
fn start(n: usize, i: usize) -> usize {
    i * (2 * n - i - 1) / 2
}

/// `y[pair(i, j)] = |x[i] - x[j]|_p` for i < j; `x` [n, m] and `y` are dense, f32 or f64.
pub fn condensed(p: f64, x: &Arr, y: &Arr) -> Result<()> {
    match x.dtype {
        DType::F32 => forward::<f32>(p, x, y),
        DType::F64 => forward::<f64>(p, x, y),
        d => bail!(NotImplemented, "pdist: not implemented for {d}"),
    }
}

/// The gradient of [`condensed`] into `dx`, from that of its result, `g`.
pub fn condensed_backward(p: f64, g: &Arr, y: &Arr, x: &Arr, dx: &Arr) -> Result<()> {
    match x.dtype {
        DType::F32 => backward::<f32>(p, g, y, x, dx),
        DType::F64 => backward::<f64>(p, g, y, x, dx),
        d => bail!(NotImplemented, "pdist: not implemented for {d}"),
    }
}

fn check(x: &Arr, of_x: &[&Arr], of_pairs: &[&Arr]) -> Result<(usize, usize)> {
    let &[n, m] = x.shape else {
        bail!(Shape, "pdist: expected a matrix, got the shape {:?}", x.shape);
    };
    let fits =
        |a: &Arr, count: usize| a.dtype == x.dtype && a.numel() == count && (count == 0 || a.is_contiguous());
    if !fits(x, n * m) || !of_x.iter().all(|a| fits(a, n * m)) || !of_pairs.iter().all(|a| fits(a, pairs(n)))
    {
        bail!(Shape, "pdist: arrays do not fit an input of shape {:?}, or are not contiguous", x.shape);
    }
    Ok((n, m))
}

// ---- forward --------------------------------------------------------------------------------------

/// How the components of one norm are collected. `q` is the exponent.
trait Norm {
    fn step<V: FloatLanes>(sum: V, d: V, q: V) -> V;
    /// Is a step so long that copies of it for several rows gain nothing?
    const LONG: bool = false;
    #[inline(always)]
    fn join<V: FloatLanes>(a: V, b: V) -> V {
        a + b
    }
    #[inline(always)]
    fn finish<V: FloatLanes>(sum: V, _q: V) -> V {
        sum
    }
}

struct Zero;
struct One;
struct Two;
struct Infinite;
struct Power;

impl Norm for Zero {
    /// The number of components that differ; NaN differs.
    #[inline(always)]
    fn step<V: FloatLanes>(sum: V, d: V, _: V) -> V {
        sum + V::select(V::eq(d, V::lit(0.0)), V::lit(0.0), V::lit(1.0))
    }
}
impl Norm for One {
    #[inline(always)]
    fn step<V: FloatLanes>(sum: V, d: V, _: V) -> V {
        sum + d.abs()
    }
}
impl Norm for Two {
    #[inline(always)]
    fn step<V: FloatLanes>(sum: V, d: V, _: V) -> V {
        V::fma(d, d, sum)
    }
    #[inline(always)]
    fn finish<V: FloatLanes>(sum: V, _: V) -> V {
        sum.sqrt()
    }
}
impl Norm for Infinite {
    #[inline(always)]
    fn step<V: FloatLanes>(sum: V, d: V, _: V) -> V {
        V::maximum(sum, d.abs())
    }
    #[inline(always)]
    fn join<V: FloatLanes>(a: V, b: V) -> V {
        V::maximum(a, b)
    }
}
impl Norm for Power {
    const LONG: bool = true;
    #[inline(always)]
    fn step<V: FloatLanes>(sum: V, d: V, q: V) -> V {
        sum + V::pow(d.abs(), q)
    }
    #[inline(always)]
    fn finish<V: FloatLanes>(sum: V, q: V) -> V {
        V::pow(sum, V::lit(1.0) / q)
    }
}

/// One panel against rows `rows` of the matrix.
struct Panel<T> {
    p: f64,
    n: usize,
    m: usize,
    x: Ptr<T>,
    y: Ptr<T>,
    /// The panel's first row.
    j: usize,
    rows: (usize, usize),
    /// DEPTH x PANEL elements, transposed.
    panel: *mut T,
    /// Sums of the components so far, PANEL for each row; used where there are more than DEPTH.
    sums: *mut T,
}

fn forward<T: Real>(p: f64, x: &Arr, y: &Arr) -> Result<()> {
    let (n, m) = check(x, &[], &[y])?;
    if n < 2 {
        return Ok(());
    }
    let (x, y) = (Ptr(x.ptr.cast::<T>()), Ptr(y.ptr.cast::<T>()));
    let panels = n.div_ceil(PANEL);
    // With few panels, rows are shared out as well; each share transposes the panel again.
    let share = if panels >= 16 { n } else { 4 * ROWS };
    let shares = n.div_ceil(share);
    let depth = m.min(DEPTH);
    let size = size_of::<T>();
    let kept = if m > DEPTH { share.min(n) * PANEL } else { 0 };
    let failure = Failure::default();
    let ns = (pairs(n) * m / 8 + pairs(n)) as u64
        * if matches!(p, 0.0 | 1.0 | 2.0) || p.is_infinite() { 1 } else { 20 };
    parallel(panels * shares, ns, &|q| {
        // The last panels have the most rows before them: they go first.
        let j = (panels - 1 - q / shares) * PANEL;
        let rows = (q % shares * share, (q % shares + 1) * share);
        let rows = (rows.0, rows.1.min(n).min(j + PANEL));
        if rows.0 >= rows.1 {
            return;
        }
        let done = with_scratch((depth * PANEL + kept) * size, |s| {
            let panel = s.cast::<T>();
            // SAFETY: the scratch holds both parts.
            let sums = unsafe { panel.add(depth * PANEL) };
            dispatch(Panel { p, n, m, x, y, j, rows, panel, sums });
        });
        if let Err(e) = done {
            failure.set(oom(e));
        }
    });
    failure.result()
}

impl<T: Real> ArchKernel for Panel<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        match self.p {
            0.0 => self.with::<T::V<A>, Zero>(),
            1.0 => self.with::<T::V<A>, One>(),
            2.0 => self.with::<T::V<A>, Two>(),
            f64::INFINITY => self.with::<T::V<A>, Infinite>(),
            _ => self.with::<T::V<A>, Power>(),
        }
    }
}

impl<T: Real> Panel<T> {
    #[inline(always)]
    fn with<V: FloatLanes<Elem = T>, F: Norm>(self) {
        let (n, m) = (self.n, self.m);
        let width = PANEL.min(n - self.j);
        // SAFETY: the panel has room for DEPTH components of PANEL rows; those behind the last row stay 0.
        unsafe { std::slice::from_raw_parts_mut(self.panel, m.min(DEPTH) * PANEL) }.fill(T::default());
        for k in (0..m.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(m - k);
            // SAFETY: rows j .. j + width of x, components k .. k + depth.
            unsafe {
                let src = self.x.get().add(self.j * m + k).cast_const();
                transpose(src, m, self.panel, PANEL, width, depth);
            }
            if F::LONG {
                for i in self.rows.0..self.rows.1 {
                    for v in (0..PANEL).step_by(V::N) {
                        self.tile::<V, F, 1, 1>(i, v, k, depth);
                    }
                }
                continue;
            }
            for i in (self.rows.0..self.rows.1).step_by(ROWS) {
                for v in (0..PANEL).step_by(2 * V::N) {
                    self.tile::<V, F, ROWS, 2>(i, v, k, depth);
                }
            }
        }
    }

    /// Rows i .. i + R against H registers of the panel from lane v on, components k .. k + depth.
    #[inline(always)]
    fn tile<V: FloatLanes<Elem = T>, F: Norm, const R: usize, const H: usize>(
        &self,
        i: usize,
        v: usize,
        k: usize,
        depth: usize,
    ) {
        let (n, m) = (self.n, self.m);
        let q = V::lit(self.p);
        let (first, last) = (k == 0, k + depth == m);
        // SAFETY: rows beyond the last one are read as the last one; the panel holds `depth` components, and
        // `sums` as many elements as rows of this job times PANEL. What is written to y are pairs i < j < n,
        // each of which belongs to one job.
        unsafe {
            let row: [*const T; R] =
                std::array::from_fn(|r| self.x.get().add((i + r).min(n - 1) * m + k).cast_const());
            let kept = |r: usize, h: usize| self.sums.add((i + r - self.rows.0) * PANEL + v + h * V::N);
            let zero = V::lit(0.0);
            let mut total = [[zero; H]; R];
            if !first {
                for (r, t) in total.iter_mut().enumerate() {
                    if i + r < self.rows.1 {
                        for (h, t) in t.iter_mut().enumerate() {
                            *t = V::load(kept(r, h));
                        }
                    }
                }
            }
            let mut from = 0;
            while from < depth {
                let to = depth.min(from + BLOCK);
                let mut sum = [[zero; H]; R];
                for c in from..to {
                    let at = self.panel.add(c * PANEL + v);
                    let mut b = [zero; H];
                    for (h, b) in b.iter_mut().enumerate() {
                        *b = V::load(at.add(h * V::N));
                    }
                    for r in 0..R {
                        let a = V::splat(*row[r].add(c));
                        for h in 0..H {
                            sum[r][h] = F::step(sum[r][h], a - b[h], q);
                        }
                    }
                }
                for r in 0..R {
                    for h in 0..H {
                        total[r][h] = F::join(total[r][h], sum[r][h]);
                    }
                }
                from = to;
            }
            for (r, t) in total.iter().enumerate() {
                let i = i + r;
                if i >= self.rows.1 {
                    break;
                }
                for (h, t) in t.iter().enumerate() {
                    if !last {
                        t.store(kept(r, h));
                        continue;
                    }
                    let t = F::finish(*t, q);
                    let j = self.j + v + h * V::N;
                    if j >= n || j + V::N <= i + 1 {
                        continue;
                    }
                    let out = self.y.get().add(start(n, i));
                    if j > i {
                        // Pair (i, j) and the ones behind it in row i.
                        let out = out.add(j - i - 1);
                        if j + V::N <= n { t.store(out) } else { t.store_partial(out, n - j) }
                    } else {
                        for l in i + 1 - j..V::N.min(n - j) {
                            *out.add(j + l - i - 1) = t.extract(l);
                        }
                    }
                }
            }
        }
    }
}

// ---- backward -------------------------------------------------------------------------------------

/// The gradient's rows `rows`.
struct Rows<T> {
    p: f64,
    n: usize,
    m: usize,
    g: Ptr<T>,
    y: Ptr<T>,
    x: Ptr<T>,
    dx: Ptr<T>,
    rows: (usize, usize),
    /// Twice n elements: what each difference is weighted with, and the distances.
    weights: *mut T,
}

fn backward<T: Real>(p: f64, g: &Arr, y: &Arr, x: &Arr, dx: &Arr) -> Result<()> {
    let (n, m) = check(x, &[dx], &[g, y])?;
    if n == 0 || m == 0 {
        return Ok(());
    }
    let [g, y, x, dx] = [g, y, x, dx].map(|a| Ptr(a.ptr.cast::<T>()));
    let (jobs, each) = chunks(n, 4);
    let failure = Failure::default();
    parallel(jobs, (n * n * m / 4) as u64, &|q| {
        let rows = (q * each, n.min((q + 1) * each));
        let done = with_scratch(2 * n * size_of::<T>(), |s| {
            dispatch(Rows { p, n, m, g, y, x, dx, rows, weights: s.cast() });
        });
        if let Err(e) = done {
            failure.set(oom(e));
        }
    });
    failure.result()
}

/// What a component's difference contributes, for weight `w` and distance `r`.
trait Slope {
    /// As in [`Norm`].
    const LONG: bool = false;
    fn of<V: FloatLanes>(d: V, w: V, r: V, q: V) -> V;
}

#[inline(always)]
fn sign<V: FloatLanes>(d: V) -> V {
    let zero = V::lit(0.0);
    // d * 0 keeps NaN.
    V::select(V::lt(zero, d), V::lit(1.0), V::select(V::lt(d, zero), V::lit(-1.0), d * zero))
}

impl Slope for One {
    #[inline(always)]
    fn of<V: FloatLanes>(d: V, w: V, _: V, _: V) -> V {
        sign(d) * w
    }
}
impl Slope for Two {
    #[inline(always)]
    fn of<V: FloatLanes>(d: V, w: V, _: V, _: V) -> V {
        d * w
    }
}
impl Slope for Infinite {
    #[inline(always)]
    fn of<V: FloatLanes>(d: V, w: V, r: V, _: V) -> V {
        V::select(V::eq(d.abs(), r), sign(d) * w, V::lit(0.0))
    }
}
impl Slope for Power {
    const LONG: bool = true;
    #[inline(always)]
    fn of<V: FloatLanes>(d: V, w: V, _: V, q: V) -> V {
        let zero = V::lit(0.0);
        V::select(V::eq(d, zero), zero, sign(d) * V::pow(d.abs(), q) * w)
    }
}

impl<T: Real> ArchKernel for Rows<T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        match self.p {
            // SAFETY: these rows of dx, which only this job writes.
            0.0 => unsafe {
                let (at, len) = (self.rows.0 * self.m, (self.rows.1 - self.rows.0) * self.m);
                std::slice::from_raw_parts_mut(self.dx.get().add(at), len).fill(T::default());
            },
            1.0 => self.with::<T::V<A>, One>(),
            2.0 => self.with::<T::V<A>, Two>(),
            f64::INFINITY => self.with::<T::V<A>, Infinite>(),
            _ => self.with::<T::V<A>, Power>(),
        }
    }
}

impl<T: Real> Rows<T> {
    #[inline(always)]
    fn with<V: FloatLanes<Elem = T>, F: Slope>(&self) {
        let m = self.m;
        for i in self.rows.0..self.rows.1 {
            self.weigh::<V>(i);
            let mut k = 0;
            while !F::LONG && k + 4 * V::N <= m {
                self.stretch::<V, F, 4>(i, k, V::N);
                k += 4 * V::N;
            }
            while k < m {
                self.stretch::<V, F, 1>(i, k, V::N.min(m - k));
                k += V::N;
            }
        }
    }

    /// Weights and distances of row i with all others (0 with itself).
    #[inline(always)]
    fn weigh<V: FloatLanes<Elem = T>>(&self, i: usize) {
        let n = self.n;
        let zero = T::default();
        // SAFETY: pairs of rows below n; the scratch holds 2 n elements.
        unsafe {
            let w = std::slice::from_raw_parts_mut(self.weights, n);
            let r = std::slice::from_raw_parts_mut(self.weights.add(n), n);
            for j in 0..i {
                let at = start(n, j) + i - j - 1;
                (w[j], r[j]) = (*self.g.get().add(at), *self.y.get().add(at));
            }
            (w[i], r[i]) = (zero, zero);
            let at = start(n, i);
            for j in i + 1..n {
                let at = at + j - i - 1;
                (w[j], r[j]) = (*self.g.get().add(at), *self.y.get().add(at));
            }
            if self.p == 1.0 || self.p.is_infinite() {
                return;
            }
            let q = V::lit(self.p - 1.0);
            let mut j = 0;
            while j < n {
                let len = V::N.min(n - j);
                let (pw, pr) = (w.as_mut_ptr().add(j), r.as_ptr().add(j));
                let (a, b) = (V::load_partial(pw, len, zero), V::load_partial(pr, len, zero));
                let power = if self.p == 2.0 { b } else { V::pow(b, q) };
                V::select(V::eq(b, V::lit(0.0)), V::lit(0.0), a / power).store_partial(pw, len);
                j += V::N;
            }
        }
    }

    /// K vectors of components from k on, of which `len` elements exist (all, unless K is 1).
    #[inline(always)]
    fn stretch<V: FloatLanes<Elem = T>, F: Slope, const K: usize>(&self, i: usize, k: usize, len: usize) {
        let (n, m) = (self.n, self.m);
        let q = V::lit(self.p - 1.0);
        // SAFETY: components k .. of rows below n; dx's row i belongs to this job.
        unsafe {
            let load = |at: *const T| -> V {
                if K > 1 || len == V::N { V::load(at) } else { V::load_partial(at, len, T::default()) }
            };
            let own = self.x.get().add(i * m + k).cast_const();
            let mut a = [V::lit(0.0); K];
            for (c, a) in a.iter_mut().enumerate() {
                *a = load(own.add(c * V::N));
            }
            let mut sum = [V::lit(0.0); K];
            for range in [0..i, i + 1..n] {
                for j in range {
                    let (w, r) = (V::splat(*self.weights.add(j)), V::splat(*self.weights.add(n + j)));
                    let other = self.x.get().add(j * m + k).cast_const();
                    for c in 0..K {
                        sum[c] = sum[c] + F::of(a[c] - load(other.add(c * V::N)), w, r, q);
                    }
                }
            }
            let out = self.dx.get().add(i * m + k);
            for (c, s) in sum.iter().enumerate() {
                let out = out.add(c * V::N);
                if K > 1 || len == V::N { s.store(out) } else { s.store_partial(out, len) }
            }
        }
    }
}
