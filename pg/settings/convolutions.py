"""Convolutions of an image as the settings write them: CHANNELSxSIZE or CHANNELSxSIZExSTRIDE."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pg.inputs import entries, shown

__all__ = ["Convolution", "checked_texts", "convolutions", "convolved"]

_TEXT = re.compile(r"[1-9]\d{0,3}x[1-9]\d{0,3}(x[1-9]\d{0,3})?")


class Convolution(NamedTuple):
    """A convolution without padding."""

    channels: int
    size: int
    stride: int = 1


DEFAULT = (Convolution(16, 3),)  # of MinAtar (Young & Tian, 1903.03176)


def checked_texts(conv: Any) -> tuple[str, ...]:
    """The strings of convolutions as a tuple. Raises ValueError for an invalid one."""
    texts = entries(conv)
    if texts is None:
        raise ValueError(f"conv must be a tuple, as in ('16x3', '32x3'); got {shown(conv)}")
    for text in texts:
        if not (isinstance(text, str) and _TEXT.fullmatch(text)):
            raise ValueError(
                "conv must be CHANNELSxSIZE or CHANNELSxSIZExSTRIDE, whole numbers from 1 to 9999, "
                f"as in 16x3 32x3; got {shown(text)}"
            )
    return tuple(texts)


def convolutions(conv: Sequence[str]) -> tuple[Convolution, ...]:
    """The convolutions that strings describe; the default without any."""
    if not conv:
        return DEFAULT
    return tuple(Convolution(*(int(size) for size in text.split("x"))) for text in conv)


def convolved(conv: Sequence[str], height: int, width: int) -> tuple[int, int, int]:
    """Height, width and channels after the convolutions of an image.

    Raises ValueError if one is larger than its input.
    """
    size: tuple[int, ...] = (height, width)
    channels = 0
    for each in convolutions(conv):
        if min(size) < each.size:
            raise ValueError(
                f"conv={' '.join(conv) or '16x3'} does not fit images of {height} × {width}: a "
                f"convolution of {each.size} × {each.size} receives {size[0]} × {size[1]}; take "
                "smaller or fewer ones, or network='mlp'"
            )
        size = tuple((length - each.size) // each.stride + 1 for length in size)
        channels = each.channels
    return size[0], size[1], channels
