"""Image-question rows: read in every common form, checked one by one, opened late.

``load_examples`` is the entry; the rest is for those who need a part of it.
"""

from data.checks import CONTROL_TOKENS, check_example
from data.errors import DataError
from data.example import Example, ImageRef
from data.images import FORMATS, MAX_PIXELS, image_ref, image_size
from data.load import ExampleSet, Quarantined, TooManyBadRows, load_examples, write_quarantine
from data.markers import split_at_images
from data.readers import Row, read_rows
from data.sampler import PromptSampler
from data.scored_sampler import ScoredPromptSampler

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
