"""Files of tensors and plain JSON values, with a checksum over every byte."""

import io
import zlib
from pathlib import Path

import torch

from errors import Damaged, UserError
from files import write_atomically

FORMAT = 3  # from 3 on, four bytes after torch's file: its CRC-32
CRC_BYTES = 4
ZIP_END = b"PK\x05\x06"  # begins the last 22 bytes of torch's file


def save_checkpoint(path, state, previous=None):
    """state: a dict of tensors and plain values. What was at the path is kept as `previous`, where one is named."""
    buffer = io.BytesIO()  # a failing disk is then an OSError; torch.save would make a RuntimeError of it
    torch.save({"format": FORMAT, **state}, buffer)
    buffer.write(_crc(buffer.getbuffer()))
    write_atomically(path, lambda file: file.write(buffer.getbuffer()), previous)


def load_checkpoint(path):
    """The dict that was saved, its tensors on the CPU. Raises Damaged for a file that is damaged or foreign, UserError
    for one of another version."""
    data = Path(path).read_bytes()
    content = memoryview(data)  # its slices are no copies
    damaged = f"{path} is not a checkpoint of this project, or is damaged; try the run's other one, or train it anew"
    whole = content[-CRC_BYTES:] == _crc(content[:-CRC_BYTES])
    if not whole and content[-22:-18] != ZIP_END:  # such as a file of format 2
        raise Damaged(damaged)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as problem:  # a foreign file can fail in any way
        raise Damaged(damaged) from problem
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        raise UserError(f"{path} has checkpoint format {version}, this code reads {FORMAT}; train the run anew")
    if not whole:
        raise Damaged(damaged)
    return state


def _crc(content):
    return zlib.crc32(content).to_bytes(CRC_BYTES, "big")
