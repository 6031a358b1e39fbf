"""The container images of the stages, one per dependency class."""

import os
from typing import Literal

from rlhi import __version__


def image(dependencies: Literal["cpu", "train", "vllm"]) -> str:
    """The image that holds a class of dependencies.

    ``RLHI_IMAGE_CPU``, ``RLHI_IMAGE_TRAIN`` and ``RLHI_IMAGE_VLLM`` name another one, for instance by digest: KFP's
    cache goes by the name, not by what a tag points at.
    """
    return os.environ.get(f"RLHI_IMAGE_{dependencies.upper()}") or f"rlhi-{dependencies}:{__version__}"
