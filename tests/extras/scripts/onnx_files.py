"""The extra onnx: a network in, a smaller one out, and no other framework."""

from __future__ import annotations

import sys

import leo_core

result = leo_core.compress("digits/digits.onnx", "digits/digits.domain.json", passes="leo")
assert result.network.connections < result.original.connections
result.export("out.onnx")
model = result.model
assert type(model).__module__.startswith("onnx")
assert leo_core.compress(model, "digits/digits.domain.json").network.connections <= result.network.connections
leo_core.convert("out.onnx", "out.leo")
for other in ("torch", "keras", "tensorflow", "sklearn"):
    assert other not in sys.modules
