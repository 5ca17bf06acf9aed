"""Image-question rows of mm-cpgd: readers for every common format, row checks, images opened late.

``load_examples`` is the entry; the rest is for those who need a part of it.
"""

from data.checks import CONTROL_TOKENS, check_example
from data.example import DataError, Example, ImageRef, split_at_images
from data.images import FORMATS, MAX_PIXELS, image_ref, image_size
from data.load import ExampleSet, Quarantined, TooManyBadRows, load_examples, write_quarantine
from data.readers import Row, read_rows
from data.sampler import PromptSampler, ScoredPromptSampler

__all__ = [
    "CONTROL_TOKENS",
    "FORMATS",
    "MAX_PIXELS",
    "DataError",
    "Example",
    "ExampleSet",
    "ImageRef",
    "PromptSampler",
    "Quarantined",
    "Row",
    "ScoredPromptSampler",
    "TooManyBadRows",
    "check_example",
    "image_ref",
    "image_size",
    "load_examples",
    "read_rows",
    "split_at_images",
    "write_quarantine",
]
