"""One plain-Python ml_collections config per paper; installed as `faceattr_jax.configs`."""
