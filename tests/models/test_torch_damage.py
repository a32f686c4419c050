"""PyTorch's files that lie about their sizes, are damaged, or are of another kind."""

import io
import os
import pathlib
import pickle
import sys
import zipfile

import numpy as np
import pytest

from fgjax.models import torch_files
from tests.models.torch_bytes import (
    MADE,
    MAGIC,
    entry,
    number,
    old,
    storage,
    tensor,
    text,
    zipped,
)

# What lies about its sizes

LIES = {
    "more elements than there are bytes": old(entry(tensor(storage(10**6))), count=10**6,
                                              data=bytes(24)),
    "another count than in the pickle": old(entry(tensor(storage(6))), count=5),
    "a count below zero in both": old(entry(tensor(storage(-6))), count=-6, data=b""),
    "a count below zero": old(entry(tensor(storage(6))), count=-6, data=b""),
    "a count that wraps": old(entry(tensor(storage(2**62))), count=2**62, data=b""),
    "a storage whose bytes are missing": old(entry(tensor(storage(6))), keys=()),
    "a storage that no tensor has": old(entry(tensor(storage(6))), keys=("7", "8")),
    "a shape beyond the storage": old(entry(tensor(storage(6), shape=(3, 3)))),
    "an offset beyond the storage": old(entry(tensor(storage(6), offset=1))),
    "an offset below zero": old(entry(tensor(storage(6), offset=-1))),
    "strides beyond the storage": old(entry(tensor(storage(6), strides=(4, 1)))),
    "a stride below zero": old(entry(tensor(storage(6), offset=5, strides=(-3, -1)))),
    "a size below zero": old(entry(tensor(storage(6), shape=(-2, -3)))),
    "a stride of zero that unfolds": old(entry(tensor(storage(6), shape=(2**40, 1),
                                                      strides=(0, 1)))),
    "a shape of other length than the strides": old(entry(tensor(storage(6), strides=(1,)))),
    "a shape of a hundred dimensions": old(entry(tensor(storage(6), shape=[1] * 100,
                                                        strides=[1] * 100))),
    "a size of text": old(entry(tensor(storage(6)).replace(number(2), text("2")))),
    "two sizes of one storage": old(b"}(" + text("a") + tensor(storage(6)) + text("b")
                                    + tensor(storage(7)) + b"u"),
    "a zip's storage that is too short": zipped(entry(tensor(storage(6))), {"data/7": bytes(20)}),
    "a zip's storage that is too long": zipped(entry(tensor(storage(6))), {"data/7": bytes(28)}),
    "a zip without the storage": zipped(entry(tensor(storage(6))), {}),
}  # fmt: skip


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_sizes_that_cannot_be_are_refused(data, refusal):
    assert refusal(data)


def test_what_is_wrong_with_a_size_is_said(refusal):
    counted = LIES["another count than in the pickle"]
    assert "storage 7 has another size than it says" in refusal(counted)
    many = LIES["a shape of a hundred dimensions"]
    assert "a tensor reaches beyond storage 7" in refusal(many)


def test_what_the_lies_are_made_of_is_read(read):
    for data in (old(entry(tensor(storage(6)))), zipped(entry(tensor(storage(6))))):
        np.testing.assert_array_equal(read(data)["w"], [[0, 1, 2], [3, 4, 5]])


# Damage, and files of another kind


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_a_file_cut_short_anywhere_is_refused(path, refusal):
    data = path.read_bytes()
    for length in range(0, len(data), 61):
        assert refusal(data[:length])
    assert refusal(data[:-1])


def test_a_changed_byte_of_a_zip_is_noticed(refusal):
    data = bytearray(zipped(entry(tensor(storage(6)))))
    data[data.index(np.arange(6, dtype="<f4").tobytes()) + 4] ^= 1
    assert "Bad CRC-32" in refusal(bytes(data))


def test_paths_in_a_zip_lead_nowhere(refusal, read, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(24))
    for key in ("../../secret", str(secret), "../data.pkl"):
        assert refusal(zipped(entry(tensor(storage(6, key=key))), {}))
    stream = io.BytesIO(zipped(entry(tensor(storage(6)))))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("../escaped", b"x")
        archive.writestr("/escaped", b"x")
    assert list(read(stream.getvalue())) == ["w"]
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "w.pth"}
    assert not (tmp_path.parent / "escaped").exists() and not os.path.exists("/escaped")


OTHERS = {
    "an empty file": (b"", "damaged or not a PyTorch file"),
    "text": (b"weights of mine", "damaged or not a PyTorch file"),
    "any pickle": (pickle.dumps({"w": 1}, 2), "not a file that torch.save wrote"),
    "another version": (pickle.dumps(MAGIC, 2) + pickle.dumps(1000, 2), "another version"),
    "any zip": (zipped(b"N", {}, folder="a/b"), "not one that torch.save wrote"),
    "a list": (old(b"]"), "holds no state dict"),
    "an empty dictionary": (zipped(b"}", {}), "holds no state dict"),
    "numbers alone": (zipped(entry(b"K\x05", "epoch"), {}), "its entry epoch is not a tensor"),
    "a key that would paint the terminal": (old(entry(tensor(storage(6)), "\x1b[2J")),
                                            "its entry \\x1b[2J is not"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "says"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_named_for_what_they_are(data, says, refusal):
    assert says in refusal(data)


def test_pytorch_is_not_needed():
    assert "torch" not in sys.modules
    source = pathlib.Path(torch_files.__file__).read_text()
    assert "import pickle\n" not in source and "import torch" not in source
