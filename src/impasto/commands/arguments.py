"""Words and flags of a command line: method options as flags, read from the methods' source; checks of output files."""

from __future__ import annotations

import ast
import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import typer
from pydantic import Field, create_model

from impasto.commands.first_look import method_names
from impasto.errors import ImpastoError, OptionError, nearest
from impasto.files import real_path
from impasto.options import Options

PLAIN = "impasto.plain"
"""Key of a context for the number of words after `--`, which are never flags."""


def take_flags(
    ctx: typer.Context, words: list[str], options: type[Options], owner: str, listing: str
) -> tuple[list[str], dict[str, Any]]:
    """Split `words` into plain ones and values of `options`: --name VALUE, --name=VALUE, --flag or --no-flag.

    owner: what has the options; listing: the command that lists them. Raises OptionError for an unknown flag.
    """
    plain = words[len(words) - ctx.meta.get(PLAIN, 0) :]
    left = deque(words[: len(words) - len(plain)])
    found: list[str] = []
    values: dict[str, Any] = {}
    while left:
        word = left.popleft()
        if not word.startswith("-") or word == "-":
            found.append(word)
            continue
        flag, equals, value = word.partition("=")
        name, switch = _find_field(flag, options)
        if name is None:
            raise OptionError(_unknown(ctx, flag, options, owner, listing))
        if switch is False and equals:
            raise OptionError(f"{flag} takes no value")
        if switch is not None and not equals:
            values[name] = switch
        elif equals:
            values[name] = value
        elif not left or left[0].startswith("--"):
            raise OptionError(f"{flag} needs a value; see `{listing}`")
        else:
            values[name] = left.popleft()
    return found + plain, values


def check_options(
    ctx: typer.Context, words: list[str], method: str | None, recipe: Path | None = None
) -> tuple[list[str] | None, dict[str, Any]]:
    """Refuse wrong options of a method before torch is loaded; raises OptionError.

    Returns the plain words and the method's options. With a recipe nothing is checked, and the words are None: what the
    recorded run changes is not known yet.
    """
    name = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    options = options_of(name)
    if recipe is None and options is not None:
        plain, values = take_flags(ctx, words, options, name, f"impasto methods {name}")
        return plain, vars(options.parse(values, name))
    return None, {}


def flag_of(name: str) -> str:
    """Return the flag of the option `name`: style_weight, --style-weight; from_, --from."""
    return "--" + name.removesuffix("_").replace("_", "-")


def _find_field(flag: str, options: type[Options]) -> tuple[str | None, bool | None]:
    """Return the option that `flag` names, and for a yes-or-no option the value of the bare flag."""
    name = flag.removeprefix("--").replace("-", "_")
    fields = options.model_fields
    name = f"{name}_" if f"{name}_" in fields else name  # a field can't be called from
    if flag.startswith("--") and name in fields:
        return name, True if fields[name].annotation is bool else None
    name = name.removeprefix("no_")
    if flag.startswith("--no-") and name in fields and fields[name].annotation is bool:
        return name, False
    return None, None


def _unknown(ctx: typer.Context, flag: str, options: type[Options], owner: str, listing: str) -> str:
    own = [name for parameter in ctx.command.params for name in parameter.opts if name.startswith("--")]
    near = nearest(flag, [*own, *map(flag_of, options.model_fields)], 3)
    hint = f"{near};"
    theirs = methods_with(flag) if "--method" in own else []
    if theirs:
        hint = f", but {' and '.join(theirs)} {'has' if len(theirs) == 1 else 'have'}: add -m {theirs[0]};"
    return f"{owner} has no option {flag}{hint} see `{listing}`"


def methods_with(flag: str) -> list[str]:
    """Return the methods that have the option `flag`, the usual painter of photos first."""
    known = {name: options_of(name) for name in method_names()}
    found = [name for name, options in known.items() if options is not None and _find_field(flag, options)[0]]
    painter = str(constant("impasto.methods", "STILL_METHOD"))
    return sorted(found, key=lambda name: name != painter)


def words(first: str | None, others: list[str] | None) -> list[str]:
    """Return all words of a command line in their order."""
    return ([] if first is None else [first]) + (others or [])


def one_picture(words: list[str], usage: str) -> str:
    """Return the only word; raises ImpastoError."""
    if len(words) != 1:
        raise ImpastoError(f"name one picture: {usage}")
    return words[0]


def given(**values: Any) -> dict[str, Any]:
    """Return the flags that were given: those that are neither None nor an empty list."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def check_target(path: Path, force: bool, suffixes: tuple[str, ...] = ()) -> Path:
    """Return `path` if a file may and can be written there; raises ImpastoError otherwise, before any work."""
    if os.path.isdir(path):  # unlike pathlib's it takes names that are too long
        raise ImpastoError(f"{path} is a folder; name a file in it")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ImpastoError(f"{path}: the name must end in {one_of(suffixes)}")
    try:
        _prove_writable(path, force)
    except OSError as error:
        raise ImpastoError(f"{path} can't be written: {error.strerror}; write it elsewhere with -o") from None
    return path


def one_of(words: Sequence[str]) -> str:
    """Return words for a message: .png, or one of .png, .jpg."""
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def name_target(
    output: Path | None,
    default: Path,
    *,
    force: bool,
    suffixes: tuple[str, ...] = (),
    beside: Callable[[Path], Path | None] = lambda path: None,
) -> Path:
    """Return `output`, or `default` with the first free number; raises ImpastoError as `check_target` does.

    beside: returns the file that is written beside a file, which must be free, too.
    """
    target = output or default
    number = 1
    while output is None and not force and any(path is not None and path.exists() for path in (target, beside(target))):
        number += 1
        target = default.with_stem(f"{default.stem}-{number}")
    check_target(target, force, suffixes)
    companion = beside(target)
    if companion is not None:
        check_target(companion, force)
    return target


def prove_folder(folder: Path) -> None:
    """Raise ImpastoError unless files can be made in a folder."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".impasto-"):
            return
    except OSError as error:
        raise ImpastoError(f"{folder} can't be written: {error.strerror}; name another folder with -o") from None


def _prove_writable(path: Path, force: bool) -> None:
    """Raise ImpastoError or OSError unless a file of this name can be made, or replaced if `force` is set."""
    import tempfile

    if path.is_dir():
        raise ImpastoError(f"{path} is a folder; name a file in it")
    there = path.exists()
    if there and not force:
        raise ImpastoError(f"{path} exists already; use --force to overwrite it, or -o to write elsewhere")
    if there and not path.is_file():
        raise ImpastoError(f"{path} is a device, a pipe or a socket; name a file")
    if not path.parent.is_dir():
        raise ImpastoError(f"{path}: the folder {path.parent} does not exist; make it first")
    with tempfile.TemporaryFile(dir=real_path(path).parent):
        pass
    if not there and not path.is_symlink():  # a name may be impossible: too long, or with a colon
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        path.unlink()


# --- options of methods, read from their source, so that wrong values are refused before torch is loaded
#
# What the source does not show is left to the method itself, which checks everything again.

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
def has_function(method: str, function: str) -> bool:
    """Return whether the class of a method, or one of its bases below OnePass, defines `function`, from its source."""
    module = f"impasto.methods.{method}"
    classes = [statement for statement in _statements(module) if isinstance(statement, ast.ClassDef)]
    return any(_assigned(one, "Options") is not None and _defines(one.name, module, function) for one in classes)


def _defines(name: str, module: str, function: str) -> bool:
    """Return whether a class or one of its bases below OnePass, whose functions may only refuse, defines `function`."""
    found = _find(name, module)
    if found is None or not isinstance(found[0], ast.ClassDef) or name == "OnePass":
        return False
    own = any(isinstance(line, ast.FunctionDef) and line.name == function for line in found[0].body)
    bases = (base.id for base in found[0].bases if isinstance(base, ast.Name))
    return own or any(_defines(base, found[1], function) for base in bases)


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


def takes_photos(module: str) -> bool:
    """Return whether the training that a module defines learns from photographs, too, from its source."""
    values = [_value_of(statement, "TRAINING") for statement in _statements(module)]
    keywords = [keyword for value in values if isinstance(value, ast.Call) for keyword in value.keywords]
    return not any(one.arg == "contents" and ast.unparse(one.value) == "False" for one in keywords)


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
