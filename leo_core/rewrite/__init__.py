"""Smaller networks that compute the same: a network and its stability in, a :class:`Rewritten` out."""

from leo_core.rewrite.pipeline import Rewritten, rewrite
from leo_core.rewrite.step import Refusal, Step

__all__ = ["Refusal", "Rewritten", "Step", "rewrite"]
