"""Why a layer is not read: what cannot be said with affine maps and ReLUs, what LEO has not learned, what is code."""

from __future__ import annotations

from typing import Any

#: Curved, or products of computed values, or jumps.
NO_FORM = frozenset(
    """AdditiveAttention Attention Bidirectional CategoryEncoding ConvLSTM1D ConvLSTM2D ConvLSTM3D Discretization Dot ELU
    Embedding GRU GRUCell GroupNormalization GroupQueryAttention HashedCrossing Hashing IntegerLookup LSTM LSTMCell
    LayerNormalization Masking MelSpectrogram MultiHeadAttention RMSNormalization RNN ReversibleEmbedding
    STFTSpectrogram SimpleRNN SimpleRNNCell Solarization StackedRNNCells StringLookup TextVectorization
    UnitNormalization""".split()
)
_CODE = frozenset("FlaxLayer JaxLayer Lambda TFSMLayer TorchModuleWrapper".split())
_LINEAR = frozenset("CenterCrop EinsumDense Resizing SpectralNormalization TimeDistributed".split())


def layer(found: Any) -> str:
    """The reason why no layer of that class is read."""
    kind, module = type(found).__name__, type(found).__module__
    if not module.startswith("keras."):
        return f"it is a class of '{module}', so LEO cannot know what it computes; build it from Keras' own layers"
    if kind in _CODE:
        return "it is code, so LEO cannot know what it computes; use Keras' own layers or keras.ops instead"
    if kind in NO_FORM:
        return "there is no affine + ReLU form for it"
    if "Conv" in kind or "Pool" in kind:
        return "convolutions and poolings are not read yet"
    if kind in _LINEAR:
        return "it is not read yet"
    if kind.startswith(("Random", "AugMix", "CutMix", "MixUp", "RandAugment")):
        return "it changes what it is given at random, in training at least; leave it out of the model that is deployed"
    if hasattr(found, "layers"):
        return f"a {kind} model in a model is read only if it is Sequential or Functional"
    return "it is not read"
