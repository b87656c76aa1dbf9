//! Tests of the pool: every chunk once, nesting, concurrent callers, panics, fork, scratch buffers.
use super::*;

fn check_each_once(n: usize) {
    let hits: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
    parallel(n, 1_000_000, &|i| {
        hits[i].fetch_add(1, Relaxed);
    });
    assert!(hits.iter().all(|h| h.load(Relaxed) == 1));
}

#[test]
fn every_chunk_runs_once() {
    for threads in [1, 2, 4, 3] {
        with_threads(threads, || {
            for n in [0, 1, 2, 3, 17, 1000] {
                for _ in 0..50 {
                    check_each_once(n);
                }
            }
        });
    }
}

#[test]
fn nested_regions_run_serially() {
    with_threads(3, || {
        let total = AtomicUsize::new(0);
        parallel(8, 1_000_000, &|_| {
            parallel(8, 1_000_000, &|j| {
                total.fetch_add(j, Relaxed);
            });
        });
        assert_eq!(total.load(Relaxed), 8 * 28);
    });
}

#[test]
fn several_threads_call_at_once() {
    with_threads(3, || {
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..200 {
                        check_each_once(13);
                    }
                });
            }
        });
    });
}

#[test]
fn a_panic_reaches_the_caller_once_and_the_pool_lives_on() {
    with_threads(3, || {
        for _ in 0..20 {
            let r = catch_unwind(|| {
                parallel(64, 1_000_000, &|i| {
                    if i % 2 == 1 {
                        resume_unwind(Box::new("chunk failed"));
                    }
                });
            });
            let payload = r.expect_err("the panic was lost");
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"chunk failed"));
            check_each_once(50);
        }
    });
}

#[cfg(unix)]
#[test]
fn a_forked_child_builds_its_own_pool() {
    with_threads(3, || {
        check_each_once(10);
        // SAFETY: the child runs only this pool and the allocator, both made for it, and leaves by _exit.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let ok = catch_unwind(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        parallel(16, 1_000_000, &|i| {
                            sum.fetch_add(i, Relaxed);
                        });
                        assert_eq!(sum.load(Relaxed), 120);
                    }
                });
                libc::_exit(if ok.is_ok() { 0 } else { 1 });
            }
            assert!(pid > 0);
            let mut status = 0;
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let r = libc::waitpid(pid, &mut status, libc::WNOHANG);
                if r == pid {
                    break;
                }
                if Instant::now() > deadline {
                    libc::kill(pid, libc::SIGKILL);
                    panic!("the forked child hangs");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(status, 0);
        }
        check_each_once(10);
    });
}

#[test]
fn chunks_cover_and_respect_the_minimum() {
    for n in [0usize, 1, 5, 63, 64, 65, 1000, 4096, 100_000, 12_345_678] {
        for min in [1, 16, 1000, 32768] {
            let (count, size) = chunks(n, min);
            assert!(size >= min);
            assert!(count * size >= n);
            assert!(n == 0 || (count - 1) * size < n);
            assert!(count <= 128);
        }
    }
}

#[test]
fn scratch_is_aligned_nests_and_is_reused() {
    let first = with_scratch(1000, |a| {
        assert_eq!(a as usize % 64, 0);
        with_scratch(1000, |b| assert_ne!(a, b)).unwrap();
        a as usize
    })
    .unwrap();
    let again = with_scratch(500, |a| a as usize).unwrap();
    let _ = (first, again);
    assert!(with_scratch(usize::MAX, |_| ()).is_err());
}

#[test]
fn a_small_region_stays_in_the_caller() {
    let me = std::thread::current().id();
    parallel(8, 1000, &|_| assert_eq!(std::thread::current().id(), me));
}
