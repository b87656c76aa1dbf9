//! Items of a line, or of a bucket of one, brought into order: parted by digits while they are many, in
//! vector registers once they are few. What is sorted there is a u32 for each item: the leading bits
//! of its key, counted from the smallest there is, above its place among the others. So sorting is
//! stable, and moves four bytes whatever the dtype; the few items that their leading bits do not tell
//! apart are put right afterwards.

use super::network;
use crate::simd::{Arch, ArchKernel, dispatch};

/// Items up to here are sorted as u32: 12 bits tell their places, 20 are left for keys.
pub const LEAF: usize = 4096;
/// Items that a bucket should have: with what chance adds, they fit the registers.
const FEW: usize = 216;
/// More buckets than this are more pages than the processor keeps addresses of.
const MANY: usize = 1024;

/// Where an item's position in the line is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Nobody asks for it.
    Nowhere,
    /// It is the item's place among the items.
    Place,
    /// In the item: in the lowest bits of a u64, in the second half of a pair.
    Item,
}

/// How items hold keys and positions.
#[derive(Clone, Copy)]
pub struct Form {
    /// What keys are counted from.
    pub base: u64,
    /// Bits of the position in a u64.
    pub bits: u32,
    pub at: At,
}

impl Form {
    /// Items of a line of `n` elements, whose keys are counted from `base`.
    pub fn new(n: usize, base: u64, bare: bool) -> Form {
        if bare {
            return Form { base, bits: 0, at: At::Nowhere };
        }
        Form { base, bits: usize::BITS - (n.max(2) - 1).leading_zeros(), at: At::Item }
    }
    /// Do keys up to this one fit a u64 beside the position?
    pub fn fits(self, most: u64) -> bool {
        (most.wrapping_sub(self.base)).leading_zeros() >= self.bits
    }
}

/// A key, and the position if there is room.
pub trait Item: Copy + Default + Send + Sync + 'static {
    fn new(key: u64, at: usize, form: Form) -> Self;
    /// Counted from the form's base.
    fn key(self, form: Form) -> u64;
    fn at(self, form: Form, place: usize) -> usize;
}
impl Item for u32 {
    #[inline(always)]
    fn new(key: u64, _: usize, _: Form) -> u32 {
        key as u32
    }
    #[inline(always)]
    fn key(self, _: Form) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn at(self, _: Form, place: usize) -> usize {
        place
    }
}
impl Item for u64 {
    #[inline(always)]
    fn new(key: u64, at: usize, form: Form) -> u64 {
        key << form.bits | (at as u64 & ((1 << form.bits) - 1))
    }
    #[inline(always)]
    fn key(self, form: Form) -> u64 {
        self >> form.bits
    }
    #[inline(always)]
    fn at(self, form: Form, place: usize) -> usize {
        if form.at == At::Item { (self & ((1 << form.bits) - 1)) as usize } else { place }
    }
}
impl Item for [u64; 2] {
    #[inline(always)]
    fn new(key: u64, at: usize, _: Form) -> [u64; 2] {
        [key, at as u64]
    }
    #[inline(always)]
    fn key(self, _: Form) -> u64 {
        self[0]
    }
    #[inline(always)]
    fn at(self, form: Form, place: usize) -> usize {
        if form.at == At::Item { self[1] as usize } else { place }
    }
}

/// Who takes items in order.
pub trait Sink<I> {
    /// The results from `from` on are the items at the places `w & mask`. All of these are below
    /// `items.len()`. With `least`, the other bits of `w` are all that the keys have above it (counted
    /// from the form's base).
    fn put(&mut self, from: usize, items: &[I], form: Form, w: &[u32], mask: u32, least: Option<u64>);
    /// The same of items without positions: their keys are `least + w`, counted from the form's base.
    fn keys(&mut self, from: usize, least: u64, form: Form, w: &[u32]);
}

/// The numbers sorted in registers, and as many places again.
#[derive(Default)]
struct Words {
    w: Vec<u32>,
    spare: Vec<u32>,
}

impl Words {
    fn fit(&mut self, n: usize) {
        if self.w.len() < n {
            self.w.resize(n, 0);
            self.spare.resize(n + network::MARGIN, 0);
        }
    }
}

/// What sorting many lines or buckets needs over and over.
#[derive(Default)]
pub struct Scratch<I> {
    spare: Vec<I>,
    words: Words,
}

/// A digit of keys that need not be bits: buckets of equal width.
#[derive(Clone, Copy)]
pub struct Digit {
    least: u64,
    shift: u32,
    scale: u64,
    pub buckets: usize,
}

impl Digit {
    /// About `buckets` (at most 2^31) for keys in `least..=most`.
    fn new(least: u64, most: u64, buckets: usize) -> Digit {
        let range = most.wrapping_sub(least);
        let shift = (u64::BITS - range.leading_zeros()).saturating_sub(u32::BITS);
        let values = (range >> shift) + 1;
        let buckets = (buckets as u64).clamp(1, values);
        Digit { least, shift, scale: (buckets << 32) / values, buckets: buckets as usize }
    }
    /// For `n` keys, with at least as many buckets as said if their range allows it.
    pub fn fitting(n: usize, least: u64, most: u64, buckets: usize) -> Digit {
        Digit::new(least, most, (n / FEW).clamp(16, MANY).max(buckets))
    }
    /// Below `buckets` for keys in the range.
    #[inline(always)]
    pub fn of(self, key: u64) -> usize {
        (((key.wrapping_sub(self.least) >> self.shift).wrapping_mul(self.scale)) >> 32) as usize
    }
}

/// Hands `items` to the sink in order, as its results from `from` on. The items end up anyhow.
pub fn finish<I: Item>(items: &mut [I], form: Form, from: usize, s: &mut Scratch<I>, sink: &mut dyn Sink<I>) {
    if items.len() <= LEAF {
        return leaf(items, form, from, &mut s.words, sink);
    }
    let n = items.len();
    if s.spare.len() < n {
        s.spare.resize(n, I::default());
    }
    part(items, &mut s.spare[..n], form, from, &mut s.words, sink);
}

/// `finish` with as many places again in `other`.
fn part<I: Item>(
    items: &mut [I],
    other: &mut [I],
    form: Form,
    from: usize,
    words: &mut Words,
    sink: &mut dyn Sink<I>,
) {
    let n = items.len();
    if n <= LEAF {
        return leaf(items, form, from, words, sink);
    }
    let (least, most) = dispatch(Extremes { items, form });
    if least == most {
        // In order already.
        words.fit(LEAF);
        for (i, w) in words.w[..LEAF].iter_mut().enumerate() {
            *w = i as u32;
        }
        for (c, piece) in items.chunks(LEAF).enumerate() {
            sink.put(from + c * LEAF, piece, form, &words.w[..piece.len()], u32::MAX, None);
        }
        return;
    }
    let digit = Digit::fitting(n, least, most, 0);
    let mut ends = vec![0usize; digit.buckets];
    dispatch(Deal { items, to: other, form, digit, ends: &mut ends });
    let mut start = 0;
    for end in ends {
        if end > start {
            part(&mut other[start..end], &mut items[start..end], form, from + start, words, sink);
        }
        start = end;
    }
}

/// The least and the greatest key.
struct Extremes<'a, I> {
    items: &'a [I],
    form: Form,
}
impl<I: Item> ArchKernel for Extremes<'_, I> {
    type Out = (u64, u64);
    #[inline(always)]
    fn run<A: Arch>(self) -> (u64, u64) {
        extremes(self.items, self.form)
    }
}
#[inline(always)]
fn extremes<I: Item>(items: &[I], form: Form) -> (u64, u64) {
    items.iter().fold((u64::MAX, 0), |(least, most), it| {
        let k = it.key(form);
        (least.min(k), most.max(k))
    })
}

/// Deals items to buckets by a digit that all of them have, keeping the order inside each.
struct Deal<'a, I> {
    items: &'a [I],
    to: &'a mut [I],
    form: Form,
    digit: Digit,
    /// Zeros; then where each bucket ends.
    ends: &'a mut [usize],
}
impl<I: Item> ArchKernel for Deal<'_, I> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arch>(self) {
        let Deal { items, to, form, digit, ends } = self;
        for it in items {
            ends[digit.of(it.key(form))] += 1;
        }
        let mut sum = 0;
        for e in ends.iter_mut() {
            (*e, sum) = (sum, sum + *e);
        }
        for it in items {
            let slot = &mut ends[digit.of(it.key(form))];
            to[*slot] = *it;
            *slot += 1;
        }
    }
}

/// Up to [`LEAF`] items.
fn leaf<I: Item>(items: &[I], form: Form, from: usize, words: &mut Words, sink: &mut dyn Sink<I>) {
    let n = items.len();
    if n == 0 {
        return;
    }
    words.fit(n);
    let (w, spare) = (&mut words.w[..n], &mut words.spare[..n + network::MARGIN]);
    let lead = dispatch(Make { items, form, w });
    order(w, spare, lead);
    if lead.bare {
        return sink.keys(from, lead.least, form, w);
    }
    if lead.drop > 0 {
        mend(w, lead.places, |at| items[at].key(form));
    }
    let least = (lead.drop == 0).then_some(lead.least);
    sink.put(from, items, form, w, (1u32 << lead.places) - 1, least);
}

/// How a u32 stands for an item.
#[derive(Clone, Copy)]
pub struct Lead {
    pub least: u64,
    /// Bits of the place.
    pub places: u32,
    /// Bits of the key that are kept, and that are cut off.
    pub keep: u32,
    pub drop: u32,
    /// There are no places: all of the key is there.
    pub bare: bool,
    /// The greatest word, about.
    pub most: u32,
}

impl Lead {
    /// For `n` keys in `least..=most`, of which only the order of the values counts if `bare`.
    #[inline(always)]
    pub fn new(n: usize, least: u64, most: u64, bare: bool) -> Lead {
        let bits = u64::BITS - most.wrapping_sub(least).leading_zeros();
        let bare = bare && bits <= 32;
        let places = if bare { 0 } else { usize::BITS - (n - 1).leading_zeros() };
        let keep = bits.min(32 - places);
        let drop = bits - keep;
        let top = (most.wrapping_sub(least) >> drop) as u32;
        Lead { least, places, keep, drop, bare, most: top << places | ((1u32 << places) - 1) }
    }
    #[inline(always)]
    pub fn word(self, key: u64, place: usize) -> u32 {
        let lead = (key.wrapping_sub(self.least) >> self.drop) as u32;
        // A line of one item has no bits for its place, which is 0.
        lead << self.places | if self.bare { 0 } else { place as u32 }
    }
}

struct Make<'a, I> {
    items: &'a [I],
    form: Form,
    w: &'a mut [u32],
}
impl<I: Item> ArchKernel for Make<'_, I> {
    type Out = Lead;
    #[inline(always)]
    fn run<A: Arch>(self) -> Lead {
        let (least, most) = extremes(self.items, self.form);
        let lead = Lead::new(self.items.len(), least, most, self.form.at == At::Nowhere);
        for (i, (w, it)) in self.w.iter_mut().zip(self.items).enumerate() {
            *w = lead.word(it.key(self.form), i);
        }
        lead
    }
}

/// Sorts the words of a leaf, which are in the order of their places; `spare` has [`network::MARGIN`]
/// places more.
fn order(w: &mut [u32], spare: &mut [u32], lead: Lead) {
    #[cfg(target_arch = "x86_64")]
    if network::available() {
        // SAFETY: as asked.
        return unsafe { network::sort(w, spare, lead.most) };
    }
    const DIGIT: u32 = 8;
    if w.len() < 256 {
        return w.sort_unstable();
    }
    // By digits from the last one on.
    let (mut src, mut dst) = (w, &mut spare[..]);
    let mut swapped = false;
    for p in 0..lead.keep.div_ceil(DIGIT) {
        let shift = lead.places + p * DIGIT;
        let digit = |x: u32| (x >> shift) as usize & ((1 << DIGIT) - 1);
        let mut counts = [0usize; 1 << DIGIT];
        src.iter().for_each(|x| counts[digit(*x)] += 1);
        if counts.contains(&src.len()) {
            continue;
        }
        let mut sum = 0;
        for c in &mut counts {
            (*c, sum) = (sum, sum + *c);
        }
        for &x in src.iter() {
            let slot = &mut counts[digit(x)];
            dst[*slot] = x;
            *slot += 1;
        }
        let n = src.len();
        (src, dst) = (&mut dst[..n], src);
        swapped = !swapped;
    }
    if swapped {
        dst[..src.len()].copy_from_slice(src);
    }
}

/// Where leading bits agree and others were cut off: by the whole key.
#[inline]
pub fn mend(w: &mut [u32], places: u32, key: impl Fn(usize) -> u64) {
    let mask = (1u32 << places) - 1;
    let ties = w.windows(2).fold(false, |any, p| any | ((p[0] ^ p[1]) <= mask));
    if !ties {
        return;
    }
    let mut i = 0;
    while i + 1 < w.len() {
        let lead = w[i] >> places;
        let run = 1 + w[i + 1..].iter().take_while(|x| *x >> places == lead).count();
        let tied = &mut w[i..i + run];
        // Mostly equal keys, which are in order.
        if !tied.is_sorted_by_key(|x| key((x & mask) as usize)) {
            tied.sort_unstable_by_key(|x| (key((x & mask) as usize), *x));
        }
        i += run;
    }
}
