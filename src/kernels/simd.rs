//! The same loop compiled twice: for every x86-64, and for AVX2 where the processor has it.
//!
//! No fused multiply-add is enabled, so both give the same bits.

/// Defines `fn name(args)` that runs `body`, with AVX2 instructions where there are any.
macro_rules! wide {
    ($(#[$meta:meta])* fn $name:ident $(<$t:ident: $bound:ident $(, const $n:ident: usize)?>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        fn $name $(<$t: $bound $(, const $n: usize)?>)? ($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn portable $(<$t: $bound $(, const $n: usize)?>)? ($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$t: $bound $(, const $n: usize)?>)? ($($arg: $type),*) $(-> $out)? { portable($($arg),*) }

                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, the only requirement of this function.
                    #[allow(unsafe_code, reason = "calling a function compiled for more instructions")]
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(super) use wide;
