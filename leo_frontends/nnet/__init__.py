"""The ``.nnet`` text format of ACAS Xu (Kyle Julian, Stanford 2016), with its normalisation."""

from __future__ import annotations

from leo_core.plugins import FrontendSpec, hookimpl
from leo_frontends.nnet.read import read_file
from leo_frontends.nnet.write import write_file


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe ``.nnet``."""
    return FrontendSpec(
        name="nnet",
        summary="the ACAS Xu text format; normalisation becomes part of the network",
        suffixes=(".nnet",),
        read_file=read_file,
        write_file=write_file,
    )
