//! Forward mode through table rows: their Jacobians are diagonal, so the gradient formula with a tangent
//! in place of the incoming gradient is the tangent's share of the output.

use super::elementwise::{Operands, Types, launch, result_layout};
use super::{Operand, formula};
use crate::autograd::forward::{self, Flow};
use crate::autograd::{GradMode, is_grad_enabled};
use crate::tensor::Tensor;
use pyrite_core::backend::Formula;
use pyrite_core::rows::{Grad, Row, Use};
use pyrite_core::{Result, Scalar, bail};
use smallvec::{SmallVec, smallvec};

/// A run of a row, as its tangents see it.
pub(super) struct Run<'a> {
    pub row: &'static Row,
    pub types: &'a Types,
    /// With the old value in place of a written operand, where a formula needs it.
    pub ops: &'a [Operand<'a>],
    pub params: &'a [Scalar],
    pub out: &'a Tensor,
}

impl Run<'_> {
    /// Derives the output's tangents from those of the tensor operands.
    pub(super) fn propagate(&self, flow: &Flow) {
        let outer = is_grad_enabled();
        let known = outer && self.ops.iter().any(super::record::wants);
        let places: SmallVec<[usize; 4]> =
            (0..self.ops.len()).filter(|i| matches!(self.ops[*i], Operand::Tensor(_))).collect();
        forward::each(flow, &[self.out], |_, ts| {
            let recorded = forward::is_recorded(outer, known, ts);
            let _mode = GradMode::new(recorded);
            let mut sum: Option<Tensor> = None;
            for (t, i) in ts.iter().zip(&places) {
                let Some(t) = t else { continue };
                let Some(part) = self.share(*i, t, recorded || forward::active())? else { continue };
                sum = Some(match sum {
                    None => part,
                    Some(s) => super::add(&s, &part)?,
                });
            }
            Ok(smallvec![sum])
        });
    }

    /// The share of operand `i`, whose tangent is `t`; `None` is zero.
    fn share(&self, i: usize, t: &Tensor, by_ops: bool) -> Result<Option<Tensor>> {
        let want = self.types.out;
        let t = if t.dtype() == want { t.clone() } else { super::to_dtype(t, want)? };
        let shape: SmallVec<[i64; 6]> = self.out.shape().iter().map(|s| *s as i64).collect();
        let g = if t.shape() == self.out.shape() { t } else { super::expand(&t, &shape)? };
        let Some(grad) = self.row.grad(i) else {
            bail!(
                NotImplemented,
                "{}: the derivative for argument '{}' is not implemented",
                self.row.name,
                self.row.inputs[i]
            );
        };
        match grad.text.body {
            "g" => return Ok(Some(g)),
            "0.0 * g" => return Ok(None),
            _ => {}
        }
        // The kernels of complex gradients conjugate the slope; a tangent wants it as it is.
        if by_ops || self.types.compute.is_complex() {
            let inputs: SmallVec<[Option<Operand>; 4]> = self.ops.iter().map(|o| Some(*o)).collect();
            return formula::eval(self.row, grad, &g, &inputs, Some(self.out), self.params, false).map(Some);
        }
        self.kernel(i, grad, &g).map(Some)
    }

    /// The fused loop of the row's gradient.
    fn kernel(&self, i: usize, grad: &'static Grad, g: &Tensor) -> Result<Tensor> {
        let mut list: Operands = smallvec![Operand::Tensor(g)];
        for u in grad.uses {
            list.push(match u {
                Use::Output => Operand::Tensor(self.out),
                Use::Input(k) => self.ops[*k as usize],
            });
        }
        let compute = if self.types.compute.is_float() { self.types.compute } else { g.dtype().compute() };
        let r = Tensor::empty_strided(result_layout(g.shape(), &list), g.dtype(), g.device())?;
        launch(self.row, Formula::Grad(i as u8), compute, &r, &list, self.params)?;
        Ok(r)
    }
}
