//! Products with at most four rows: limited by reading B, so B is read once, in order, and never packed.

use super::vector::{Scalar, Vector};

pub const MAX_ROWS: usize = 4;

/// `y[i][j] = sum_p a[i * rsa + p * csa] * b[p * rsb + j]`: B has adjacent columns.
pub struct Axpy<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub rsa: isize,
    pub csa: isize,
    pub b: *const T,
    pub rsb: isize,
    pub y: *mut T,
    pub ldy: usize,
}

/// `y[i][j] = sum_p a[i * rsa + p] * b[p + j * csb]`: columns of B, and rows of A, are contiguous.
pub struct Dots<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const T,
    pub rsa: isize,
    pub b: *const T,
    pub csb: isize,
    pub y: *mut T,
    pub ldy: usize,
}

pub type AxpyFn<T> = unsafe fn(&Axpy<T>);
pub type DotsFn<T> = unsafe fn(&Dots<T>);

/// # Safety
/// The pointers cover m, n and k at the given strides; `y` overlaps neither A nor B; `m <= MAX_ROWS`.
#[inline(always)]
pub unsafe fn axpy<V: Vector>(g: &Axpy<V::T>) {
    // SAFETY: the caller's contract.
    unsafe {
        match g.m {
            1 => axpy_rows::<V, 1, 8>(g),
            2 => axpy_rows::<V, 2, 4>(g),
            3 => axpy_rows::<V, 3, 4>(g),
            _ => axpy_rows::<V, 4, 4>(g),
        }
    }
}

/// `STEP` rows of B per pass over y: y is loaded and stored once for all of them.
#[inline(always)]
unsafe fn axpy_rows<V: Vector, const M: usize, const STEP: usize>(g: &Axpy<V::T>) {
    // SAFETY: the caller's contract; partial vectors touch only `n` columns.
    unsafe {
        for i in 0..M {
            for j in 0..g.n {
                *g.y.add(i * g.ldy + j) = V::T::ZERO;
            }
        }
        let mut p = 0;
        while p < g.k {
            let steps = STEP.min(g.k - p);
            let mut x = [[V::splat(V::T::ZERO); STEP]; M];
            let mut rows = [g.b.wrapping_offset(p as isize * g.rsb); STEP];
            for s in 0..steps {
                for i in 0..M {
                    x[i][s] = V::splat(*g.a.offset(i as isize * g.rsa + (p + s) as isize * g.csa));
                }
                rows[s] = g.b.wrapping_offset((p + s) as isize * g.rsb);
            }
            let mut j = 0;
            if steps == STEP {
                while j + V::LANES <= g.n {
                    let b: [V; STEP] = std::array::from_fn(|s| V::load(rows[s].add(j)));
                    for i in 0..M {
                        let y = g.y.add(i * g.ldy + j);
                        let mut t = V::load(y);
                        for s in 0..STEP {
                            t = x[i][s].fma(b[s], t);
                        }
                        t.store(y);
                    }
                    j += V::LANES;
                }
            }
            while j < g.n {
                let n = V::LANES.min(g.n - j);
                for i in 0..M {
                    let y = g.y.add(i * g.ldy + j);
                    let mut t = V::load_n(y, n);
                    for s in 0..steps {
                        t = x[i][s].fma(V::load_n(rows[s].add(j), n), t);
                    }
                    t.store_n(y, n);
                }
                j += n;
            }
            p += steps;
        }
    }
}

/// # Safety
/// As for [`axpy`].
#[inline(always)]
pub unsafe fn dots<V: Vector>(g: &Dots<V::T>) {
    // SAFETY: the caller's contract.
    unsafe {
        match g.m {
            1 => dots_rows::<V, 1, 4>(g),
            2 => dots_rows::<V, 2, 4>(g),
            3 => dots_rows::<V, 3, 2>(g),
            _ => dots_rows::<V, 4, 2>(g),
        }
    }
}

#[inline(always)]
unsafe fn dots_rows<V: Vector, const M: usize, const J: usize>(g: &Dots<V::T>) {
    let mut j = 0;
    // SAFETY: the caller's contract.
    unsafe {
        while j + J <= g.n {
            dots_block::<V, M, J>(g, j);
            j += J;
        }
        while j < g.n {
            dots_block::<V, M, 1>(g, j);
            j += 1;
        }
    }
}

/// Each dot product keeps two partial vectors, so that one column alone is not bound by latency. The
/// order of additions depends on `k` and the vector width only, never on the column's place.
#[inline(always)]
unsafe fn dots_block<V: Vector, const M: usize, const J: usize>(g: &Dots<V::T>, j: usize) {
    // SAFETY: the caller's contract with `j + J <= n`.
    unsafe {
        let a: [*const V::T; M] = std::array::from_fn(|i| g.a.offset(i as isize * g.rsa));
        let b: [*const V::T; J] = std::array::from_fn(|c| g.b.offset((j + c) as isize * g.csb));
        let mut even = [[V::splat(V::T::ZERO); J]; M];
        let mut odd = [[V::splat(V::T::ZERO); J]; M];
        let mut p = 0;
        while p + 2 * V::LANES <= g.k {
            for c in 0..J {
                let b0 = V::load(b[c].add(p));
                let b1 = V::load(b[c].add(p + V::LANES));
                for i in 0..M {
                    even[i][c] = V::load(a[i].add(p)).fma(b0, even[i][c]);
                    odd[i][c] = V::load(a[i].add(p + V::LANES)).fma(b1, odd[i][c]);
                }
            }
            p += 2 * V::LANES;
        }
        while p < g.k {
            let n = V::LANES.min(g.k - p);
            for c in 0..J {
                let bv = V::load_n(b[c].add(p), n);
                for i in 0..M {
                    even[i][c] = V::load_n(a[i].add(p), n).fma(bv, even[i][c]);
                }
            }
            p += n;
        }
        for i in 0..M {
            for c in 0..J {
                *g.y.add(i * g.ldy + j + c) = even[i][c].add(odd[i][c]).sum();
            }
        }
    }
}
