"""Inputs that parts may ask for by name: outcomes of rollouts, the clock of the run, memory, tokens."""
