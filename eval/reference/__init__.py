"""Published numbers of models on benchmarks with their sources, and results compared with them."""
