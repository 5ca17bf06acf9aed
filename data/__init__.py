"""Image-question rows of mm-cpgd: readers for the common formats, row checks, lazily opened images.

``load_examples`` is the entry point.
"""

from data.checks import check_example
from data.example import DataError, Example, ImageRef
from data.images import image_ref
from data.load import ExampleSet, Quarantined, TooManyBadRows, load_examples, write_quarantine
from data.overlap import shared_rows
from data.readers import read_rows
from data.sampler import PromptSampler, ScoredPromptSampler
from data.videos.reference import video_ref
from data.videos.sampling import VideoLimits
from data.videos.timeline import VideoRef

__all__ = [
    "DataError",
    "Example",
    "ExampleSet",
    "ImageRef",
    "PromptSampler",
    "Quarantined",
    "ScoredPromptSampler",
    "TooManyBadRows",
    "VideoLimits",
    "VideoRef",
    "check_example",
    "image_ref",
    "load_examples",
    "read_rows",
    "shared_rows",
    "video_ref",
    "write_quarantine",
]


def __getattr__(name: str) -> object:
    if name == "Row":  # in users' benchmark files
        raise ImportError("data.Row has moved; write: from data.readers import RawRow")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
