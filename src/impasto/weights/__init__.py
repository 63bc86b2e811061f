"""Weights: from the package, the cache or a download with a checksum; safetensors only."""

from impasto.weights.files import Network, Weights, digest_numbers, load_weights, manifest, resolve, save_weights

__all__ = ["Network", "Weights", "digest_numbers", "load_weights", "manifest", "resolve", "save_weights"]
