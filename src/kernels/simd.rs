//! The same loop compiled three times: for every x86-64, and for AVX2 and AVX-512 where the processor has them. On Arm, NEON is what every
//! processor has, and what loops are compiled for anyway.
//!
//! The compiler never fuses a multiplication and an addition that are written apart, so all give the same bits.

/// Defines `fn name(args)` that runs `body`, with AVX-512 or AVX2 instructions where there are any.
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

                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512 $(<$t: $bound $(, const $n: usize)?>)? ($($arg: $type),*) $(-> $out)? { portable($($arg),*) }

                if $crate::kernels::simd::has_avx512() {
                    // SAFETY: the processor has the four, the only requirement of this function.
                    #[allow(unsafe_code, reason = "calling a function compiled for more instructions")]
                    return unsafe { avx512($($arg),*) };
                }
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

/// Whether the processor has the four parts of AVX-512 that [`wide`] compiles for.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq")
}
