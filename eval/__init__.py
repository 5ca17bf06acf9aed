"""Evaluation of mm-cpgd: published benchmarks, generated or stored answers, scores and comparisons."""

import mm_cpgd  # noqa: F401  # its import guard makes `data` and `rewards` resolve beside it
