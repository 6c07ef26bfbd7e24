//! The interface a device offers, and its implementations. Knows nothing of MPI.
