"""The checks of `impasto doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass

import torch

from impasto import __version__
from impasto.errors import ImpastoError
from impasto.feedforward.limits import budget, free_memory
from impasto.methods import find_method, list_methods
from impasto.networks.layers import in_half
from impasto.ops.cpu_kernels import describe_kernels
from impasto.ops.machine import KERNELS, describe_threads, find_cores, name_bytes
from impasto.runs import runtime_choice
from impasto.weights.files import resolve

WINDOWS = "cv2 with windows"
EXTRAS = {
    "torchvision": ("torchvision", "networks such as VGG and ResNet, --flow-by raft", "backbones"),
    "onnxruntime": ("onnxruntime", "the runtime onnxruntime", "onnx"),
    "onnx": ("onnx", "impasto export, the runtimes", "onnx"),
    "onnxscript": ("onnxscript", "impasto export", "onnx"),
    "openvino": ("openvino", "the runtime openvino", "openvino"),
    "pillow_heif": ("pillow-heif", "HEIC photos", "heif"),
    "av": ("av", "impasto video", "video"),
    "cv2": ("opencv-python-headless", "impasto video --flow and --report", "flow"),
    WINDOWS: ("opencv-python", "impasto live", "live"),
    "huggingface_hub": ("huggingface_hub", "models on the Hugging Face Hub", "hub"),
    "fastapi": ("fastapi", "impasto serve", "serve"),
    "uvicorn": ("uvicorn", "impasto serve", "serve"),
    "python_multipart": ("python-multipart", "impasto serve", "serve"),
    "gradio": ("gradio", "a second page of impasto serve, at /gradio", "ui"),
    "ray": ("ray", "impasto batch --engine ray", "ray"),
    "fsspec": ("fsspec", "photos and results at URLs", "ray"),
    "accelerate": ("accelerate", "impasto train, adapt and transfer fit", "train"),
    "tensorboard": ("tensorboard", "impasto train --log", "train"),
    "peft": ("peft", "impasto transfer fit --mode lora", "transfer"),
    "torchinfo": ("torchinfo", "the table of impasto inspect", "inspect"),
}
"""By module: name of its package, what uses it, the extra that installs it."""


@dataclass(frozen=True)
class Finding:
    """One line: whether it is fine, its subject, what was found, how to get what is missing."""

    well: bool
    what: str
    found: str
    remedy: str = ""

    @property
    def mark(self) -> str:
        """Start of the line."""
        return "ok" if self.well else "--"


def examine() -> list[Finding]:
    """Return all findings on this machine."""
    return [*_software(), *_processor(), *_graphics(), *_memory(), *_weights(), *_extras(), *_runtimes()]


def _software() -> list[Finding]:
    text = f"impasto {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return [Finding(True, "software", f"{text}, {platform.system()} {platform.machine()}")]


def _processor() -> list[Finding]:
    cores, threads = find_cores().usable, torch.get_num_threads()
    few, many = threads < cores // 2, threads > cores
    remedy = f"set OMP_NUM_THREADS={cores}" if many else "unset OMP_NUM_THREADS" if few else ""
    text = f"{describe_threads(os.environ)}, threads used: {threads}, {torch.backends.cpu.get_cpu_capability()}"
    used = Finding(not (few or many), "processor", text, remedy)
    half = in_half(torch.device("cpu"), "auto")
    text = "used by --precision auto" if half else "not in this processor; fp32 is used"
    plain = "" if KERNELS.special else "unset IMPASTO_KERNELS"
    return [used, Finding(KERNELS.special, "kernels", describe_kernels(), plain), Finding(half, "bfloat16", text)]


def _graphics() -> list[Finding]:
    if torch.cuda.is_available():
        name, free = torch.cuda.get_device_name(0), free_memory(torch.device("cuda"))
        return [Finding(True, "GPU", f"{name}, {name_bytes(free)} free; used by --device auto")]
    if torch.backends.mps.is_available():
        return [Finding(True, "GPU", "Apple's, by mps; used by --device auto")]
    reason = "torch was built without CUDA" if torch.version.cuda is None else "torch finds none"
    remedy = "with an NVIDIA GPU: install its driver and a CUDA build of torch (pytorch.org/get-started)"
    return [Finding(False, "GPU", f"{reason}; the CPU is used", remedy)]


def _memory() -> list[Finding]:
    cpu = torch.device("cpu")
    free, room = free_memory(cpu), budget(cpu)
    most = name_bytes(room.work + room.keep)
    text = f"{name_bytes(free)} free; features take up to {most}, then photos are tiled"
    small = free < 1_500_000_000
    return [Finding(not small, "memory", text, "close other programs, or use a smaller --size" if small else "")]


def _weights() -> list[Finding]:
    found = []
    for name in list_methods():
        try:
            if find_method(name).one_pass:
                resolve(name)
            found.append(Finding(True, f"method {name}", "ready"))
        except ImpastoError as error:
            found.append(Finding(False, f"method {name}", "no weights", str(error)))
    return found


def _extras() -> list[Finding]:
    found = []
    for module, (package, purpose, extra) in EXTRAS.items():
        version = _version(module, package)
        text = f"missing, for {purpose}" if version is None else f"{version}, for {purpose}"
        remedy = f"pip install 'impasto[{extra}]'" if version is None else ""
        found.append(Finding(version is not None, package, text, remedy))
    return found


def _version(module: str, package: str) -> str | None:
    """Return the version of a library from any package; None if it is not installed."""
    if module == WINDOWS:
        return _windows()
    if importlib.util.find_spec(module) is None:
        return None
    names = [package, *importlib.metadata.packages_distributions().get(module, [])]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "there"


def _windows() -> str | None:
    """Return the version of OpenCV and its toolkit; None if it has none."""
    try:
        import cv2
    except ImportError:
        return None
    return f"{cv2.__version__} with {cv2.currentUIFramework()}" if cv2.currentUIFramework() else None


def _runtimes() -> list[Finding]:
    """Return the times of the runtimes with a slim encoder and decoder, and store them for ``--runtime auto``."""
    try:
        seconds = runtime_choice.measure()
    except ImpastoError as error:
        return [Finding(False, "runtimes", "not measured", str(error))]
    runtime_choice.store(seconds)
    best, least = runtime_choice.quickest(seconds), min(seconds.values())
    times = ", ".join(f"{name} {1000 * taken:.0f} ms ({taken / least:.1f})" for name, taken in seconds.items())
    advice = "" if best == "torch" else f"on this CPU --runtime {best} is the quickest; --runtime auto takes it"
    size = f"{runtime_choice.PROBE}x{runtime_choice.PROBE}"
    return [Finding(True, "runtimes", f"at {size}, in ratio to the quickest: {times}", advice)]
