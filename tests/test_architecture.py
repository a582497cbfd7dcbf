"""Data flows one way: a stage imports only stages before it, and its own modules without a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from emergence import experiment

PACKAGE = Path(__file__).parent.parent / "emergence"
STAGES = {
    "ground": "errors wording progress files",
    "store": "sealing locks inventory store",
    "tasks": "examples tasks",
    "config": "yaml_strict layout settings arms fields overrides corpus resolver config reference",
    "tokens": "tokens",
    "models": "backend blas cpu gguf folders targets adapters models",
    "lens": "stream head midpoint readout lens_reading show proof lens tuned",
    "training": "batches objectives checkpoints training",
    "readings": "readings",
    "reader": "reader controls",
    "statistics": "statistics probes evidence",
    "verdicts": "predictions reach drafts verdicts findings",
    "report": "records frames tables payload figures results report",
    "experiment": "experiment",
    "doors": "catalogue keeping planning outcome running plugin cli",
}
RANK = {module: rank for rank, modules in enumerate(STAGES.values()) for module in modules.split()}


def imports(module: str) -> tuple[set[str], set[str]]:
    """Modules of the package that a module imports, and names of other packages."""
    own, others = set(), set()
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    # What only the type checker sees is no dependency.
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").removeprefix("emergence").strip(".").split(".")[0]
            if node.level or (node.module or "").split(".")[0] == "emergence":
                own |= {path} if path else {alias.name for alias in node.names}
            else:
                others.add(path)
    return own & RANK.keys(), others


@pytest.mark.parametrize("module", sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__"))
def test_a_module_imports_only_its_own_stage_and_those_before_it(module):
    assert module in RANK, f"{module}.py: give it a stage"
    later = {other for other in imports(module)[0] if RANK[other] > RANK[module]}
    assert not later, f"{module} imports {later}, of later stages"


def test_there_is_no_circle():
    graph = {module: imports(module)[0] - {module} for module in RANK}
    assert list(TopologicalSorter(graph).static_order())


def test_only_the_plugin_imports_pytest():
    assert [m for m in RANK if "pytest" in imports(m)[1]] == ["plugin"]


@pytest.mark.parametrize("module", [m for s in ("readings", "statistics") for m in STAGES[s].split()])
def test_mlx_ends_at_the_reader(module):
    seen, todo = set(), {module}
    while todo:
        seen |= (now := todo)
        todo = {i for m in now for i in imports(m)[0]} - seen
    assert not {m for m in seen if "mlx" in imports(m)[1] or "mlx_lm" in imports(m)[1]}


def test_every_stage_that_is_named_exists():
    assert [m for m in RANK if not (PACKAGE / f"{m}.py").exists()] == []


def closure(module: str) -> set[str]:
    """Every module of the package that a module needs."""
    seen, todo = set(), {module}
    while todo:
        seen |= (now := todo)
        todo = {i for m in now for i in imports(m)[0]} - seen
    return seen


@pytest.mark.parametrize(
    ("stage", "named", "decides_nothing"),
    [
        # What is loaded, shown or only proven has its own place in the key (the model's hash), or none.
        (
            "training",
            experiment._TRAINING,
            "blas folders gguf models head lens_reading midpoint proof readout show",
        ),
        ("reader", experiment._READING, "blas folders gguf models proof show tokens readings"),
    ],
)
def test_the_code_that_decides_a_result_is_in_its_key(stage, named, decides_nothing):
    upstream = {
        m for s in ("tokens", "models", "lens", "training", "readings", "reader") for m in STAGES[s].split()
    }
    assert set(named) == (closure(stage) & upstream) - set(decides_nothing.split())
