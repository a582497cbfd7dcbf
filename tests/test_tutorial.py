"""The notebook runs from top to bottom, and what it says of the embedded model is so."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import tiny

from emergence.models.loading import EMBEDDED

NOTEBOOK = json.loads((Path(__file__).parents[1] / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(model: str) -> tuple[dict[str, Any], list[Any]]:
    """The names that the notebook leaves, and what its cells show."""
    names: dict[str, Any] = {}
    shown = []
    for cell in CELLS:
        body = ast.parse(cell.replace(EMBEDDED, model)).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    names["plt"].close("all")
    return names, shown


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    with mpl.rc_context({"backend": "agg"}):
        yield


def test_the_notebook_is_kept_without_outputs() -> None:
    assert NOTEBOOK["nbformat"] == 4
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_the_notebook_runs_and_its_curves_are_those_of_the_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.write_model(tmp_path / "model")
    names, shown = run(str(model))
    lens, pairs, tokenizer = names["lens"], names["pairs"], names["tokenizer"]
    assert len(pairs) == 36
    z = lens.logits(names["prompts"])[..., : lens.vocab_size].astype(np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    ids = [tokenizer.encode(d)[-1] for d in names["digits"]]
    np.testing.assert_allclose(names["any_digit"], p[..., ids].sum(-1), rtol=1e-4)
    right = [[p[layer, i, ids[a + b]] for i, (a, b) in enumerate(pairs)] for layer in range(lens.n_layers)]
    np.testing.assert_allclose(names["right"], right, rtol=1e-4)
    others = [p[..., ids[a + b]] for a, b in pairs]
    np.testing.assert_allclose(names["others"], np.mean(others, axis=0), rtol=1e-4)
    assert (tmp_path / "depth.svg").read_text().startswith("<?xml")
    assert sum(hasattr(each, "_repr_html_") for each in shown) == 2
    assert "from no layer on" in capsys.readouterr().out


@pytest.mark.slow
def test_what_the_notebook_says_of_the_embedded_model_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    names, _ = run(EMBEDDED)
    mass = names["any_digit"].mean("prompt")
    text = "".join("".join(cell["source"]) for cell in NOTEBOOK["cells"])
    for layer, said in (("L22", "7 % of the mass at L22"), ("L23", "47 % at L23"), ("L24", "80 % at L24")):
        assert said in text
        assert f"{mass.sel(layer=layer).item():.0%}" == said[: said.index(" ")] + "%"
    assert mass.sel(layer=["L26", "L27", "L28", "L29"]).min() > 0.99
    assert mass.isel(layer=slice(0, 20)).max() < 0.005
    told = capsys.readouterr().out
    assert "L26: the right digit is +11.1% ± 10.1% above" in told
    assert "L29: the right digit is +3.5% ± 3.5% above" in told
