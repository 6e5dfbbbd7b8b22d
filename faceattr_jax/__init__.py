"""Face attribute editing in JAX."""
