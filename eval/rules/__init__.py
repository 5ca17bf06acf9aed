"""How benchmarks score themselves: pure functions from texts and tables to verdicts and totals. No torch."""
