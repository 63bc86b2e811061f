"""Reads the options of methods and commands from their source, so that wrong values are refused without torch.

Anything that the source does not show is left to the method itself, which checks everything again.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, create_model

from impasto.options import Options

PACKAGE = Path(__file__).parent.parent
BUILT_IN = {"Literal": Literal, "Field": Field, "Any": Any, "ClassVar": ClassVar}
SIMPLE = {kind.__name__: kind for kind in (bool, int, float, str, tuple)}
Found = tuple[ast.stmt, str]
"""A statement and the module that it stands in."""


@functools.cache
def options_of(method: str) -> type[Options] | None:
    """Return the options of a method from its source; None if the source is not enough."""
    module = f"impasto.methods.{method}"
    for statement in _statements(module):
        name = _assigned(statement, "Options") if isinstance(statement, ast.ClassDef) else None
        if isinstance(name, ast.Name):
            return read_class(module, name.id)
    return None


@functools.cache
def presets_of(method: str) -> dict[str, Any] | None:
    """Return the presets of a method from its source; None if the source is not enough."""
    module = f"impasto.methods.{method}"
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef) and _assigned(statement, "Options") is not None:
            value = _assigned(statement, "presets")
            try:
                return {"default": {}} if value is None else dict(_evaluate(value, module))
            except (NameError, TypeError, ValueError):
                return None
    return None


@functools.cache
def training_of(module: str) -> type[Options] | None:
    """Return the options of the training that a module defines, from its source; None if it defines none."""
    for statement in _statements(module):
        value = _value_of(statement, "TRAINING")
        if isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Name):
            return read_class(module, value.args[0].id)
    return None


@functools.cache
def read_class(module: str, name: str) -> type[Options] | None:
    """Return the options called `name` in a module, from its source; None if the source is not enough."""
    fields = dict(_fields(name, module))
    return create_model(name, __base__=Options, **fields) if fields else None


def constant(module: str, name: str) -> Any:
    """Return the value of `name` in a module, without importing it; raises NameError."""
    found = _find(name, module)
    if found is None or (value := _value_of(found[0])) is None:
        raise NameError(name)
    return _evaluate(value, found[1])


def _fields(name: str, module: str) -> Iterator[tuple[str, Any]]:
    """Yield fields for `create_model`, those of the bases first."""
    found = _find(name, module)
    if found is None or not isinstance(found[0], ast.ClassDef):
        return
    statement, module = found
    assert isinstance(statement, ast.ClassDef)
    for base in statement.bases:
        if isinstance(base, ast.Name) and base.id != "Options":
            yield from _fields(base.id, module)
    for line in statement.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
            try:
                kind, default = _evaluate(line.annotation, module), _evaluate(line.value, module)
            except (NameError, TypeError, ValueError, AttributeError):
                kind, default = Any, None
            if kind is not ClassVar:
                yield line.target.id, (kind, default)


def _evaluate(node: ast.expr, module: str) -> Any:
    """Return the value of an expression with names of a module and of its imports."""
    names: dict[str, Any] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id not in {**BUILT_IN, **SIMPLE}:
            names[inner.id] = constant(module, inner.id)
    code = compile(ast.Expression(node), module, "eval")
    return eval(code, {"__builtins__": {}, **BUILT_IN, **SIMPLE, **names})


def _find(name: str, module: str) -> Found | None:
    """Return where a name is defined, also if the module imports it from another one of impasto."""
    for statement in _statements(module):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("impasto"):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _find(alias.name, str(statement.module))
        elif (isinstance(statement, ast.ClassDef) and statement.name == name) or _value_of(statement, name) is not None:
            return statement, module
    return None


def _assigned(statement: ast.ClassDef, name: str) -> ast.expr | None:
    return next(filter(None, (_value_of(line, name) for line in statement.body)), None)


def _value_of(statement: ast.stmt, name: str | None = None) -> ast.expr | None:
    """Return the value that a statement assigns, to `name` if given."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    named = [target.id for target in targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        named = [statement.target.id]
    fits = bool(named) if name is None else name in named
    return statement.value if fits and isinstance(statement, ast.Assign | ast.AnnAssign) else None


@functools.cache
def _statements(module: str) -> list[ast.stmt]:
    """Return the statements of one of impasto's modules; none if it has no source."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8")).body
    return []
