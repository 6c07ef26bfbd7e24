//! MPI: the world, the half groups, the all-reduce. Knows nothing of Gaussians.
