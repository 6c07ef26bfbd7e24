//! The model: a mixture of anisotropic Gaussians (METHOD.md section 2).
