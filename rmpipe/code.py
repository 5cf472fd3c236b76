"""What a stage's code is: its function and every function, class and constant of ours that it reaches.

Each definition is digested as its syntax tree without comments, docstrings and layout, so that only a change of what is
computed moves a digest; a file beside the module that it names (`"page.html"`) counts too. Nothing is imported: files
are read and parsed, and what was found is kept in a file (`remembered`) for as long as none of ours is written again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("rmpipe", "tasks", "flows")
NAMED = (".html", ".json")
"""Endings of files that count with the definition that names them."""
OVERSEERS = {
    "rmpipe.artifact.Artifact", "rmpipe.browser", "rmpipe.code", "rmpipe.config", "rmpipe.crown", "rmpipe.journal",
    "rmpipe.lineage", "rmpipe.store", "tasks.execution", "tasks.stage",
}  # fmt: skip
"""Modules, and single definitions, of the mechanism: they move bytes, and make none."""


def code_key(*roots: str) -> dict[str, str]:
    """Digests of all definitions of ours that the roots reach, by dotted name.

    Args:
        roots: dotted names, `tasks.measure.measure`.

    A class reaches its subclasses in the same file too, and those of the modules that it names in `ours`: kinds are
    found by name at run time, where no reader of the source can follow. The mechanism itself (store, records, tracking)
    is left out.
    """
    key = " ".join(roots)
    if key not in _known:
        _known[key] = _code_key(roots)
    return _known[key]


_known: dict[str, dict[str, str]] = {}
_of: list[str] = []  # the state of our packages that all this was read in


@contextmanager
def remembered(file: Path) -> Iterator[None]:
    """Inside, digests found by an earlier process are taken from a file, and new ones are added to it afterwards.

    The file holds for one state of our packages: sizes and times of writing of all their files. What this process read
    in another state is forgotten.
    """
    state, before = _state(), dict[str, dict[str, str]]()
    if _of != [state]:
        forget()
        _of[:] = [state]
    with suppress(OSError, ValueError, KeyError):  # never kept, or half-written by somebody who died
        told = json.loads(file.read_text())
        before = told["digests"] if told["state"] == state else {}
    _known.update(before)
    yield
    if _known != before and file.parent.exists():
        with suppress(OSError):  # a store that may only be read
            part = file.with_name(f".{file.name}.{os.getpid()}")
            kept = {key: digests for key, digests in _known.items() if _are_ours(key)}
            part.write_text(json.dumps({"state": state, "digests": kept}))
            part.replace(file)


def _are_ours(key: str) -> bool:
    """Whether all roots are in our packages: the state says nothing of other files."""
    return all(root.split(".")[0] in OURS for root in key.split())


def forget() -> None:
    """Read every file of ours anew from now on."""
    _known.clear()
    for memo in (_tree, _definitions, _digest, _reached, _imports):
        memo.cache_clear()


def _state() -> str:
    folders = {Path(spec.origin).parent for name in OURS if (spec := find_spec(name)) and spec.origin}
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", *NAMED))
    stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def _code_key(roots: tuple[str, ...]) -> dict[str, str]:
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
    """The syntax tree of a module, without docstrings."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text())
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and ast.get_docstring(part, False):
            part.body = part.body[1:] or [ast.Pass()]
    return tree


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
    node, whole = _definitions(module)[definition], hashlib.sha256()
    for file in _files(module, node):
        whole.update(file.read_bytes())
    whole.update(ast.dump(node).encode())
    return whole.hexdigest()[:12]


def _files(module: str, node: ast.AST) -> list[Path]:
    """Files beside a module that a definition names in a text, such as a page's template."""
    spec = find_spec(module)
    folder = Path(spec.origin or "").parent if spec else Path()
    names = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return [folder / name for name in sorted(names) if name.endswith(NAMED) and (folder / name).is_file()]


@cache
def _reached(module: str, definition: str) -> tuple[str, ...]:
    """Dotted names of ours that one definition mentions."""
    node = _definitions(module)[definition]
    names = _imports(module) | _imported(node)
    names |= {name: f"{module}.{name}" for name in _definitions(module)}
    reached = {_dotted(part, names) for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)}
    if isinstance(node, ast.ClassDef):
        heirs = (item for item in _definitions(module).values() if isinstance(item, ast.ClassDef))
        reached |= {
            f"{module}.{heir.name}" for heir in heirs if definition in {ast.unparse(base) for base in heir.bases}
        }
        reached |= {f"{other}.{name}" for other in _elsewhere(node) for name in _classes(other)}
    return tuple(sorted(name for name in reached if name and name.split(".")[0] in OURS))


def _elsewhere(node: ast.ClassDef) -> list[str]:
    """The modules that a family of kinds says its members are in: `ours=(...)`."""
    said = [keyword.value for keyword in node.keywords if keyword.arg == "ours"]
    return [str(part.value) for value in said for part in ast.walk(value) if isinstance(part, ast.Constant)]


def _classes(module: str) -> list[str]:
    return [name for name, node in _definitions(module).items() if isinstance(node, ast.ClassDef)]


@cache
def _imports(module: str) -> dict[str, str]:
    tree = _tree(module)
    return _imported(tree) if tree else {}


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name, of what is imported anywhere inside from our packages."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
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
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts, node = [node.attr, *parts], node.value
    if not isinstance(node, ast.Name):
        return None  # an attribute of what a call gives, say; its parts are looked at by themselves
    head, rest = node.id, ".".join(parts)
    text = f"{head}.{rest}" if rest else head
    if text in names:
        return names[text]
    for known in (text[: text.rfind(".")], head):  # `rmpipe.variance.whiten`, or an alias of the module
        if known in names and rest:
            return _home(f"{names[known]}.{text[len(known) + 1 :].split('.')[0]}")
    return None
