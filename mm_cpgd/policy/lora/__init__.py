"""Adapters: their layers, their files, and the weights with them merged in."""
