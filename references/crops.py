"""Crops of photographs at their own scale: square windows at random places, one for each key.

A window is read when it is needed, from memory or from a packed file. It is not resized, but for
training images that are to be seen from further away too.
"""

from collections.abc import Sequence
from typing import Protocol, overload

import cv2
import numpy as np
import torch

from utils.rng import CounterRNG, fold_in

# A window is ordinary if its luma changes by so many grey levels from a pixel to its neighbours
# (right and below, in sum), and its channels differ by so many: no flat sky and no white wall.
MIN_TEXTURE = 4
MIN_CHROMA = 4
_MARGIN_STREAM = 0xC2  # folded into a crop's key, for where it lies in its surroundings
_SCALE_STREAM = 0xC3  # likewise, for its scale
TRIES = 16  # windows that are looked at until one is ordinary


class Photographs(Protocol):
    """Photographs of any sizes, of which windows are read."""

    sizes: torch.Tensor  # (N, 2) int64: height and width

    def window(self, i: int, top: int, left: int, side: int) -> np.ndarray:
        """Return the (side, side, 3) uint8 window of photograph i, as far as that reaches."""


class PhotographsInMemory:
    """Photographs (H, W, 3) uint8 as arrays."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = arrays
        self.sizes = torch.tensor([array.shape[:2] for array in arrays]).view(-1, 2)

    def window(self, i: int, top: int, left: int, side: int) -> np.ndarray:
        """Return the (side, side, 3) uint8 window of photograph i, as far as that reaches."""
        return self._arrays[i][top : top + side, left : left + side]


class Crops:
    """Crops (N, S, S, 3) uint8 of photographs, indexed like a tensor.

    An index reads each crop's fixed window, which depends on its key alone. `draw` reads other
    windows of the same photographs. A window is the first ordinary one of TRIES random places, or
    else the one with most texture.
    """

    def __init__(self, photographs: Photographs, rows: torch.Tensor, keys: torch.Tensor, side: int):
        self.photographs = photographs
        self.rows = rows  # (N,) int64: the photograph of each crop
        self.keys = keys  # (N,) int64: decides its fixed window
        self.shape = (len(rows), side, side, 3)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: slice) -> "Crops": ...
    @overload
    def __getitem__(self, index: torch.Tensor | int) -> torch.Tensor: ...
    def __getitem__(self, index: slice | torch.Tensor | int) -> "torch.Tensor | Crops":
        if isinstance(index, slice):
            return Crops(self.photographs, self.rows[index], self.keys[index], self.shape[1])
        if isinstance(index, int):
            return self.draw(torch.tensor([index]), self.keys[[index]])[0]
        return self.draw(index, self.keys[index])

    def draw(self, indices: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return (B, S, S, 3) crops of the photographs at these indices, at windows of the keys."""
        side = self.shape[1]
        crops = np.empty((len(indices), side, side, 3), np.uint8)
        sides = torch.full((len(indices),), side)
        for i, (row, corners) in enumerate(self._candidates(indices, keys, sides)):
            crops[i], _ = self._first_ordinary(row, corners, side)
        return torch.from_numpy(crops)

    def draw_with_margin(
        self, indices: torch.Tensor, keys: torch.Tensor, margin: int, smallest_scale: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what lies around the crops that draw returns, and where they are in it.

        That is (B, S + margin, S + margin, 3) uint8, and (B, 2) int64: top and left, from 0 to the
        margin. Every second crop lies at a multiple of the margin, the others anywhere, but for
        those at a photograph's edge. A photograph that is too small is mirrored at its edges.
        With a smallest scale below 1, windows are larger, and are shrunk by a factor from it to 1.
        """
        side = self.shape[1] + margin
        sides = self._draw_sides(indices, keys, smallest_scale)
        rng = CounterRNG(fold_in(keys, _MARGIN_STREAM))
        anywhere = (rng.uniform(shape=(2,)) * (margin + 1)).long().clamp(max=margin)
        at_multiples = margin * (rng.bits(2) & 1)
        wanted = torch.where(rng.bits(1) < 0, anywhere, at_multiples).tolist()
        surroundings = np.empty((len(indices), side, side, 3), np.uint8)
        places = []
        candidates = self._candidates(indices, keys, sides)
        for i, ((row, corners), own_side) in enumerate(zip(candidates, sides.tolist())):
            _, corner = self._first_ordinary(row, corners, own_side)
            factor = own_side / self.shape[1]  # pixels of the photograph to one of the crop
            wide = own_side + round(factor * margin)
            starts = []
            for first, place, length in zip(corner, wanted[i], self.photographs.sizes[row]):
                wanted_start = max(0, first - round(factor * place))
                starts.append(min(wanted_start, max(0, int(length) - wide)))
            top, left = starts
            window = self.photographs.window(row, top, left, wide)
            if window.shape != (wide, wide, 3):
                missing = [(0, wide - length) for length in window.shape[:2]]
                window = np.pad(window, (*missing, (0, 0)), mode="symmetric")
            if wide != side:
                window = cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA)
            surroundings[i] = window
            inside = [round((first - start) / factor) for first, start in zip(corner, starts)]
            places.append([min(place, margin) for place in inside])
        return torch.from_numpy(surroundings), torch.tensor(places).view(-1, 2)

    def _draw_sides(self, indices, keys, smallest_scale):
        """Return (B,) int64: the side of each window in its photograph, in pixels."""
        side = self.shape[1]
        shares = CounterRNG(fold_in(keys, _SCALE_STREAM)).uniform()[:, 0]
        scales = smallest_scale + (1 - smallest_scale) * shares
        largest = self.photographs.sizes[self.rows[indices]].min(1).values
        return torch.minimum((side / scales).round().long(), largest).clamp(min=side)

    def _candidates(self, indices, keys, sides):
        """Yield each crop's photograph, and the corners of the windows that it may be."""
        rows = self.rows[indices]
        room = self.photographs.sizes[rows] - sides[:, None]  # (B, 2): places to the last corner
        places = CounterRNG(keys).uniform(shape=(TRIES, 2))
        corners = (places * (room[:, None] + 1)).long()  # (B, TRIES, 2)
        corners = torch.minimum(corners, room[:, None])
        yield from zip(rows.tolist(), corners.tolist())

    def _first_ordinary(self, row, corners, side):
        """Return the first ordinary window at these corners, or the one with most texture.

        Also returns its corner.
        """
        best = None
        most_texture = -1.0
        for top, left in corners:
            window = self.photographs.window(row, top, left, side)
            texture, chroma = describe_window(window)
            if texture >= MIN_TEXTURE and chroma >= MIN_CHROMA:
                return window, (top, left)
            if texture > most_texture:
                best = window, (top, left)
                most_texture = texture
        return best


def describe_window(window: np.ndarray) -> tuple[float, float]:
    """Return the texture and the chroma of a window (S, S, 3) uint8, in grey levels."""
    window = np.ascontiguousarray(window)  # OpenCV splits it in half the time then
    luma = cv2.cvtColor(window, cv2.COLOR_RGB2GRAY)
    texture = _mean(cv2.absdiff(luma[1:], luma[:-1])) + _mean(
        cv2.absdiff(luma[:, 1:], luma[:, :-1])
    )
    red, green, blue = cv2.split(window)
    largest = cv2.max(cv2.max(red, green), blue)
    smallest = cv2.min(cv2.min(red, green), blue)
    return texture, _mean(cv2.subtract(largest, smallest))


def _mean(plane):
    return cv2.mean(plane)[0]


def fixed_keys(digests: Sequence[str], crops: int) -> torch.Tensor:
    """Return (N, crops) int64 keys of each photograph's fixed windows, from its digest alone."""
    words = torch.tensor([int(digest, 16) - 2**63 for digest in digests], dtype=torch.int64)
    return fold_in(words[:, None], torch.arange(crops))
