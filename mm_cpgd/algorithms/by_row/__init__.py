"""Parts that remember outcomes by training row: baselines, scores of rows, rollout budgets."""
