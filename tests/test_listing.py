"""`zoo list`: the generated table is up to date, patterns find, and torch stays out."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo import listing
from zoo.checks import options
from zoo.errors import ZooError


def test_table_is_what_the_networks_are() -> None:
    """Stale? `python -m zoo list write=true` counts again."""
    assert json.loads(listing.TABLE.read_text(encoding="utf-8")) == listing.count_models()


def test_write_makes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "TABLE", tmp_path / "listing.json")
    assert listing.main(["write=true"]) == 0
    table = json.loads((tmp_path / "listing.json").read_text(encoding="utf-8"))
    assert table["lenet5"] == {
        "parameters": 61706,
        "multiply_adds": 416520,
        "input": "1×28×28",
        "form": None,
        "data": "digits",
        "task": "classification",
    }
    assert list(table) == options()["model"]


def test_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main([]) == 0
    text = capsys.readouterr().out
    for group, names in options().items():
        assert group.upper() in text
        assert all(re.search(rf"^{re.escape(name)}\b", text, re.MULTILINE) for name in names)
    assert text.index("MODELS") < text.index("DATA") < text.index("EXPERIMENTS") < text.index("OPTIMIZER")
    assert re.search(r"^lenet5 +61,706 +416,520 +1×28×28 +— +digits +classification +LeNet-5", text, re.MULTILINE)
    assert re.search(r"^digits_lenet5 +test/accuracy +0\.98 +0\.986 +\S", text, re.MULTILINE)
    assert re.search(r"^image_folder +from the files +— +Your own images", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("pattern", "group", "name", "found"),
    [
        ("net", "model", "lenet5", True),  # a part
        ("LeNet", "model", "lenet5", True),
        ("le*5", "model", "lenet5", True),  # a glob of the whole name
        ("le*", "model", "mlp", False),
        ("[a-k]*", "model", "lenet5", False),
        ("model", "model", "mlp", True),  # a group
        ("model", "data", "digits", False),
        ("data/dig", "data", "digits", True),
        ("data/*", "data", "digits", True),
        ("data/dig", "experiment", "digits_mlp", False),
    ],
)
def test_patterns(pattern: str, group: str, name: str, found: bool) -> None:
    assert listing.fits(pattern, group, name) is found


def test_sections_without_a_match_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    listing.main(["adamw", "data/digits"])
    heads = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2].isupper()]
    assert heads == ["DATA", "OPTIMIZER"]


def test_nothing_found_names_the_nearest() -> None:
    with pytest.raises(ZooError, match=r"like lenett5\. Did you mean lenet5"):
        listing.main(["mlp", "lenett5"])


@pytest.mark.parametrize("word", ["writ=true", "write=yes"])
def test_unknown_key(word: str) -> None:
    with pytest.raises(ZooError, match="write=true"):
        listing.main([word])


def test_a_model_not_yet_counted_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listing, "TABLE", tmp_path / "listing.json")
    listing.TABLE.write_text("{}")
    listing.main(["model/lenet5"])
    assert re.search(r"^lenet5 +\? +\?", capsys.readouterr().out, re.MULTILINE)


def test_lines_are_cut_at_the_width() -> None:
    text = listing.render(listing.select([]), width=60)
    assert max(map(len, text.splitlines())) == 60


def test_no_torch() -> None:
    code = "import sys, zoo.listing; zoo.listing.main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_counting_leaves_the_default_device() -> None:
    listing.count_model("lenet5", {})
    assert torch.empty(1).device.type == "cpu"
