//! The autograd engine from Rust: values, accumulation, graphs of gradients, in-place and views,
//! and graphs too deep for any stack.

#![allow(clippy::unwrap_used, clippy::cloned_ref_to_slice_refs)] // In a test a panic is the report.

use pyrite_core::{DType, Device};
use pyrite_tensor::autograd::{self, GradMode, backward, grad};
use pyrite_tensor::{Tensor, ops};

fn leaf(v: &[f64]) -> Tensor {
    let t = Tensor::from_slice(v, &[v.len()]).unwrap();
    t.set_requires_grad(true).unwrap();
    t
}

fn vals(t: &Tensor) -> Vec<f64> {
    t.to_vec::<f64>().unwrap()
}

#[test]
fn product_rule_and_accumulation() {
    let (x, y) = (leaf(&[2.0, 3.0]), leaf(&[5.0, 7.0]));
    for round in 1..=2 {
        let z = ops::sum(&ops::mul(&x, &y).unwrap(), None, false, None).unwrap();
        backward(&[z], &[], false, false, None).unwrap();
        assert_eq!(vals(&x.grad().unwrap()), [5.0 * round as f64, 7.0 * round as f64]);
    }
    assert_eq!(vals(&y.grad().unwrap()), [4.0, 6.0]);
}

#[test]
fn broadcasting_sums_back() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let c = Tensor::from_slice(&[1.0f64, 10.0, 100.0, 1000.0], &[4, 1]).unwrap();
    let z = ops::sum(&ops::mul(&c, &x).unwrap(), None, false, None).unwrap();
    backward(&[z], &[], false, false, None).unwrap();
    assert_eq!(vals(&x.grad().unwrap()), [1111.0; 3]);
}

#[test]
fn second_and_third_derivative_of_a_power() {
    let x = leaf(&[2.0]);
    let y = ops::pow(&x, 4.0).unwrap();
    let g1 = grad(&[y], &[], &[x.clone()], true, true).unwrap().remove(0).unwrap();
    let g2 = grad(&[g1.clone()], &[], &[x.clone()], true, true).unwrap().remove(0).unwrap();
    let g3 = grad(&[g2.clone()], &[], &[x.clone()], true, true).unwrap().remove(0).unwrap();
    assert_eq!((vals(&g1), vals(&g2), vals(&g3)), (vec![32.0], vec![48.0], vec![48.0]));
}

#[test]
fn second_backward_is_an_error() {
    let x = leaf(&[2.0]);
    let y = ops::sum(&ops::mul(&x, &x).unwrap(), None, false, None).unwrap();
    backward(&[y.clone()], &[], false, false, None).unwrap();
    let e = backward(&[y], &[], false, false, None).unwrap_err();
    assert!(e.message().contains("backward through the graph a second time"), "{e}");
}

#[test]
fn overwritten_saved_tensors_are_kept() {
    let x = leaf(&[2.0]);
    let a = ops::exp(&x).unwrap();
    let y = ops::sum(&a, None, false, None).unwrap();
    ops::fill_(&a.detach(), 1.0.into()).unwrap();
    backward(&[y], &[], false, false, None).unwrap();
    assert_eq!(vals(&x.grad().unwrap()), [2f64.exp()]);
}

#[test]
fn write_through_a_view_reaches_the_base() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let base = ops::mul(&x, 1.0).unwrap();
    let row = ops::narrow(&base, 0, 1, 1).unwrap();
    let other = ops::narrow(&base, 0, 0, 2).unwrap();
    let mul_ = pyrite_core::rows::find("mul").unwrap();
    ops::elementwise::run_inplace(mul_, &[(&row).into(), 10.0.into()], &[]).unwrap();
    assert_eq!(vals(&base), [1.0, 20.0, 3.0]);
    let z =
        ops::add(&ops::sum(&base, None, false, None).unwrap(), &ops::sum(&other, None, false, None).unwrap())
            .unwrap();
    backward(&[z], &[], false, false, None).unwrap();
    assert_eq!(vals(&x.grad().unwrap()), [2.0, 20.0, 1.0]);
}

#[test]
fn assigning_into_zeros_records() {
    let x = leaf(&[3.0]);
    let buf = Tensor::zeros(&[4], DType::F64, Device::Cpu).unwrap();
    let slot = ops::narrow(&buf, 0, 2, 1).unwrap();
    ops::copy_(&slot, &ops::mul(&x, &x).unwrap()).unwrap();
    assert!(buf.requires_grad());
    let z = ops::sum(&buf, None, false, None).unwrap();
    backward(&[z], &[], false, false, None).unwrap();
    assert_eq!(vals(&x.grad().unwrap()), [6.0]);
}

#[test]
fn leaf_write_is_an_error() {
    let x = leaf(&[1.0]);
    let e = ops::fill_(&x, 0.0.into()).unwrap_err();
    assert!(e.message().contains("a leaf Variable that requires grad"), "{e}");
    let _off = GradMode::new(false);
    ops::fill_(&x, 0.0.into()).unwrap();
}

/// Runs on an 8 MB stack, the usual size of a main thread.
fn on_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(8 << 20).spawn(f).unwrap().join().unwrap();
}

#[test]
fn million_op_chain() {
    on_small_stack(|| {
        let x = leaf(&[1.0]);
        let mut y = ops::add(&x, 0.0).unwrap();
        for i in 0..1_000_000 {
            y = if i % 2 == 0 { ops::add(&y, 1e-6).unwrap() } else { ops::mul(&y, 1.0).unwrap() };
        }
        backward(&[y.clone()], &[], true, false, None).unwrap();
        assert_eq!(vals(&x.grad().unwrap()), [1.0]);
        drop(y);
    });
}

#[test]
fn million_op_chain_dropped_without_backward() {
    on_small_stack(|| {
        let x = leaf(&[1.0]);
        let mut y = ops::add(&x, 0.0).unwrap();
        for _ in 0..1_000_000 {
            // Saves its input: the graph hangs together through saved tensors, too.
            y = ops::sin(&y).unwrap();
        }
        drop(y);
    });
}

#[test]
fn wide_fan_out() {
    let x = leaf(&[1.0]);
    let y = ops::mul(&x, 2.0).unwrap();
    let mut total = ops::mul(&y, 1.0).unwrap();
    for _ in 0..10_000 {
        total = ops::add(&total, &y).unwrap();
    }
    backward(&[total], &[], false, false, None).unwrap();
    assert_eq!(vals(&x.grad().unwrap()), [20_002.0]);
}

#[test]
fn inputs_limit_the_work() {
    let (x, y) = (leaf(&[2.0]), leaf(&[3.0]));
    let z = ops::mul(&ops::mul(&x, &y).unwrap(), &y).unwrap();
    backward(&[z], &[], false, false, Some(&[y.clone()])).unwrap();
    assert_eq!(vals(&y.grad().unwrap()), [12.0]);
    assert!(x.grad().is_none());
}

#[test]
fn no_grad_records_nothing() {
    let x = leaf(&[2.0]);
    let _off = GradMode::new(false);
    assert!(!ops::mul(&x, &x).unwrap().requires_grad());
    assert!(!autograd::is_grad_enabled());
}
