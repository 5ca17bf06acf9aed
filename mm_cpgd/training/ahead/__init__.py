"""Work that is done before the iteration that needs it: prompts encoded, rollout batches sampled."""
