"""Inputs of parts by name beside tensors of the loss: outcomes of rollouts, the clock of the run."""
