"""Why an ATen operator is not read: what could be, and what never can."""

from __future__ import annotations

#: They have an affine + ReLU form that LEO does not read yet.
_NOT_YET = {
    "conv": "convolutions over one or two axes are read, as torch.nn has them; others are not",
    "_conv": "convolutions are read as torch.nn has them, not as they are decomposed",
    "mkldnn_conv": "convolutions are read as torch.nn has them, not as they are decomposed",
    "avg_pool": "poolings over one or two axes are read; others are not",
    "adaptive_avg_pool": "poolings over one or two axes are read; others are not",
    "max_pool": "poolings over one or two axes are read, without the places of the maxima; others are not",
    "adaptive_max_pool": "poolings over one or two axes are read, without the places of the maxima; others are not",
    "upsample": "only the nearest values are read, over one or two axes",
    "unfold": "it is not read yet; use slices",
    "as_strided": "it is not read; use slices, reshape or permute",
    "einsum": "it is not read; use torch.nn.functional.linear or matmul",
    "cumsum": "it is not read; multiply by a triangular matrix of ones instead",
    "pairwise": "it is not read",
}

#: They have none, whatever one does.
_NEVER = frozenset(
    """
    acos acosh argmax argmin asin asinh atan atan2 atanh bernoulli bitwise_and bitwise_or bitwise_not bucketize
    ceil celu cos cosh cross_entropy_loss dist dot elu eq erf erfc erfinv exp exp2 expm1 floor floor_divide
    fmod frac ge gelu glu group_norm gru gt hardshrink hardswish instance_norm isnan isfinite layer_norm le
    lgamma linalg_norm linalg_vector_norm log log10 log1p log2 log_sigmoid logical_and logical_not logical_or
    logsumexp lstm lt mish native_group_norm native_layer_norm native_dropout ne norm pow rand rand_like randn
    randn_like reciprocal remainder rms_norm rnn_relu rnn_tanh round rsqrt scaled_dot_product_attention selu
    sgn sign signbit silu sin sinc sinh softplus softshrink softsign sort sqrt square std tan topk trunc var
    var_mean xlogy
    """.split()  # noqa: SIM905 - a list of words
)
_HINTS = {
    "hardswish": "x · relu6(x + 3) / 6 is quadratic",
    "native_dropout": "call eval() first",
    "layer_norm": "it divides by a computed number",
    "native_layer_norm": "it divides by a computed number",
    "einsum": "use matmul or linear",
}


def why_not(operator: str) -> str:
    """A sentence on an operator that is not read, by its name without the overload."""
    name = operator.rstrip("_")
    if name in _NEVER:
        hint = f" ({_HINTS[name]})" if name in _HINTS else ""
        return f"there is no affine + ReLU form for it{hint}"
    if name.startswith(("_operator_", "sym_")):
        return "it works out a number from that of the examples of a batch, which is not read"
    for start, reason in _NOT_YET.items():
        if name.startswith(start):
            return reason
    return (
        "it is not read; compute it by layers and functions that are (docs/reference/formats.md), or ahead of forward"
    )
