//! What the kernel families `resample`, `windows`, `grid`, `ctc` and `bag` of a backend take.

use crate::backend::Arr;
use crate::dtype::Scalar;

/// A sparse matrix applied along one dimension: output `o` is the sum of `weight[k] * input[index[k]]`
/// for `k` in `start[o]..start[o + 1]`. Interpolation, area averages and their gradients are of this
/// kind, and the transposed matrix is the gradient.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// Size of the dimension read.
    pub inputs: usize,
    pub start: Vec<u32>,
    pub index: Vec<u32>,
    pub weight: Vec<f64>,
}

impl Taps {
    /// Size of the dimension written.
    pub fn outputs(&self) -> usize {
        self.start.len().saturating_sub(1)
    }
    /// Does every index lie inside the input, and every row inside the lists?
    pub fn valid(&self) -> bool {
        self.index.len() == self.weight.len()
            && self.start.first() == Some(&0)
            && self.start.windows(2).all(|w| w[0] <= w[1])
            && self.start.last().is_some_and(|&e| e as usize == self.index.len())
            && self.index.iter().all(|&i| (i as usize) < self.inputs)
    }
    /// The transposed matrix: entries keep their order within a row, so sums have a fixed order.
    pub fn transposed(&self) -> Taps {
        let mut start = vec![0u32; self.inputs + 1];
        for &i in &self.index {
            start[i as usize + 1] += 1;
        }
        for i in 0..self.inputs {
            start[i + 1] += start[i];
        }
        let mut next = start.clone();
        let mut t = Taps {
            inputs: self.outputs(),
            start,
            index: vec![0; self.index.len()],
            weight: vec![0.0; self.index.len()],
        };
        for o in 0..self.outputs() {
            for k in self.start[o] as usize..self.start[o + 1] as usize {
                let at = &mut next[self.index[k] as usize];
                t.index[*at as usize] = o as u32;
                t.weight[*at as usize] = self.weight[k];
                *at += 1;
            }
        }
        t
    }
}

/// `y = rows (x) cols` over [A, H, W, C]: `rows` acts on H, `cols` on W; `None` leaves a dimension as
/// it is. W and C of both arrays are dense. `x` and `y` are floating (the dtypes may differ) or both
/// u8; then weights are integers scaled by `2 ** bits`, and sums are rounded and limited to 0..=255.
pub struct Resample<'a> {
    pub x: Arr<'a>,
    pub y: Arr<'a>,
    pub rows: Option<&'a Taps>,
    pub cols: Option<&'a Taps>,
    pub bits: u32,
}

/// Sliding windows over three dimensions (unused ones have kernel 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WindowGeometry {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub pad: [usize; 3],
    pub dilation: [usize; 3],
}

/// `x` is [P, D, H, W] (P planes), `cols` [P, kd * kh * kw, od, oh, ow]; both contiguous.
pub enum Windows<'a> {
    /// Every window as a column; what lies outside of `x` is `fill`.
    Unfold { x: Arr<'a>, cols: Arr<'a>, fill: Scalar },
    /// Columns added up where they came from; `x` is overwritten.
    Fold { cols: Arr<'a>, x: Arr<'a> },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interpolation {
    Nearest,
    Linear,
    Cubic,
}

/// What a sample outside of the image reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Border {
    Zeros,
    Clamp,
    Reflect,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GridMode {
    pub interpolation: Interpolation,
    pub border: Border,
    /// -1 and 1 are the centres of the corner pixels rather than their outer edges.
    pub align: bool,
}

/// `x` [N, C, (D,) H, W], `grid` [N, (Do,) Ho, Wo, 2 or 3] with x first, `y` [N, C, (Do,) Ho, Wo];
/// all contiguous, of one dtype (f32 or f64).
pub enum Grid<'a> {
    Forward {
        x: Arr<'a>,
        grid: Arr<'a>,
        y: Arr<'a>,
    },
    /// Overwrites the gradients asked for.
    Backward {
        dy: Arr<'a>,
        x: Arr<'a>,
        grid: Arr<'a>,
        dx: Option<Arr<'a>>,
        dgrid: Option<Arr<'a>>,
    },
}

/// Connectionist temporal classification. `log_probs` [T, N, C] with any strides, `alpha`
/// [N, T, 2 S + 1], `nll` [N]; f32 or f64. Labels of sample n are `targets[begin[n]..][..label_len[n]]`.
pub struct Ctc<'a> {
    pub log_probs: Arr<'a>,
    pub targets: &'a [i64],
    pub begin: &'a [usize],
    pub input_len: &'a [usize],
    pub label_len: &'a [usize],
    pub blank: usize,
    pub alpha: Arr<'a>,
    pub nll: Arr<'a>,
    /// Writes `dx` (as `log_probs`, contiguous) from `alpha` and `nll` instead of computing these:
    /// the gradient of each `nll`, and whether an infinite loss gives zeros.
    pub backward: Option<(Arr<'a>, Arr<'a>, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BagMode {
    Sum,
    Mean,
    Max,
}

/// Bags of rows of `weight` [V, D] (dense rows): bag b holds `index[start[b]..start[b + 1]]`, less
/// those equal to `padding`. `y` is [B, D], contiguous; `coef` (dense, the dtype of `weight`) scales
/// each row of a sum; `at` (i64, [B, D]) gets the row of each maximum, -1 for an empty bag.
pub struct Bag<'a> {
    pub weight: Arr<'a>,
    pub index: &'a [i64],
    pub start: &'a [usize],
    pub coef: Option<Arr<'a>>,
    pub padding: Option<i64>,
    pub mode: BagMode,
    pub y: Arr<'a>,
    pub at: Option<Arr<'a>>,
}

/// `dw` [V, D] (contiguous, overwritten): row `row[i]` gets `scale[i] * coef[i] * dy[bag[i]]` added,
/// in this order.
pub struct BagGradient<'a> {
    pub dy: Arr<'a>,
    pub row: &'a [i64],
    pub bag: &'a [i64],
    pub scale: Option<&'a [f64]>,
    pub coef: Option<Arr<'a>>,
    pub dw: Arr<'a>,
}

pub enum Bags<'a> {
    Forward(Bag<'a>),
    Backward(BagGradient<'a>),
}
