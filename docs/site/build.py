"""The documentation as a site in `build/site`: the pages of `docs/`, and one a package made of docstrings.

    python docs/site/build.py

needs what `requirements/docs.txt` pins and no network. The site opens from a disk, search included. Pages
stay as a forge shows them: what they link to outside `docs/` is laid out with them, notebooks are made pages,
and a page without a place in `zensical.toml` comes before the packages. A link that leads nowhere ends the
build.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE, PAGES = ROOT / "docs" / "site", ROOT / "build" / "pages"
_OUTSIDE = re.compile(r"\]\(\.\./([^)\s#]+)")


def main() -> int:
    """Lay the pages out in `build/pages` and build; the exit code is Zensical's."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("site"))
    for notebook in sorted(PAGES.glob("*.ipynb")):
        notebook.with_suffix(".md").write_text(_of_notebook(notebook), encoding="utf-8")
        notebook.unlink()
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(_with_outside(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in ("site.css", "site.js", "iframe-worker.js"):
        (PAGES / "assets").mkdir(exist_ok=True)
        shutil.copy(HERE / name, PAGES / "assets" / name)
    entries = [f'    {{ "{name}" = "{path}" }},' for name, path in _reference()]
    config = (HERE / "zensical.toml").read_text(encoding="utf-8")
    entries = [
        f'    "{page.name}",' for page in sorted(PAGES.glob("*.md")) if f'"{page.name}"' not in config
    ] + entries
    marked = re.sub(r"^ *# build\.py puts.*$", "\n".join(entries), config, flags=re.MULTILINE)
    (ROOT / "build" / "zensical.toml").write_text(marked, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", "build/zensical.toml"]
    return subprocess.run(command, cwd=ROOT).returncode


def _of_notebook(path: Path) -> str:
    """A notebook as a page: its text, its code, and what the code printed or drew."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for n, output in enumerate(cell.get("outputs", ())):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                figure = path.with_name(f"{path.stem}-{number}-{n}.png")
                figure.write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![What the code above draws]({figure.name})")
            elif text := "".join(data.get("text/plain", "")).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _with_outside(text: str) -> str:
    """The page, with each file outside of `docs/` that it links to as a page of its own, and notebooks."""
    text = re.sub(r"(\]\([\w/.-]+)\.ipynb", r"\1.md", text)
    for name in sorted(set(_OUTSIDE.findall(text))):
        source, page = ROOT / name, PAGES / name
        content = source.read_text(encoding="utf-8")
        if source.suffix != ".md":
            page = page.with_name(f"{page.name}.md")
            content = f"# {name}\n\n```{source.suffix[1:]}\n{content}```\n"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(content, encoding="utf-8")
        text = text.replace(f"](../{name}", f"]({page.relative_to(PAGES).as_posix()}")
    return text


def _reference() -> list[tuple[str, str]]:
    """Write a page for every package with public names; return titles and paths, for the navigation."""
    (PAGES / "reference").mkdir()
    entries = []
    for source in sorted(ROOT.glob("emergence/*/__init__.py")):
        package, tree = f"emergence.{source.parent.name}", ast.parse(source.read_text(encoding="utf-8"))
        names = _public(tree)
        if not names:
            continue
        parts = [f"# {package}", ast.get_docstring(tree) or ""]
        parts += [f"::: {package}.{module}.{name}" for name, module in names]
        path = f"reference/{source.parent.name}.md"
        (PAGES / path).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        entries.append((package, path))
    return entries


def _public(tree: ast.Module) -> list[tuple[str, str]]:
    """The names of `__all__` that a package has from its modules, each with its module, in order."""
    places = {
        (alias.asname or alias.name): node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        for alias in node.names
    }
    listed = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ),
        [],
    )
    return [(name, places[name]) for name in listed if name in places]


if __name__ == "__main__":
    sys.exit(main())
