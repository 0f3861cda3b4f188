"""The stages of CPSL, each a task that the training loop runs."""
