//! Which bytes of a storage are kept for a backward pass, and what became of those that were
//! overwritten since: the bookkeeping of snapshot-on-write. The writer makes the copy; here is only
//! who needs one and where it lies.
//!
//! Almost every saved tensor fills its storage. These are only counted, in one atomic word together
//! with an epoch: saving is one addition, letting go one subtraction. A write while the count is not
//! zero ends the epoch and leaves a [`Kept`] behind for its savers. Saved views of a part of a storage
//! are listed one by one, so that a write beside them costs no copy.

use crate::plan::meets;
use crate::site::Site;
use crate::{DType, Layout, Storage};
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// What is left of a saved value after the write.
#[derive(Clone)]
pub enum Kept {
    /// The bytes as they were.
    Copy(Storage),
    /// Nobody made a copy (strict mode): who wrote, and where.
    Lost(Arc<(String, Site)>),
}

/// A saved part of a storage.
pub struct Part {
    pub layout: Layout,
    pub dtype: DType,
    /// Up to this version of the storage nothing has written here.
    intact: AtomicU32,
    kept: OnceLock<Kept>,
}

/// Where the bytes of a [`Part`] are.
pub enum State<'a> {
    /// Still in the storage.
    Intact,
    /// Here instead.
    Kept(&'a Kept),
    /// They were overwritten unseen.
    Gone,
}

impl Part {
    /// What to read when the storage is at `version`.
    pub fn state(&self, version: u32) -> State<'_> {
        match self.kept.get() {
            Some(k) => State::Kept(k),
            None if newer(version, self.intact.load(Ordering::Acquire)) => State::Gone,
            None => State::Intact,
        }
    }
    pub fn put(&self, k: Kept) {
        let _ = self.kept.set(k);
    }
}

/// Is version `a` younger than `b`? Versions wrap.
fn newer(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// A finished epoch that still has savers.
struct Past {
    epoch: u32,
    savers: u32,
    kept: Kept,
}

#[derive(Default)]
struct Marks {
    past: SmallVec<[Past; 1]>,
    parts: Vec<Weak<Part>>,
}

/// The watch of one storage.
#[derive(Default)]
pub(crate) struct Watch {
    /// Epoch in the upper half, number of its savers in the lower.
    whole: AtomicU64,
    /// Absent for almost every storage.
    marks: OnceLock<Box<Mutex<Marks>>>,
}

impl Watch {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Somebody keeps all bytes of this storage; the number is what [`Storage::let_go`] wants back.
    #[inline]
    pub fn keep_whole(&self) -> u32 {
        (self.watch_ref().whole.fetch_add(1, Ordering::AcqRel) >> 32) as u32
    }

    /// Ends [`Storage::keep_whole`].
    #[inline]
    pub fn let_go(&self, epoch: u32) {
        let whole = &self.watch_ref().whole;
        let mut now = whole.load(Ordering::Acquire);
        while (now >> 32) as u32 == epoch {
            match whole.compare_exchange_weak(now, now - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(n) => now = n,
            }
        }
        self.let_go_of_past(epoch);
    }

    #[cold]
    fn let_go_of_past(&self, epoch: u32) {
        let mut m = self.watch_ref().marks();
        let Some(i) = m.past.iter().position(|p| p.epoch == epoch) else { return };
        m.past[i].savers -= 1;
        if m.past[i].savers == 0 {
            let gone = m.past.remove(i);
            drop(m);
            // The copy's memory is given back after the lock is gone.
            drop(gone);
        }
    }

    /// What became of the bytes kept in `epoch`; `None`: they are still in place.
    #[inline]
    pub fn kept_in(&self, epoch: u32) -> Option<Kept> {
        let w = self.watch_ref();
        if (w.whole.load(Ordering::Acquire) >> 32) as u32 == epoch {
            return None;
        }
        w.marks().past.iter().find(|p| p.epoch == epoch).map(|p| p.kept.clone())
    }

    /// Somebody keeps a part of this storage.
    pub fn keep_part(&self, layout: &Layout, dtype: DType) -> Arc<Part> {
        let part = Arc::new(Part {
            layout: layout.clone(),
            dtype,
            intact: AtomicU32::new(self.version()),
            kept: OnceLock::new(),
        });
        let mut m = self.watch_ref().marks();
        // Those who let go are swept out now and then.
        if m.parts.len() >= 8 && m.parts.len().is_power_of_two() {
            m.parts.retain(|p| p.strong_count() > 0);
        }
        m.parts.push(Arc::downgrade(&part));
        part
    }

    /// Does a write have to ask [`Storage::keepers`]?
    #[inline]
    pub fn is_kept(&self) -> bool {
        let w = self.watch_ref();
        w.whole.load(Ordering::Acquire) as u32 != 0 || w.marks.get().is_some()
    }

    /// Who keeps bytes that a write to `layout` would change: all of them (first), and these parts.
    /// The other parts are told that the write that follows does not concern them.
    pub fn keepers(&self, layout: &Layout, dtype: DType) -> (bool, Vec<Arc<Part>>) {
        let w = self.watch_ref();
        let whole = w.whole.load(Ordering::Acquire) as u32 != 0;
        let mut hit = Vec::new();
        if w.marks.get().is_some() {
            let version = self.version();
            w.marks().parts.retain(|p| {
                let Some(p) = p.upgrade() else { return false };
                if meets(&p.layout, p.dtype.size(), layout, dtype.size()) {
                    hit.push(p);
                    return false;
                }
                if !newer(version, p.intact.load(Ordering::Acquire)) {
                    p.intact.store(version.wrapping_add(1), Ordering::Release);
                }
                true
            });
        }
        (whole, hit)
    }

    /// Ends the epoch: its savers find `kept` from now on.
    pub fn leave_behind(&self, kept: Kept) {
        let w = self.watch_ref();
        let mut m = w.marks();
        let mut now = w.whole.load(Ordering::Acquire);
        loop {
            let (epoch, savers) = ((now >> 32) as u32, now as u32);
            if savers == 0 {
                return;
            }
            let next = (epoch.wrapping_add(1) as u64) << 32;
            match w.whole.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    m.past.push(Past { epoch, savers, kept });
                    return;
                }
                Err(n) => now = n,
            }
        }
    }
}
