//! Neural-network operators against naive loops in f64, and their gradients (first and second
//! order) against finite differences along a random direction.
#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)]

mod conv;
mod losses;
mod norm;
mod others;
mod pool;

use pyrite_tensor::autograd::{self, GradMode};
use pyrite_tensor::{DType, Result, Tensor, ops};

/// Numbers in (-1, 1) from a fixed stream.
pub struct Rng(u64);

impl Rng {
    fn draw(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let v: Vec<f64> = (0..n).map(|_| self.draw()).collect();
        Tensor::from_slice(&v, shape).unwrap()
    }
    pub fn classes(&mut self, n: usize, c: usize) -> Vec<i64> {
        (0..n).map(|_| ((self.draw() + 1.0) / 2.0 * c as f64) as i64).collect()
    }
}

pub fn v(t: &Tensor) -> Vec<f64> {
    ops::to_dtype(&t.detach(), DType::F64).unwrap().to_vec().unwrap()
}

#[track_caller]
pub fn close(a: &[f64], b: &[f64], tol: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tol * (1.0 + y.abs()), "element {i}: {x} against {y}");
    }
}

pub type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

pub fn dot(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ops::sum(&ops::mul(a, b)?, None, false, None)
}

pub fn leaf(t: &Tensor) -> Tensor {
    let t = t.detach();
    t.set_requires_grad(true).unwrap();
    t
}

/// `d/de f(x + e d) . u` by differences against the engine's gradient.
#[track_caller]
pub fn first_order(f: Function, xs: &[Tensor]) {
    let mut rng = Rng(77);
    let leaves: Vec<Tensor> = xs.iter().map(leaf).collect();
    let y = f(&leaves).unwrap();
    let u = rng.tensor(y.shape());
    let ds: Vec<Tensor> = xs.iter().map(|x| rng.tensor(x.shape())).collect();
    let grads = autograd::grad(&[y], &[Some(u.clone())], &leaves, false, false).unwrap();
    let mut have = 0.0;
    for (g, d) in grads.iter().zip(&ds) {
        if let Some(g) = g {
            assert_eq!(g.shape(), d.shape());
            have += v(&dot(g, d).unwrap())[0];
        }
    }
    let at = |e: f64| {
        let _off = GradMode::new(false);
        let moved: Vec<Tensor> =
            xs.iter().zip(&ds).map(|(x, d)| ops::add(x, &ops::mul(d, e).unwrap()).unwrap()).collect();
        v(&dot(&f(&moved).unwrap(), &u).unwrap())[0]
    };
    let e = 1e-6;
    let want = (at(e) - at(-e)) / (2.0 * e);
    assert!((have - want).abs() < 1e-6 * (1.0 + want.abs()), "gradient {have}, differences {want}");
}

/// First order, then the same of the gradient function itself, built with `create_graph`.
#[track_caller]
pub fn gradcheck(f: Function, xs: &[Tensor]) {
    first_order(f, xs);
    let mut rng = Rng(99);
    let u = rng.tensor(f(xs).unwrap().shape());
    let n = xs.len();
    // The gradients for all inputs as functions of the inputs and of the incoming gradient.
    let second = |a: &[Tensor]| -> Result<Tensor> {
        let _on = GradMode::new(true);
        let own: Vec<Tensor> =
            a[..n].iter().map(|t| if t.requires_grad() { t.clone() } else { leaf(t) }).collect();
        let gs = autograd::grad(&[f(&own)?], &[Some(a[n].clone())], &own, true, true)?;
        let mut sum: Option<Tensor> = None;
        for (i, g) in gs.iter().enumerate() {
            let Some(g) = g else { continue };
            let s = dot(&ops::sin(g)?, &Rng(1000 + i as u64).tensor(g.shape()))?;
            sum = Some(match sum {
                Some(t) => ops::add(&t, &s)?,
                None => s,
            });
        }
        Ok(sum.unwrap())
    };
    let mut all: Vec<Tensor> = xs.to_vec();
    all.push(u);
    first_order(&second, &all);
    // The fused gradient and the one built for differentiation agree.
    let leaves: Vec<Tensor> = xs.iter().map(leaf).collect();
    let run = |create: bool| {
        let y = f(&leaves).unwrap();
        let g = autograd::grad(&[y], &[Some(all[n].clone())], &leaves, create, create).unwrap();
        g.iter().flatten().map(v).collect::<Vec<_>>()
    };
    for (a, b) in run(false).iter().zip(&run(true)) {
        close(a, b, 1e-10);
    }
}
