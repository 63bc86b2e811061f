"""The GIMP plug-in: against a real local server, with stand-ins for GIMP 3, and in GIMP 3 itself where it is there."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

import uvicorn

import gimp_standin as standin
from impasto.server.app import create_app
from impasto.server.studio import Studio
from impasto.stylizers.styles import built_in_styles
from server_support import open_studio, picture_bytes, wait_until

PLUG_IN = Path(__file__).parent.parent / "integrations" / "gimp" / "impasto-paint"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(str(PLUG_IN))
    import impasto_client

    return impasto_client


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    with open_studio(tmp_path, monkeypatch) as studio:
        yield studio


@pytest.fixture
def address(studio: Studio) -> Iterator[str]:
    """A server of tiny methods on a free port."""
    server = uvicorn.Server(uvicorn.Config(create_app(studio), "127.0.0.1", 0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def layer(selection: Any = None) -> standin.Layer:
    picture = Image.open(io.BytesIO(picture_bytes(mode="RGBA")))
    return standin.Layer(np.asarray(picture), selection=selection)


# --- the client


def test_a_picture_is_painted_and_nothing_is_left_on_the_server(client: Any, studio: Studio, address: str) -> None:
    server = client.Server(address)
    assert server.answers()
    assert server.style_names() == list(built_in_styles())
    assert server.method_names()[0] == "swift"
    shares: list[float | None] = []
    painted = server.paint(
        picture_bytes(), painting=picture_bytes(2), on_progress=shares.append, method="gatys", seed=3
    )
    assert Image.open(io.BytesIO(painted)).size == (48, 36)
    assert shares
    assert not studio.queue._jobs


def test_what_the_server_refuses_is_one_line(client: Any, address: str) -> None:
    server = client.Server(address)
    with pytest.raises(client.Problem, match="no such style"):
        server.paint(picture_bytes(), style="nothing")
    with pytest.raises(client.Problem, match="no option 'detail'"):
        server.paint(picture_bytes(), painting=picture_bytes(2), options='{"detail": 1}')
    with pytest.raises(client.Problem, match="no impasto server answers at"):
        client.Server("http://127.0.0.1:9").style_names()


def test_a_job_ends_with_the_plug_in_that_was_killed(client: Any, studio: Studio, address: str) -> None:
    """GIMP kills a plug-in when the user presses Cancel."""
    program = f"""
import sys
sys.path.insert(0, {str(PLUG_IN)!r})
from impasto_client import Leash, Server
picture = open(sys.argv[1], "rb").read()
Server({address!r}).paint(
    picture, painting=picture, method="gatys", options='{{"steps": 100000}}', leash=Leash(), size=64
)
"""
    picture = studio.folder / "photo.png"
    picture.write_bytes(picture_bytes())
    with subprocess.Popen([sys.executable, "-c", program, str(picture)]) as plug_in:
        wait_until(lambda: any(job.step > 0 for job in studio.queue._jobs.values()))
        plug_in.kill()
    wait_until(lambda: not studio.queue._jobs)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for the command is a shell script")
def test_a_server_is_started_where_none_answers(
    client: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, words = tmp_path / "impasto", tmp_path / "words"
    line = json.dumps({"url": f"{address}/", "devices": ["cpu"]})
    script.write_text(f"#!/bin/sh\necho $$ \"$@\" > {words}\necho '{line}'\nexec sleep 60\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMPASTO_COMMAND", str(script))
    leash = client.Leash()
    with client.reach("http://127.0.0.1:9", leash) as server:
        assert server.style_names()
    leash.release()
    pid, *given = words.read_text().split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    asked = [word for word in given if word.startswith("--") and word.split("=")[0] not in ("--json", "--quiet")]
    assert {"--no-page", "--port"} <= set(asked)


def test_the_limits_of_its_own_server_are_known(client: Any) -> None:
    from impasto.server.limits import Limits

    Limits.parse({name.replace("-", "_"): value for name, value in client.LIMITS.items()}, "serve")


def test_no_server_and_no_command_says_what_to_do(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_COMMAND", raising=False)
    monkeypatch.setattr(client.shutil, "which", lambda name: None)
    with pytest.raises(client.Problem, match="start `impasto serve` first"), client.reach("http://127.0.0.1:9"):
        pass


# --- the plug-in, with stand-ins


class Gimp:
    """The plug-in as the stand-in of GIMP runs it."""

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shares = standin.install(monkeypatch)
        spec = importlib.util.spec_from_file_location("impasto_paint", PLUG_IN / "impasto-paint.py")
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        plug_in = self.module.ImpastoPaint()
        (name,) = plug_in.do_query_procedures()
        self.procedure = plug_in.do_create_procedure(name)
        self.address = address

    def run(self, picture: standin.Picture, drawables: list[Any], **values: Any) -> tuple[standin.Status, str]:
        config = {**self.procedure.arguments, "server": self.address, **values}
        found: tuple[standin.Status, str] = self.procedure.run(
            self.procedure, "noninteractive", picture, drawables, standin.Config(config), None
        )
        return found


@pytest.fixture
def gimp(client: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> Gimp:
    return Gimp(address, monkeypatch)


def test_its_defaults_are_what_exists(gimp: Gimp) -> None:
    arguments = gimp.procedure.arguments
    assert arguments["style"] in built_in_styles()
    assert arguments["method"] == "swift"
    assert gimp.procedure.menu == "<Image>/Filters/Artistic"


def test_a_new_layer_lies_above_and_the_photo_stays(gimp: Gimp, tmp_path: Path) -> None:
    (tmp_path / "painting.png").write_bytes(picture_bytes(2))
    file = types.SimpleNamespace(get_path=lambda: str(tmp_path / "painting.png"))
    chosen = np.zeros((36, 48), bool)
    chosen[:, :20] = True
    photo = layer(chosen)
    before = photo.pixels.copy()
    picture = standin.Picture(photo)
    assert gimp.run(picture, [photo], painting=file)[0] is standin.Status.SUCCESS
    above, below = picture.layers
    assert below is photo
    assert np.array_equal(photo.pixels, before)
    assert np.array_equal(above.pixels[..., 3], before[..., 3]), "transparency is kept"
    assert np.abs(above.pixels[..., :3].astype(int) - before[..., :3]).max() > 20
    assert above.mask is chosen
    assert picture.groups == 0


def test_the_layer_itself_is_painted_where_it_is_selected(gimp: Gimp, tmp_path: Path) -> None:
    (tmp_path / "painting.png").write_bytes(picture_bytes(2))
    file = types.SimpleNamespace(get_path=lambda: str(tmp_path / "painting.png"))
    chosen = np.zeros((36, 48), bool)
    chosen[:, :20] = True
    photo = layer(chosen)
    before = photo.pixels.copy()
    wanted = {"new-layer": False, "painting": file, "method": "gatys", "size": 32}
    assert gimp.run(standin.Picture(photo), [photo], **wanted)[0] is standin.Status.SUCCESS
    assert np.array_equal(photo.pixels[:, 20:], before[:, 20:])
    assert not np.array_equal(photo.pixels[:, :20], before[:, :20])


def test_what_goes_wrong_is_one_line_and_changes_nothing(gimp: Gimp, tmp_path: Path) -> None:
    photo = layer()
    picture = standin.Picture(photo)
    status, text = gimp.run(picture, [photo], style="nothing")
    assert (status, len(picture.layers)) == (standin.Status.EXECUTION_ERROR, 1)
    assert "no such style" in text
    missing = types.SimpleNamespace(get_path=lambda: str(tmp_path / "none.png"))
    assert "can't be read" in gimp.run(picture, [photo], painting=missing)[1]
    assert gimp.run(picture, [photo, photo])[0] is standin.Status.CALLING_ERROR


# --- the real one


def find_gimp() -> str | None:
    """GIMP 3 without its window, if it is installed."""
    for name in ("gimp-console-3.0", "gimp-console-3", "gimp-console"):
        path = shutil.which(name)
        if path and " 3." in subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout:
            return path
    return None


IN_GIMP = """
from gi.repository import Gegl, Gimp, Gio
image = Gimp.Image.new_with_precision(48, 36, Gimp.ImageBaseType.RGB, Gimp.Precision.FLOAT_LINEAR)
layer = Gimp.Layer.new(image, "photo", 48, 36, Gimp.ImageType.RGB_IMAGE, 100, Gimp.LayerMode.NORMAL)
image.insert_layer(layer, None, 0)
area = Gegl.Rectangle.new(0, 0, 48, 36)
pixels = bytes(v for y in range(36) for x in range(48) for v in (5 * x, 7 * y, x * y % 256, 255))
layer.get_buffer().set(area, "R'G'B'A u8", pixels)
image.select_rectangle(Gimp.ChannelOps.REPLACE, 0, 0, 20, 36)

def paint(**values):
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-impasto-paint")
    config = procedure.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    config.set_property("image", image)
    config.set_core_object_array("drawables", [layer])
    painting = Gio.File.new_for_path(PAINTING)
    for name, value in {"server": ADDRESS, "method": "adain", "painting": painting, **values}.items():
        config.set_property(name, value)
    return procedure.run(config).index(0)

def read(one):
    return one.get_buffer().get(area, 1.0, "R'G'B'A u8", Gegl.AbyssPolicy.CLAMP)

assert paint() == Gimp.PDBStatusType.SUCCESS
above, below = image.get_layers()
assert read(below) == pixels and read(above) != pixels
assert above.get_mask() is not None
assert paint(**{"new-layer": False}) == Gimp.PDBStatusType.SUCCESS
after = read(layer)
for y in range(36):
    row = slice(4 * (48 * y + 20), 4 * 48 * (y + 1))
    assert after[row] == pixels[row]
assert after != pixels
assert paint(method="nothing") == Gimp.PDBStatusType.EXECUTION_ERROR
open(MARK, "w").write("painted")
"""


@pytest.mark.slow
def test_gimp_3_paints_a_layer(address: str, tmp_path: Path) -> None:
    gimp = find_gimp()
    if gimp is None:
        pytest.skip("GIMP 3 is not installed")
    place = tmp_path / "gimp" / "plug-ins" / "impasto-paint"
    shutil.copytree(PLUG_IN, place, ignore=shutil.ignore_patterns("__pycache__"))
    program, mark, painting = tmp_path / "paint.py", tmp_path / "mark", tmp_path / "painting.png"
    painting.write_bytes(picture_bytes(2))
    program.write_text(f"ADDRESS, MARK, PAINTING = {address!r}, {str(mark)!r}, {str(painting)!r}\n{IN_GIMP}")
    words = [gimp, "-i", "--batch-interpreter=python-fu-eval", "-b", f"exec(open({str(program)!r}).read())", "--quit"]
    own = {"GIMP3_DIRECTORY": str(tmp_path / "gimp"), "HOME": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env={**os.environ, **own}, check=False)
    assert mark.exists(), done.stdout + done.stderr
