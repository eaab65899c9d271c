"""Files of tensors and plain JSON values, with a checksum over every byte."""

import io
import zlib
from pathlib import Path

import torch

from utils.errors import Damaged, UserError
from utils.files import write_atomically

FORMAT = 3  # from 3 on, four bytes after torch's file: its CRC-32
CRC_BYTES = 4
ZIP_END = b"PK\x05\x06"  # begins the last 22 bytes of torch's file


def save_checkpoint(path, state, previous=None):
    """state: a dict of tensors and plain values. What was at the path is kept as `previous`, where one is named."""

    def write(file):
        summed = _Summed(file)
        try:
            torch.save({"format": FORMAT, **state}, summed)
        except RuntimeError as problem:  # torch's own, in place of a failing disk's
            raise summed.problem or problem from None
        file.write(_bytes(summed.crc))

    write_atomically(path, write, previous)


class _Summed:
    """A file under its CRC-32. `problem` is the OSError that a write ended with."""

    def __init__(self, file):
        self.file, self.crc, self.problem = file, 0, None

    def write(self, data):
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self.file.write(data)
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self):
        self.file.flush()


def load_checkpoint(path):
    """The dict that was saved, its tensors on the CPU. Raises Damaged for a file that is damaged or foreign, UserError
    for one of another version."""
    data = Path(path).read_bytes()
    content = memoryview(data)  # its slices are no copies
    damaged = f"{path} is not a checkpoint of this project, or is damaged; try the run's other one, or train it anew"
    whole = content[-CRC_BYTES:] == _bytes(zlib.crc32(content[:-CRC_BYTES]))
    if not whole and content[-22:-18] != ZIP_END:  # such as a file of format 2
        raise Damaged(damaged)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as problem:  # a foreign file can fail in any way
        raise Damaged(damaged) from problem
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {version}, this code reads {FORMAT}; train the run anew"
        )
    if not whole:
        raise Damaged(damaged)
    return state


def load_states(parts, saved, path):
    """Give each of the parts, {name: what has a load_state_dict}, its state in what was loaded from the path. Raises
    UserError where they do not fit, as after a change of the network."""
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (KeyError, RuntimeError, ValueError) as problem:
            raise UserError(
                f"{path}: its {name} does not fit this code's; go on with the code that wrote it, or train the run anew"
            ) from problem


def _bytes(crc):
    return crc.to_bytes(CRC_BYTES, "big")
