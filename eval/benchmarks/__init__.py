"""One file a published benchmark: load, prompt, official scoring."""
