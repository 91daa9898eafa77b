//! Activations: functions of each element by itself.

use super::element::{Element, elements, for_type, tensor, vectorised, with_all};
use super::rows::filled;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// [`gelu`](super::gelu)
    Gelu,
    /// [`gelu_tanh`](super::gelu_tanh)
    GeluTanh,
    /// [`relu`](super::relu)
    Relu,
    /// [`silu`](super::silu)
    Silu,
    /// [`tanh`](super::tanh)
    Tanh,
    /// [`sigmoid`](super::sigmoid)
    Sigmoid,
}

/// A function and its derivative, inlined into the loops over elements.
trait Pointwise: Sync {
    fn value<T: Element>(x: T) -> T;
    fn slope<T: Element>(x: T) -> T;
}

struct Gelu;
struct GeluTanh;
struct Relu;
struct Silu;
struct Tanh;
struct Sigmoid;

impl Pointwise for Gelu {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        x * x.normal().0
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        let (phi, e) = x.normal();
        // The normal density is exp(−x²/2) / √(2π).
        x * e * T::from_f64(0.398_942_280_401_432_7) + phi
    }
}

/// The argument of the tanh in GELU's approximation, and its derivative.
#[inline(always)]
fn gelu_argument<T: Element>(x: T) -> (T, T) {
    let root = T::from_f64(0.797_884_560_802_865_4);
    let square = x * x;
    let cubic = T::from_f64(0.044715);
    (root * x * (T::one() + cubic * square), root * (T::one() + T::from_f64(3.0) * cubic * square))
}

impl Pointwise for GeluTanh {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        T::from_f64(0.5) * x * (T::one() + gelu_argument(x).0.tanh())
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        let (argument, inner) = gelu_argument(x);
        let t = argument.tanh();
        T::from_f64(0.5) * (T::one() + t + x * (T::one() - t * t) * inner)
    }
}

impl Pointwise for Relu {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        // In this form NaN stays NaN.
        if x < T::zero() { T::zero() } else { x }
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        if x > T::zero() { T::one() } else { T::zero() }
    }
}

impl Pointwise for Silu {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        x * x.sigmoid()
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        let s = x.sigmoid();
        s * (T::one() + x * (T::one() - s))
    }
}

impl Pointwise for Tanh {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        x.tanh()
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        let t = x.tanh();
        T::one() - t * t
    }
}

impl Pointwise for Sigmoid {
    #[inline(always)]
    fn value<T: Element>(x: T) -> T {
        x.sigmoid()
    }

    #[inline(always)]
    fn slope<T: Element>(x: T) -> T {
        let s = x.sigmoid();
        s * (T::one() - s)
    }
}

fn values<P: Pointwise, T: Element>(x: &[T]) -> Vec<T> {
    let fill = |first: usize, y: &mut [T]| {
        vectorised(
            #[inline(always)]
            || y.iter_mut().zip(&x[first..]).for_each(|(y, &x)| *y = P::value(x)),
        )
    };
    filled(x.len(), 1, fill).0
}

/// `g` times the derivative at `x`.
fn pull_back<P: Pointwise, T: Element>(x: &[T], g: &[T]) -> Vec<T> {
    let fill = |first: usize, gx: &mut [T]| {
        vectorised(
            #[inline(always)]
            || gx.iter_mut().zip(&x[first..]).zip(&g[first..]).for_each(|((gx, &x), &g)| *gx = g * P::slope(x)),
        )
    };
    filled(x.len(), 1, fill).0
}

impl Activation {
    /// The activation of every element of `x`.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => super::gelu(x),
            Self::GeluTanh => super::gelu_tanh(x),
            Self::Relu => super::relu(x),
            Self::Silu => super::silu(x),
            Self::Tanh => super::tanh(x),
            Self::Sigmoid => super::sigmoid(x),
        }
    }

    /// The function of every element.
    pub(super) fn values<T: Element>(self, x: &[T]) -> Vec<T> {
        match self {
            Self::Gelu => values::<Gelu, T>(x),
            Self::GeluTanh => values::<GeluTanh, T>(x),
            Self::Relu => values::<Relu, T>(x),
            Self::Silu => values::<Silu, T>(x),
            Self::Tanh => values::<Tanh, T>(x),
            Self::Sigmoid => values::<Sigmoid, T>(x),
        }
    }

    /// `g` times the derivative at `x`.
    pub(super) fn pull_back<T: Element>(self, x: &[T], g: &[T]) -> Vec<T> {
        match self {
            Self::Gelu => pull_back::<Gelu, T>(x, g),
            Self::GeluTanh => pull_back::<GeluTanh, T>(x, g),
            Self::Relu => pull_back::<Relu, T>(x, g),
            Self::Silu => pull_back::<Silu, T>(x, g),
            Self::Tanh => pull_back::<Tanh, T>(x, g),
            Self::Sigmoid => pull_back::<Sigmoid, T>(x, g),
        }
    }
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_type!(storage.dtype(), T => {
            let y = self.values::<T>(&elements(storage, layout)?);
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        for_type!(x.dtype(), T => {
            let gx = with_all::<T, _, 2>([x, g], |[x, g]| Ok(self.pull_back(x, g)))?;
            Ok(Some(tensor(gx, x.shape())?))
        })
    }
}
