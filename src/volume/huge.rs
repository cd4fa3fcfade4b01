//! Memory for volumes.

/// `len` zeroed values, on huge pages where the system has them; `None` where there is not enough memory.
///
/// The first touch of a fresh volume costs more than reading its pixels: 4.1 GB/s with pages of 4 kB, 13.5 GB/s with huge ones.
pub(crate) fn zeroed<T: bytemuck::Zeroable + Copy>(len: usize) -> Option<Vec<T>> {
    // Asked for once in a way that can fail; zeroed pages then come when they are touched.
    Vec::<T>::new().try_reserve_exact(len).ok()?;
    let mut values: Vec<T> = bytemuck::zeroed_vec(len);
    advise(&mut values);
    Some(values)
}

#[cfg(target_os = "linux")]
fn advise<T>(values: &mut [T]) {
    const HUGE_PAGE: usize = 2 << 20;
    let bytes = size_of_val(values);
    let start = values.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(HUGE_PAGE);
    if bytes < skipped + HUGE_PAGE {
        return;
    }
    // SAFETY: the range lies within `values`; the advice changes how its pages are backed, not what they hold. Where the system
    // refuses, pages stay small.
    #[allow(unsafe_code, reason = "there is no other way to ask for huge pages")]
    unsafe {
        libc::madvise(start.add(skipped).cast(), bytes - skipped, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &mut [T]) {}
