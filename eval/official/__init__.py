"""Official scoring of the benchmarks: pure functions from texts and rows to verdicts and totals. No torch."""
