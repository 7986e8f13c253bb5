"""Training networks that compress well: for your own training loop, no framework of ours.

Train wide, with weights pulled to zero; units whose weights vanish are constant, units that are rarely needed become
stable, and LEO takes both away without a change. Serra, Kumar, Ramalingam, "Lossless Compression of Deep Neural
Networks", CPAIOR 2020, add an L1 penalty to the loss (:func:`l1_penalty`). Its subgradient never rests at zero: weights
end as dust around 1e-6, and a unit of dust is still a unit. :class:`ProximalL1` shrinks after each step instead, so
weights become exactly zero. :func:`instability` rewards stable units directly.

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ProximalL1(optimizer, 1e-4)           # convolutions: ProximalL1(optimizer, 1e-3, groups="channels", model=model)
    …                                     # the training loop as it is
    result = leo_core.compress(model, domain=(0, 1))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from leo_core.errors import UnsupportedModelError


def weights(model: nn.Module) -> list[nn.Parameter]:
    """The weight matrices of a model's dense layers: what L1 shrinks. Biases are left alone.

    A bias pulled to zero moves its unit towards the middle of its range, which makes it less stable, not more.
    """
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]


def l1_penalty(model: nn.Module) -> Tensor:
    """Σ |w| over :func:`weights`: add λ times this to the loss, as in Serra et al. 2020, section 6."""
    return torch.stack([weight.abs().sum() for weight in weights(model)]).sum()


def channels(model: nn.Module) -> list[tuple[nn.Parameter, ...]]:
    """What makes each layer's channels: the filters of a convolution, or the γ and β of a batch norm behind it.

    A filter whose weights are all zero leaves a channel that is constant; where a norm follows, its γ and β decide,
    and with both at zero the channel is dead: nothing constant is left for pads to see. Depthwise convolutions are
    left alone: their channels are those of the layer before. Which norm follows which convolution is taken from the
    order in which a model has its modules, by the number of channels.
    """
    found: list[tuple[nn.Parameter, ...]] = []
    before: nn.Module | None = None
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            before = layer
            if layer.groups == 1:
                found.append((layer.weight,))
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and before is not None and layer.affine:
            if isinstance(before, nn.Conv1d | nn.Conv2d) and before.out_channels == layer.num_features:
                if found and found[-1] == (before.weight,):
                    found.pop()
                found.append((layer.weight, layer.bias))
            before = None
    return found


class ProximalL1:
    """Soft-thresholding after each step of an optimizer: w ← sign(w) · max(|w| − t, 0), the proximal step of λ Σ|w|.

    t is how far the optimizer would move a weight in one step for a steady gradient of λ, so λ means what it means in a
    penalty: lr · λ / (1 − momentum) for SGD, lr · λ / (√v + ε) for Adam and its kin, v their running mean of squared
    gradients (ProxGen: Yun, Lozano, Yang, "Adaptive Proximal Gradient Methods for Structured Neural Networks", NeurIPS
    2021), and lr · λ for others. Weights that no gradient ever reaches become zero at once.

    With ``groups="channels"`` whole channels shrink: w ← w · max(1 − t √n / |w|, 0) for the n numbers w of a channel
    (see :func:`channels`), the proximal step of the group lasso λ Σ √n |w| (Yuan, Lin, "Model selection and estimation
    in regression with grouped variables", JRSS B 2006). t is the mean over a channel where it differs.

    It hangs on the optimizer itself, so schedulers and scalers need not know of it; ``remove()`` ends it.
    ``strength`` may be changed while training goes on.

    Parameters
    ----------
    optimizer:
        Any :class:`torch.optim.Optimizer`.
    strength:
        λ, not negative.
    parameters:
        Which parameters shrink; by default all of the optimizer's with two or more axes, that is no biases.
    groups:
        ``"weights"``, each by itself, or ``"channels"``.
    model:
        Whose channels; with ``groups="channels"`` only.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        strength: float,
        parameters: Iterable[nn.Parameter] | None = None,
        *,
        groups: str = "weights",
        model: nn.Module | None = None,
    ) -> None:
        if not strength >= 0:
            raise ValueError(f"the strength of an L1 penalty is not negative: {strength}")
        if groups not in ("weights", "channels"):
            raise ValueError(f"groups are 'weights' or 'channels', not {groups!r}")
        if (groups == "channels") != (model is not None) or (model is not None and parameters is not None):
            raise ValueError('groups="channels" is given with model=, and without parameters; model= with nothing else')
        self.strength = strength
        self._chosen = None if parameters is None else {id(parameter) for parameter in parameters}
        self._channels = None if model is None else channels(model)
        if self._channels is not None and not self._channels:
            raise ValueError("the model has no convolution whose channels could shrink")
        self._optimizer = optimizer
        self._zeros: dict[int, Tensor] = {}
        self._handle = optimizer.register_step_post_hook(self._shrink if model is None else self._shrink_channels)

    def settle(self) -> None:
        """Shrink no more, and let what is zero by now stay zero: the rest can grow back to where it fits best.

        Shrinking biases every weight towards zero; some epochs after this give back the accuracy that it cost.
        """
        for group in self._optimizer.param_groups:
            self._zeros |= {id(parameter): parameter.detach() == 0 for parameter in group["params"]}

    def remove(self) -> None:
        """Shrink no more; what is zero may change again."""
        self._handle.remove()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _shrink(self, optimizer: torch.optim.Optimizer, _arguments: Any, _keywords: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                chosen = parameter.ndim >= 2 if self._chosen is None else id(parameter) in self._chosen
                if not chosen or parameter.grad is None:
                    continue
                if id(parameter) in self._zeros:
                    parameter.masked_fill_(self._zeros[id(parameter)], 0)
                    continue
                threshold = self.strength * _reach(group, optimizer.state[parameter])
                parameter.copy_(parameter.sign() * (parameter.abs() - threshold).clamp_min(0))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _shrink_channels(self, optimizer: torch.optim.Optimizer, _arguments: Any, _keywords: Any) -> None:
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        for made in self._channels or ():
            if any(id(parameter) not in groups or parameter.grad is None for parameter in made):
                continue
            if any(id(parameter) in self._zeros for parameter in made):
                for parameter in made:
                    parameter.masked_fill_(self._zeros[id(parameter)], 0)
                continue
            count = len(made[0])
            numbers = torch.cat([parameter.reshape(count, -1) for parameter in made], dim=1)
            reaches = [_reach(groups[id(parameter)], optimizer.state[parameter]) for parameter in made]
            reach = torch.cat(
                [torch.as_tensor(r, dtype=p.dtype, device=p.device).expand_as(p).reshape(count, -1)
                 for r, p in zip(reaches, made, strict=True)], dim=1,
            ).mean(dim=1)  # fmt: skip
            threshold = self.strength * reach * numbers.shape[1] ** 0.5
            size = numbers.norm(dim=1)
            left = (1 - threshold / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_min(0)
            for parameter in made:
                parameter.mul_(left.reshape(-1, *(1 for _ in parameter.shape[1:])))


def _reach(group: dict[str, Any], state: dict[str, Any]) -> Tensor | float:
    """How far one step moves a weight whose gradient has long been 1 (for Adam: 1 on top of what it has been)."""
    rate = float(group["lr"])
    if "exp_avg_sq" in state:
        seen = 1 - float(group["betas"][1]) ** float(state["step"])
        return rate / ((state["exp_avg_sq"] / seen).sqrt() + float(group["eps"]))
    return rate / (1 - float(group.get("momentum") or 0.0))


def instability(model: nn.Sequential, lower: Tensor | float, upper: Tensor | float) -> Tensor:
    """Σ −tanh(1 + l·u) over the ReLUs, l and u their intervals on the input box, divided by their number: in (−1, 1].

    The RS loss of Xiao, Tjeng, Shafiullah, Madry, "Training for Faster Adversarial Robustness Verification via
    Inducing ReLU Stability", ICLR 2019, section 4, with interval bounds. Add a small multiple to the loss. Intervals
    over a whole input box are wide after the first layer, where tanh is flat: it works on first layers, and on small
    boxes.

    Parameters
    ----------
    model:
        A plain ``nn.Sequential`` of Flatten, Linear, ReLU, Dropout and Identity.
    lower, upper:
        The input box: numbers, or tensors of the shape of one example.

    Raises
    ------
    UnsupportedModelError
        For any other layer.
    """
    first = next((layer for layer in model if isinstance(layer, nn.Linear)), None)
    if first is None:
        raise UnsupportedModelError(type(model).__name__, ["it has no Linear layer, so no ReLU to make stable"])
    ends = (torch.as_tensor(end, dtype=first.weight.dtype, device=first.weight.device) for end in (lower, upper))
    low, high = (end.expand(first.in_features) if end.ndim == 0 else end.flatten() for end in ends)
    middle, radius = (low + high) / 2, (high - low) / 2
    terms = []
    for position, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            middle = nn.functional.linear(middle, layer.weight, layer.bias)
            radius = nn.functional.linear(radius, layer.weight.abs())
        elif isinstance(layer, nn.ReLU):
            low, high = middle - radius, middle + radius
            terms.append(-torch.tanh(1 + low * high))
            low, high = low.relu(), high.relu()
            middle, radius = (low + high) / 2, (high - low) / 2
        elif not isinstance(layer, nn.Flatten | nn.Dropout | nn.Identity):
            raise UnsupportedModelError(
                type(model).__name__,
                [f"layer {position} is a {type(layer).__name__}; only plain chains are read"],
            )
    if not terms:
        raise UnsupportedModelError(type(model).__name__, ["it has no ReLU to make stable"])
    return torch.cat(terms).mean()
