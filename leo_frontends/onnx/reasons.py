"""Why an ONNX operator is not read: what could be, and what never can."""

from __future__ import annotations

#: They have an affine + ReLU form that LEO does not read yet.
_NOT_YET = {
    **dict.fromkeys(("If", "Loop", "Scan"), "it has a graph of its own, which is not read; export without branches"),
    "CumSum": "it is not read; multiply by a triangular matrix of ones instead",
    "Einsum": "it is not read; write it as MatMul",
    "Trilu": "it is not read of computed tensors",
    "ScatterElements": "it is not read of computed tensors",
    "ScatterND": "it is not read of computed tensors",
    "CenterCropPad": "it is not read; use Slice and Pad",
    "ReverseSequence": "it is not read; use Slice with a step of -1",
    "Compress": "it is not read; use Gather",
    "LpPool": "it is not read; AveragePool and MaxPool are",
    "RNN": "recurrent layers are not read; write its steps out",
    "TopK": "sorting is not read",
}

_QUANTISED = (
    "it computes with quantised numbers, and rounding has no affine + ReLU form; compress the float model, then "
    "quantise that"
)

#: They have none, whatever one does.
_NEVER = frozenset(
    """
    Acos Acosh And ArgMax ArgMin Asin Asinh Atan Atanh Attention BitShift Ceil Celu Cos Cosh DFT Det Elu Equal
    Erf Exp Floor GRU Gelu Greater GreaterOrEqual GroupNormalization HardSwish Hardmax InstanceNormalization IsInf IsNaN
    LRN LSTM LayerNormalization Less LessOrEqual Log LpNormalization MeanVarianceNormalization Mish Mod Not Or
    RMSNormalization Reciprocal ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd ReduceSumSquare Round
    Selu Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Unique Xor
    """.split()  # noqa: SIM905 - a list of words
)
_HINTS = {
    "HardSwish": "x · hardsigmoid(x) is quadratic",
    "LayerNormalization": "it divides by a computed number",
}


def why_not(operator: str) -> str:
    """A sentence on an operator that is not read of computed tensors."""
    if operator.startswith(("QLinear", "Quantize", "Dequantize", "DynamicQuantize")) or operator.endswith("Integer"):
        return _QUANTISED
    if operator in _NEVER:
        hint = f" ({_HINTS[operator]})" if operator in _HINTS else ""
        return f"there is no affine + ReLU form for it{hint}"
    return _NOT_YET.get(operator, "it is not read; docs/reference/formats.md lists what is")
