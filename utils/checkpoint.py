"""Files of tensors and plain JSON values, with a checksum over every byte."""

import io
import zlib
from pathlib import Path
from typing import Any

import torch

from utils.errors import Damaged, UserError
from utils.files import write_atomically

FORMAT = 4  # after torch's file, four bytes hold its CRC-32
CRC_BYTES = 4
ZIP_END = b"PK\x05\x06"  # begins the last 22 bytes of torch's file
# What every run of format 3 was trained by.
_FORMAT_3_RECIPE = {
    "flip": True,
    "cutmix": True,
    "ema_share": 0.04,
    "optimizer": "muon",
    "cosine_stem": True,
    "quality_loss": "huber",
    "cluster_loss": "balanced",
    "covariance": "full",
    "match_refits": True,
}
# The types that were local before a run's configuration said so.
_FORMAT_4_LOCAL_TYPES = ("kadid_color_block",)
# What every run was before there was a choice.
_FORMAT_4_RECIPE = {
    "stages": 4,
    "joined_stages": 1,
    "network": "plain",
    "rank_loss_weight": 0.0,
    "refinement": 0.0,
    "smallest_scale": 1.0,
}
_FORMAT_3_STATES = {  # the names of a run's states in format 3: those of today
    "online": "model",
    "averaged": "ema",
    "optimizer": "optimizer",
    "schedule": "scheduler",
}
_FORMAT_3_BUFFERS = {"unknown_below": "ood_threshold", "kept": "label_stability"}


def save_checkpoint(
    path: str | Path, state: dict[str, Any], previous: str | Path | None = None
) -> None:
    """Write a dict of tensors and plain values.

    What was at the path is kept as `previous`, where one is named.
    """

    def write(file):
        checked = _ChecksumFile(file)
        try:
            torch.save({"format": FORMAT, **state}, checked)
        except RuntimeError as problem:
            # torch raises it in place of a failing disk's error, and of Ctrl-C in a write.
            if isinstance(problem.__context__, KeyboardInterrupt):
                raise problem.__context__ from None
            raise checked.problem or problem from None
        finally:
            checked.is_over = True
        file.write(_crc_bytes(checked.crc))

    write_atomically(path, write, previous)


class _ChecksumFile:
    """A file whose CRC-32 is computed as it is written. `problem` is the OSError of a write.

    Once it is over, writes do nothing: torch's writer may outlive an interruption, and an exception
    in its last write would abort the process.
    """

    def __init__(self, file):
        self.file = file
        self.crc = 0
        self.problem: OSError | None = None
        self.is_over = False

    def write(self, data):
        if self.is_over:
            return len(data)
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self.file.write(data)
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self):
        if not self.is_over:
            self.file.flush()


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the dict that was saved, its tensors on the CPU. A file of format 3 is converted.

    Raises Damaged for a file that is damaged or foreign, UserError for one of another version.
    """
    data = Path(path).read_bytes()
    content = memoryview(data)  # its slices are no copies
    damaged = Damaged(
        f"{path} is not a checkpoint of this project, or is damaged; try the run's other one, or "
        "train it anew"
    )
    is_whole = content[-CRC_BYTES:] == _crc_bytes(zlib.crc32(content[:-CRC_BYTES]))
    has_no_checksum = content[-22:-18] == ZIP_END  # such as a file of format 2
    if not is_whole and not has_no_checksum:
        raise damaged
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as problem:  # a foreign file can fail in any way
        raise damaged from problem
    version = state.get("format") if isinstance(state, dict) else None
    if version not in (3, FORMAT):
        raise UserError(
            f"{path} has checkpoint format {version}, this code reads {FORMAT}; train the run anew"
        )
    if not is_whole:
        raise damaged
    if version == 3:
        return convert_format_3(state)
    if "recipe" in state.get("config", {}):
        state["config"] = convert_config(state["config"])
    return state


def convert_format_3(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of format 3 in the present format."""
    converted = {name: value for name, value in state.items() if name not in _FORMAT_3_STATES}
    converted["format"] = FORMAT
    converted["config"] = convert_config(state["config"])
    converted["mixture"] = {
        _FORMAT_3_BUFFERS.get(name, name): value for name, value in state["mixture"].items()
    }
    if "online" in state:
        converted["training"] = {
            new_name: state[old_name] for old_name, new_name in _FORMAT_3_STATES.items()
        }
    return converted


def convert_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with what an earlier version did not say.

    A recipe's part that is not there is what it was before it could be chosen.
    """
    recipe = {**_FORMAT_3_RECIPE, **_FORMAT_4_RECIPE, **config.get("recipe", {})}
    earlier: dict[str, Any] = {
        "preset": None,
        "crop": "whole",
        "working_size": 512,
        "crops_per_reference": 1,
    }
    types = config.get("types", ())
    earlier["local_types"] = [name for name in types if name in _FORMAT_4_LOCAL_TYPES]
    return {"git_commit": None, **earlier, **config, "recipe": recipe}


def load_states(parts: dict[str, Any], saved: dict[str, Any], path: str | Path) -> None:
    """Give each of the parts, {name: object with load_state_dict}, its state in what was loaded.

    Raises UserError where they do not fit, as after a change of the network.
    """
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (KeyError, RuntimeError, ValueError) as problem:
            raise UserError(
                f"{path}: its {name} does not fit this code's; go on with the code that wrote it, "
                "or train the run anew"
            ) from problem


def _crc_bytes(crc):
    return crc.to_bytes(CRC_BYTES, "big")
