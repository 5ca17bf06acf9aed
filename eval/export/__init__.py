"""Export of results: tables for papers, benchmarks' submission files, a model card's ``model-index``."""
