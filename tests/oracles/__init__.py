"""Independent implementations that tests and benchmarks compare with; what they import is optional to install."""
