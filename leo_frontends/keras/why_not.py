"""Why a layer is not read: what cannot be said with affine maps and ReLUs, what LEO has not learned, what is code."""

from __future__ import annotations

from typing import Any

#: Curved, or products of computed values, or jumps.
NO_FORM = frozenset((
    "AdditiveAttention", "Attention", "Bidirectional", "CategoryEncoding", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D",
    "Discretization", "Dot", "ELU", "Embedding", "GRU", "GRUCell", "GroupNormalization", "GroupQueryAttention",
    "HashedCrossing", "Hashing", "IntegerLookup", "LSTM", "LSTMCell", "LayerNormalization", "Masking", "MelSpectrogram",
    "MultiHeadAttention", "RMSNormalization", "RNN", "ReversibleEmbedding", "STFTSpectrogram", "SimpleRNN",
    "SimpleRNNCell", "Solarization", "StackedRNNCells", "StringLookup", "TextVectorization", "UnitNormalization",
))  # fmt: skip
_CODE = frozenset(["FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"])
_TENSORFLOW = frozenset(["ClassMethod", "InstanceMethod", "SlicingOpLambda", "TFOpLambda", "TensorFlowOpLayer"])
_LINEAR = frozenset(["CenterCrop", "EinsumDense", "Resizing", "SpectralNormalization", "TimeDistributed"])


def layer(found: Any) -> str:
    """The reason why no layer of that class is read."""
    if hasattr(found, "layers") and type(found).__module__.startswith("keras."):
        return f"a {type(found).__name__} model in a model is read only if it is Sequential or Functional"
    return named(type(found).__name__, type(found).__module__)


def named(kind: str, module: str) -> str:
    """The same for a class by its names."""
    if kind in _TENSORFLOW:
        return (
            "it is a function of TensorFlow that Keras 2 called on tensors, which Keras 3 does not load; export the "
            "model to ONNX, or build it from layers"
        )
    if not module.startswith("keras."):
        return "it is none of Keras' own classes, so LEO cannot know what it computes; build it from Keras' own layers"
    if kind in _CODE:
        return "it is code, so LEO cannot know what it computes; use Keras' own layers or keras.ops instead"
    if kind in NO_FORM:
        return "there is no affine + ReLU form for it"
    if "Conv" in kind or "Pool" in kind:
        return "it is not read; convolutions and poolings over one or two axes are"
    if kind in _LINEAR:
        return "it is not read yet"
    if kind.startswith(("Random", "AugMix", "CutMix", "MixUp", "RandAugment")):
        return "it changes what it is given at random, in training at least; leave it out of the model that is deployed"
    return "it is not read"
