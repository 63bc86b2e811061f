"""Quality of stylized pictures: losses, similarities, and the protocol that makes numbers comparable."""

from impasto.evaluation.lpips_fid import Extras
from impasto.evaluation.measure import evaluate, load_loss_network
from impasto.evaluation.metrics import content_loss, ssim, structure_distance, style_loss
from impasto.evaluation.pairs import Pair, find_pairs, pair_up, stylize_pairs
from impasto.evaluation.report import Evaluation, Row

__all__ = [
    "Evaluation",
    "Extras",
    "Pair",
    "Row",
    "content_loss",
    "evaluate",
    "find_pairs",
    "load_loss_network",
    "pair_up",
    "ssim",
    "structure_distance",
    "style_loss",
    "stylize_pairs",
]
