"""Mistakes in the settings of a run, of a training, a dream and the server are answered before torch is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from impasto.cli.export_style import MAKER
from impasto.commands import early_devices
from impasto.commands.early_checks import methods_with_function
from impasto.commands.early_recipes import optimises
from impasto.commands.first_look import READS
from impasto.commands.layer_names import layers_of
from impasto.errors import OptionError
from impasto.methods import find_method, list_methods, load
from impasto.networks.backbones import BACKBONES, load_backbone
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.stylizers.generated_network import GeneratedNetworks
from impasto.stylizers.styles import Style

WITHOUT_TORCH = """
import contextlib, io, json, shlex, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise SystemExit("torch is loaded")
sys.meta_path.insert(0, Refuse())
from impasto.commands import early_devices
missing = early_devices._why_missing
early_devices._why_missing = lambda name: "no driver is loaded" if name == "cuda" else missing(name)
from impasto.cli.main import main
answers = []
for line in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            code = main(shlex.split(line))
        except SystemExit as error:
            code = str(error)
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""

MISTAKES = [
    ("stylize", "name a photo and a painting"),
    ("video", "name a video and a painting: impasto video clip.mp4 painting.jpg"),
    ("stylize photo.png", "name a painting, a style card, or --style NAME"),
    ("stylize photo.png sea.png --style-weights 1,2", "one style needs one weight, not 2"),
    ("stylize photo.png sea.png udnie --style-weights 1", "2 styles need 2 weights, not 1"),
    ("stylize photo.png --style udnie --style the-dance --style-weights 0,0", "not all 0"),
    ("sweep photo.png sea.png udnie --style-weights 1 --vary strength=0,1", "2 styles need 2 weights, not 1"),
    ("stylize photo.png sea.png --style-weights nan", "style-weights must be a finite number"),
    ("stylize photo.png sea.png --mask sea.png --mask sea.png", "one style needs one mask, not 2"),
    ("stylize photo.png sea.png --size 8", "size '8' is too small; each side must be at least 16"),
    ("stylize photo.png sea.png --size 20000x20000", "20000x20000 is more than 200 megapixels"),
    ("stylize photo.png sea.png --style-size 3", "style-size must be at least 16"),
    ("stylize photo.png sea.png --seed -1", "seed must be at least 0"),
    ("stylize photo.png sea.png -o photo.png", "photo.png exists already; use --force"),
    ("stylize photo.png sea.png --preview live.gif", "live.gif: the name must end in one of .png"),
    ("stylize photo.png sea.png --weights none.safetensors", "none.safetensors does not exist"),
    ("stylize photo.png sea.png -m gatys --checkpoint none/x.safetensors", "the folder none does not exist"),
    ("stylize photo.png sea.png -m gatys --backbone vgg20", "no backbone 'vgg20' (did you mean vgg19 or vgg16?)"),
    ("stylize photo.png sea.png -m gatys --content-layers relu9_9", "vgg19-slim has no layer 'relu9_9'"),
    ("stylize photo.png sea.png -m gatys --start none.png", "none.png can't be opened"),
    ("stylize photo.png starry-night --keep-color histogram", "which starry-night does not hold"),
    ("stylize --recipe photo.png", "photo.png holds no run record"),
    ("video clip.mp4 sea.png --keep-color histogram", "use luminance or lab for a video"),
    ("video clip.mp4 sea.png -o out.png", "out.png: the name must end in one of .mp4"),
    ("batch photo.png sea.png -o sea.png", "sea.png is a file; name a folder for the results"),
    ("batch photo.png sea.png -o out --format gif", "--format is one of png, jpg"),
    ("batch photo.png sea.png -o out --engine rai", "--engine is local or ray, not 'rai' (did you mean ray?)"),
    ("batch photo.png sea.png -o out --workers 2", "--workers goes with --engine ray"),
    ("batch photo.png -o out", "name photos and styles"),
    ("batch . sea.png -o .", ". holds the photos; name another folder"),
    ("batch photo.png sea.png -o out --pairs --watch", "not with --pairs"),
    ("bench --weights none.safetensors", "none.safetensors does not exist"),
    ("export adain.onnx -m adain --preset none", "adain has no preset 'none'"),
    ("export-style --style nope", "there is no style 'nope'"),
    ("serve --limits extra", "--limits lists the limits and takes nothing else"),
    ("stylize photo.png .", ". is a folder; name a painting in it"),
    ("stylize photo.png sea.png --checkpoint x.safetensors", "without -m a method of one pass paints: --checkpoint"),
    ("stylize photo.png sea.png --preset draft", "swift has no preset 'draft', but nnst can: add -m nnst"),
    ("stylize photo.png sea.png --spread 0.2", "but nnst_d and nnst have: add -m nnst_d"),
    ("sweep photo.png sea.png --vary strength", "give values, such as"),
    ("sweep photo.png sea.png --vary seed=1,2 --vary seed=3,4", "one or two different options"),
    ("texture sea.png irises", "irises is a texture and sea.png a picture"),
    ("texture irises --steps 4", "--steps is for paintings; irises is drawn by a generator"),
    ("train swift --content . --style . -o run --from none.safetensors", "none.safetensors does not exist"),
    ("video clip.mp4 sea.png --flow-by opencv", "flow-by is one of dis, raft"),
    ("video clip.mp4 sea.png --temporal-weight 5", "--temporal-weight is for methods that optimise"),
    ("sweep photo.png sea.png --vary detail=0,1", "no option 'detail', but wct can: add -m wct"),
    ("sweep photo.png sea.png --vary seed=1,2,1", "1 is there twice"),
    ("sweep photo.png sea.png --vary size=8,64", "size '8' is too small"),
    ("sweep photo.png sea.png --vary keep-color=lba,off", "'lba' (did you mean lab?)"),
    ("sweep photo.png sea.png --vary preset=none", "swift has no preset 'none'"),
    ("style extract sea.png -o card.png", "card.png: the name must end in .safetensors"),
    ("style extract sea.png -m johnson", "johnson can't look at a painting"),
    ("style show sea.png", "sea.png is no style card"),
    ("export", "name one file to write"),
    ("export -m adain -o none/adain.onnx", "the folder none does not exist"),
    ("export adain.onnx other.onnx", "name one file to write"),
    ("export-style", "name one painting, or one style by --style"),
    ("export-style sea.png -m gatys", "gatys makes no networks: use -m metanet"),
    ("export-style sea.png -o sea.png", "sea.png: the name must end in .safetensors"),
    ("evaluate .", "name three folders"),
    ("evaluate photo.png . .", "photo.png is no folder; name folders"),
    ("inspect photo.png", "a photo and a layer go together"),
    ("inspect photo.png --layer layer9 --backbone resnet50", "resnet50 has no layer 'layer9'"),
    ("attack photo.png --target giraffe -o out.jpg", "out.jpg: only .png keeps every pixel"),
    ("texture pond wheat --style-weights 1", "2 styles need 2 weights, not 1"),
    ("texture sea.png --size 5", "size '5' is too small"),
    ("transfer fit nothing -o run", "needs at least two folders with pictures, one a class; it has 0"),
    ("live -m gatys", "gatys takes seconds or minutes for a frame"),
    ("live --keep-color histogram", "live takes luminance or lab"),
    ("dream --layer relu4_1 --channel 9999", "there is no channel 9999: the layer has 128, from 0"),
    ("dream --layer logits --channel 20", "there is no channel 20: the layer has 8, from 0"),
    ("dream --layer relu4_1 --channel 3 --unit 999,0", "no unit 999,0: the layer has 28 rows and 28 columns"),
    ("dream --backbone vgg16 --layer relu9_1 --channel 3", "vgg16 has no layer 'relu9_1'"),
    ("train johnson --content . --style sea.png -o run --teacher none", "none holds no safetensors file of a normal"),
    ("train backbone --content . --style . -o run --teacher none", "--teacher is a folder or vgg19"),
    ("serve photo.png", "impasto serve takes no files: photo.png"),
    ("serve --host 999.1.1.1", "--host 999.1.1.1 is no address of this machine"),
    ("serve --host no.such.name.invalid", "--host no.such.name.invalid is no address of this machine"),
    ("serve --token-file none", "--token-file none can't be read"),
    ("serve --access-log none/log", "--access-log none/log can't be written"),
    ("serve --proxy nonsense", "--proxy takes the address of a proxy"),
    ("stylize photo.png sea.png --device mps", "--device mps is not there: "),
    ("serve --token-file long-token", "a token has at most 1000 characters"),
    ("stylize -dash.png sea.png", "-dash.png begins with - as flags do: write ./-dash.png"),
    ("stylize photo.png --style ''", "the name of a style is empty"),
    ("stylize photo.png sea.png -o nothing", "nothing is a folder; name a file in it"),
    ("stylize --recipe nothing", "nothing is a folder; name a picture or a JSON file in it"),
    ("stylize away.png sea.png", "away.png can't be opened: No such file or directory; check its name"),
    ("batch photo.png sea.png -o ''", "name a folder for the results"),
    ("style show nothing", "nothing is a folder; name a style card in it"),
    ("serve --device cpu --device cuda", "--device cuda is not there: no driver is loaded; leave it out"),
    ("batch photo.png sea.png -o out --device cuda", "--device cuda is not there: no driver is loaded; leave it out"),
    ("stylize - -", "standard input holds one picture: - can be the photo or a painting, not both"),
    ("stylize - sea.png --json", "--json and the picture can't both go to standard output"),
    ("stylize notes.jpg sea.png", "notes.jpg is damaged or no picture; it must be one of JPEG, PNG"),
    ("stylize empty.png sea.png", "empty.png is empty; get it again"),
    ("stylize photo.png page.jpg", "page.jpg is a web page or drawing"),
    ("transfer predict notes.jpg", "notes.jpg is damaged or no picture"),
    ("stylize photo.png sea.png --mask notes.jpg", "notes.jpg is damaged or no picture"),
    ("stylize photo.png short.safetensors", "short.safetensors is no readable safetensors file: it is too short"),
    ("stylize photo.png long.safetensors", "its header is longer than the file, or huge"),
    ("stylize photo.png foreign.safetensors", "foreign.safetensors is no style card: make one with"),
    ("style show long.safetensors", "its header is longer than the file, or huge"),
    (
        "stylize photo.png maps.safetensors -m nnst",
        "maps.safetensors holds maps, but nnst needs places: name",
    ),
    ("stylize photo.png network.safetensors -m wct", "network.safetensors is a whole network: paint by the method"),
    (
        "stylize photo.png sea.png -m swift --weights trained.safetensors",
        "was made by `impasto train adain`, not swift",
    ),
    ("stylize photo.png sea.png --weights long.safetensors", "long.safetensors is no readable safetensors file"),
    ("bench --weights trained.safetensors", "--weights trained.safetensors is for one method: name it with -m"),
    ("bench --weights trained.safetensors -m swift", "by `impasto train adain`, not swift"),
    ("transfer predict photo.png --classifier maps.safetensors", "maps.safetensors holds no classifier: make one"),
    ("transfer fit classes -o run", "class 'a' needs at least two different pictures"),
    ("train swift --content nothing --style sea.png -o run", "no readable picture in nothing: name folders"),
    ("evaluate nothing nothing nothing", "nothing holds no pictures"),
]


def test_mistakes_are_answered_without_torch(tmp_path: Path) -> None:
    for name, color in (("photo.png", "white"), ("sea.png", "blue")):
        Image.new("RGB", (48, 36), color).save(tmp_path / name)
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2avc1" + bytes(64))
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "away.png").symlink_to("nowhere.png")
    (tmp_path / "long-token").write_text("x" * 5000)
    (tmp_path / "long-token").chmod(0o600)
    Image.new("RGB", (48, 36), "green").save(tmp_path / "-dash.png")
    (tmp_path / "short.safetensors").write_bytes(b"short")
    (tmp_path / "long.safetensors").write_bytes(bytes(range(1, 100)))
    heads = {"foreign": None, "maps": {"style": "maps/vgg19/1"}, "network": {"style": "network/16-5"}}
    for name, head in (heads | {"trained": {"method": "adain"}}).items():
        write_head(tmp_path / f"{name}.safetensors", head)
    for name, color in (("a", "red"), ("b", "blue")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (48, 36), color).save(tmp_path / "classes" / name / "one.png")
    before = sorted(tmp_path.rglob("*"))
    lines = [line for line, _ in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=True,
    )
    for (line, message), (code, said) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert code == 2, f"impasto {line}: {code} {said}"
        assert message in said, f"impasto {line}: {said}"
        assert len(said.splitlines()) == 1, f"impasto {line}: {said}"
    assert sorted(tmp_path.rglob("*")) == before


def write_head(path: Path, head: dict[str, str] | None) -> None:
    """Write a safetensors file without tensors; head: impasto's own header."""
    text = json.dumps({} if head is None else {"__metadata__": {"impasto": json.dumps(head)}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("name", list_methods())
def test_kinds_of_cards_that_methods_take(name: str) -> None:
    method = load(name)
    known = [load(other).style_kind for other in list_methods()]
    taken = {kind.partition("/")[0] for kind in known if takes(method, kind)}
    assert taken <= set(READS.get(name, ())) or issubclass(type(method), LearnedStyles)
    assert method.style_kind.partition("/")[0] == READS.get(name, (method.style_kind.partition("/")[0],))[0]


def takes(method: Stylizer, kind: str) -> bool:
    """Whether a method takes a card of this kind, as far as its kind matters: an empty card has no layers."""
    try:
        method.accept_style(Style({}, kind))
    except OptionError as error:
        return "this style card holds" not in str(error) and "is a whole network" not in str(error)
    except (KeyError, ValueError, RuntimeError):
        return True
    return True


@pytest.mark.parametrize(
    ("name", "platform", "version", "files", "missing"),
    [
        ("cuda", "linux", "cuda = '13.0'\nhip = None\n", ["nvidiactl"], False),
        ("cuda", "linux", "cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", ["kfd"], False),
        ("cuda", "linux", "cuda = '13.0'\nhip = None\n", ["null", "nvme0"], True),
        ("cuda", "linux", "cuda = None\nhip = None\n", ["nvidiactl"], True),
        ("cuda", "win32", "cuda = '13.0'\nhip = None\n", [], False),
        ("cuda", "win32", "cuda: Optional[str] = None\nhip = None\n", [], True),
        ("cuda", "linux", "", ["nvidia0"], False),
        ("cuda", "darwin", "cuda = None\nhip = None\n", [], True),
        ("mps", "darwin", "", [], False),
        ("mps", "linux", "", ["nvidiactl"], True),
        ("auto", "linux", "cuda = None\nhip = None\n", [], False),
        ("cpu", "linux", "cuda = None\nhip = None\n", [], False),
    ],
)
def test_devices_that_are_certainly_missing(
    name: str,
    platform: str,
    version: str,
    files: list[str],
    missing: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in files:
        (tmp_path / file).touch()
    (tmp_path / "version.py").write_text(version)
    monkeypatch.setattr(early_devices, "DEVICES", tmp_path)
    monkeypatch.setattr(early_devices, "CUDA", "no-such-library.so")
    monkeypatch.setattr(early_devices, "_version_file", lambda: tmp_path / "version.py")
    monkeypatch.setattr(early_devices.sys, "platform", platform)
    if missing:
        with pytest.raises(OptionError, match=f"--device {name} is not there"):
            early_devices.check_here(name)
    else:
        early_devices.check_here(name)


@pytest.mark.parametrize(
    ("piped", "message"),
    [
        (b"no picture", "standard input is damaged or no picture"),
        (b"", "standard input is empty; pipe a picture into it"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2avc1" + bytes(64), "standard input is a video: name its file"),
    ],
)
def test_what_is_piped_is_looked_at_without_torch(piped: bytes, message: str, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from impasto.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "stylize", "-", "starry-night", "-o", "out.png"]
    done = subprocess.run(words, input=piped, capture_output=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr.decode().count("\n")) == (2, 1)
    assert message in done.stderr.decode()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_are_known_without_the_network(name: str) -> None:
    with torch.device("meta"):  # no numbers are made
        network = load_backbone(name, pretrained=False)
    assert layers_of(name) == list(network.layers)


def test_which_methods_optimise() -> None:
    for name in list_methods():
        assert optimises(name) is not find_method(name).one_pass


def test_makers_of_networks() -> None:
    makers = methods_with_function("generate")
    assert makers == [name for name in list_methods() if issubclass(find_method(name), GeneratedNetworks)]
    assert makers[0] == MAKER
