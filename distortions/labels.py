"""Labels: what each image of an epoch is."""

from dataclasses import dataclass
from functools import cached_property

import torch

from distortions.registry import DISTORTIONS, MAX_LEVEL, MIN_LEVEL
from utils.rng import FIXED, CounterRNG, fold_in

CUTMIX_WIDTH = (0.25, 0.75)  # of the image's width: the range of the part that a neighbour replaces
_LABEL_STREAM = 0x1AB  # folded into an image's key for the draws of its labels
_REDEAL_STREAM = 0x1AC  # likewise, for types in place of those that have no effect


@dataclass(frozen=True)
class Labels:
    """What is true of each of N images of an epoch, in up to S distortion steps, one after another.

    −1 stands for no step. With one step at most (S = 1), the main step is the only one.
    """

    reference: torch.Tensor  # (N,) int64 index into the references
    variant: torch.Tensor  # (N,) int64; 0 is the pristine image
    type: torch.Tensor  # (N, S) int64 index of a type, or −1
    level: torch.Tensor  # (N, S) float32 in [0, 1]; 0 where there is no step
    direction: torch.Tensor  # (N, S) int64: −1, +1, or 0 where a type has no direction
    main_step: torch.Tensor  # (N,) int64: the step that costs most quality; it names the image
    quality: torch.Tensor  # (N,) float32 in 0–100, higher is better
    key: torch.Tensor  # (N,) int64 of the distortions' random numbers
    orientation: torch.Tensor  # (N,) int64, 0–7: how the reference is flipped; 0: not at all
    neighbour: torch.Tensor  # (N,) int64: the reference whose left part replaces this one's
    cutmix_width: torch.Tensor  # (N,) float32: width of that part, of the image's; 0: none
    type_count: int

    @cached_property
    def main_type(self) -> torch.Tensor:
        """(N,) int64 type of the main step; the number of types stands for pristine."""
        main_type = self._of_main_step(self.type)
        return torch.where(main_type < 0, self.type_count, main_type)

    @cached_property
    def main_level(self) -> torch.Tensor:
        """(N,) float32 level of the main step."""
        return self._of_main_step(self.level)

    @cached_property
    def main_direction(self) -> torch.Tensor:
        """(N,) int64 direction of the main step."""
        return self._of_main_step(self.direction)

    @cached_property
    def only_distortion(self) -> torch.Tensor:
        """(N,) int64, equal for one type in one direction; −1 unless there is a single step."""
        number = 3 * self.main_type + self.main_direction + 1
        return torch.where((self.type >= 0).sum(1) == 1, number, -1)

    def _of_main_step(self, values):
        return values.gather(1, self.main_step[:, None])[:, 0]


def draw_labels(
    key: tuple[int, int],
    epoch: int,
    *,
    reference_count: int,
    types: tuple[str, ...],
    variants: int,
    steps: int,
    flip: bool,
    cutmix: bool,
    effective: torch.Tensor | None = None,
) -> Labels:
    """Draw the labels of an epoch: each reference once pristine and `variants` times distorted.

    key: seed and split. steps: how many distortions an image has at most. With flip each image
    starts from its reference in one of eight orientations; with cutmix every second one has a
    part of another reference in place of its own. effective: (R, T, 2) bool, whether each type in
    direction −1 and +1 changes a reference; None stands for all. Others are not dealt.
    """
    reference = torch.arange(reference_count).repeat_interleave(variants + 1)
    variant = torch.arange(variants + 1).repeat(reference_count)
    image_key = fold_in(*key, epoch, reference, variant)
    # The order of these draws is part of every image's identity: do not change it.
    rng = CounterRNG(fold_in(image_key, _LABEL_STREAM))
    first = _deal_types(key, epoch, reference_count, len(types), variants)
    type_ = _draw_further_steps(rng, first, variant, len(types), steps)
    level = rng.uniform(MIN_LEVEL, MAX_LEVEL, shape=(steps,))
    sign = torch.where(rng.bits(steps) < 0, -1, 1)
    orientation = rng.bits(1)[:, 0] & 7
    neighbour = (rng.uniform()[:, 0] * reference_count).long().clamp(max=reference_count - 1)
    width = rng.uniform(*CUTMIX_WIDTH)[:, 0]
    has_neighbour = rng.bits(1)[:, 0] < 0
    if effective is not None:
        chances = CounterRNG(fold_in(image_key, _REDEAL_STREAM)).uniform(shape=(len(types),))
        type_ = _redeal(type_, effective, chances)
        sign = _turn_to_effect(sign, type_, effective[reference])

    level = torch.where(type_ >= 0, level, torch.zeros(()))
    quality_of_steps = _quality_of_steps(type_, level, types)
    return Labels(
        reference=reference,
        variant=variant,
        type=type_,
        level=level,
        direction=torch.where(_has_directions(types)[type_], sign, 0),
        main_step=quality_of_steps.argmin(1),
        quality=100 * (quality_of_steps / 100).prod(1),
        key=image_key,
        orientation=orientation if flip else torch.zeros_like(orientation),
        neighbour=neighbour,
        cutmix_width=width * has_neighbour if cutmix else torch.zeros_like(width),
        type_count=len(types),
    )


def _quality_of_steps(type_, level, types):
    """Return (N, S): the quality that each step alone would leave, 100 for none."""
    worst = torch.full((len(types) + 1,), 100.0)  # the last one is for type −1
    for i, name in enumerate(types):
        worst[i] = DISTORTIONS[name].worst_quality
    return 100 - (100 - worst[type_]) * level


def _has_directions(types):
    """Return (T + 1,) bool: whether a type has two directions; the last one is for type −1."""
    has_directions = torch.zeros(len(types) + 1, dtype=torch.bool)
    for i, name in enumerate(types):
        has_directions[i] = bool(DISTORTIONS[name].directions)
    return has_directions


def _deal_types(key, epoch, reference_count, type_count, variants):
    """Deal types from one shuffled deck for T references: (R × (V + 1), 1), −1 for pristine.

    So an epoch holds each type equally often (±1), and a reference's types differ while there are
    enough.
    """
    decks = -(-reference_count // type_count)
    deck_number = torch.arange(decks)[:, None]
    order = fold_in(*key, epoch, FIXED, deck_number, torch.arange(type_count)).argsort(1)
    slot = torch.arange(type_count * variants) % type_count
    dealt = order[:, slot].reshape(decks * type_count, variants)
    types = torch.full((reference_count, variants + 1), -1)
    types[:, 1:] = dealt[:reference_count]
    return types.view(-1, 1)


def _draw_further_steps(rng, first, variant, type_count, steps):
    """Return (N, S) types: the first step, and a random number of others that all differ."""
    if steps == 1:
        return first
    chances = rng.uniform(shape=(type_count,))  # the others come in the order of a random number
    chances.scatter_(1, first.clamp(min=0), 2.0)
    others = chances.argsort(1)[:, : steps - 1]
    extra = (rng.uniform() * steps).floor()  # 0 … steps − 1 further steps
    is_taken = (torch.arange(steps - 1) < extra) & (variant > 0)[:, None]
    return torch.cat([first, torch.where(is_taken, others, -1)], dim=1)


def _redeal(type_, effective, chances):
    """Replace each image's first type where it has no effect, and drop such further types.

    type_: (N, S). chances: (N, T) random numbers that choose the new types. A reference's types
    differ while there are enough that have an effect; where none has, the image stays pristine.
    """
    has_effect = effective.any(-1)  # (R, T)
    affected = (~has_effect.all(1)).nonzero()[:, 0]
    type_count = has_effect.shape[1]
    by_reference = type_.view(len(effective), -1, type_.shape[1]).clone()  # (R, V + 1, S)
    types = by_reference[affected]
    chances = chances.view(len(effective), -1, type_count)[affected]
    has_effect = has_effect[affected]

    is_known = types >= 0
    is_kept = is_known & has_effect[:, None].expand(*types.shape[:2], -1).gather(
        2, types.clamp(min=0)
    )
    types = torch.where(is_kept, types, -1)
    is_missing = is_known[..., 0] & ~is_kept[..., 0]  # (A, V + 1)
    for variant in range(1, types.shape[1]):
        rows = is_missing[:, variant].nonzero()[:, 0]
        # Types that the reference's images have already come after the others.
        used = torch.zeros(len(types), type_count + 1).scatter_add_(
            1, types[..., 0] % (type_count + 1), torch.ones(types.shape[:2])
        )
        cost = chances[:, variant] + used[:, :type_count]
        cost[~has_effect] = torch.inf
        chosen = cost.argmin(1)[rows]
        can_be_dealt = has_effect[rows].any(1)
        types[rows, variant, 0] = torch.where(can_be_dealt, chosen, -1)
    # A further step of the type that an image has got now would distort it twice by the same.
    is_repeated = types[..., 1:] == types[..., :1]
    types[..., 1:][is_repeated] = -1
    by_reference[affected] = types
    return by_reference.view(type_.shape)


def _turn_to_effect(sign, type_, effective):
    """Turn each step's direction (N, S) where its type has an effect only in the other one.

    effective: (N, T, 2).
    """
    shape = (*type_.shape, 2)
    of_steps = effective.gather(1, type_.clamp(min=0)[..., None].expand(shape))  # (N, S, 2)
    has_effect = of_steps.gather(2, (sign > 0).long()[..., None])[..., 0]
    return torch.where(has_effect | (type_ < 0), sign, -sign)
