//! Where sorted items go: the values and positions of one line.

use super::Job;
use super::bucket::{At, Form, Item, Sink};
use super::key::Key;
use crate::simd::{Arch, ArchKernel, dispatch};

/// The first `k` results of a line.
pub struct Out<'a, T> {
    job: &'a Job<T>,
    o: [isize; 3],
    k: usize,
}

impl<'a, T: Key> Out<'a, T> {
    /// # Safety
    /// `o` is the line's offset in source, values and positions; the line has `k` results, which belong
    /// to the caller as long as it lives, or those of them that it will hand over do.
    pub unsafe fn new(job: &'a Job<T>, o: [isize; 3], k: usize) -> Out<'a, T> {
        Out { job, o, k }
    }
}

impl<T: Key, I: Item> Sink<I> for Out<'_, T> {
    fn put(&mut self, from: usize, items: &[I], form: Form, w: &[u32], mask: u32, least: Option<u64>) {
        let w = &w[..w.len().min(self.k.saturating_sub(from))];
        dispatch(Put { out: self, from, items, form, w, mask, least });
    }
    fn keys(&mut self, from: usize, least: u64, form: Form, w: &[u32]) {
        let room = self.k.saturating_sub(from);
        let base = form.base.wrapping_add(least);
        dispatch(Keys { out: self, from, base, w: &w[..w.len().min(room)] });
    }
}

struct Put<'a, T, I> {
    out: &'a Out<'a, T>,
    from: usize,
    items: &'a [I],
    form: Form,
    w: &'a [u32],
    mask: u32,
    least: Option<u64>,
}

impl<T: Key, I: Item> ArchKernel for Put<'_, T, I> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Put { out: &Out { job, o, .. }, from, items, form, w, mask, least } = self;
        let [_, sv, si] = job.along;
        let values = job.values.wrapping_offset(o[1] + from as isize * sv);
        // SAFETY: `Sink::put` says so.
        let item = |x: u32| unsafe { (*items.get_unchecked((x & mask) as usize), (x & mask) as usize) };
        let value = |key: u64| T::likely(key.wrapping_add(form.base) ^ job.flip);
        // Without a branch; then the few elements that their keys do not tell.
        let mut unsure = false;
        // SAFETY: results of the line, which `Out` may write; positions in the line. (A source that is
        // written to meanwhile can make positions wrong, hence `min`, but not places.)
        unsafe {
            match least {
                Some(least) if sv == 1 => {
                    let places = mask.count_ones();
                    for (j, &x) in w.iter().enumerate() {
                        let (v, sure) = value(least.wrapping_add((x >> places) as u64));
                        unsure |= !sure;
                        *values.add(j) = v;
                    }
                }
                _ => {
                    for (j, &x) in w.iter().enumerate() {
                        let (v, sure) = value(item(x).0.key(form));
                        unsure |= !sure;
                        *values.offset(j as isize * sv) = v;
                    }
                }
            }
            if unsure {
                for (j, &x) in w.iter().enumerate() {
                    let (it, place) = item(x);
                    if !value(it.key(form)).1 {
                        *values.offset(j as isize * sv) = job.get(o[0], it.at(form, place).min(job.n - 1));
                    }
                }
            }
            if job.idx.is_null() || form.at == At::Nowhere {
                return;
            }
            let idx = job.idx.wrapping_offset(o[2] + from as isize * si);
            if si == 1 {
                for (j, &x) in w.iter().enumerate() {
                    let (it, place) = item(x);
                    *idx.add(j) = it.at(form, place) as i64;
                }
            } else {
                for (j, &x) in w.iter().enumerate() {
                    let (it, place) = item(x);
                    *idx.offset(j as isize * si) = it.at(form, place) as i64;
                }
            }
        }
    }
}

/// Values alone.
struct Keys<'a, T> {
    out: &'a Out<'a, T>,
    from: usize,
    base: u64,
    w: &'a [u32],
}

impl<T: Key> ArchKernel for Keys<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Keys { out: &Out { job, o, .. }, from, base, w } = self;
        let sv = job.along[1];
        let values = job.values.wrapping_offset(o[1] + from as isize * sv);
        let value = |x: u32| T::likely(base.wrapping_add(x as u64) ^ job.flip).0;
        // SAFETY: results of the line, which `Out` may write.
        unsafe {
            if sv == 1 {
                for (j, &x) in w.iter().enumerate() {
                    *values.add(j) = value(x);
                }
            } else {
                for (j, &x) in w.iter().enumerate() {
                    *values.offset(j as isize * sv) = value(x);
                }
            }
        }
    }
}
