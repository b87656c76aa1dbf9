//! A place in the user's program: where a node was recorded, where a saved value was overwritten.
//! The core only carries it; the binding says where we are and turns it into words.

use std::sync::OnceLock;

/// Two words that the binding understands (a code object and a position in it); zero: unknown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Site {
    pub code: usize,
    pub at: u32,
}

/// What the binding provides.
pub struct Sites {
    /// Cheap: runs for every recorded operation.
    pub here: fn() -> Site,
    /// This thread is the library's own: nothing of the program runs in it, unless the binding is called back.
    pub nowhere: fn(),
    /// `file.py:12 in train`.
    pub describe: fn(Site) -> Option<String>,
}

static SITES: OnceLock<Sites> = OnceLock::new();

/// Called once by the binding.
pub fn provide(s: Sites) {
    let _ = SITES.set(s);
}

impl Site {
    /// Where the program is now; unknown without a binding.
    #[inline]
    pub fn here() -> Site {
        match SITES.get() {
            Some(s) => (s.here)(),
            None => Site::default(),
        }
    }
    /// Call first in a thread of the library's own that may record operations.
    pub fn nowhere() {
        if let Some(s) = SITES.get() {
            (s.nowhere)();
        }
    }
    pub fn is_known(self) -> bool {
        self.code != 0
    }
    /// `file.py:12 in train`, if known.
    pub fn describe(self) -> Option<String> {
        if !self.is_known() {
            return None;
        }
        SITES.get().and_then(|s| (s.describe)(self))
    }
    /// ` at file.py:12 in train`, or nothing: the end of a sentence.
    pub fn suffix(self) -> String {
        self.describe().map_or_else(String::new, |s| format!(" at {s}"))
    }
}
