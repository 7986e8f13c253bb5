"""What a result means, in sentences for people who do not know the field, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: What the passes do.
RULES: Mapping[str, str] = MappingProxyType(
    {
        "drop_unread": "Nothing reads them",
        "drop_inactive": "Always zero",
        "fold_constants": "Always the same value",
        "fold_constant_channels": "Always the same value",
        "settle_output": "ReLUs on the output that do nothing",
        "merge_parallel": "Copies of one another",
        "merge_hidden": "Copies of one another",
        "merge_parallel_channels": "Copies of one another",
        "merge_dependent_channels": "Always on, sums of others",
        "merge_opposite": "Mirror images of one another",
        "merge_opposite_channels": "Mirror images of one another",
        "merge_dependent": "Always on, sums of others",
        "refactor_block": "Always on, done by fewer",
        "refactor_channels": "Always on, done by fewer",
        "pass_through": "Always on, done by fewer",
        "fold_linear": "Layers multiplied into one",
        "fold_convolutions": "Layers multiplied into one",
        "drop_identity": "Layers that do nothing",
        "lift": "Done by an earlier layer",
        "straighten": "Nearly straight",
    }
)
#: Noise may be so many times smaller than a change that is still called of its size.
_ALIKE = 1.05


def short(value: float | None) -> str:
    """A number in two digits."""
    if value is None:
        return "no bound"
    return "0" if value == 0 else f"{value:.2g}"


def microseconds(seconds: float) -> str:
    """Of seconds, in three digits or all whole ones."""
    value = 1e6 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def latency_line(latency: Mapping[str, Any]) -> str:
    """How long one input took before and after; whether that differs, as single runs do."""
    before, after = latency["before"], latency["after"]
    told = (
        f"one input took {microseconds(before['median'])} µs before and {microseconds(after['median'])} µs after in "
        f"{latency['runtime']} on one thread of this machine (medians of {latency['runs']:,} runs of each, in turn)"
    )
    if float(after["upper"]) < float(before["lower"]) or float(before["upper"]) < float(after["lower"]):
        return told
    return f"{told}; single runs are further apart than that, so no difference is shown"


def times(factor: float) -> str:
    """'3 times', and words where the number would say nothing."""
    if factor < 10:
        return f"{factor:.2g} times"
    return f"{factor:,.0f} times" if factor < 10_000 else "more than ten thousand times"


def change(content: Mapping[str, Any]) -> str:
    """How far the result may be from the original, beside what the original errs by anyway."""
    deviation, noise = content["deviation"], float(content["float_noise"])
    if content["digests"]["before"] == content["digests"]["after"]:
        return "The result is the network as it was: it computes the same."
    if content["trust"] != "proved":
        return (
            f"A solver claims, and nothing proves, that no output changes by more than {short(deviation)} anywhere on "
            "the domain (--trust solver)."
        )
    if deviation is None:
        return "How far the smaller network may be from the original is not known: no bound was proved."
    if deviation == 0:
        return (
            "Both networks are the same function on the whole domain: as exact numbers, not one output changes by "
            "anything at all. This is proved."
        )
    proved = (
        f"Whatever input of the domain you choose, no output changes by more than {short(deviation)}. This is proved."
    )
    if not noise:
        return proved
    errs = f"A computer that runs the original makes an error of up to {short(noise)} anyway, as it rounds every number"
    if deviation <= _ALIKE * noise:
        return f"{proved} {errs}: the change is no larger than that."
    return f"{proved} {errs}; the change may be {times(float(deviation) / noise)} that. A tolerance allowed it."


def left(content: Mapping[str, Any]) -> str:
    """What share of the weights is left."""
    before, after = int(content["before"]["connections"]), int(content["after"]["connections"])
    if after >= before:
        return "Nothing could be made smaller."
    return f"{after / before:.1%} of the weights are left: {after:,} of {before:,}."


def undecided(content: Mapping[str, Any]) -> tuple[int, int, str]:
    """(how many are not decided, of how many, what they are)."""
    layers = content["layers"]
    if content.get("asked") == "groups":
        found = [layer.get("channels") or {"total": layer["units"], **layer} for layer in layers]
        return sum(int(layer["undecided"]) for layer in found), sum(int(layer["total"]) for layer in found), "channels"
    return sum(int(layer["undecided"]) for layer in layers), sum(int(layer["units"]) for layer in layers), "ReLUs"


def advice(content: Mapping[str, Any]) -> list[str]:
    """What could not be proved or done, and what to try."""
    told = []
    count, total, what = undecided(content)
    options = content.get("options") or {}
    if content.get("interrupted"):
        told.append("The work was stopped early. The result is valid; run it again to the end for a smaller one.")
    if count:
        limit = options.get("time_limit")
        longer = f"a longer --time-limit than {limit:g} s" if isinstance(limit, int | float) else "more time"
        if what == "channels":
            longer = f"{longer}, or --every-unit, which asks for each ReLU and can take long"
        told.append(
            f"{count:,} of {total:,} {what} are undecided and were kept as they are. A tighter domain decides more; "
            f"so may {longer}."
        )
    if "after" in content:
        told += _of_rewriting(content, options)
    return told


def _of_rewriting(content: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    told = []
    before, after = int(content["before"]["connections"]), int(content["after"]["connections"])
    if after >= before:
        told.append(
            "Nothing could be made smaller, and that is common: a network trained in the ordinary way uses nearly all "
            "of its ReLUs in both states. Say the domain as tightly as it truly is, a range for each input; or train "
            "with an L1 penalty, which lets LEO remove half of a network and more (how-to: training)."
        )
    held = {refusal["layer"] for refusal in content.get("left", ()) if "tolerance" in str(refusal["reason"])}
    if held and str(options.get("tolerance", "float")) != "exact":
        told.append(
            f"In {len(held)} layer(s) a further rewrite would have changed more than the tolerance "
            f"{short(float(content['tolerance']))} leaves. A larger --tolerance NUMBER allows more."
        )
    if held and options.get("tolerance") == "exact":
        told.append(
            f"In {len(held)} layer(s) a further rewrite would not have been exact. The default, --tolerance float, "
            "allows what the original's own rounding errs by."
        )
    return told
