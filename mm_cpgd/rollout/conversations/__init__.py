"""Sampling of conversations: turns of the policy, and replies of environments between them."""
