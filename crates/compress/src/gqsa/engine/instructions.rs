//! Which machine instructions a product runs with.

/// The instructions that a kernel is written for. What a value promises was found on this machine, so a kernel may rely
/// on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// What every machine has.
    Portable,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    /// Plain Rust.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// AVX2, FMA and F16C, where the machine has them.
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            return Some(Self(Set::Avx2));
        }
        None
    }

    /// The widest that this machine has.
    pub fn best() -> Self {
        Self::avx2().unwrap_or(Self::PORTABLE)
    }

    /// All that this machine has, the plain ones first.
    pub fn all() -> Vec<Self> {
        [Some(Self::PORTABLE), Self::avx2()].into_iter().flatten().collect()
    }

    /// The name by which they are known.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "AVX2",
        }
    }

    pub(super) fn set(self) -> Set {
        self.0
    }
}
