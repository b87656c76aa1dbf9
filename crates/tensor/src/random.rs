//! Generators: a seed and a position in the Philox stream. One default generator serves all
//! devices, so the same seed gives the same numbers on CPU and CUDA.

use pyrite_core::backend::Philox;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The seed of a fresh default generator, PyTorch's.
pub const DEFAULT_SEED: u64 = 67280421310721;

pub struct Generator {
    state: Mutex<Philox>,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator { state: Mutex::new(Philox { seed, offset: 0 }) }
    }
    fn lock(&self) -> MutexGuard<'_, Philox> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn manual_seed(&self, seed: u64) {
        *self.lock() = Philox { seed, offset: 0 };
    }
    pub fn initial_seed(&self) -> u64 {
        self.lock().seed
    }
    pub fn state(&self) -> Philox {
        *self.lock()
    }
    pub fn set_state(&self, s: Philox) {
        *self.lock() = s;
    }
    /// Where the next draw starts; the stream moves on by `blocks` counters.
    pub fn advance(&self, blocks: u64) -> Philox {
        let mut s = self.lock();
        let at = *s;
        s.offset = s.offset.wrapping_add(blocks);
        at
    }
}

/// The generator used where none is given.
pub fn default_generator() -> &'static Arc<Generator> {
    static DEFAULT: OnceLock<Arc<Generator>> = OnceLock::new();
    DEFAULT.get_or_init(|| Arc::new(Generator::new(DEFAULT_SEED)))
}
