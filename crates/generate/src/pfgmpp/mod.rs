//! PFGM++: diffusion with heavy tails, from Poisson flow (D = 1) to EDM (D = ∞) by one number (Xu et al. 2023,
//! arXiv:2302.04265).
//!
//! Data y of N components are charges in N + D dimensions. Their field lines lead from a far hemisphere to the data; by
//! symmetry only r, the length of the D added components, matters:
//!
//! ```text
//! p_r(x | y) ∝ (|x − y|² + r²)^−(N+D)/2        dx/dr = E_x/E_r = (x − E[y | x])/r
//! ```
//!
//! With r = σ√D that is y + σ z √(D/χ²_D), Student's t, and dx/dσ = (x − E\[y | x\])/σ, the flow of EDM. So the field's
//! [`Denoiser`](crate::Denoiser)s, grids and deterministic samplers serve as they are, at every D
//! ([`Path::StudentT`](crate::Path::StudentT)), and every hyper-parameter that is written in σ stays. Stochastic samplers
//! and scores need Gaussian noise and refuse a finite D.
//!
//! What is the paper's own stands here:
//!
//! - [`Augmentation`]: D, its law and the alignment r = σ√D; [`distance_to_uniform`] shows what is aligned.
//! - [`Protocol`], [`Perturbed`]: sampling with errors, the trade that D makes; [`quantise`] does the same to weights.
//!
//! Training is [`network::fit`](crate::network::fit) on [`Augmentation::path`].

mod augmentation;
mod bench;
mod data;
mod perturb;
mod phases;
mod protocol;
mod quantise;
mod run;
mod study;
mod view;

pub use augmentation::Augmentation;
pub use data::Scaled;
pub use perturb::Perturbed;
pub use phases::distance_to_uniform;
pub use protocol::Protocol;
pub use quantise::{quantise, with_quantised};
pub use run::{Pfgmpp, PfgmppParams};
