"""Why an operator of TensorFlow Lite is not read: what could be, and what never can."""

from __future__ import annotations


def quantised(how: str) -> str:
    """Why a quantised model is not read, and the way to go; ``how`` says what shows that it is one."""
    return (
        f"it is quantised ({how}): it computes with rounded whole numbers, which has no affine + ReLU form. Compress "
        "the float model and quantise the result; what LEO proves is about the float model, and says nothing of what "
        "quantising does"
    )


#: They have none, whatever one does.
_NEVER = frozenset(
    """
    ARG_MAX ARG_MIN ATAN2 BUCKETIZE CEIL COMPLEX_ABS COS CUMPROD ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD GELU GREATER
    GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LESS LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LSTM MULTINOMIAL NOT_EQUAL POW RANDOM_STANDARD_NORMAL RANDOM_UNIFORM ROUND RSQRT SIGN SIN
    SQRT SQUARE SQUARED_DIFFERENCE UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_LSTM
    """.split()  # noqa: SIM905 - a list of words
)
_NOT_YET = {
    **dict.fromkeys(("IF", "WHILE", "CALL", "CALL_ONCE"), "it has a graph of its own, which is not read"),
    **dict.fromkeys(
        ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
        "it is not read; of a model with a fixed batch the converter makes a dilated convolution instead",
    ),
    "RESIZE_BILINEAR": "it interpolates, which is not read; RESIZE_NEAREST_NEIGHBOR is",
    "CONV_3D": "convolutions over two axes are read",
    "TOPK_V2": "sorting is not read",
}


def why_not(kind: str) -> str:
    """A sentence on an operator that is not read."""
    if kind.startswith("CUSTOM"):
        code = kind.removeprefix("CUSTOM").strip()
        what = "a TensorFlow operator" if code.startswith("Flex") else "a custom operator"
        return f"'{code}' is {what}, and LEO cannot know what it computes"
    if kind in ("QUANTIZE", "FAKE_QUANT") or kind.startswith("STABLEHLO_UNIFORM"):
        return quantised("it rounds its values")
    if kind in _NEVER:
        return "there is no affine + ReLU form for it"
    return _NOT_YET.get(kind, "it is not read; docs/reference/formats.md lists what is")
