//! Lines that one thread sorts: those that fit the vector registers straight from the source, others
//! by their items.

use super::Job;
use super::bucket::{At, Form, Item, LEAF, Lead, Scratch, Sink, finish, mend};
use super::key::Key;
use super::network;
use std::mem::MaybeUninit;

/// Up to here a line is sorted by counting for each element those before it, where there are no vector
/// registers to do it in.
pub const TINY: usize = 32;

/// What sorting many lines needs over and over.
#[derive(Default)]
pub struct Lines {
    pub keys: Vec<u64>,
    pairs: Vec<[u64; 2]>,
    singles: Scratch<u64>,
    doubles: Scratch<[u64; 2]>,
}

impl<T: Key> Job<T> {
    /// Hands a line to the sink in order. `values`: it wants no positions.
    ///
    /// # Safety
    /// `o` is the line's offset in the source.
    #[inline(always)]
    pub unsafe fn sorted(
        &self,
        o: isize,
        s: &mut Lines,
        values: bool,
        sink: &mut (impl Sink<u64> + Sink<[u64; 2]>),
    ) {
        let n = self.n;
        // SAFETY: elements of the line.
        unsafe { self.keys(o, &mut s.keys) };
        // Equal floats may have different bits, and positions are how to find out.
        let bare = values && !T::FLOAT;
        if n <= LEAF {
            let at = if bare { At::Nowhere } else { At::Place };
            return finish(&mut s.keys, Form { base: 0, bits: 0, at }, 0, &mut s.singles, sink);
        }
        let (least, most) = s.keys.iter().fold((u64::MAX, 0), |(a, b), &k| (a.min(k), b.max(k)));
        let form = Form::new(n, least, bare);
        if form.fits(most) {
            for (i, k) in s.keys.iter_mut().enumerate() {
                *k = u64::new(*k - least, i, form);
            }
            finish(&mut s.keys, form, 0, &mut s.singles, sink);
        } else {
            s.pairs.clear();
            s.pairs.extend(s.keys.iter().enumerate().map(|(i, k)| <[u64; 2]>::new(*k - least, i, form)));
            finish(&mut s.pairs, form, 0, &mut s.doubles, sink);
        }
    }

    /// The keys of a line.
    ///
    /// # Safety
    /// As for `sorted`.
    #[inline(always)]
    pub unsafe fn keys(&self, o: isize, keys: &mut Vec<u64>) {
        keys.clear();
        // SAFETY: elements of the line.
        unsafe {
            if self.along[0] == 1 {
                let line = std::slice::from_raw_parts(self.src.offset(o), self.n);
                keys.extend(line.iter().map(|x| x.key() ^ self.flip));
            } else {
                keys.extend((0..self.n).map(|i| self.key(o, i)));
            }
        }
    }

    /// A line of at most [`network::SMALL`] elements, on a machine that sorts so many in its registers.
    ///
    /// # Safety
    /// `o` is the line's offset in source, values and positions; [`network::available`].
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub unsafe fn sort_small(&self, o: [isize; 3]) {
        let n = self.n.min(network::SMALL);
        let mut w = [const { MaybeUninit::<u32>::uninit() }; network::SMALL];
        let [ss, sv, si] = self.along;
        // SAFETY: elements and results of the line; places are below n, and `n` words are written
        // before they are read.
        unsafe {
            let w = w.as_mut_ptr().cast::<u32>();
            let lead = if ss == 1 {
                let src = self.src.offset(o[0]);
                self.words(n, w, |i| *src.add(i))
            } else {
                self.words(n, w, |i| self.get(o[0], i))
            };
            network::small(w, n);
            let w = std::slice::from_raw_parts_mut(w, n);
            if lead.drop > 0 {
                mend(w, lead.places, |at| self.key(o[0], at));
            }
            let mask = (1u32 << lead.places) - 1;
            let values = self.values.offset(o[1]);
            if self.idx.is_null() {
                for (j, x) in w.iter().enumerate() {
                    *values.offset(j as isize * sv) = self.get(o[0], (x & mask) as usize);
                }
                return;
            }
            let idx = self.idx.offset(o[2]);
            if (ss, sv, si) == (1, 1, 1) {
                let src = self.src.offset(o[0]);
                for (j, x) in w.iter().enumerate() {
                    *values.add(j) = *src.add((x & mask) as usize);
                }
                for (j, x) in w.iter().enumerate() {
                    *idx.add(j) = (x & mask) as i64;
                }
            } else {
                for (j, x) in w.iter().enumerate() {
                    let at = x & mask;
                    *values.offset(j as isize * sv) = self.get(o[0], at as usize);
                    *idx.offset(j as isize * si) = at as i64;
                }
            }
        }
    }

    /// A line of at most 16 elements, on a machine that sorts so many in one register. Loops of constant
    /// length: a line takes less time than a loop of unknown length takes to start.
    ///
    /// # Safety
    /// As for `sort_small`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub unsafe fn sort_sixteen(&self, o: [isize; 3]) {
        let n = self.n.min(16);
        let [ss, sv, si] = self.along;
        // SAFETY: elements and results of the line.
        unsafe {
            let src = self.src.offset(o[0]);
            let mut x = [*src; 16];
            if ss == 1 && n == 16 {
                x = src.cast::<[T; 16]>().read_unaligned();
            } else {
                for (j, x) in x[..n].iter_mut().enumerate() {
                    *x = *src.offset(j as isize * ss);
                }
            }
            let mut w = [0u32; 16];
            let keys: [u64; 16] = std::array::from_fn(|j| x[j].key() ^ self.flip);
            let lead = if T::BITS <= 16 {
                Lead::new(16, 0, u64::MAX >> (64 - T::BITS), false)
            } else {
                let (mut least, mut most) = (keys, keys);
                for half in [8, 4, 2, 1] {
                    for j in 0..half {
                        least[j] = least[j].min(least[j + half]);
                        most[j] = most[j].max(most[j + half]);
                    }
                }
                Lead::new(16, least[0], most[0], false)
            };
            for j in 0..16 {
                w[j] = (keys[j].wrapping_sub(lead.least) >> lead.drop) as u32;
                w[j] = w[j] << 4 | j as u32;
            }
            // What is not there has the greatest lead and the last places.
            for w in &mut w[n..] {
                *w |= u32::MAX << 4;
            }
            network::sixteen(&mut w);
            if lead.drop > 0 && (0..15).fold(false, |any, j| any | ((w[j] ^ w[j + 1]) < 16)) {
                mend(&mut w[..n], 4, |at| x[at].key() ^ self.flip);
            }
            let at = w.map(|w| w & 15);
            let values = self.values.offset(o[1]);
            if sv == 1 && (size_of::<T>() == 4 || size_of::<T>() == 8) {
                network::pick(x.as_ptr(), &at, values, n);
            } else {
                for j in 0..n {
                    *values.offset(j as isize * sv) = x[at[j] as usize];
                }
            }
            if self.idx.is_null() {
                return;
            }
            let idx = self.idx.offset(o[2]);
            if si == 1 && n == 16 {
                for (j, at) in at.iter().enumerate() {
                    *idx.add(j) = *at as i64;
                }
            } else {
                for (j, at) in at[..n].iter().enumerate() {
                    *idx.offset(j as isize * si) = *at as i64;
                }
            }
        }
    }

    /// Writes a word for each of `n` elements.
    ///
    /// # Safety
    /// There is room for them; `get` may be called below `n`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn words(&self, n: usize, w: *mut u32, get: impl Fn(usize) -> T) -> Lead {
        let all = u64::MAX >> (64 - T::BITS);
        // SAFETY: the caller's promise.
        unsafe {
            if T::BITS <= 16 {
                let lead = Lead::new(n, 0, all, false);
                for i in 0..n {
                    *w.add(i) = ((get(i).key() ^ self.flip) as u32) << lead.places | i as u32;
                }
                return lead;
            }
            if T::BITS == 32 {
                let (mut least, mut most) = (u32::MAX, 0);
                for i in 0..n {
                    let k = (get(i).key() ^ self.flip) as u32;
                    (least, most) = (least.min(k), most.max(k));
                    *w.add(i) = k;
                }
                let lead = Lead::new(n, least as u64, most as u64, false);
                for i in 0..n {
                    *w.add(i) = ((*w.add(i) - least) >> lead.drop) << lead.places | i as u32;
                }
                return lead;
            }
            let mut keys = [const { MaybeUninit::<u64>::uninit() }; network::SMALL];
            let keys = keys.as_mut_ptr().cast::<u64>();
            let (mut least, mut most) = (u64::MAX, 0);
            for i in 0..n {
                let k = get(i).key() ^ self.flip;
                (least, most) = (least.min(k), most.max(k));
                *keys.add(i) = k;
            }
            let lead = Lead::new(n, least, most, false);
            for i in 0..n {
                *w.add(i) = lead.word(*keys.add(i), i);
            }
            lead
        }
    }

    /// A line of at most [`TINY`] elements with short keys: each one's place is the number of smaller
    /// items, which are vector comparisons without a branch.
    ///
    /// # Safety
    /// `o` is the line's offset in source, values and positions.
    #[inline(always)]
    pub unsafe fn sort_tiny(&self, o: [isize; 3]) {
        let n = self.n;
        let wide = n.next_multiple_of(8).min(TINY);
        let mut items = [u64::MAX; TINY];
        for (i, it) in items[..n].iter_mut().enumerate() {
            // SAFETY: element i of the line.
            *it = unsafe { self.key(o[0], i) } << 8 | i as u64;
        }
        let mut rank = [0u64; TINY];
        for i in 0..n {
            let v = items[i];
            for (r, it) in rank[..wide].iter_mut().zip(&items[..wide]) {
                *r += (v < *it) as u64;
            }
        }
        let [_, sv, si] = self.along;
        for i in 0..n {
            let j = rank[i] as isize;
            // SAFETY: ranks are a permutation of 0..n, for positions make all items different.
            unsafe {
                *self.values.offset(o[1] + j * sv) = self.get(o[0], i);
                if !self.idx.is_null() {
                    *self.idx.offset(o[2] + j * si) = i as i64;
                }
            }
        }
    }
}
