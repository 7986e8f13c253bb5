"""Proved bounds on pre-activations. Each way of bounding only ever tightens a :class:`Region`."""

from leo_core.bounds.region import Region

__all__ = ["Region"]
