//! Map, copy and fill against the CPU backend.

use crate::common::*;
use pyrite_core::backend::Formula;
use pyrite_core::plan::{Operand, Plan};
use pyrite_core::rows::{ROWS, Row, Use};
use pyrite_core::{DType, Layout, Scalar};
use pyrite_cpu::cpu;

/// The dtypes of a row's operands, output first, as `variants` compiles them.
fn operand_dtypes(row: &Row, formula: Formula, d: DType) -> Vec<DType> {
    let names: Vec<&str> = match formula {
        Formula::Forward => row.inputs.to_vec(),
        Formula::Grad(i) => std::iter::once("g")
            .chain(row.grad(i as usize).unwrap().uses.iter().map(|u| match u {
                Use::Input(k) => row.inputs[*k as usize],
                Use::Output => "y",
            }))
            .collect(),
    };
    let mask = row.bool_out && formula == Formula::Forward;
    let mut out = vec![if mask { DType::Bool } else { d }];
    for n in names {
        let condition = row.has(pyrite_core::rows::flag::CONDITION) && (n == "c" || n == "m");
        out.push(if condition { DType::Bool } else { d });
    }
    out
}

fn layouts(k: usize, strided: bool) -> Vec<Layout> {
    if !strided {
        return vec![Layout::contiguous(&[77]); k];
    }
    // Output dense, then transposed, broadcast along one dimension, and walked backwards.
    let kinds = [
        Layout::contiguous(&[7, 11]),
        Layout::contiguous(&[11, 7]).transpose(0, 1).unwrap(),
        Layout::new(&[7usize, 11][..], &[0isize, 1][..], 0),
        Layout::new(&[7usize, 11][..], &[-11isize, -1][..], 76),
        Layout::new(&[7usize, 11][..], &[1isize, 0][..], 3),
        Layout::contiguous(&[7, 11]),
    ];
    kinds[..k].to_vec()
}

/// Runs one formula on both devices and compares.
fn compare(row: &Row, formula: Formula, d: DType, strided: bool, tol: f64) -> Result<(), String> {
    let dev = device().unwrap();
    let dtypes = operand_dtypes(row, formula, d);
    let layouts = layouts(dtypes.len(), strided);
    let mut rng = Lcg(row.id.0 as u64 * 7 + 1);
    let (lo, hi) = row.sample;
    // Integers: whole numbers; unsigned ones not below zero; nothing that an i8 product overflows
    // differently (integers wrap on both sides).
    let (lo, hi) = if d.is_int() {
        (if d.is_signed() { lo.min(-4.0) } else { lo.max(0.0) }, hi.max(9.0))
    } else {
        (lo, hi)
    };
    let mut host = Vec::new();
    for (i, t) in dtypes.iter().enumerate() {
        let mut v: Vec<f64> = (0..77)
            .map(|_| match *t {
                DType::Bool => (rng.next() < 0.5) as u8 as f64,
                t if t.is_int() => rng.range(lo, hi).round(),
                _ => rng.range(lo, hi),
            })
            .collect();
        if d.is_float() && formula == Formula::Forward && i > 0 && !strided {
            for (slot, special) in v.iter_mut().zip([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0]) {
                *slot = special;
            }
        }
        host.push(v);
    }
    let params: Vec<Scalar> = row
        .params
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let v = p.1.unwrap_or(i as f64 + 0.5);
            if d.is_int() || d.is_bool() { Scalar::Int(v as i64) } else { Scalar::Float(v) }
        })
        .collect();
    let run = |on: &'static dyn pyrite_core::Backend| -> Result<Vec<f64>, String> {
        let arrays: Vec<Array> = host
            .iter()
            .zip(&dtypes)
            .zip(&layouts)
            .map(|((v, t), l)| Array::new(on, v, *t, l.clone()))
            .collect();
        let operands: Vec<Operand> = arrays
            .iter()
            .map(|a| Operand { ptr: a.storage.ptr(), dtype: a.dtype, layout: &a.layout })
            .collect();
        let plan = Plan::new(row.name, layouts[0].shape(), &operands).map_err(|e| e.to_string())?;
        on.map(row.id, formula, d.compute(), &plan, &params).map_err(|e| e.to_string())?;
        Ok(arrays[0].values())
    };
    let (want, got) = (run(cpu())?, run(dev)?);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        if !close(*g, *w, tol) {
            let inputs: Vec<f64> = host[1..].iter().map(|h| h[i]).collect();
            return Err(format!(
                "{} {formula:?} {d} strided={strided}: element {i} of {inputs:?}: cuda {g}, cpu {w}",
                row.name
            ));
        }
    }
    Ok(())
}

fn every_row(d: DType, tol: f64) {
    let Some(_) = device() else { return };
    // One module holds all rows: a compiler run per kernel would take minutes.
    pyrite_cuda::warmup(0, d).unwrap();
    let mut bad = Vec::new();
    let mut done = 0;
    for row in ROWS.iter().filter(|r| r.class.takes(d.compute())) {
        // No driver runs these: shifts refuse bool, nan_to_num leaves integers alone.
        if (d.is_bool() && row.has(pyrite_core::rows::flag::NOBOOL))
            || (d.is_int() && row.name == "nan_to_num_scalars")
        {
            continue;
        }
        let mut formulas = vec![Formula::Forward];
        if d.is_float() {
            formulas.extend(row.grads.iter().map(|g| Formula::Grad(g.input)));
        }
        for f in formulas {
            for strided in [false, true] {
                // The gamma functions and their kin lose digits by cancellation near their zeros.
                let tol = if ["lgamma", "digamma", "erfinv"].contains(&row.name) { tol * 20.0 } else { tol };
                done += 1;
                bad.extend(compare(row, f, d, strided, tol).err());
            }
        }
    }
    assert!(bad.is_empty(), "{} of {done} differ:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn rows_f32() {
    every_row(DType::F32, 4e-6);
}
#[test]
fn rows_f64() {
    every_row(DType::F64, 1e-13);
}
#[test]
fn rows_i64() {
    every_row(DType::I64, 0.0);
}
#[test]
fn rows_i8() {
    every_row(DType::I8, 0.0);
}
#[test]
fn rows_u8() {
    every_row(DType::U8, 0.0);
}
#[test]
fn rows_i32() {
    every_row(DType::I32, 0.0);
}
#[test]
fn rows_bool() {
    every_row(DType::Bool, 0.0);
}

/// A few rows in half precision: load, widen, compute, round, store is the template's business.
#[test]
fn rows_half() {
    let Some(_) = device() else { return };
    for name in ["add", "exp", "where", "lt"] {
        let row = pyrite_core::rows::find(name).unwrap();
        for d in [DType::F16, DType::BF16] {
            for strided in [false, true] {
                compare(row, Formula::Forward, d, strided, 0.01).unwrap();
            }
        }
    }
}

/// Rows run on mixed operands: conversions happen in the kernel.
#[test]
fn mixed_operands_are_converted() {
    let Some(dev) = device() else { return };
    let a = Array::dense(dev, &[1.0, 2.0, 3.0], DType::I32, &[3]);
    let b = Array::dense(dev, &[0.5, 0.25, -1.0], DType::F16, &[3]);
    let out = Array::dense(dev, &[0.0; 3], DType::F64, &[3]);
    let ops: Vec<Operand> = [&out, &a, &b]
        .iter()
        .map(|x| Operand { ptr: x.storage.ptr(), dtype: x.dtype, layout: &x.layout })
        .collect();
    let plan = Plan::new("mul", &[3], &ops).unwrap();
    let mul = pyrite_core::rows::find("mul").unwrap();
    dev.map(mul.id, Formula::Forward, DType::F64, &plan, &[]).unwrap();
    assert_eq!(out.values(), [0.5, 0.5, -3.0]);
}

/// Every pair of dtypes, dense and transposed, on values around the edges.
#[test]
fn copies_convert_as_the_cpu_does() {
    let Some(dev) = device() else { return };
    let values: [f64; 12] = [0.0, 1.0, -1.0, 2.5, -2.5, 100.0, 1000.25, 65504.0, 1e-7, 0.1, 3.0e9, 2047.0];
    let finite = |d: DType| {
        values.map(|v| match d {
            DType::Bool => (v != 0.0) as u8 as f64,
            d if d.is_int() && !d.is_signed() => v.abs().trunc() % 200.0,
            d if d.is_int() => v.trunc() % 100.0,
            _ => v,
        })
    };
    // Few destinations here (each is a compiler run); every pair is compiled by NVRTC in compile.rs.
    for d in [DType::F16, DType::I32, DType::Bool, DType::F32, DType::C64] {
        for s in [DType::F32, DType::F64, DType::I64, DType::BF16, DType::Bool, DType::U8] {
            let run = |on: &'static dyn pyrite_core::Backend| {
                let src = Array::new(on, &finite(s), s, Layout::contiguous(&[3, 4]).transpose(0, 1).unwrap());
                let dst = Array::dense(on, &[0.0; 12], d, &[4, 3]);
                on.copy(dst.arr(), src.arr()).unwrap();
                let flat = Array::dense(on, &finite(s), s, &[12]);
                let dense = Array::dense(on, &[0.0; 12], d, &[12]);
                on.copy(dense.arr(), flat.arr()).unwrap();
                [dst.bytes(), dense.bytes()].concat()
            };
            assert_eq!(run(dev), run(cpu()), "{s} to {d}");
        }
    }
}

#[test]
fn fills() {
    let Some(dev) = device() else { return };
    for (d, v) in [
        (DType::F32, Scalar::Float(1.5)),
        (DType::BF16, Scalar::Int(3)),
        (DType::Bool, Scalar::Bool(true)),
        (DType::C128, Scalar::Complex(1.0, -2.0)),
        (DType::I64, Scalar::Int(0)),
    ] {
        let run = |on: &'static dyn pyrite_core::Backend| {
            let a = Array::dense(on, &[7.0; 12], d, &[12]);
            on.fill(a.arr(), v).unwrap();
            let b = Array::new(on, &[7.0; 12], d, Layout::new(&[2usize, 3][..], &[6isize, 2][..], 0));
            on.fill(b.arr(), v).unwrap();
            [a.bytes(), b.bytes()].concat()
        };
        assert_eq!(run(dev), run(cpu()), "{d}");
    }
}
