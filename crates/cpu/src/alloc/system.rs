//! Memory from the operating system: the C allocator for small blocks, mappings with huge pages above.

use std::ptr::null_mut;

use super::{ALIGN, HUGE, HUGE_FROM};

pub fn physical_memory() -> usize {
    #[cfg(unix)]
    {
        // SAFETY: sysconf has no preconditions.
        let (pages, page) =
            unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        if pages > 0 && page > 0 {
            return (pages as usize).saturating_mul(page as usize);
        }
    }
    8 << 30
}

/// `size` bytes aligned to ALIGN, zeroed from HUGE_FROM up. Null on failure.
pub fn alloc(size: usize) -> *mut u8 {
    #[cfg(target_os = "linux")]
    if size >= HUGE_FROM {
        return map_huge(size);
    }
    let Ok(layout) = std::alloc::Layout::from_size_align(size, ALIGN) else {
        return null_mut();
    };
    // SAFETY: the layout's size is not zero. Large blocks promise zeros (`alloc_inner`), here as with mmap.
    unsafe { if size >= HUGE_FROM { std::alloc::alloc_zeroed(layout) } else { std::alloc::alloc(layout) } }
}

/// # Safety
/// `p` came from `alloc(size)`.
pub unsafe fn free(p: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE_FROM {
        // SAFETY: `map_huge` left exactly this range mapped.
        unsafe { libc::munmap(p.cast(), size) };
        return;
    }
    if let Ok(layout) = std::alloc::Layout::from_size_align(size, ALIGN) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(p, layout) };
    }
}

/// Maps `size` bytes (a multiple of 2 MiB) at a 2 MiB boundary and asks for huge pages. Null on failure.
#[cfg(target_os = "linux")]
fn map_huge(size: usize) -> *mut u8 {
    let span = size + HUGE;
    // SAFETY: an anonymous private mapping anywhere; the parts cut off below belong to it.
    unsafe {
        let base = libc::mmap(
            null_mut(),
            span,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if base == libc::MAP_FAILED {
            return null_mut();
        }
        let start = (base as usize).next_multiple_of(HUGE);
        let front = start - base as usize;
        if front > 0 {
            libc::munmap(base, front);
        }
        let tail = span - front - size;
        if tail > 0 {
            libc::munmap((start + size) as *mut _, tail);
        }
        // Advice only: without huge pages everything works, at more page faults.
        libc::madvise(start as *mut _, size, libc::MADV_HUGEPAGE);
        start as *mut u8
    }
}
