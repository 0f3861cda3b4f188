"""How well adaptation works, variant by variant and seed by seed: ``python -m benchmarks.adaptation``."""
