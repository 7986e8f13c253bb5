"""The report: one page, made of the JSON alone, that fetches nothing, runs nothing and believes no name."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import itertools
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest
from click.testing import CliRunner

import leo_core
from leo_core.cli import main
from leo_core.errors import FormatError, MissingExtraError, OutputError
from leo_core.network import Affine, Network, Origin, Relu
from leo_core.report import words
from leo_core.report.drawing import network_drawing, ranges_drawing, stacked, waterfall
from leo_core.report.html import page, read_result
from leo_core.report.json import details_json
from leo_core.rewrite import pipeline
from leo_core.rewrite.unread import drop_unread
from leo_core.testing.networks import chain, constant, convolutional, residual, shaped, skip, two_heads

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "reference" / "result.schema.json"
HOSTILE = '"><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(1)>&{{ 7*7 }}'


class Parsed(HTMLParser):
    """Tags with their attributes, the numbers of ``data`` elements, and what is text."""

    VOID = frozenset(("meta", "br", "img", "link", "input", "hr"))

    def __init__(self, text):
        super().__init__()
        self.tags, self.values, self.texts, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "data":
            self.values.append(dict(attributes)["value"])
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def renamed(network, name):
    """All layers called the same hostile thing, as the model's own names."""
    nodes = {node.name: f"{name}{number}" for number, node in enumerate(network.nodes)} | {"input": "input"}
    changed = []
    for node in network.nodes:
        origin = Origin(nodes[node.name], "Gemm")
        if isinstance(node, Affine):
            sources = tuple(nodes[source] for source in node.sources)
            changed.append(Affine(nodes[node.name], sources, node.maps, node.bias, origin, node.shape))
        else:
            changed.append(Relu(nodes[node.name], nodes[node.source], node.slope, origin))
    return Network(network.input_size, tuple(changed), nodes[network.output])


NETWORKS = {
    "chain": lambda: chain(3, 8, 8, 2, seed=2),
    "residual": residual,
    "skip": skip,
    "constant": constant,
    "heads": two_heads,
    "images": convolutional,
    "hostile": lambda: renamed(chain(3, 8, 8, 2, seed=2), HOSTILE),
}


@pytest.fixture(scope="module")
def results():
    return {name: leo_core.compress(make(), (0, 1)) for name, make in NETWORKS.items()}


def contents(results):
    return {name: json.loads(json.dumps(result.as_json(), allow_nan=False)) for name, result in results.items()}


def test_every_number_is_the_jsons(results):
    for name, content in contents(results).items():
        parsed = Parsed(page(content))
        values = {float(value) for value in parsed.values if value != "None"}
        known = set()

        def gather(item, known=known):
            for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
                gather(part)
            if isinstance(item, int | float):
                known.add(float(item))

        gather(content)
        wanted = [content[side][key] for side in ("before", "after")
                  for key in ("connections", "nonzeros", "operations", "parameters")]  # fmt: skip
        wanted += [content["deviation"], content["float_noise"], content["tolerance"]]
        kinds = ("inactive", "unstable", "undecided")
        counted = [layer.get("channels", layer)[kind] for layer in content["layers"] for kind in kinds]
        wanted += [count for count in counted if count]
        assert {float(value) for value in wanted} <= values, name
        # what is not in the JSON itself is a share, a sum over steps, or active units less the constant ones
        share = 100 * content["after"]["connections"] / max(1, content["before"]["connections"])
        sums = {share}
        for rule in {words.RULES[step["rule"]] for step in content["steps"]}:
            steps = [step for step in content["steps"] if words.RULES[step["rule"]] == rule]
            sums |= {float(abs(sum(step["connections"] for step in steps))), sum(step["deviation"] for step in steps)}
        sums |= {float(layer["active"] - more["constant"])
                 for layer, more in zip(content["layers"], content["layer_details"], strict=True)}  # fmt: skip
        assert values <= known | sums, (name, values - known - sums)


def test_the_page_is_whole_and_fetches_nothing(results):
    for content in contents(results).values():
        text = page(content)
        parsed = Parsed(text)
        for tag, attributes in parsed.tags:
            assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image")
            for name, value in attributes.items():
                assert not name.startswith("on"), name
                assert name not in ("href", "src", "style", "action", "xlink:href", "srcset"), (tag, name, value)
        style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
        assert re.findall(r"url\((.*?)\)", style) == ["#hatch"]
        assert "@import" not in style
        policy = next(found["content"] for tag, found in parsed.tags if found.get("http-equiv"))
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_hostile_name_is_only_text(results):
    result = results["hostile"]
    for content in (result.as_json(), {**result.as_json(), "model": HOSTILE, "notes": [HOSTILE], "command": HOSTILE}):
        text = page(content)
        assert "<script" not in text
        assert "<img" not in text
        assert HOSTILE in " ".join(Parsed(text).texts)


def test_what_is_no_result_is_refused(results, tmp_path):
    content = results["chain"].as_json()
    for broken in (
        {},
        {"layers": []},
        {"layers": [HOSTILE]},
        {key: value for key, value in content.items() if key != "layer_details"},
        {**content, "deviation": "<b>"},
        {**content, "after": {"connections": "many"}},
        {**content, "layers": content["layers"][:1]},
        {**content, "details": {"before": {"nodes": [{"name": "a"}]}, "after": {"nodes": []}}},
        {**content, "steps": [{"what": "x"}]},
    ):
        with pytest.raises(FormatError, match="no result"):
            page(broken)
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"interrupted": true}'), ("d.json", "[" * 99999)):
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match=name):
            read_result(tmp_path / name)
    (tmp_path / "e.json").write_bytes(b"\xff\xfe\x00")
    for name in ("e.json", "none.json"):
        with pytest.raises(FormatError, match=name):
            read_result(tmp_path / name)


def test_report_and_notebooks(results, tmp_path):
    result = results["chain"]
    assert result.report(tmp_path / "r.html").read_text(encoding="utf-8") == page(result.as_json())
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    frame = Parsed(result._repr_html_())
    ((tag, attributes),) = frame.tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == page(result.as_json())
    assert attributes["sandbox"] is None or attributes["sandbox"] == ""
    with pytest.raises(OutputError):
        result.report(tmp_path / "missing" / "r.html")


def test_without_jinja_it_is_said_before_any_work(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[report\]"):
        results["chain"].report(tmp_path / "r.html")
    assert results["chain"]._repr_html_() is None
    net = leo_core.convert(chain(3, 8, 2), tmp_path / "net.leo")
    done = CliRunner().invoke(main, ["compress", str(net), str(tmp_path / "o.leo"), "--domain", "0,1",
                                     "--report", str(tmp_path / "r.html")])  # fmt: skip
    assert done.exit_code == 1
    assert not (tmp_path / "o.leo").exists()


def leo(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_command_writes_it_and_makes_it_later(tmp_path):
    net = leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "a net.leo")
    shown = tmp_path / "r.html"
    done = leo("compress", net, tmp_path / "o.leo", "--domain", "0,1", "--report", shown, "--json", "-q")
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    assert content["command"] == f"leo compress '{net}' {tmp_path / 'o.leo'} --domain 0,1 --report {shown}"
    assert shown.read_text(encoding="utf-8") == page(content)
    (tmp_path / "r.json").write_text(done.stdout, encoding="utf-8")
    assert f"report in {tmp_path / 's.html'}" in leo("report", tmp_path / "r.json", tmp_path / "s.html").output
    assert (tmp_path / "s.html").read_text(encoding="utf-8") == shown.read_text(encoding="utf-8")

    done = leo("inspect", net, "--domain", "0,1", "--report", tmp_path / "i.html", "-q")
    assert done.exit_code == 0
    assert "Which ReLUs never change state" in Parsed((tmp_path / "i.html").read_text(encoding="utf-8")).text
    for arguments in (
        ("compress", net, tmp_path / "o.leo", "--domain", "0,1", "--report", net),
        ("compress", net, shown, "--domain", "0,1", "--report", shown),
        ("inspect", net, "--domain", "0,1", "--report", shown, "--cross-check", "a,b"),
        ("report", tmp_path / "r.json", tmp_path / "r.json"),
    ):
        assert leo(*arguments).exit_code == 2, arguments
    assert leo("report", net, tmp_path / "t.html").exit_code == 1


def test_the_schema_describes_what_is_printed(results, tmp_path):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema).validate
    for content in contents(results).values():
        check(content)
    net = leo_core.convert(chain(3, 8, 8, 2, seed=2), tmp_path / "net.leo")
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    flags = ["--latency"] if importlib.util.find_spec("onnxruntime") else []
    printed = leo("compress", net, tmp_path / "o.leo", "--domain", "0,1", "-q", "--json", "--inputs",
                  tmp_path / "x.npy", "--certificate", tmp_path / "c.cert", *flags).stdout  # fmt: skip
    whole = json.loads(printed)
    check(whole)
    check(json.loads(leo("inspect", net, "--domain", "0,1", "-q", "--json").stdout))
    known = schema["properties"].keys() | schema["$defs"]["compressed"]["properties"].keys()
    assert whole.keys() <= known, "the schema describes every key"
    for key in ("layers", "deviation", "door", "digests"):
        with pytest.raises(jsonschema.ValidationError):
            check({name: value for name, value in whole.items() if name != key})


def test_words():
    content = {"trust": "proved", "deviation": 1e-6, "float_noise": 2e-6, "digests": {"before": "a", "after": "b"}}
    assert "no larger than that" in words.change(content)
    assert "3 times" in words.change({**content, "deviation": 6e-6})
    assert "ten thousand" in words.change({**content, "deviation": 1e12})
    assert "nothing proves" in words.change({**content, "trust": "solver"})
    assert "no bound" in words.change({**content, "deviation": None})
    assert "same function" in words.change({**content, "deviation": 0})
    assert "as it was" in words.change({**content, "digests": {"before": "a", "after": "a"}})


def test_every_pass_has_words():
    passes = {look for name in pipeline.PASSES for look in pipeline.PASSES[name]} | {*pipeline._CHEAP, drop_unread}
    assert {look.__name__ for look in passes} == words.RULES.keys()


def test_drawings():
    nodes = [
        {"name": "input", "kind": "input", "layer": "", "type": "", "reads": [], "channels": 4},
        {"name": "a", "kind": "affine", "layer": "", "type": "", "reads": ["input"], "channels": 8},
        {"name": "r", "kind": "relu", "layer": "", "type": "", "reads": ["a"], "channels": 8},
        {"name": "b", "kind": "affine", "layer": "", "type": "", "reads": ["r"], "channels": 4},
        {"name": "s", "kind": "relu", "layer": "", "type": "", "reads": ["b"], "channels": 4},
        {"name": "sum", "kind": "affine", "layer": "", "type": "Add", "reads": ["s", "r"], "channels": 4},
    ]
    drawing = network_drawing(nodes, [{**nodes[2], "channels": 2}, *nodes[4:], nodes[0]])
    assert [(block.name, block.before, block.after) for block in drawing.blocks] == [
        ("input", 4, 4), ("r", 8, 2), ("s", 4, 4), ("sum", 4, 4)
    ]  # fmt: skip
    assert [(block.was, block.now) for block in drawing.blocks] == [(50, 50), (100, 25), (50, 50), (50, 50)]
    assert [arc.what for arc in drawing.arcs] == ["r → sum"]

    bars = stacked({"inactive": 1, "active": 3, "constant": 0, "unstable": 0, "undecided": 0})
    assert [(part.what, part.begin, part.width) for part in bars] == [("inactive", 0, 25), ("active", 25, 75)]
    assert stacked({}) == ()

    falls = waterfall(100, [{"rule": "x", "connections": 30, "deviation": 1}, {"rule": "y", "connections": 20,
                      "deviation": 0}, {"rule": "x", "connections": 10, "deviation": 2}], {"x": "of x"})  # fmt: skip
    assert [(fall.what, fall.removed, fall.begin, fall.width, fall.deviation) for fall in falls] == [
        ("of x", 40, 60, 40, 3), ("y", 20, 40, 20, 0)
    ]  # fmt: skip

    drawn = ranges_drawing(
        {"lower": [-1, None, 0, 3], "upper": [-0.5, None, 0, 3], "state": ["inactive", "what", "", ""]}
    )
    assert drawn.cut
    assert [bar.state for bar in drawn.bars] == ["inactive", "undecided", "undecided", "undecided"]
    for bar in drawn.bars:
        assert bar.height >= 1 - 1e-9
        assert bar.x >= 0
        assert bar.x + bar.width <= 100
        assert bar.top >= 0
        assert bar.top + bar.height <= 96
    assert drawn.bars[0].top > 48
    assert ranges_drawing({"lower": [], "upper": [], "state": []}).bars == ()


def test_the_input_is_as_wide_as_it_is_read():
    widths = {make: details_json(make())["nodes"][0]["channels"] for make in (shaped, convolutional)}
    assert widths == {shaped: 12, convolutional: 2}, "a dense layer reads an image's values, a convolution its channels"


def palettes():
    """The colours by name, light and dark."""
    style = (ROOT / "leo_core" / "report" / "templates" / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks)
    assert printed == light
    return {"light": light, "dark": dark}


def linear(colour):
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """As WCAG 2 defines it."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


#: Linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no L": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no M": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no S": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb):
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_told_apart(scheme):
    palette = palettes()[scheme]
    for name in ("text", "quiet"):
        assert contrast(palette[name], palette["page"]) >= 4.5
        assert contrast(palette[name], palette["card"]) >= 4.5
    filled = ("inactive", "constant", "active", "unstable")
    for name in (*filled, "undecided", "kept", "gone"):  # undecided is hatched
        assert contrast(palette[name], palette["page"]) >= 3, name
    for (eye, seen), (one, other) in itertools.product(SEEN.items(), itertools.combinations(filled, 2)):
        apart = np.linalg.norm(lab(seen @ linear(palette[one])) - lab(seen @ linear(palette[other])))
        assert apart > 12, (eye, one, other, apart)


@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium here (Debian: apt install chromium)")
def test_a_browser_logs_nothing_fetches_nothing_and_nothing_overflows(results, tmp_path):
    pages = {name: result.report(tmp_path / f"{name}.html") for name, result in results.items()}
    deep = chain(*[20] * 40, seed=1)
    long = renamed(chain(3, 4, 2, seed=1), "a_name_without_any_place_to_break_it" * 4)
    for name, network in {"deep": deep, "long": long}.items():
        pages[name] = leo_core.compress(network, (0, 1), time_limit=1).report(tmp_path / f"{name}.html")
    with browser.chromium(tmp_path / "profile") as chromium:
        for (name, path), width in itertools.product(pages.items(), (360, 1280)):
            opened = chromium.open(path, width, dark=width == 360)
            assert opened.logged == [], name
            assert opened.fetched == [path.as_uri()], name
            assert opened.outside == [], (name, width)
            assert opened.scroll_width <= width, (name, width)
        # the style sheet holds, and the picture is as wide as it should be
        background = "getComputedStyle(document.body).backgroundColor"
        chromium.open(pages["chain"], 1280)
        light = chromium.evaluate(background)
        chromium.open(pages["chain"], 1280, dark=True)
        assert light == "rgb(255, 255, 255)"
        assert chromium.evaluate(background) == "rgb(20, 24, 29)"
        chromium.open(pages["chain"], 1280, dark=True, media="print")
        assert chromium.evaluate(background) == "rgb(255, 255, 255)"
        assert chromium.evaluate("document.querySelectorAll('script, img').length") == 0
