"""Smaller networks that compute the same: a network with what is known of its units in, a :class:`Rewritten` out."""

from leo_core.rewrite.pipeline import Rewritten, rewrite
from leo_core.rewrite.step import Refusal, Step
from leo_core.rewrite.view import View

__all__ = ["Refusal", "Rewritten", "Step", "View", "rewrite"]
