"""PyTorch's files without PyTorch: what it wrote is read, and what is hostile does nothing."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from fgjax.models import torch_files
from tests.models import make_torch_files
from tests.models.torch_bytes import (
    MADE,
    MAGIC,
    VERSION,
    entry,
    number,
    numbers,
    old,
    storage,
    tensor,
    text,
    zipped,
)

# What PyTorch wrote


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_what_pytorch_saved_is_read(path):
    arrays, expected = torch_files.read(path), make_torch_files.expected()
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        found = arrays[key]
        kind = key.removeprefix("dtype.") if key.startswith("dtype.") else str(array.dtype)
        assert str(found.dtype) == kind, key
        np.testing.assert_array_equal(found.astype(array.dtype), array, err_msg=key)


def test_both_formats_are_among_them():
    assert len(MADE) == 6
    assert {path.read_bytes()[:2] for path in MADE} == {b"PK", b"\x80\x02", b"\x80\x05"}


def test_files_of_python_2_and_of_the_first_versions_are_read(read):
    """A list of all pairs, byte strings, no gradients' arguments, views of storages."""
    view = b"(" + text("7.view") + number(2) + number(4) + b"t"
    arguments = storage(6, view=view) + number(1) + numbers([3]) + numbers([1])
    rebuilt = b"ctorch._utils\n_rebuild_tensor\n(" + arguments + b"tR"
    body = b"ccollections\nOrderedDict\n(](](U\x01w" + rebuilt + b"eetR"
    np.testing.assert_array_equal(read(old(body))["w"], [3, 4, 5])


def test_a_view_ends_where_it_says(refusal):
    view = b"(" + text("7.view") + number(2) + number(3) + b"t"
    beyond = tensor(storage(6, view=view), offset=1, shape=[3], strides=[1])
    assert "reaches beyond storage 7" in refusal(old(entry(beyond)))
    outside = b"(" + text("7.view") + number(4) + number(3) + b"t"
    body = entry(tensor(storage(6, view=outside), shape=[1], strides=[1]))
    assert "the size of storage 7 cannot be" in refusal(old(body))


def test_the_other_byte_order(read):
    swapped = np.arange(6, dtype=">f4").tobytes()
    data = zipped(entry(tensor(storage(6))), {"data/7": swapped, "byteorder": b"big"})
    np.testing.assert_array_equal(read(data)["w"], [[0, 1, 2], [3, 4, 5]])


# What asks for more than tensors

CALL = b"cos\nsystem\n" + text("touch hacked") + b"\x85R"
ASKING = {
    "a call of os.system": (entry(CALL), "os.system"),
    "a system call by its own module": (entry(b"cposix\nsystem\n" + text("x") + b"\x85R"),
                                        "posix.system"),
    "a name that is never called": (entry(b"cbuiltins\neval\n"), "builtins.eval"),
    "a name from the stack": (entry(text("builtins") + text("exec") + b"\x93"), "builtins.exec"),
    "an attribute of what is known": (
        entry(text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93"),
        "collections.OrderedDict.__init__.__globals__",
    ),
    "an instance": (entry(b"(" + text("x") + b"ios\nsystem\n"), "os.system"),
    "an object of a class": (entry(b"(ccollections\nOrderedDict\no"), "an object of a class"),
    "a new object": (entry(b"ccollections\nOrderedDict\n)\x81"), "an object of a class"),
    "a whole model": (b"cmodels.yolo\nModel\n)\x81", "models.yolo.Model"),
    "a name that would paint the terminal": (entry(b"c\x1b[2J\nx\n"), "\\x1b[2J.x"),
}  # fmt: skip


@pytest.mark.parametrize("wrap", [old, zipped])
@pytest.mark.parametrize(("body", "name"), ASKING.values(), ids=ASKING)
def test_another_name_is_refused_and_not_run(body, name, wrap, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = refusal(wrap(body))
    assert sentence.startswith(f"asks for {name}, and fgjax makes nothing but tensors")
    assert not (tmp_path / "hacked").exists()


def test_the_same_file_is_hostile_to_pickle(tmp_path, monkeypatch):
    """Otherwise the test above would show nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(b"\x80\x02" + entry(CALL) + b".")
    assert (tmp_path / "hacked").exists()


def test_pickle_extensions_and_code_in_any_of_the_pickles_are_refused(refusal):
    assert "the instruction EXT1" in refusal(old(entry(b"\x82\x01")))
    head = pickle.dumps(MAGIC, 2) + pickle.dumps(VERSION, 2)
    assert "asks for os.system" in refusal(head + b"\x80\x02" + CALL + b".")
    body = pickle.dumps(MAGIC, 2)[:-1]
    assert "asks for os.system" in refusal(b"\x80\x02" + CALL + body)


MISUSED = {
    "BUILD on a name": b"ctorch\nFloatStorage\n}" + text("count") + b"K\x01sb",
    "BUILD on a function": b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("x") + b"K\x01sb",
    "BUILD on a tensor": tensor(storage(6)) + b"}" + text("shape") + b"K\x01sb",
    "BUILD on the type of dictionaries": b"ccollections\nOrderedDict\n}" + text("get") + b"K\x01sb",
    "a call of a storage's type": b"ctorch\nFloatStorage\nK\x05\x85R",
    "a call of text": text("os.system") + text("x") + b"\x85R",
    "a call with a list": b"ccollections\nOrderedDict\n]R",
    "a call with too many arguments": b"ccollections\nOrderedDict\n(]]]tR",
    "an item of a tensor": tensor(storage(6)) + text("x") + b"K\x01s",
    "an element of a tuple": b")K\x01a",
    "a storage that is no storage": b"(" + text("module") + b"ctorch\nFloatStorage\n"
    + text("7") + text("cpu") + b"K\x06NtQ",
    "a tensor without a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89NtR",
    "a parameter without a tensor": b"ctorch._utils\n_rebuild_parameter\n(N\x88NtR",
    "a tensor of a hundred arguments": tensor(storage(6)).removesuffix(b"tR") + b"N" * 100 + b"tR",
    "a storage of a hundred words": storage(6).removesuffix(b"tQ") + b"N" * 100 + b"tQ",
    "an empty stack": b"R",
    "a tuple of an empty stack": b"\x87",
    "no mark": b"t",
    "a memo that is empty": b"h\x05",
    "an instruction that there is not": b"\xff",
}  # fmt: skip


@pytest.mark.parametrize("wrap", [old, zipped])
@pytest.mark.parametrize("body", MISUSED.values(), ids=MISUSED)
def test_what_is_known_does_nothing_else(body, wrap, refusal):
    for sentence in (refusal(wrap(entry(body))), refusal(wrap(body))):
        assert sentence.startswith("is damaged or not a PyTorch file")


# What would take the memory or the time


def test_tuples_of_tuples_as_a_key_are_refused_before_they_are_hashed(refusal):
    doubled = b")" + b"q\x00h\x00\x86" * 60
    assert refusal(old(b"}" + doubled + b"K\x01s"))
    assert refusal(old(entry(doubled + b")R")))  # and as what is called
    whole = old(entry(tensor(storage(6))))  # and as a storage's key
    begin = whole.index(pickle.dumps(["7"], 2))
    assert refusal(whole[:begin] + b"\x80\x02](" + doubled + b"e." + struct.pack("<q", 6))


def test_a_memo_that_doubles_at_every_line_is_only_looked_up(refusal):
    doubled = b")" + b"q\x00h\x00\x86" * 60
    assert "its entry w is not a tensor" in refusal(old(entry(doubled)))


def test_a_dictionary_in_itself(refusal):
    body = b"}q\x00" + text("state_dict") + b"h\x00s"
    assert "its entry state_dict is not a tensor" in refusal(old(body))


def test_a_memo_with_a_large_index_takes_no_more_room(read):
    body = b"}r\xff\xff\xff\xff" + entry(tensor(storage(6)))[1:]
    assert read(old(body))


def test_a_list_cannot_be_made_into_thousands_of_dictionaries(read, refusal):
    """The first takes its pairs away."""
    pair = b"](" + text("w") + tensor(storage(6)) + b"e"
    again = b"ccollections\nOrderedDict\nh\x00\x85R"
    once = b"ccollections\nOrderedDict\n](" + pair + b"eq\x00\x85R"
    assert list(read(old(once))) == ["w"]
    twice = b"}" + text("first") + once + b"s" + text("state_dict") + again + b"s"
    assert "holds no state dict" in refusal(old(twice))


def test_a_pickle_without_end(refusal, monkeypatch):
    monkeypatch.setattr(torch_files, "_INSTRUCTIONS", 1000)
    assert "too long" in refusal(old(b"N" * 2000))


@pytest.mark.parametrize(
    "body",
    [
        b"X\xff\xff\xff\x7f" + b"short",  # text of 2 GiB
        b"\x8d" + struct.pack("<Q", 2**62) + b"short",
        b"\x95" + struct.pack("<Q", 2**63) + b"\x8a",  # a frame of 8 EiB, then a number's half
        b"\x8b\xff\xff\xff\x7f\x01",  # a number of 2 GiB
        b"T\xff\xff\xff\x7fshort",
    ],
)
def test_lengths_beyond_the_file(body, refusal):
    assert "damaged" in refusal(b"\x80\x04" + body) or "instruction" in refusal(old(body))
    assert refusal(old(body)) and refusal(zipped(body))


def test_a_small_zip_of_a_large_storage(refusal):
    large = {"data/7": bytes(10**7)}
    packed = zipped(entry(tensor(storage(6))), large, compression=zipfile.ZIP_DEFLATED)
    assert len(packed) < 20_000 and "compressed" in refusal(packed)


def test_members_that_overlap(refusal):
    """Every entry of the directory names the same bytes."""
    held = b"".join(
        text(str(k)) + tensor(storage(2500, key="7" if k == 0 else f"c{k}"), shape=[1], strides=[1])
        for k in range(9)
    )
    members = {"data/7": bytes(10_000), **{f"data/c{k}": b"" for k in range(1, 9)}}
    data = bytearray(zipped(b"}(" + held + b"u", members))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        target = archive.getinfo("archive/data/7")
        start = archive.start_dir
    for k in range(1, 9):
        at = data.index(f"archive/data/c{k}".encode(), start) - 46
        data[at + 16 : at + 28] = struct.pack("<III", target.CRC, 10_000, 10_000)
        data[at + 42 : at + 46] = struct.pack("<I", target.header_offset)
    assert "its storages are larger than the file" in refusal(bytes(data))


def test_a_member_larger_than_the_file(refusal):
    data = bytearray(zipped(entry(tensor(storage(6)))))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        at = data.index(b"archive/data/7", archive.start_dir) - 46
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    assert "larger than the file" in refusal(bytes(data))
