"""Count what became of a source's files, for the line that says it."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from references.packed import PackedImages
from references.reading import unsupported_reason

MAX_KINDS = 10  # so many kinds of skipped files are told apart
GREY_CHROMA = 2  # grey levels: an image whose channels differ less on average is grey
GREY_SAMPLE = 1000  # so many images are looked at to tell the share of grey ones


@dataclass
class Tally:
    """What became of the files that were looked at."""

    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)  # by suffix and reason
    copies: int = 0
    excluded: int = 0
    seen: int = 0  # files that were looked at

    def skip(self, name: str, reason: str) -> None:
        """Count a file that cannot be used. Reasons that differ in numbers alone are one kind."""
        kind = (Path(name).suffix.lower(), reason)
        same = (known for known in self.skipped if _without_digits(known) == _without_digits(kind))
        self.skipped[next(same, kind)] += 1

    def describe_skipped(self, not_read: Mapping[str, int]) -> str:
        """Name the kinds of skipped files, by suffix and reason, the most frequent first.

        not_read: {suffix: how many files of other kinds than images there are}.
        """
        kinds: Counter[str] = Counter()
        for suffix, count in not_read.items():
            reason = unsupported_reason(suffix) or "no image"
            kinds[f"{suffix or 'without a suffix'} ({reason})"] = count
        for (suffix, reason), count in self.skipped.items():
            kinds[f"{suffix} ({reason})"] += count
        if self.copies:
            kinds["copies of others"] = self.copies
        frequent = kinds.most_common(MAX_KINDS)
        words = [f"{count} {kind}" for kind, count in frequent]
        others = kinds.total() - sum(count for _, count in frequent)
        if others:
            words.append(f"{others} others")
        return ", ".join(words)


def counted(count: int, noun: str) -> str:
    """Return '1 crop', '2 crops': a number and a noun whose plural ends in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _without_digits(kind):
    return tuple(re.sub(r"\d+", "", text) for text in kind)


def grey_share(images: torch.Tensor | PackedImages) -> str:
    """Return ' (2 % grey)' of images (N, S, S, 3) uint8, from up to GREY_SAMPLE of them."""
    count = len(images)
    if count == 0:
        return ""
    chosen = torch.arange(0, count, math.ceil(count / GREY_SAMPLE))
    grey = 0
    for i in chosen.tolist():
        image = images[i].numpy()
        chroma = image.max(-1).astype(int) - image.min(-1)
        grey += chroma.mean() < GREY_CHROMA
    return f" ({100 * grey / len(chosen):.0f} % grey)"
