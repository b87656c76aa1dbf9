//! Copies of every pair of layouts, element by element.

use super::*;
use crate::reduce::tests::{read, store};

/// Row-major reading of a layout.
fn order(l: &Layout) -> Vec<usize> {
    (0..l.numel())
        .map(|mut i| {
            let mut at = l.offset() as isize;
            for d in (0..l.ndim()).rev() {
                at += (i % l.shape()[d]) as isize * l.strides()[d];
                i /= l.shape()[d];
            }
            at as usize
        })
        .collect()
}

fn arr<'a>(p: *mut u8, d: DType, l: &'a Layout) -> Arr<'a> {
    Arr { ptr: p.wrapping_add(l.offset() * d.size()), dtype: d, shape: l.shape(), strides: l.strides() }
}

#[test]
fn every_layout_pair() {
    for shape in
        [[1usize, 1, 1], [2, 3, 5], [1, 70, 90], [3, 130, 200], [2, 17, 300], [40, 1, 33], [300, 7, 3]]
    {
        let mut layouts = vec![Layout::contiguous(&shape)];
        for p in [[0usize, 2, 1], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let inner: Vec<usize> = p.iter().map(|i| shape[*i]).collect();
            let mut back = [0i64; 3];
            p.iter().enumerate().for_each(|(i, k)| back[*k] = i as i64);
            layouts.push(Layout::contiguous(&inner).permute(&back).unwrap());
        }
        let wide = Layout::contiguous(&[shape[0], shape[1], shape[2] * 2]);
        layouts.push(wide.slice(2, 1, shape[2], 2).unwrap());
        layouts.push(wide.slice(2, 2 * shape[2] - 1, shape[2], -2).unwrap());
        for (from, to) in [
            (DType::F32, DType::F32),
            (DType::F64, DType::F64),
            (DType::U8, DType::U8),
            (DType::I16, DType::I16),
            (DType::C128, DType::C128),
            (DType::F32, DType::F64),
            (DType::I64, DType::F32),
            (DType::F32, DType::F16),
            (DType::F32, DType::C64),
        ] {
            for a in &layouts {
                for b in &layouts {
                    let room = |l: &Layout| l.extent().unwrap().1 as usize + 1;
                    let v: Vec<f64> = (0..room(a)).map(|i| (i * 31 % 113) as f64).collect();
                    let src = store(from, &v);
                    let mut dst = store(to, &vec![99.0; room(b)]);
                    copy(arr(dst.as_mut_ptr(), to, b), arr(src.as_ptr().cast_mut(), from, a)).unwrap();
                    let got = read(to, &dst);
                    for (x, y) in order(a).iter().zip(order(b)) {
                        assert_eq!(v[*x], got[y], "{shape:?} {a:?} -> {b:?} {from} {to}");
                    }
                    // Nothing else was touched.
                    let mut seen = vec![false; room(b)];
                    order(b).iter().for_each(|i| seen[*i] = true);
                    assert!(seen.iter().zip(&got).all(|(s, g)| *s || *g == 99.0));
                }
            }
        }
    }
}

#[test]
fn broadcast_and_large() {
    let n = STREAM_BYTES / 4 + 77;
    let l = Layout::contiguous(&[n]);
    let out = crate::alloc::Block::new(n * 4).unwrap();
    let y = arr(out.as_ptr(), DType::F32, &l);
    // SAFETY: the block holds n floats.
    let all = unsafe { std::slice::from_raw_parts(out.as_ptr().cast::<f32>(), n) };
    fill(y, Scalar::Float(2.5)).unwrap();
    assert!(all.iter().all(|v| *v == 2.5));
    let one = [7.0f32];
    let zero = Layout::new(&[n][..], &[0isize][..], 0);
    copy(y, arr(one.as_ptr().cast_mut().cast(), DType::F32, &zero)).unwrap();
    assert!(all.iter().all(|v| *v == 7.0));
    let src: Vec<f32> = (0..n).map(|i| i as f32).collect();
    copy(y, arr(src.as_ptr().cast_mut().cast(), DType::F32, &l)).unwrap();
    assert!(all == src);
}

#[test]
fn fills_touch_their_elements_only() {
    for d in [DType::Bool, DType::I16, DType::F32, DType::C128] {
        let l = Layout::contiguous(&[50, 8]).slice(1, 1, 3, 2).unwrap();
        let mut b = store(d, &vec![0.0; 400]);
        fill(arr(b.as_mut_ptr(), d, &l), Scalar::Int(1)).unwrap();
        let got = read(d, &b);
        let mut want = vec![0.0; 400];
        order(&l).iter().for_each(|i| want[*i] = 1.0);
        assert_eq!(got, want);
    }
}
