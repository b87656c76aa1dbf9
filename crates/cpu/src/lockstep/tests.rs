//! Factorisations in lockstep against what they must multiply to, in f64.

use super::*;
use pyrite_core::DType;

/// A fixed sequence of numbers in -1..1.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

trait Elem: Copy + Default + Into<f64> {
    const D: DType;
    const EPS: f64;
    fn of(v: f64) -> Self;
}
impl Elem for f32 {
    const D: DType = DType::F32;
    const EPS: f64 = f32::EPSILON as f64;
    fn of(v: f64) -> f32 {
        v as f32
    }
}
impl Elem for f64 {
    const D: DType = DType::F64;
    const EPS: f64 = f64::EPSILON;
    fn of(v: f64) -> f64 {
        v
    }
}

fn dense<T>(v: &mut [T], rows: usize, cols: usize) -> Batch {
    Batch { ptr: v.as_mut_ptr().cast(), step: (rows * cols) as isize, rs: 1, cs: rows as isize }
}

/// `count` matrices of random numbers by rows, with a gap behind each row.
fn make<T: Elem>(count: usize, m: usize, n: usize, symmetric: bool) -> (Vec<T>, Batch, Vec<Vec<f64>>) {
    let mut draw = Draw(m as u64 * 31 + n as u64);
    let mut v: Vec<T> = (0..count * m * (n + 1)).map(|_| T::of(draw.next())).collect();
    let step = m * (n + 1);
    let at = |b: usize, i: usize, j: usize| b * step + i * (n + 1) + j;
    if symmetric {
        for b in 0..count {
            for i in 0..n {
                for j in 0..i {
                    v[at(b, j, i)] = v[at(b, i, j)];
                }
            }
        }
    }
    let plain = (0..count).map(|b| (0..m * n).map(|q| v[at(b, q / n, q % n)].into()).collect()).collect();
    let batch = Batch { ptr: v.as_mut_ptr().cast(), step: step as isize, rs: n as isize + 1, cs: 1 };
    (v, batch, plain)
}

fn near(got: f64, want: f64, bound: f64, what: &str) {
    assert!((got - want).abs() <= bound, "{what}: {got} and {want}");
}

fn check<T: Elem>(count: usize, n: usize) {
    let eps = T::EPS * 8.0 * (n as f64 + 2.0);
    let mut status = vec![-1i32; count];
    let ints = Ints(status.as_mut_ptr());
    // A column by column, its number b.
    let get = |v: &[T], b: usize, i: usize, j: usize| -> f64 { v[b * n * n + j * n + i].into() };

    let (_keep, a, plain) = make::<T>(count, n, n, false);
    let (mut f, mut x) = (vec![T::default(); count * n * n], vec![T::default(); count * n * n]);
    let mut pivots = vec![0i32; count * n];
    let factors = Factors { lu: dense(&mut f, n, n), pivots: Ints(pivots.as_mut_ptr()) };
    let right = Right { b: None, cols: n, x: dense(&mut x, n, n) };
    // SAFETY: all vectors have the sizes that are named.
    unsafe { lu(T::D, count, (n, n), a, Some(factors), Some(right), ints) }.unwrap();
    for b in 0..count {
        assert_eq!(status[b], 0);
        let mut rows: Vec<usize> = (0..n).collect();
        for i in 0..n {
            rows.swap(i, pivots[b * n + i] as usize - 1);
        }
        let size = (0..n * n).map(|q| get(&x, b, q / n, q % n).abs()).fold(1.0, f64::max);
        for i in 0..n {
            for j in 0..n {
                let l = |k: usize| if k < i { get(&f, b, i, k) } else { (k == i) as u8 as f64 };
                let product: f64 = (0..=i.min(j)).map(|k| l(k) * get(&f, b, k, j)).sum();
                near(product, plain[b][rows[i] * n + j], eps, "P A = L U");
                assert!(i <= j || get(&f, b, i, j).abs() <= 1.0, "a pivot was not the largest");
                let one: f64 = (0..n).map(|k| plain[b][i * n + k] * get(&x, b, k, j)).sum();
                near(one, (i == j) as u8 as f64, eps * size, "A X = 1");
            }
        }
    }

    let (mut q, mut r) = (vec![T::default(); count * n * n], vec![T::default(); count * n * n]);
    let (bq, br) = (dense(&mut q, n, n), dense(&mut r, n, n));
    // SAFETY: as above.
    unsafe { super::qr(T::D, count, (n, n), a, Some((bq, n)), (br, n)) }.unwrap();
    for b in 0..count {
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n).map(|k| get(&q, b, i, k) * get(&r, b, k, j)).sum();
                near(product, plain[b][i * n + j], eps, "Q R = A");
                let one: f64 = (0..n).map(|k| get(&q, b, k, i) * get(&q, b, k, j)).sum();
                near(one, (i == j) as u8 as f64, eps, "Q^T Q = 1");
                assert!(i <= j || get(&r, b, i, j) == 0.0);
            }
        }
    }

    let mut s = vec![T::default(); count * n];
    let values = |v: &mut [T]| Batch { ptr: v.as_mut_ptr().cast(), step: n as isize, rs: 1, cs: 1 };
    // SAFETY: as above.
    unsafe { singular_values(T::D, count, (n, n), a, values(&mut s), ints) }.unwrap();
    for b in 0..count {
        assert_eq!(status[b], DONE);
        let s: Vec<f64> = s[b * n..][..n].iter().map(|v| (*v).into()).collect();
        assert!(s.windows(2).all(|w| w[0] >= w[1]));
        let squares: f64 = plain[b].iter().map(|v| v * v).sum();
        near(s.iter().map(|v| v * v).sum(), squares, eps * squares.max(1.0), "squares of singular values");
    }

    let (_keep, a, plain) = make::<T>(count, n, n, true);
    let (mut w, mut v) = (vec![T::default(); count * n], vec![T::default(); count * n * n]);
    // SAFETY: as above.
    unsafe { eigh(T::D, count, n, a, values(&mut w), Some(dense(&mut v, n, n)), ints) }.unwrap();
    for b in 0..count {
        assert_eq!(status[b], DONE);
        let w: Vec<f64> = w[b * n..][..n].iter().map(|v| (*v).into()).collect();
        assert!(w.windows(2).all(|w| w[0] <= w[1]));
        for i in 0..n {
            for j in 0..n {
                let left: f64 = (0..n).map(|k| plain[b][i * n + k] * get(&v, b, k, j)).sum();
                near(left, get(&v, b, i, j) * w[j], eps, "A V = V W");
                let one: f64 = (0..n).map(|k| get(&v, b, k, i) * get(&v, b, k, j)).sum();
                near(one, (i == j) as u8 as f64, eps, "V^T V = 1");
            }
        }
    }
}

#[test]
fn every_size() {
    for n in 1..=MOST {
        for count in [1, 5, 16, 17, 70] {
            check::<f32>(count, n);
            check::<f64>(count, n);
        }
    }
}
