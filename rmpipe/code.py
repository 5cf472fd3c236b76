"""What a stage's code is: its function and every function, class and constant of ours that it reaches.

Each definition is digested as its syntax tree without comments, docstrings and layout, so that only a change of what is
computed moves a digest; a file beside the module that it names (`"page.html"`) counts too. Nothing is imported: files
are read and parsed.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("rmpipe", "tasks", "flows")
OVERSEERS = {
    "rmpipe.store",
    "rmpipe.config",
    "rmpipe.code",
    "rmpipe.lineage",
    "rmpipe.artifact.Artifact",
    "tasks.stage",
}
"""Modules, and single definitions, of the mechanism: they move bytes, and make none."""


def code_key(*roots: str) -> dict[str, str]:
    """Digests of all definitions of ours that the roots reach, by dotted name.

    Args:
        roots: dotted names, `tasks.measure.measure`.

    A class reaches its subclasses in the same file too: kinds are found by name at run time, where no reader of the
    source can follow. The mechanism itself (store, records, tracking) is left out.
    """
    found: dict[str, str] = {}
    queue = list(roots)
    while queue:
        name = queue.pop()
        module, _, definition = name.rpartition(".")
        if name in found or {name, module} & OVERSEERS or not module:
            continue
        node = _definitions(module).get(definition)
        if node is not None:
            found[name] = _digest(module, definition)
            queue += _reached(module, definition)
    return dict(sorted(found.items()))


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names whose digest differs, appeared or went."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


@cache
def _tree(module: str) -> ast.Module | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_text())


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    tree = _tree(module)
    nodes: dict[str, ast.stmt] = {}
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            nodes |= {part.id: node for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return nodes


@cache
def _digest(module: str, definition: str) -> str:
    node = ast.parse(ast.unparse(_definitions(module)[definition]))
    whole = hashlib.sha256()
    for file in _files(module, node):
        whole.update(file.read_bytes())
    for part in ast.walk(node):
        if (
            isinstance(part, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            and ast.get_docstring(part) is not None
        ):
            part.body = part.body[1:] or [ast.Pass()]
    whole.update(ast.dump(node).encode())
    return whole.hexdigest()[:12]


def _files(module: str, node: ast.AST) -> list[Path]:
    """Files beside a module that a definition names in a text, such as a page's template."""
    spec = find_spec(module)
    folder = Path(spec.origin or "").parent if spec else Path()
    names = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return [
        folder / name for name in sorted(names) if Path(name).suffix in (".html", ".json") and (folder / name).is_file()
    ]


@cache
def _reached(module: str, definition: str) -> tuple[str, ...]:
    """Dotted names of ours that one definition mentions."""
    node = _definitions(module)[definition]
    names = _imports(module, _tree(module)) | _imports(module, node)
    names |= {name: f"{module}.{name}" for name in _definitions(module)}
    reached = {_dotted(part, names) for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)}
    if isinstance(node, ast.ClassDef):
        heirs = (item for item in _definitions(module).values() if isinstance(item, ast.ClassDef))
        reached |= {
            f"{module}.{heir.name}" for heir in heirs if definition in {ast.unparse(base) for base in heir.bases}
        }
    return tuple(sorted(name for name in reached if name and name.split(".")[0] in OURS))


def _imports(module: str, tree: ast.AST | None) -> dict[str, str]:
    """Local name -> dotted name, of what is imported anywhere inside from our packages."""
    names: dict[str, str] = {}
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Import):
            names |= {item.asname or item.name: item.name for item in node.names if item.name.split(".")[0] in OURS}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names |= {item.asname or item.name: _home(f"{node.module}.{item.name}") for item in node.names}
    return names


def _home(name: str) -> str:
    """The definition behind a name that a package re-exports: `rmpipe.world.truth` -> `rmpipe.world.text.truth`."""
    module, _, definition = name.rpartition(".")
    tree = _tree(module)
    if tree is None or definition in _definitions(module):
        return name
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and any(item.name == definition for item in node.names):
            return _home(f"{node.module}.{definition}")
    return name


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    text = ast.unparse(node)
    head, _, rest = text.partition(".")
    if text in names:
        return names[text]
    for known in (text[: text.rfind(".")], head):  # `rmpipe.variance.whiten`, or an alias of the module
        if known in names and rest:
            return f"{names[known]}.{text[len(known) + 1 :].split('.')[0]}"
    return None
