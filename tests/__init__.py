"""Test suite; a package so that tests may import ``tests.fakes`` and ``tests.paths``."""
