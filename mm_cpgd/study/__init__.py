"""Stability study: collapses of the objectives by learning rate and updates per rollout batch."""
