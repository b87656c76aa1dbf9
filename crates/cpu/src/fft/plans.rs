//! Plans by length, direction and precision, made once and kept while they are few.

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftDirection, FftNum, FftPlanner};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Points that all kept plans may have together before the cache starts anew (their tables take 8 to
/// 32 bytes a point): a program that tries thousands of lengths must not fill the memory with tables.
const MOST_POINTS: usize = 1 << 23;

/// The plans of one precision.
pub struct Plans<T: FftNum>(Mutex<Kept<T>>);

struct Kept<T: FftNum> {
    planner: FftPlanner<T>,
    real_planner: RealFftPlanner<T>,
    complex: HashMap<(usize, bool), Arc<dyn Fft<T>>>,
    forward: HashMap<usize, Arc<dyn RealToComplex<T>>>,
    inverse: HashMap<usize, Arc<dyn ComplexToReal<T>>>,
    points: usize,
}

impl<T: FftNum> Kept<T> {
    fn new() -> Kept<T> {
        Kept {
            planner: FftPlanner::new(),
            real_planner: RealFftPlanner::new(),
            complex: HashMap::new(),
            forward: HashMap::new(),
            inverse: HashMap::new(),
            points: 0,
        }
    }
    fn room_for(&mut self, n: usize) {
        if self.points > 0 && self.points.saturating_add(n) > MOST_POINTS {
            *self = Kept::new();
        }
        self.points = self.points.saturating_add(n);
    }
}

impl<T: FftNum> Plans<T> {
    fn new() -> Plans<T> {
        Plans(Mutex::new(Kept::new()))
    }
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn complex(&self, n: usize, forward: bool) -> Arc<dyn Fft<T>> {
        let mut k = self.kept();
        if let Some(p) = k.complex.get(&(n, forward)) {
            return p.clone();
        }
        k.room_for(n);
        let p = k.planner.plan_fft(n, if forward { FftDirection::Forward } else { FftDirection::Inverse });
        k.complex.insert((n, forward), p.clone());
        p
    }
    pub fn real_to_half(&self, n: usize) -> Arc<dyn RealToComplex<T>> {
        let mut k = self.kept();
        if let Some(p) = k.forward.get(&n) {
            return p.clone();
        }
        k.room_for(n);
        let p = k.real_planner.plan_fft_forward(n);
        k.forward.insert(n, p.clone());
        p
    }
    pub fn half_to_real(&self, n: usize) -> Arc<dyn ComplexToReal<T>> {
        let mut k = self.kept();
        if let Some(p) = k.inverse.get(&n) {
            return p.clone();
        }
        k.room_for(n);
        let p = k.real_planner.plan_fft_inverse(n);
        k.inverse.insert(n, p.clone());
        p
    }
}

/// A precision that has transforms.
pub trait Real: FftNum {
    fn plans() -> &'static Plans<Self>;
    fn of(v: f64) -> Self;
}
impl Real for f32 {
    fn plans() -> &'static Plans<f32> {
        static PLANS: OnceLock<Plans<f32>> = OnceLock::new();
        PLANS.get_or_init(Plans::new)
    }
    fn of(v: f64) -> f32 {
        v as f32
    }
}
impl Real for f64 {
    fn plans() -> &'static Plans<f64> {
        static PLANS: OnceLock<Plans<f64>> = OnceLock::new();
        PLANS.get_or_init(Plans::new)
    }
    fn of(v: f64) -> f64 {
        v
    }
}
