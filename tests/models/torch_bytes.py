"""Files of PyTorch's formats, put together byte by byte, true and hostile ones."""

import io
import pickle
import struct
import zipfile

import numpy as np

from tests.models import make_torch_files

MADE = sorted(make_torch_files.FOLDER.glob("*.pth"))
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
EMPTY = b"ccollections\nOrderedDict\n)R"


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(count, *, kind="FloatStorage", key="7", view=b"N"):
    saved = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    return b"(" + saved + number(count) + view + b"tQ"


def tensor(held, *, offset=0, shape=(2, 3), strides=(3, 1)):
    """Instructions that rebuild a tensor, as PyTorch writes them."""
    arguments = held + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + EMPTY
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def old(body, *, keys=("7",), count=6, data=None):
    """A file of the old format around the instructions of one object."""
    data = np.arange(max(count, 0), dtype="<f4").tobytes() if data is None else data
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, VERSION, {}))
    held = struct.pack("<q", count) + data
    return head + b"\x80\x02" + body + b"." + pickle.dumps(list(keys), 2) + held * len(keys)


def entry(value, key="w"):
    """A state dict of one entry."""
    return b"}" + text(key) + value + b"s"


def zipped(body, members=None, *, folder="archive", compression=zipfile.ZIP_STORED):
    """A file of the zip format; `members` are its storages and notes."""
    members = {"data/7": np.arange(6, dtype="<f4").tobytes()} if members is None else members
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in {"data.pkl": b"\x80\x02" + body + b".", **members}.items():
            archive.writestr(f"{folder}/{name}", data)
    return stream.getvalue()
