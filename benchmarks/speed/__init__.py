"""How fast Acclimate is beside what the arithmetic allows: ``python -m benchmarks.speed``."""
