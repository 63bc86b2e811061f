"""ARCHITECTURE.md, enforced: who may import what, who may print, how long things may be, what is public."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import impasto

SOURCE = Path(impasto.__file__).parent
ROOT = Path(__file__).parent.parent
LEVELS = [
    {
        "errors",
        "allocation",
        "canvas",
        "checkpoints",
        "decoding",
        "image",
        "inputs",
        "sheet",
        "color",
        "statistics",
        "roots",
        "options",
        "timing",
        "weights",
    }
    | {"video", "flow", "procedural", "remote", "png", "shortcuts", "transparency", "masks"},
    {"layers", "receptive", "backbones", "torchvision_backbones", "normalised_vgg", "classifiers"} | {"raft"},
    {"losses", "diversity", "perceptual", "stages", "instance_norm", "transformation", "hypernetwork"}
    | {"schedule", "tiling", "tiled_objective", "memory", "runtimes", "hypercolumns", "nearest"},
    {
        "optimize",
        "parameterizations",
        "pyramids",
        "painting_places",
        "styles",
        "stylizer",
        "one_pass",
        "learned",
        "generated",
        "temporal",
        "pretrained",
    },
    {"methods", "recipes", "textures"},
    {"training", "distillation", "texture_training", "transfer", "evaluation", "export", "run_record"}
    | {"split_graphs"}
    | {"job", "server"},
    {"cli"},
]
"""What may import only from its own level and those before it; ``cli_*.py`` are like ``cli``."""

TOP = len(LEVELS) - 1
DOOR = "impasto"  # __init__.py: fetches public names from everywhere, on first use
REGISTRATION = ("stylizer", "impasto.methods")  # it looks into the folder, without importing a method by name
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
PUBLIC = [
    "ImpastoError",
    "Style",
    "Stylizer",
    "list_methods",
    "load",
    "load_style",
    "mix",
    "read_image",
    "save_style",
    "write_image",
]
"""The inventory: a name that users rely on comes and goes here on purpose, and in CHANGELOG.md."""

ONLY_IN = {
    "PIL": {"decoding", "image", "inputs", "sheet"},
    "torchvision": {"torchvision_backbones", "raft", "weights.download"},
    "peft": {"transfer"},
    "torchinfo": {"recipes"},
    "av": {"video"},
    "openvino": {"runtimes"},
    "onnxruntime": {"runtimes"},
    "huggingface_hub": {"weights.hub"},
    "cv2": {"flow"},
    "fsspec": {"remote"},
    "ray": {"cli"},
    "argparse": {"cli"},
    "typer": {"cli"},
    "rich": {"cli"},
    **{name: {"weights.download"} for name in ("urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx")},
}
"""Modules with an owner."""

ONLY_AT_TOP = {"os.environ", "os.getenv", "os.putenv", "sys.argv", "sys.stdout", "sys.stderr"}
REDUCTIONS = {"mean", "sum", "var", "std", "var_mean", "std_mean", "nanmean", "nansum"}
PICTURE_AXES = ({2, 3}, {-2, -1})
CHOICES_AT_IMPORT = {
    "manual_seed",
    "seed",
    "set_default_device",
    "set_default_dtype",
    "set_num_threads",
    "is_available",
}

FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """``weights.download`` for src/impasto/weights/download.py, ``weights`` for its package, DOOR for the root."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or DOOR


def head(module: str) -> str:
    """The file or folder of src/impasto that `module` belongs to; all command line files count as one."""
    first = module.split(".")[0]
    return "cli" if first.startswith("cli_") or first == "__main__" else first


def level(module: str) -> int:
    """The level of `module`; fails with what to do if it has none."""
    for number, names in enumerate(LEVELS):
        if head(module) in names:
            return number
    pytest.fail(f"{module} has no level: say in ARCHITECTURE.md and in LEVELS of this test what it may import")


@pytest.fixture(params=FILES, ids=name_of)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def module(path: Path) -> str:
    return name_of(path)


@pytest.fixture
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names of all that is imported anywhere, also in functions; ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for a chain of attributes of a name, else nothing."""
    if isinstance(node, ast.Attribute):
        inside = dotted(node.value)
        return f"{inside}.{node.attr}" if inside else ""
    return node.id if isinstance(node, ast.Name) else ""


# --- imports


def test_imports_go_downwards(module: str, tree: ast.Module) -> None:
    if module == DOOR:
        return
    own = level(module)
    for name in imports(tree):
        if not name.startswith("impasto.") or (module, name) == REGISTRATION:
            continue
        imported = name.removeprefix("impasto.")
        if imported == "__version__" or (imported in PUBLIC and own == TOP):
            continue
        assert level(imported) <= own, f"{module} (level {own}) imports {imported} (level {level(imported)})"


def test_a_method_imports_no_other_method(module: str, tree: ast.Module) -> None:
    if module.startswith("methods."):
        others = [name for name in imports(tree) if name.startswith("impasto.methods")]
        assert not others, f"{module} imports {others[0]}: what two methods share belongs on a lower level"


def test_some_modules_have_owners(module: str, tree: ast.Module) -> None:
    for name in imports(tree):
        owners = ONLY_IN.get(name.split(".")[0])
        assert owners is None or {module, head(module)} & owners, f"{module} imports {name}; only {owners} may"
    if head(module) != "weights":
        hub = [node for node in ast.walk(tree) if dotted(node).startswith("torch.hub")]
        assert not hub, f"{module} uses torch.hub; only weights opens a connection"


def test_levels_are_those_of_the_page() -> None:
    text = " ".join((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"Imports only go downwards: (.*?)\. A method", text)
    assert sentence, "ARCHITECTURE.md no longer says which level each module is on"
    levels = re.findall(r"(\d) `([^`]*)`", sentence[1])
    assert [int(number) for number, _ in levels] == list(range(len(LEVELS)))
    for number, names in levels:
        assert set(names.split()) <= LEVELS[int(number)], f"level {number} of ARCHITECTURE.md is not this test's"


def test_every_level_holds_something_that_exists_or_is_planned() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    there = {head(name_of(path)) for path in FILES}
    for name in set().union(*LEVELS) - there:
        assert re.search(rf"\b{name}\b", text), f"{name} has a level but neither exists nor is in ARCHITECTURE.md"


# --- conduct


def test_only_the_command_line_talks(module: str, tree: ast.Module) -> None:
    if module != DOOR and level(module) == TOP:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("print", "input", "breakpoint"):
            pytest.fail(f"{module}:{node.lineno} calls {dotted(node.func)}")
        if dotted(node) in ONLY_AT_TOP:
            pytest.fail(f"{module}:{node.lineno} uses {dotted(node)}: let the caller pass it")
    taken = set(imports(tree)) & ONLY_AT_TOP
    assert not taken, f"{module} imports {taken}"


def test_nothing_is_chosen_at_import(module: str, tree: ast.Module) -> None:
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                last = dotted(node.func).split(".")[-1]
                assert last not in CHOICES_AT_IMPORT, f"{module}:{node.lineno} calls {last} when imported"


def axes(call: ast.Call) -> set[object]:
    """The literal axes over which a call reduces."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("dim", "axis"))]
    for value in given:
        if isinstance(value, ast.Tuple | ast.List):
            try:
                return set(ast.literal_eval(value))
            except ValueError:
                continue
    return set()


def test_only_statistics_sums_over_the_picture(module: str, tree: ast.Module) -> None:
    if module == "statistics":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS:
            over = axes(node)
            assert not any(pair <= over for pair in PICTURE_AXES), (
                f"{module}:{node.lineno} reduces over height and width: use statistics.moments()"
            )


# --- sizes


def test_files_are_short(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= MOST_LINES, f"{path.name} has {count} lines, more than {MOST_LINES}: split it by what it does"


def test_functions_are_short(module: str, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or 0) - node.lineno + 1
            assert count <= MOST_FUNCTION_LINES, f"{module}.{node.name} has {count} lines, over {MOST_FUNCTION_LINES}"


# --- what users see


def test_public_names_are_those_of_the_inventory() -> None:
    assert sorted(impasto.__all__) == sorted(PUBLIC)
    for name in impasto.__all__:
        found = getattr(impasto, name)
        assert not (inspect.isfunction(found) or inspect.isclass(found)) or inspect.getdoc(found), f"{name} has no doc"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        impasto.nothing


def run(code: str) -> str:
    """What a fresh Python prints last."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_importing_impasto_is_instant() -> None:
    code = "import sys, impasto; impasto.__version__; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.skipif(not (SOURCE / "cli.py").is_file(), reason="there is no command line yet")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["stylize", "--help"], ["dream", "--help"], ["transfer", "fit", "--help"]]
)
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["impasto", *{arguments}]
from impasto.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([m for m in ("torch", "torchvision") if m in sys.modules])
"""
    assert run(code) == "[]"


def test_only_torchvisions_own_backbones_load_torchvision() -> None:
    modules = [name_of(path) for path in FILES]
    wanted = [
        m for m in modules if m not in (DOOR, "torchvision_backbones", "raft") and head(m) not in ("cli", "server")
    ]
    code = f"""
import importlib, sys
for name in {wanted}:
    importlib.import_module("impasto." + name)
heavy = ("torchvision", "accelerate", "skimage", "peft", "torchinfo", "av", "cv2", "huggingface_hub", "gradio")
print([m for m in heavy if m in sys.modules])
"""
    assert run(code) == "[]"
