//! Tests of the allocator: classes, alignment, reuse, threads, fork, failure.
use super::*;
use std::sync::Mutex;

/// Counters are global: tests that read them must not interleave.
static SERIAL: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    SERIAL.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn classes_are_the_smallest_that_fit() {
    for class in 0..CLASSES {
        let size = class_size(class);
        assert_eq!(class_of(size), class, "size {size}");
        if class > 0 {
            assert_eq!(class_of(class_size(class - 1) + 1), class);
            assert!(size <= class_size(class - 1) * 3 / 2);
        }
    }
    assert_eq!(class_size(CLASSES - 1), CLASS_MAX);
    assert_eq!(class_size(FRONT_CLASSES - 1), FRONT_MAX);
}

#[test]
fn blocks_are_aligned_writable_and_zeroed_on_request() {
    let _g = alone();
    for bytes in [1usize, 63, 64, 65, 1000, 40_000, 1 << 20, 5 << 20, (64 << 20) + 5] {
        for _ in 0..2 {
            let p = alloc(bytes).unwrap();
            assert_eq!(p as usize % ALIGN, 0);
            if bytes >= HUGE_FROM && cfg!(target_os = "linux") {
                assert_eq!(p as usize % HUGE, 0);
            }
            // SAFETY: `bytes` bytes at `p` are ours until `free`.
            unsafe {
                p.write_bytes(0xab, bytes);
                free(p, bytes);
                let z = alloc_zeroed(bytes).unwrap();
                assert!(std::slice::from_raw_parts(z, bytes).iter().all(|&b| b == 0), "{bytes}");
                free(z, bytes);
            }
        }
    }
    let p = alloc(0).unwrap();
    assert!(!p.is_null());
    // SAFETY: matches the call above.
    unsafe { free(p, 0) };
}

#[test]
fn a_freed_block_is_reused_and_counted() {
    let _g = alone();
    for bytes in [100usize, 100_000, 10 << 20, 100 << 20] {
        drop(Block::new(bytes).unwrap());
        let before = stats();
        let b = Block::new(bytes).unwrap();
        let after = stats();
        assert!(after.hits > before.hits, "{bytes}");
        assert!(after.allocated >= before.allocated.saturating_sub(1 << 20) + bytes);
        drop(b);
    }
    // Best fit: a little smaller is served by the cached block, much smaller is not.
    empty_cache();
    drop(Block::new(100 << 20).unwrap());
    let r = stats().reserved;
    drop(Block::new(90 << 20).unwrap());
    assert!(stats().reserved <= r + (1 << 20));
    drop(Block::new(66 << 20).unwrap());
    assert!(stats().reserved >= r + (60 << 20));
    empty_cache();
}

#[test]
fn the_cap_bounds_the_cache() {
    let _g = alone();
    empty_cache();
    let before = stats().reserved;
    set_cache_cap(0);
    drop(Block::new(32 << 20).unwrap());
    assert!(stats().reserved < before + (16 << 20));
    CAP.store(usize::MAX - 1, Relaxed);
}

#[test]
fn too_much_is_an_error_not_an_abort() {
    let _g = alone();
    for bytes in [usize::MAX, isize::MAX as usize, 1usize << 56] {
        let e = alloc(bytes).unwrap_err();
        assert_eq!(e.requested, bytes);
        assert!(e.to_string().contains("out of memory"));
    }
    assert!(stats().ooms >= 3);
}

#[test]
fn many_threads_and_blocks_freed_elsewhere() {
    let _g = alone();
    let (tx, rx) = std::sync::mpsc::channel::<(Block, u8)>();
    std::thread::scope(|s| {
        for t in 0..6u64 {
            let tx = tx.clone();
            s.spawn(move || {
                let mut seed = t + 1;
                let mut mine = Vec::new();
                for i in 0..3000 {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let bytes = 1 + (seed >> 33) as usize % (1 << (seed >> 60));
                    let b = Block::new(bytes).unwrap();
                    let mark = (seed >> 40) as u8;
                    // SAFETY: the block is ours.
                    unsafe { b.as_ptr().write_bytes(mark, b.bytes()) };
                    match i % 3 {
                        0 => tx.send((b, mark)).unwrap(),
                        1 => mine.push((b, mark)),
                        _ => drop(mine.pop()),
                    }
                }
                for (b, mark) in mine {
                    check(&b, mark);
                }
            });
        }
        drop(tx);
        for (b, mark) in rx {
            check(&b, mark);
        }
    });
}

fn check(b: &Block, mark: u8) {
    // SAFETY: the writer filled the whole block and nobody else refers to it.
    let bytes = unsafe { std::slice::from_raw_parts(b.as_ptr(), b.bytes()) };
    assert!(bytes.iter().all(|&x| x == mark), "a block was shared");
}

#[cfg(unix)]
#[test]
fn a_child_forked_while_others_allocate_can_allocate() {
    let _g = alone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    drop(Block::new(100_000));
                }
            });
        }
        for _ in 0..20 {
            // SAFETY: the child only allocates and leaves by _exit.
            unsafe {
                let pid = libc::fork();
                if pid == 0 {
                    let ok = (0..100).all(|_| Block::new(100_000).is_ok());
                    libc::_exit(if ok { 0 } else { 1 });
                }
                let mut status = -1;
                let mut waited = 0;
                while libc::waitpid(pid, &mut status, libc::WNOHANG) == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    waited += 1;
                    if waited > 20_000 {
                        libc::kill(pid, libc::SIGKILL);
                        stop.store(true, Relaxed);
                        panic!("the forked child hangs");
                    }
                }
                assert_eq!(status, 0);
            }
        }
        stop.store(true, Relaxed);
    });
}
