"""The architecture, enforced: folders import downwards, each library has an owner, files and functions stay short."""

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
PAGE = Path(__file__).parents[1] / "ARCHITECTURE.md"
ROOMS = [
    "",
    "ops",
    "images",
    "weights",
    "networks",
    "feedforward",
    "optimize",
    "stylizers",
    "training",
    "methods",
    "textures",
    "vision",
    "transfer",
    "evaluation",
    "runs",
    "server",
    "batch",
    "commands",
    "cli",
]
"""The folders of src/impasto; "" is the files directly in it. A folder imports from those before it and from itself."""

ENTRIES = {"__init__", "__main__"}  # the public names and `python -m impasto`: they import from everywhere
MOST_ROOT_FILES, MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES = 8, 25, 400, 60
PUBLIC = ["ImpastoError", "Style", "Stylizer", "list_methods", "load", "load_style", "mix", "read_image"]
PUBLIC += ["save_style", "stylize", "write_image", "from_pretrained", "save_pretrained", "push_to_hub"]
"""Names that users rely on: they come and go here on purpose, and in CHANGELOG.md."""

NETWORK = ("urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx")
OWNERS = {
    "PIL": ("images",),
    "torchvision": ("networks.torchvision_backbones", "networks.raft_flow", "weights.torchvision_files"),
    "peft": ("transfer",),
    "torchinfo": ("vision",),
    "av": ("images.video_source",),
    "openvino": ("feedforward.runtimes",),
    "onnxruntime": ("feedforward.runtimes",),
    "huggingface_hub": ("weights.hub",),
    "cv2": ("images.flow", "commands.live_devices", "commands.doctor"),
    "fsspec": ("runs.remote_files",),
    "ray": ("batch",),
    "argparse": ("cli", "commands"),
    "typer": ("cli", "commands"),
    "rich": ("cli", "commands"),
    **dict.fromkeys(NETWORK, ("weights.torchvision_files",)),
    "urllib": ("weights.torchvision_files", "runs.remote_files"),
    "aiohttp": ("runs.remote_files",),
    "socket": ("weights.torchvision_files", "server.listen"),
}
"""Libraries that only these folders or modules import."""

TALKING = ("cli", "commands")
SURROUNDINGS = {"os.environ", "os.getenv", "os.putenv", "sys.argv", "sys.stdout", "sys.stderr"}
READ_BY = ("__main__", "cli", "commands", "batch.ray_engine", "runs.runtime_choice", "server.wire")
REDUCTIONS = {"mean", "sum", "var", "std", "var_mean", "std_mean", "nanmean", "nansum"}
PICTURE_AXES = ({2, 3}, {-2, -1})
CHOICES = {"manual_seed", "seed", "set_default_device", "set_default_dtype", "set_num_threads", "is_available"}
HEAVY = ("torchvision", "accelerate", "skimage", "peft", "torchinfo", "av", "cv2", "huggingface_hub", "gradio")


def name_of(path: Path) -> str:
    """``weights.hub`` for src/impasto/weights/hub.py, ``weights`` for its package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
PACKAGES = {name_of(path) for path in SOURCE.rglob("__init__.py")}


def room(module: str) -> str:
    return module.split(".")[0] if "." in module or module in PACKAGES - ENTRIES else ""


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names of all imports, also those in functions; ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.AST) -> Iterator[str]:
    """The modules of this package among them."""
    for name in imports(tree):
        inner = name.removeprefix("impasto.")
        if inner != name:
            yield inner if inner in MODULES else inner.rpartition(".")[0] or "__init__"


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for a chain of attributes of a name, else nothing."""
    if isinstance(node, ast.Attribute):
        inside = dotted(node.value)
        return f"{inside}.{node.attr}" if inside else ""
    return node.id if isinstance(node, ast.Name) else ""


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


def test_the_architecture_page_names_what_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rooms = re.findall(r"^(\w+)  ", text[text.index("```") : text.index("```", text.index("```") + 3)], re.MULTILINE)
    assert rooms == [name for name in ROOMS if name]
    files = [name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name or name.endswith(".py")]
    assert files
    for name in files:
        there = (PAGE.parent / name).exists() or (SOURCE / name).exists() or list(SOURCE.rglob(name))
        assert there, f"ARCHITECTURE.md names {name}, which does not exist"


def test_imports_go_downwards() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS), "a folder is missing in ROOMS: say what it may import"
    upward = [
        f"{module} imports {imported}"
        for module, tree in MODULES.items()
        if module not in ENTRIES
        for imported in own_imports(tree)
        if imported != "__init__" and ROOMS.index(room(imported)) > ROOMS.index(room(module))
    ]
    assert not upward, upward
    for module, tree in MODULES.items():
        others = [name for name in own_imports(tree) if module.startswith("methods.") and room(name) == "methods"]
        assert not others, f"{module} imports {others}: what two methods share belongs into stylizers"


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {module: set(own_imports(tree)) - {"__init__", module} for module, tree in MODULES.items()}
    while free := {module for module, wanted in edges.items() if not wanted}:
        edges = {module: wanted - free for module, wanted in edges.items() if module not in free}
    edges = {module: wanted for module, wanted in edges.items() if module not in ENTRIES}
    circle = {module for module in edges if any(module in wanted for wanted in edges.values())}
    assert not circle, f"a circle goes through some of: {sorted(circle)}"


def test_libraries_have_owners() -> None:
    for module, tree in MODULES.items():
        for name in imports(tree):
            owners = OWNERS.get(name.split(".")[0])
            assert owners is None or within(module, owners), f"{module} imports {name}; only {owners} may"
        hub = [node for node in ast.walk(tree) if dotted(node).startswith("torch.hub")]
        assert not hub or within(module, ("weights",)), f"{module} uses torch.hub; only weights opens a connection"


def test_only_the_command_line_prints_and_reads_its_surroundings() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            talks = isinstance(node, ast.Call) and dotted(node.func) in ("print", "input", "breakpoint")
            assert not talks or within(module, TALKING), f"{module}:{node.lineno} prints"  # type: ignore[attr-defined]
            reads = dotted(node) in SURROUNDINGS
            assert not reads or within(module, READ_BY), f"{module} uses {dotted(node)}: let the caller pass it"
        assert within(module, READ_BY) or not set(imports(tree)) & SURROUNDINGS, module


def test_nothing_is_chosen_at_import_and_only_moments_sums_over_the_picture() -> None:
    for module, tree in MODULES.items():
        at_import = [s for s in tree.body if not isinstance(s, ast.FunctionDef | ast.ClassDef)]
        calls = [node for s in at_import for node in ast.walk(s) if isinstance(node, ast.Call)]
        for call in calls:
            assert dotted(call.func).split(".")[-1] not in CHOICES, f"{module}:{call.lineno} chooses when imported"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS:
                over = module != "ops.moments" and any(pair <= axes(node) for pair in PICTURE_AXES)
                assert not over, f"{module}:{node.lineno} reduces over height and width: use ops.moments.moments()"


def test_folders_files_and_functions_are_small() -> None:
    for name in ROOMS:
        count = len(list((SOURCE / name).glob("*.py")))
        assert count <= (MOST_FILES if name else MOST_ROOT_FILES), f"{name or 'the root'} has {count} files"
    for path in SOURCE.rglob("*.py"):
        count = len(path.read_text(encoding="utf-8").splitlines())
        assert count <= MOST_LINES, f"{path.name} has {count} lines, more than {MOST_LINES}: split it by what it does"
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or 0) - node.lineno + 1
                assert count <= MOST_FUNCTION_LINES, f"{module}.{node.name} has {count} lines"


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


def test_help_needs_no_torch() -> None:
    words = [["--help"], ["--version"], ["stylize", "--help"], ["dream", "--help"], ["transfer", "fit", "--help"]]
    code = f"""
import sys
from impasto.cli.main import main
for words in {words}:
    assert main(words) == 0, words
print([m for m in ("torch", "torchvision") if m in sys.modules])
"""
    assert run(code) == "[]"


def test_only_torchvisions_own_backbones_load_torchvision() -> None:
    skipped = ("__init__", "__main__", "networks.torchvision_backbones", "networks.raft_flow", "cli", "server")
    code = f"""
import importlib, sys
for name in {[module for module in MODULES if not within(module, skipped)]}:
    importlib.import_module("impasto." + name)
print([m for m in {HEAVY} if m in sys.modules])
"""
    assert run(code) == "[]"
