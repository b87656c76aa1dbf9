//! Products against a plain triple loop in f64 (or the type itself for integers), over sizes, strides,
//! instruction sets, epilogues and thread counts.
use super::*;
use half::{bf16, f16};

const ISAS: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

pub(crate) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    }
}

trait Real: Copy + 'static {
    const NUM: Num;
    const EPS: f64;
    fn of(x: f64) -> Self;
    fn f(self) -> f64;
}
macro_rules! real {
    ($t:ty, $num:ident, $eps:expr, $of:expr, $f:expr) => {
        impl Real for $t {
            const NUM: Num = Num::$num;
            const EPS: f64 = $eps;
            fn of(x: f64) -> Self {
                $of(x)
            }
            fn f(self) -> f64 {
                $f(self)
            }
        }
    };
}
real!(f32, F32, 1.2e-7, |x| x as f32, |x| x as f64);
real!(f64, F64, 2.3e-16, |x| x, |x| x);
real!(f16, F16, 9.8e-4, f16::from_f64, f16::to_f64);
real!(bf16, Bf16, 7.9e-3, bf16::from_f64, bf16::to_f64);

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
enum Order {
    Row,
    Col,
    Apart,
    Reversed,
}

/// (elements needed, offset of (0, 0), row stride, column stride)
fn place(order: Order, r: usize, c: usize, pad: usize) -> (usize, usize, isize, isize) {
    let (ri, ci) = (r as isize, c as isize);
    let p = pad as isize;
    match order {
        Order::Row => (r * (c + pad) + 1, 0, ci + p, 1),
        Order::Col => (c * (r + pad) + 1, 0, 1, ri + p),
        Order::Apart => (r * (2 * c + pad) * 2 + 2, 0, 2 * (2 * ci + p), 2),
        Order::Reversed => (r * (c + pad) + 1, (r.max(1) * (c + pad)).saturating_sub(1 + pad), -(ci + p), -1),
    }
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    orders: [Order; 3],
    pad: usize,
    alpha: f64,
    beta: f64,
    bias: u8,
    act: Activation,
}

fn check<T: Real>(case: &Case, isa: Isa, rng: &mut Rng) {
    let &Case { m, n, k, orders, pad, alpha, beta, bias, act } = case;
    let (la, oa, rsa, csa) = place(orders[0], m, k, pad);
    let (lb, ob, rsb, csb) = place(orders[1], k, n, pad);
    let (lc, oc, rsc, csc) = place(orders[2], m, n, pad);
    let mut fill = |len: usize| (0..len).map(|_| T::of(rng.unit())).collect::<Vec<T>>();
    let (a, b, mut c) = (fill(la), fill(lb), fill(lc));
    let bias_v = fill(m.max(n));
    let before = c.clone();
    let at = |v: &[T], o: usize, i: usize, j: usize, rs: isize, cs: isize| {
        v[(o as isize + i as isize * rs + j as isize * cs) as usize].f()
    };
    let g = Gemm {
        alpha,
        beta,
        act,
        bias: match bias {
            0 => Bias::None,
            1 => Bias::Cols(bias_v.as_ptr().cast()),
            _ => Bias::Rows(bias_v.as_ptr().cast()),
        },
        ..Gemm::new(
            T::NUM,
            (m, n, k),
            (a.as_ptr().wrapping_add(oa).cast(), rsa, csa),
            (b.as_ptr().wrapping_add(ob).cast(), rsb, csb),
            (c.as_mut_ptr().wrapping_add(oc).cast(), rsc, csc),
        )
    };
    // SAFETY: the vectors cover sizes and strides.
    unsafe { gemm_with(&g, isa).unwrap() };
    let mut touched = vec![false; lc];
    for i in 0..m {
        for j in 0..n {
            let (mut s, mut mag) = (0.0, 0.0);
            for p in 0..k {
                let t = at(&a, oa, i, p, rsa, csa) * at(&b, ob, p, j, rsb, csb);
                s += t;
                mag += t.abs();
            }
            s *= alpha;
            if beta != 0.0 {
                s += beta * at(&before, oc, i, j, rsc, csc);
            }
            match bias {
                0 => (),
                1 => s += bias_v[j].f(),
                _ => s += bias_v[i].f(),
            }
            if act == Activation::Relu {
                s = s.max(0.0);
            }
            let index = (oc as isize + i as isize * rsc + j as isize * csc) as usize;
            touched[index] = true;
            let got = c[index].f();
            let acc_eps = if T::EPS > 1e-4 { 1.2e-7 } else { T::EPS };
            let tol = (mag + 2.0) * acc_eps * (4.0 + k as f64 / 8.0) + s.abs() * T::EPS;
            assert!(
                (got - s).abs() <= tol,
                "{:?} {isa:?} {m}x{n}x{k} {orders:?} at ({i}, {j}): {got} not {s}, tolerance {tol}",
                T::NUM
            );
        }
    }
    for (x, t) in touched.iter().enumerate() {
        assert!(*t || c[x].f() == before[x].f(), "wrote outside of C");
    }
}

fn sweep<T: Real>(count: usize, seed: u64) {
    use Order::*;
    let all = [Row, Col, Apart, Reversed];
    let sizes = [1usize, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 48, 63, 64, 65, 100];
    let mut rng = Rng(seed);
    for isa in ISAS.iter().filter(|&&i| i <= crate::simd::isa()) {
        for _ in 0..count {
            let mut pick = |most: usize| sizes[rng.below(sizes.len())].min(most);
            let (m, n, k) = (pick(100), pick(100), pick(100));
            let k = if rng.below(8) == 0 { 300 + rng.below(900) } else { k };
            let k = if rng.below(20) == 0 { 0 } else { k };
            // Row and column order are the common ones.
            let mut order = || all[if rng.below(4) < 3 { rng.below(2) } else { rng.below(4) }];
            let orders = [order(), order(), order()];
            let case = Case {
                m,
                n,
                k,
                orders,
                pad: rng.below(3),
                alpha: [1.0, 1.0, -0.5][rng.below(3)],
                beta: [0.0, 0.0, 1.0, 0.75][rng.below(4)],
                bias: rng.below(3) as u8,
                act: [Activation::None, Activation::Relu][rng.below(2)],
            };
            check::<T>(&case, *isa, &mut rng);
        }
    }
}

#[test]
fn f32_many_shapes() {
    sweep::<f32>(400, 1);
}

#[test]
fn f64_many_shapes() {
    sweep::<f64>(300, 2);
}

#[test]
fn half_many_shapes() {
    sweep::<f16>(150, 3);
    sweep::<bf16>(150, 4);
}

#[test]
fn large_ones_split_over_threads_give_the_same_bits() {
    let mut rng = Rng(9);
    for (m, n, k) in [(300, 200, 500), (3, 5000, 700), (1000, 2, 600), (20, 1500, 400), (600, 600, 1100)] {
        for b_transposed in [false, true] {
            let a: Vec<f32> = (0..m * k).map(|_| rng.unit() as f32).collect();
            let b: Vec<f32> = (0..k * n).map(|_| rng.unit() as f32).collect();
            let run = |threads: usize| {
                pool::with_threads(threads, || {
                    let mut c = vec![f32::NAN; m * n];
                    let (rsb, csb) = if b_transposed { (1, k as isize) } else { (n as isize, 1) };
                    let g = Gemm::new(
                        Num::F32,
                        (m, n, k),
                        (a.as_ptr().cast(), k as isize, 1),
                        (b.as_ptr().cast(), rsb, csb),
                        (c.as_mut_ptr().cast(), n as isize, 1),
                    );
                    // SAFETY: the vectors cover the sizes.
                    unsafe { gemm(&g).unwrap() };
                    c
                })
            };
            let (one, three) = (run(1), run(3));
            assert!(one.iter().zip(&three).all(|(x, y)| x.to_bits() == y.to_bits()));
            // And spot checks of values.
            for _ in 0..50 {
                let (i, j) = (rng.below(m), rng.below(n));
                let bt = |p: usize| {
                    if b_transposed { b[j * k + p] } else { b[p * n + j] }
                };
                let s: f64 = (0..k).map(|p| a[i * k + p] as f64 * bt(p) as f64).sum();
                assert!((one[i * n + j] as f64 - s).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn batches_including_broadcast_operands() {
    let mut rng = Rng(5);
    for (batch, m, n, k) in [(5, 3, 4, 6), (40, 16, 16, 16), (3, 100, 120, 90)] {
        for (ba, bb) in [(m * k, k * n), (m * k, 0), (0, k * n)] {
            let a: Vec<f64> = (0..batch * m * k).map(|_| rng.unit()).collect();
            let b: Vec<f64> = (0..batch * k * n).map(|_| rng.unit()).collect();
            let mut c = vec![0.0f64; batch * m * n];
            let g = Gemm {
                batch,
                batch_a: ba as isize,
                batch_b: bb as isize,
                batch_c: (m * n) as isize,
                ..Gemm::new(
                    Num::F64,
                    (m, n, k),
                    (a.as_ptr().cast(), k as isize, 1),
                    (b.as_ptr().cast(), n as isize, 1),
                    (c.as_mut_ptr().cast(), n as isize, 1),
                )
            };
            // SAFETY: the vectors cover sizes and batch.
            unsafe { gemm(&g).unwrap() };
            for t in 0..batch {
                for i in 0..m {
                    for j in 0..n {
                        let s: f64 = (0..k).map(|p| a[t * ba + i * k + p] * b[t * bb + p * n + j]).sum();
                        assert!((c[(t * m + i) * n + j] - s).abs() < 1e-12);
                    }
                }
            }
        }
    }
}

#[test]
fn integers_wrap_and_complex_multiplies() {
    let (m, n, k) = (9, 200, 17);
    let mut rng = Rng(7);
    let a: Vec<i8> = (0..m * k).map(|_| rng.next() as i8).collect();
    let b: Vec<i8> = (0..k * n).map(|_| rng.next() as i8).collect();
    let mut c = vec![1i8; m * n];
    let mut g = Gemm::new(
        Num::I8,
        (m, n, k),
        (a.as_ptr().cast(), k as isize, 1),
        (b.as_ptr().cast(), 1, k as isize),
        (c.as_mut_ptr().cast(), n as isize, 1),
    );
    g.alpha = -1.0;
    g.beta = 3.0;
    // SAFETY: the vectors cover the sizes.
    unsafe { gemm(&g).unwrap() };
    for i in 0..m {
        for j in 0..n {
            let s: i64 = (0..k).map(|p| a[i * k + p] as i64 * b[j * k + p] as i64).sum();
            assert_eq!(c[i * n + j], (3 - s) as i8);
        }
    }
    let z: Vec<[f64; 2]> = (0..16).map(|_| [rng.unit(), rng.unit()]).collect();
    let mut out = vec![[0.0f64; 2]; 16];
    let g = Gemm::new(
        Num::C128,
        (4, 4, 4),
        (z.as_ptr().cast(), 4, 1),
        (z.as_ptr().cast(), 1, 4),
        (out.as_mut_ptr().cast(), 4, 1),
    );
    // SAFETY: the vectors cover the sizes.
    unsafe { gemm(&g).unwrap() };
    for i in 0..4 {
        for j in 0..4 {
            let (mut re, mut im) = (0.0, 0.0);
            for p in 0..4 {
                let (x, y) = (z[i * 4 + p], z[j * 4 + p]);
                re += x[0] * y[0] - x[1] * y[1];
                im += x[0] * y[1] + x[1] * y[0];
            }
            assert!((out[i * 4 + j][0] - re).abs() < 1e-14 && (out[i * 4 + j][1] - im).abs() < 1e-14);
        }
    }
}
