//! End-to-end tests of lockstep live beside this file: through the real binary, on a real API server.
