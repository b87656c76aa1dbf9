//! Each factorisation multiplied back, for the four element types; degenerate input.
#![allow(clippy::unwrap_used, clippy::undocumented_unsafe_blocks)]

use crate::field::Field;
use crate::*;
use faer::{c32, c64};

/// A dense matrix by columns.
#[derive(Clone)]
struct M<T> {
    n: usize,
    m: usize,
    v: Vec<T>,
}

impl<T: Field> M<T> {
    fn new(m: usize, n: usize, f: impl Fn(usize, usize) -> T) -> M<T> {
        M { m, n, v: (0..m * n).map(|i| f(i % m, i / m)).collect() }
    }
    fn random(m: usize, n: usize, seed: u64) -> M<T> {
        let mut s = seed;
        let mut next = move || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        let v = (0..m * n).map(|_| T::of(next(), next())).collect();
        M { m, n, v }
    }
    fn mat(&mut self) -> Mat {
        Mat { ptr: self.v.as_mut_ptr() as *mut u8, rows: self.m, cols: self.n, rs: 1, cs: self.m as isize }
    }
    fn at(&self, i: usize, j: usize) -> T {
        self.v[i + j * self.m]
    }
    fn mul(&self, b: &M<T>) -> M<T> {
        M::new(self.m, b.n, |i, j| (0..self.n).fold(T::ZERO, |s, k| s + self.at(i, k) * b.at(k, j)))
    }
    fn h(&self) -> M<T> {
        M::new(self.n, self.m, |i, j| self.at(j, i).conjugate())
    }
    fn close(&self, b: &M<T>, tol: f64) {
        assert_eq!((self.m, self.n), (b.m, b.n));
        for (x, y) in self.v.iter().zip(&b.v) {
            assert!((*x - *y).size() < tol, "{} {} against {} {}", x.re(), x.im(), y.re(), y.im());
        }
    }
}

fn all<T: Field>(num: Num, tol: f64) {
    let k = kernels(num);
    for (m, n) in [(1, 1), (2, 2), (5, 5), (40, 40), (7, 4), (4, 7), (70, 33), (33, 70)] {
        let a = M::<T>::random(m, n, (m * 100 + n) as u64);
        let tol = tol * (m + n) as f64;
        let r = m.min(n);
        // LU
        let mut lu = a.clone();
        let mut piv = vec![0i32; r];
        assert_eq!(unsafe { k.lu(lu.mat(), &mut piv) }, Ok(0));
        let l = M::<T>::new(m, r, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Equal => T::ONE,
            std::cmp::Ordering::Greater => lu.at(i, j),
            _ => T::ZERO,
        });
        let u = M::<T>::new(r, n, |i, j| if i <= j { lu.at(i, j) } else { T::ZERO });
        let mut pa = a.clone();
        unsafe { crate::factor::swap_rows::<T>(pa.mat(), &piv, false) };
        l.mul(&u).close(&pa, tol);
        // QR
        for full in [false, true] {
            let kk = if full { m } else { r };
            let (mut c, mut q, mut rr) = (a.clone(), M::<T>::random(m, kk, 1), M::<T>::random(kk, n, 1));
            unsafe { k.qr_explicit(c.mat(), Some(q.mat()), rr.mat()) }.unwrap();
            q.mul(&rr).close(&a, tol);
            q.h().mul(&q).close(&M::new(kk, kk, |i, j| if i == j { T::ONE } else { T::ZERO }), tol);
        }
        // SVD
        for full in [false, true] {
            let (cu, cv) = if full { (m, n) } else { (r, r) };
            let (mut c, mut u, mut v) = (a.clone(), M::<T>::random(m, cu, 1), M::<T>::random(n, cv, 1));
            let mut s = vec![<T::R as crate::field::Part>::NOTHING; r];
            unsafe { k.svd(c.mat(), s.as_mut_ptr() as *mut u8, Some((u.mat(), v.mat()))) }.unwrap();
            let us = M::<T>::new(m, r, |i, j| u.at(i, j) * T::of(s[j].into(), 0.0));
            let vh = M::<T>::new(r, n, |i, j| v.at(j, i).conjugate());
            us.mul(&vh).close(&a, tol);
            let mut s2 = vec![<T::R as crate::field::Part>::NOTHING; r];
            unsafe { k.svd(c.mat(), s2.as_mut_ptr() as *mut u8, None) }.unwrap();
            for (x, y) in s.iter().zip(&s2) {
                assert!((Into::<f64>::into(*x) - Into::<f64>::into(*y)).abs() < tol);
            }
        }
        if m != n {
            continue;
        }
        // Cholesky
        let eye = M::<T>::new(n, n, |i, j| if i == j { T::ONE } else { T::ZERO });
        let mut p = a.mul(&a.h());
        (0..n).for_each(|i| p.v[i * (n + 1)] += T::ONE);
        let mut c = p.clone();
        assert_eq!(unsafe { k.cholesky(c.mat()) }, Ok(0));
        let l = M::<T>::new(n, n, |i, j| if i >= j { c.at(i, j) } else { T::ZERO });
        l.mul(&l.h()).close(&p, tol * 4.0);
        // Systems
        let b = M::<T>::random(n, 3, 9);
        for op in [Op::Plain, Op::Transposed, Op::Adjoint] {
            let mut x = b.clone();
            let mut well = a.clone();
            (0..n).for_each(|i| well.v[i * (n + 1)] += T::of(n as f64, 0.0));
            let w = match op {
                Op::Plain => well.clone(),
                Op::Adjoint => well.h(),
                Op::Transposed => M::new(n, n, |i, j| well.at(j, i)),
            };
            let mut piv = vec![0i32; n];
            unsafe {
                k.lu(well.mat(), &mut piv).unwrap();
                k.lu_solve(well.mat(), &piv, x.mat(), op);
            }
            w.mul(&x).close(&b, tol * 8.0);
        }
        // Hermitian eigenvalues, and an indefinite system
        let herm = M::<T>::new(n, n, |i, j| a.at(i, j) + a.at(j, i).conjugate());
        let (mut c, mut v) = (herm.clone(), M::<T>::random(n, n, 1));
        let mut w = vec![<T::R as crate::field::Part>::NOTHING; n];
        unsafe { k.eigh(c.mat(), w.as_mut_ptr() as *mut u8, Some(v.mat())) }.unwrap();
        v.h().mul(&v).close(&eye, tol);
        let vw = M::<T>::new(n, n, |i, j| v.at(i, j) * T::of(w[j].into(), 0.0));
        vw.mul(&v.h()).close(&herm, tol * 4.0);
        assert!(w.windows(2).all(|p| Into::<f64>::into(p[0]) <= Into::<f64>::into(p[1])));
        for hermitian in [true, false] {
            let s = if hermitian { herm.clone() } else { M::new(n, n, |i, j| a.at(i, j) + a.at(j, i)) };
            let mut ld = s.clone();
            let mut piv = vec![0i32; n];
            let mut x = b.clone();
            unsafe {
                assert_eq!(k.ldl(ld.mat(), &mut piv, hermitian), 0);
                k.ldl_solve(ld.mat(), &piv, x.mat(), hermitian);
            }
            s.mul(&x).close(&b, tol * 1e3);
        }
    }
}

#[test]
fn products_give_the_matrix_back() {
    all::<f32>(Num::F32, 2e-6);
    all::<f64>(Num::F64, 1e-14);
    all::<c32>(Num::C32, 2e-6);
    all::<c64>(Num::C64, 1e-14);
}

fn general<R: Field, C: Field>(real: Num, complex: Num, tol: f64) {
    for n in [1, 2, 3, 10, 60] {
        let mut a = M::<R>::random(n, n, n as u64);
        let check = |a: &M<C>, v: &M<C>, w: &[C]| {
            let vw = M::<C>::new(n, n, |i, j| v.at(i, j) * w[j]);
            a.mul(v).close(&vw, tol * n as f64);
            for j in 0..n {
                let s: f64 = (0..n).map(|i| v.at(i, j).re().powi(2) + v.at(i, j).im().powi(2)).sum();
                assert!((s - 1.0).abs() < 1e-5);
            }
        };
        let (mut w, mut v) = (vec![C::ZERO; n], M::<C>::random(n, n, 1));
        unsafe { kernels(real).eig(a.mat(), w.as_mut_ptr() as *mut u8, Some(v.mat())) }.unwrap();
        check(&M::new(n, n, |i, j| C::of(a.at(i, j).re(), 0.0)), &v, &w);
        let mut c = M::<C>::random(n, n, 5 + n as u64);
        unsafe { kernels(complex).eig(c.mat(), w.as_mut_ptr() as *mut u8, Some(v.mat())) }.unwrap();
        check(&c, &v, &w);
    }
}

#[test]
fn eigenvectors_of_general_matrices() {
    general::<f32, c32>(Num::F32, Num::C32, 1e-5);
    general::<f64, c64>(Num::F64, Num::C64, 1e-13);
}

#[test]
fn what_is_not_finite_or_singular_is_reported() {
    for bad in [f64::NAN, f64::INFINITY] {
        for n in [1, 3, 40, 150] {
            let make = || {
                let mut a = M::<f64>::random(n, n, 3);
                a.v[n / 2] = bad;
                a
            };
            let k = kernels(Num::F64);
            let mut w = vec![0f64; 2 * n];
            let w = w.as_mut_ptr() as *mut u8;
            let mut piv = vec![0i32; n];
            unsafe {
                assert_eq!(k.svd(make().mat(), w, None), Err(Failure::NotFinite));
                assert_eq!(k.eigh(make().mat(), w, None), Err(Failure::NotFinite));
                assert_eq!(k.eig(make().mat(), w, None), Err(Failure::NotFinite));
                assert!(k.cholesky(make().mat()).unwrap() > 0);
                k.lu(make().mat(), &mut piv).unwrap();
                assert!(piv.iter().all(|p| *p >= 1 && *p <= n as i32));
                k.qr(make().mat(), w).unwrap();
                k.ldl(make().mat(), &mut piv, false);
                assert!(piv.iter().all(|p| *p != 0 && p.unsigned_abs() as usize <= n));
            }
        }
    }
    let mut z = M::<f64>::new(3, 3, |_, _| 0.0);
    let mut piv = vec![0i32; 3];
    unsafe {
        assert_eq!(kernels(Num::F64).lu(z.mat(), &mut piv), Ok(1));
        assert_eq!(piv, [1, 2, 3]);
        assert_eq!(kernels(Num::F64).cholesky(z.mat()), Ok(1));
        assert_eq!(kernels(Num::F64).ldl(z.mat(), &mut piv, false), 1);
    }
}

#[test]
fn distances() {
    let (x, y) = (vec![0.0f64, 1.0, 2.0, 5.0], vec![1.0f64, 1.0, -1.0, 3.0, 0.0, 0.0]);
    let m = |v: &Vec<f64>, cols: usize| Mat {
        ptr: v.as_ptr() as *mut u8,
        rows: v.len() / cols,
        cols,
        rs: cols as isize,
        cs: 1,
    };
    for (p, want) in [
        (0.0, [1.0, 2.0, 1.0, 2.0, 2.0, 2.0]),
        (1.0, [1.0, 3.0, 1.0, 5.0, 5.0, 7.0]),
        (2.0, [1.0, 5f64.sqrt(), 1.0, 17f64.sqrt(), 13f64.sqrt(), 29f64.sqrt()]),
        (f64::INFINITY, [1.0, 2.0, 1.0, 4.0, 3.0, 5.0]),
        (3.0, [1.0, 9f64.cbrt(), 1.0, 65f64.cbrt(), 35f64.cbrt(), 133f64.cbrt()]),
    ] {
        let out = vec![0.0; 6];
        unsafe { distance(Num::F64, Distance::new(p), m(&x, 2), m(&y, 2), m(&out, 3)) };
        for (a, b) in out.iter().zip(want) {
            assert!((a - b).abs() < 1e-12, "p = {p}: {out:?}");
        }
    }
}
