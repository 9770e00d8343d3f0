"""The sizes of the Mix Transformer encoders, MiT-B0 to B5. No MindSpore here.

Table 6 of https://arxiv.org/abs/2105.15203; the four numbers of a row belong to the four stages.
"""

from __future__ import annotations

from typing import NamedTuple


class Variant(NamedTuple):
    """Channels and blocks of the stages, and the width that the paper gives the decode head."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    paper_decoder_dim: int


VARIANTS = {
    "mit_b0": Variant((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "mit_b1": Variant((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "mit_b2": Variant((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "mit_b3": Variant((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "mit_b4": Variant((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "mit_b5": Variant((64, 128, 320, 512), (3, 6, 40, 3), 768),
}
HEADS = (1, 2, 5, 8)  # attention heads
REDUCTIONS = (8, 4, 2, 1)  # keys and values are taken from a map that is this many times smaller in height and width
MLP_RATIO = 4  # hidden channels of the feed-forward part, as a multiple of the stage's
DROP_PATH = 0.1  # rate of the last block; the rates of the blocks before rise evenly from 0
HEAD_DROPOUT = 0.1  # share of the decode head's channels that training leaves out
SMALLEST_SIDE = 32  # pixels; a smaller input leaves nothing to attend to in the first stage


def decoder_width(backbone: str, decoder_dim: int) -> int:
    """Channels of the decode head: `decoder_dim`, or for 0 the channels of the encoder's last stage."""
    return decoder_dim or VARIANTS[backbone].channels[-1]


def drop_path_rates(backbone: str, last: float = DROP_PATH) -> list[float]:
    """One rate per block, in order of execution."""
    blocks = sum(VARIANTS[backbone].depths)
    return [last * index / max(blocks - 1, 1) for index in range(blocks)]
