"""Checks of networks, layers, classes, devices and files by name, before torch is loaded.

They only refuse what the work itself would refuse, and leave the rest to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from impasto.commands import first_look
from impasto.commands.arguments import (
    PACKAGE,
    check_target,
    constant,
    has_function,
    prove_folder,
    read_class,
    take_flags,
    takes_photos,
    training_of,
)
from impasto.commands.layer_names import layers_of
from impasto.errors import (
    ImageError,
    ImpastoError,
    OptionError,
    WeightsError,
    nearest,
    no_channel,
    no_classifier,
    no_pictures,
    no_unit,
    other_maker,
)
from impasto.files import PICTURE_SUFFIXES, real_path

TRAININGS = {"backbone": "impasto.training.backbone_distillation", "texture": "impasto.textures.generator_training"}
"""Trainings besides those of methods, and the modules with their TRAINING."""

DEVICES = ("auto", "cpu", "cuda", "mps")
POOLINGS = ("auto", "max", "average")
CARD = ".safetensors"
TEACHER = "vgg19"


def check_words(
    ctx: typer.Context,
    words: list[str],
    module: str,
    name: str,
    owner: str,
    changes: Mapping[str, Any] | None = None,
    listing: str = "",
) -> tuple[list[str], dict[str, Any]]:
    """Return the plain words of a command line, and the values of the options `name` of a module, checked.

    changes: those of a preset; listing: the command that lists the options. Raises OptionError.
    """
    options = read_class(module, name)
    if options is None:
        return first_look.before_flags(words), {}
    plain, values = take_flags(ctx, words, options, owner, listing or f"impasto {owner} --list-options")
    return plain, vars(options.parse({**(changes or {}), **values}, owner))


def training_names() -> list[str]:
    """Return the names of all trainings: those in TRAININGS, and of methods."""
    return [*TRAININGS, *filter(_may_be_trained, first_look.method_names())]


def _may_be_trained(method: str) -> bool:
    """Return whether a method has a training, as its source says; true for a method whose source lies elsewhere."""
    source = PACKAGE / "methods" / f"{method}.py"
    return not source.is_file() or b"\nTRAINING = " in source.read_bytes()


def check_training(ctx: typer.Context, words: list[str], *, listing: bool = False) -> str:
    """Return the training that `words` name, after a check of its options; raises ImpastoError.

    listing: only the name counts.
    """
    known = training_names()
    name = next((word for word in words if word in known), None)
    if name is None:
        first = next((word for word in words if not word.startswith("-")), "")
        wrong = f"there is no training {first!r}{nearest(first, known)}; " if first else ""
        if first in first_look.method_names():
            wrong = f"{first} has no training; "
        raise ImpastoError(f"{wrong}say what to train, one of: {', '.join(known)}, such as: impasto train {known[0]}")
    options = training_of(TRAININGS.get(name, f"impasto.methods.{name}"))
    if options is None:
        return name
    owner = f"train {name}"
    plain, values = take_flags(ctx, words, options, owner, f"impasto {owner} --list-options")
    if plain != [name]:
        extra = next((word for word in plain if word != name), name)
        raise ImpastoError(f"{extra!r} is too much: put --content or --style before each folder")
    if not listing:
        chosen = vars(options.parse(values, owner))
        _check_teacher(name, chosen)
        check_weights(Path(chosen["from_"]) if chosen.get("from_") else None)
    return name


def _check_teacher(training: str, values: Mapping[str, Any]) -> None:
    """Raise ImpastoError if the network that judges a training is not there."""
    teacher = str(values.get("teacher") or "")
    if training == "backbone":
        if teacher != TEACHER and not Path(teacher).is_dir():
            raise OptionError(f"--teacher is a folder or {TEACHER}; there is no folder {teacher}")
        return
    named = teacher not in ("", constant("impasto.networks.backbone", "SLIM"))
    if named and not any(Path(teacher).glob(f"*{CARD}")):
        raise WeightsError(f"{teacher} holds no safetensors file of a normalised VGG-19; --teacher names a folder")


def check_run_folder(folder: Path | None, *, resume: bool, force: bool) -> Path:
    """Return `folder` if a training can start or continue there; raises ImpastoError otherwise."""
    if folder is None:
        raise ImpastoError("name a folder for the weights: -o RUNDIR")
    there = (folder / constant("impasto.training.loop", "CHECKPOINT")).is_file()
    if resume and not there:
        raise ImpastoError(f"{folder} holds no checkpoint to resume from")
    if there and not resume and not force:
        raise ImpastoError(f"{folder} holds a training already: --resume goes on with it, --force starts over")
    near = next(path for path in (folder, *real_path(folder).parents) if path.exists())
    if not near.is_dir():
        raise ImpastoError(f"{near} is no folder; name another with -o RUNDIR")
    prove_folder(near)
    return folder


def check_pictures_of(name: str, contents: list[Path], styles: list[Path]) -> None:
    """Raise ImpastoError if pictures of a training are missing, or not what it learns from."""
    if not takes_photos(TRAININGS.get(name, f"impasto.methods.{name}")):
        if contents or not styles:
            raise ImpastoError("name pictures to learn from, and no photographs: --style PICTURE --style PICTURE ...")
    elif not contents or not styles:
        raise ImpastoError("name folders of pictures: --content PHOTOS --style ARTWORKS")
    check_places([*contents, *styles], "--content and --style")
    for places in (contents, styles):
        if places and not any(map(_may_hold_pictures, places)):
            raise ImpastoError(no_pictures(places))


def _may_hold_pictures(place: Path) -> bool:
    return not place.is_dir() or any(path.suffix.lower() in PICTURE_SUFFIXES for path in place.rglob("*"))


def check_places(places: Iterable[Path], flags: str) -> None:
    """Raise ImpastoError if a file or folder is missing; flags: where they were named."""
    for place in places:
        if not place.exists():
            near = first_look.near_files(place)
            raise ImpastoError(f"{place} is not there{near}; each {flags} names a folder or a picture")


def check_picture(word: str) -> None:
    """Raise ImpastoError if `word` names no picture; a built-in style is none."""
    path = Path(word)
    if word in first_look.style_names() and not path.exists():
        raise ImageError(f"{word} is built in as a style card, which holds no picture; name a picture")
    first_look.check_content(word, video=False)


def check_device(name: str) -> str:
    """Return the name of a device; raises OptionError for what is none. Whether it is here is not known yet."""
    if name not in DEVICES:
        raise OptionError(f"--device is one of {', '.join(DEVICES)}, not {name!r}{nearest(name, DEVICES)}")
    return name


def check_runtime(name: str) -> str:
    """Return the name of a runtime; raises OptionError for what is none."""
    known = ("auto", *constant("impasto.feedforward.runtimes", "RUNTIMES"))
    if name not in known:
        raise OptionError(f"--runtime is one of {', '.join(known)}, not {name!r}{nearest(name, known)}")
    return name


def check_pooling(name: str) -> str:
    """Return the name of a pooling; raises OptionError for what is none."""
    if name not in POOLINGS:
        raise OptionError(f"--pooling is one of {', '.join(POOLINGS)}, not {name!r}{nearest(name, POOLINGS)}")
    return name


def check_backbone(name: str, layers: Iterable[str] = ()) -> None:
    """Raise OptionError if there is no such backbone, or if it has no such layer."""
    known = constant("impasto.networks.backbones", "BACKBONES")
    if name not in known:
        raise OptionError(f"there is no backbone {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    own = layers_of(name)
    for layer in layers:
        if layer not in own:
            near = nearest(layer, own)
            raise OptionError(f"{name} has no layer {layer!r}{near}; it has: {', '.join(own)}")


def check_channel(
    classifier: str | None, layer: str, channel: int, unit: tuple[int, int] | None, side: int | None
) -> None:
    """Raise OptionError if a layer of vgg19-slim, or of the embedded classifier, has no such channel or unit.

    unit: (row, column); side: of the picture, None: the default. Other classifiers are not looked at.
    """
    widths = constant("impasto.networks.backbone", "SLIM_WIDTHS")
    if classifier not in (None, constant("impasto.networks.classifiers", "CLASSIFIER")):
        return
    if layer == "logits":
        count, side = len(_embedded().get("classes", ())), None
    elif layer == "image":
        count = 3
    else:
        block = int(layer.lstrip("convrelup")[0])
        count = widths[block - 1]
        halvings = block if layer.startswith("pool") else block - 1
        side = (side or _embedded().get("size", 224)) // 2**halvings
    if count and channel >= count:
        raise OptionError(no_channel(channel, count))
    if unit is not None and side is not None and layer != "image" and max(unit) >= side:
        raise OptionError(no_unit(unit, side, side))


def _embedded() -> dict[str, Any]:
    """Return the header of the embedded classifier."""
    name = constant("impasto.networks.classifiers", "CLASSIFIER")
    return first_look.header_of(PACKAGE / "weights" / f"{name}{CARD}")


def check_classifier(name: str | None, wanted: str | None = None) -> None:
    """Raise ImpastoError if there is no such classifier, or if it has no class called `wanted`."""
    known = constant("impasto.networks.classifiers", "CLASSIFIERS")
    name = name or known[0]
    path = PACKAGE / "weights" / f"{name}.safetensors" if name == known[0] else Path(name)
    if path.suffix.lower() == CARD:
        check_weights(path)
        header = first_look.header_of(path)
        if header.get("kind") != constant("impasto.networks.classifiers", "KIND"):
            raise WeightsError(no_classifier(path))
        classes = header.get("classes")
        if wanted is not None and isinstance(classes, list):
            _check_class(name, wanted, [str(one) for one in classes])
    elif name not in known:
        near = nearest(name, known)
        raise OptionError(f"there is no classifier {name!r}{near}; there are: {', '.join(known)}, or name a file")


def _check_class(owner: str, name: str, classes: list[str]) -> None:
    if name.lower() in [known.lower() for known in classes] or (name.isdecimal() and int(name) < len(classes)):
        return
    near = nearest(name, classes, 3)
    hint = "" if near else f"; there are: {', '.join(classes[:12])}{', ...' * (len(classes) > 12)}"
    raise OptionError(f"{owner} has no class {name!r}{near}, by name or number 0 to {len(classes) - 1}{hint}")


def check_weights(path: Path | None) -> None:
    """Raise WeightsError if a weights file is named that does not exist."""
    if path is not None and not path.is_file():
        what = "is a folder" if path.is_dir() else f"does not exist{first_look.near_files(path)}"
        raise WeightsError(f"{path} {what}; name a weights file")
    if path is not None and path.suffix.lower() == CARD:
        first_look.check_safetensors(path)


def check_trained(path: Path, method: str | None) -> None:
    """Raise WeightsError if a weights file was written by the training of another method."""
    maker = first_look.header_of(path).get("method", method)
    if method is not None and maker != method:
        raise WeightsError(other_maker(path, maker, method))


def check_textures(words: list[str], weights: Path | None) -> bool:
    """Return whether `words` are textures of a generator, not pictures that exist; raises ImpastoError."""
    if not words:
        raise ImpastoError("name a texture or a painting: impasto texture NAME; --list lists the textures")
    header = first_look.header_of(weights or PACKAGE / "weights" / "texture.safetensors")
    known = header.get("textures")
    files = [word for word in words if bool(Path(word).suffix) or Path(word).exists()]
    for word in words:
        if word in files or word in first_look.style_names():
            check_picture(word)
        elif isinstance(known, list) and word not in known:
            near, there = nearest(word, map(str, known)), ", ".join(map(str, known))
            raise ImpastoError(f"{word} is neither a picture here nor a texture{near}; there are: {there}")
    names = [word for word in words if word not in files]
    if files and names:
        raise ImpastoError(f"{names[0]} is a texture and {files[0]} a picture: name either textures or pictures")
    return not files


def check_target_name(output: Path | None, endings: tuple[str, ...] = (), *, force: bool = True) -> None:
    """Raise ImpastoError if a result can't have this name or be written there.

    endings: possible ones; default: those of pictures. force: a file that exists may be overwritten.
    """
    if output is not None and str(output) != "-":
        check_target(output, force, endings or constant("impasto.images.files", "WRITABLE"))


def check_exportable(method: str | None) -> None:
    """Raise OptionError if one of impasto's methods can't be written as ONNX."""
    method = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    able = methods_with_function("forward_for_export")
    if method not in able and (PACKAGE / "methods" / f"{method}.py").is_file():
        raise OptionError(f"{method} can't be written as ONNX: export {', '.join(able[:-1])} or {able[-1]}")


def check_maker(method: str) -> None:
    """Raise ImpastoError if one of impasto's methods makes no networks."""
    able = methods_with_function("generate")
    if method not in able and (PACKAGE / "methods" / f"{method}.py").is_file():
        raise ImpastoError(f"{method} makes no networks: use -m {able[0]}, or keep a card by `impasto style extract`")


def methods_with_function(name: str) -> list[str]:
    """Return the methods whose class, or a base of it, defines this function, from their source."""
    return [method for method in first_look.method_names() if has_function(method, name)]


def check_batch_target(output: str, suffix: str, photos: Iterable[str]) -> None:
    """Raise ImpastoError if results of `impasto batch` can't go there, or can't be of this format."""
    if any(Path(word).is_dir() and real_path(Path(word)) == real_path(Path(output)) for word in photos):
        raise ImpastoError(f"{output} holds the photos; name another folder for the results")
    if first_look.URL not in output and Path(output).exists():
        if not Path(output).is_dir():
            raise ImpastoError(f"{output} is a file; name a folder for the results")
        prove_folder(Path(output))
    endings = [known[1:] for known in constant("impasto.images.files", "WRITABLE")]
    name = suffix[1:].lower()
    if name not in endings:
        raise OptionError(f"--format is one of {', '.join(endings)}, not {suffix[1:]!r}{nearest(name, endings)}")


def check_batch(words: list[str], named: Iterable[str]) -> None:
    """Raise ImpastoError if photos or paintings of `impasto batch` are missing, as far as they lie here."""
    for number, word in enumerate([*(words or [""]), *named]):
        path = Path(word)
        if not word or path.exists() or first_look.URL in word or any(sign in word for sign in "*?["):
            continue
        os.getcwd()  # the folder may be gone
        if number and not path.suffix and path == Path(path.name):
            first_look.check_painting(word, None)
            continue
        wanted = "a painting, a folder or a style" if number else "a photo or a folder of photos"
        raise ImpastoError(f"{word} does not exist{first_look.near_files(path)}; name {wanted}")
