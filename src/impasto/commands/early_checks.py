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
    constant,
    flag_of,
    one_of,
    options_of,
    presets_of,
    prove_folder,
    read_class,
    take_flags,
    takes_photos,
    training_of,
)
from impasto.errors import ImageError, ImpastoError, OptionError, WeightsError, nearest
from impasto.files import real_path

TRAININGS = {"backbone": "impasto.training.backbone_distillation", "texture": "impasto.textures.generator_training"}
"""Trainings besides those of methods, and the modules with their TRAINING."""

DEVICES = ("auto", "cpu", "cuda", "mps")
POOLINGS = ("auto", "max", "average")
CARD = ".safetensors"
EXPORTABLE = ("swift", "wct", "adain", "sanet", "metanet")


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
        options.parse(values, owner)
    return name


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


def check_preset(method: str | None, name: str | None) -> None:
    """Raise OptionError if the method has no such preset, as far as its source shows."""
    method = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    presets = presets_of(method)
    if presets is not None:
        choose_preset(presets, name, method)


def choose_preset(presets: Mapping[str, Mapping[str, Any]], name: str | None, owner: str) -> Mapping[str, Any]:
    """Return the preset called `name`, or the default one; raises OptionError."""
    if name is not None and name not in presets:
        raise OptionError(f"{owner} has no preset {name!r}{nearest(name, presets)}; it has: {', '.join(presets)}")
    return presets[name or "default"]


def check_backbone(name: str, layers: Iterable[str] = ()) -> None:
    """Raise OptionError if there is no such backbone, or if vgg19-slim has no such layer."""
    known = constant("impasto.networks.backbones", "BACKBONES")
    if name not in known:
        raise OptionError(f"there is no backbone {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    if name not in constant("impasto.networks.backbones", "TORCHVISION"):
        own = slim_layers()
        for layer in layers:
            if layer not in own:
                near = nearest(layer, own)
                raise OptionError(f"{name} has no layer {layer!r}{near}; it has: {', '.join(own)}")


def slim_layers() -> list[str]:
    """Return the names of vgg19-slim's layers, shallow to deep."""
    blocks = constant("impasto.networks.backbone", "VGG19_BLOCKS")
    names = ["image"]
    for block, count in enumerate(blocks, start=1):
        names += [f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")]
        names += [f"pool{block}"] if block < len(blocks) else []
    return names


def check_classifier(name: str | None, wanted: str | None = None) -> None:
    """Raise ImpastoError if there is no such classifier, or if it has no class called `wanted`."""
    known = constant("impasto.networks.classifiers", "CLASSIFIERS")
    name = name or known[0]
    path = PACKAGE / "weights" / f"{name}.safetensors" if name == known[0] else Path(name)
    if path.suffix.lower() == CARD:
        check_weights(path)
        classes = first_look.header_of(path).get("classes")
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


def check_textures(words: list[str], weights: Path | None) -> None:
    """Raise ImpastoError unless `words` are pictures that exist, or textures of the generator."""
    if not words:
        raise ImpastoError("name a texture or a painting: impasto texture NAME; --list lists the textures")
    header = first_look.header_of(weights or PACKAGE / "weights" / "texture.safetensors")
    known = header.get("textures")
    for word in words:
        is_file = bool(Path(word).suffix) or Path(word).exists()
        if is_file or word in first_look.style_names():
            check_picture(word)
        elif isinstance(known, list) and word not in known:
            near, there = nearest(word, map(str, known)), ", ".join(map(str, known))
            raise ImpastoError(f"{word} is neither a picture here nor a texture{near}; there are: {there}")


def check_target_name(output: Path | None, endings: tuple[str, ...] = ()) -> None:
    """Raise ImpastoError if a result can't have this name, or if its folder does not exist.

    endings: possible ones; default: those of pictures.
    """
    if output is None or str(output) == "-":
        return
    endings = endings or constant("impasto.images.files", "WRITABLE")
    if output.suffix.lower() not in endings:
        raise ImpastoError(f"{output}: the name must end in {one_of(endings)}")
    if not output.parent.is_dir():
        raise ImpastoError(f"{output}: the folder {output.parent} does not exist; make it first")


def check_recipe(recipe: Path) -> None:
    """Raise ImpastoError if there is no such recipe."""
    if not recipe.is_file():
        raise ImpastoError(f"{recipe} can't be opened{first_look.near_files(recipe)}; name a picture or a JSON file")


def check_shares(text: str | None) -> None:
    """Raise OptionError unless the shares of styles are numbers."""
    for part in text.split(",") if text else []:
        try:
            float(part)
        except ValueError:
            raise OptionError(f"--style-weights takes numbers, such as 2,1, not {text!r}") from None


def check_axes(texts: Iterable[str], method: str | None, recipe: Path | None) -> None:
    """Raise OptionError if `impasto sweep` is to vary what the method does not have."""
    method = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    options = options_of(method)
    if recipe is not None or options is None:
        return
    texts = list(texts)
    if not texts:
        raise OptionError("say what to vary, one or two different options: --vary style-weight=1,10,100")
    common = constant("impasto.commands.sweep", "COMMON")
    known = [flag_of(name)[2:] for name in [*common, *options.model_fields]]
    for text in texts:
        flag, _, values = text.partition("=")
        name = flag.strip().removeprefix("--").replace("_", "-")
        if name not in known:
            raise OptionError(
                f"--vary: {method} has no option {name!r}{nearest(name, known)}; see `impasto methods {method}`"
            )
        _check_common(name.replace("-", "_"), common, values)
        field = next((field for field in options.model_fields if flag_of(field)[2:] == name), None)
        if field is not None and "tuple" not in str(options.model_fields[field].annotation):
            for value in values.split(","):
                options.parse({field: value.strip()}, f"--vary: {method}")


def _check_common(name: str, common: Iterable[str], values: str) -> None:
    """Raise OptionError for values that an option of all methods can't have, as far as their source shows."""
    recipe = read_class("impasto.runs.record", "Recipe") if name in common else None
    if recipe is None or name not in recipe.model_fields:
        return
    for value in filter(None, map(str.strip, values.split(","))):
        recipe.parse({name: value}, "--vary")


def check_exportable(method: str) -> None:
    """Raise OptionError if one of impasto's methods can't be written as ONNX."""
    if method not in EXPORTABLE and (PACKAGE / "methods" / f"{method}.py").is_file():
        raise OptionError(f"{method} can't be written as ONNX: export swift, wct, adain, sanet or metanet")


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
