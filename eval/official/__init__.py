"""The benchmarks' own scoring rules: pure functions from texts and rows to verdicts and totals. No torch."""
