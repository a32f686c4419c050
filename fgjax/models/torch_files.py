"""PyTorch's files of weights, read without PyTorch and without running anything that is in them.

Both formats are a pickle that describes the tensors, and the bytes of their storages beside it. The
pickle never meets `pickle`: an interpreter of the few instructions that it takes makes containers,
numbers, strings and descriptions of tensors, and calls nothing that the file names.

Formats: torch/serialization.py; instructions: CPython's pickletools.py.
"""

import dataclasses
import io
import math
import pathlib
import pickletools
import sys
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from fgjax.errors import UserError

SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".ckpt", ".tar")  # files are known by their content
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the state dict
_INSTRUCTIONS = 2_000_000  # 30 a tensor are needed
_DIMENSIONS = 32  # the product of a million sizes takes for ever
_DTYPES = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": jnp.bfloat16,
        "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}  # fmt: skip


class _Unfit(Exception):
    """The rest of a sentence that begins with the file's name."""


class _Global(str):
    """A `module name` that the pickle asks for and that is known here."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    """What the pickle says of a storage.

    Attributes:
      count: elements of the whole storage.
      start: where the part that is meant begins; old files keep views of storages.
      size: elements of that part.
    """

    key: str
    dtype: np.dtype
    count: int
    start: int
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays by key of a state dict that `torch.save` wrote, as a zip or as it did before 1.6.

    A checkpoint that keeps the state dict under `state_dict` or `model` is taken, too.

    Raises:
      UserError: the file cannot be read, is damaged, or holds more than tensors, numbers and
        strings; names what it asks for.
    """
    try:
        data = path.read_bytes()
        return _read_zip(data) if data.startswith(b"PK\x03\x04") else _read_old(data)
    except _Unfit as unfit:
        raise UserError(f"{path} {unfit}.") from unfit
    except Exception as error:  # a hostile file may break any step of reading it
        said = _printable(f"{type(error).__name__}: {error}".rstrip(": "))
        raise UserError(f"{path} is damaged or not a PyTorch file ({said}).") from error


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        pickles = [name for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Unfit("is a zip file, but not one that torch.save wrote")
        folder = pickles[0].removesuffix("data.pkl")

        def member(name: str) -> bytes:
            info = archive.getinfo(folder + name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                raise _Unfit(
                    "is not packed as torch.save packs: its members are compressed or damaged"
                )
            return archive.read(info)

        unpickler = _Unpickler(io.BytesIO(member("data.pkl")))
        described = _state_dict(unpickler.load())
        storages = unpickler.storages.values()
        # Members may overlap, so that a small file unfolds into a large one.
        if sum(sizes.get(f"{folder}data/{storage.key}", 0) for storage in storages) > len(data):
            raise _Unfit("is damaged: its storages are larger than the file")
        order = member("byteorder").decode() if folder + "byteorder" in sizes else "little"
        arrays = {}
        for storage in storages:
            raw = member(f"data/{storage.key}")
            arrays[storage.key] = _array(raw, storage, order)
    return {key: _strided(tensor, arrays) for key, tensor in described.items()}


def _read_old(data: bytes) -> dict[str, np.ndarray]:
    """Pickles of a magic number, a version, the system, the object and the storages' keys.

    Then for each key the number of elements, int64, and the elements. All is little-endian.
    """
    stream = io.BytesIO(data)
    if _Unpickler(stream).load() != _MAGIC:
        raise _Unfit("is not a file that torch.save wrote")
    if _Unpickler(stream).load() != _VERSION:
        raise _Unfit(f"is of another version of PyTorch's format than {_VERSION}")
    _Unpickler(stream).load()
    unpickler = _Unpickler(stream)
    described = _state_dict(unpickler.load())
    keys = _Unpickler(stream).load()
    position, arrays = stream.tell(), {}
    for key in keys:
        if type(key) is not str:
            raise TypeError("a storage's key that is not text")
        storage = unpickler.storages[key]
        begin = position + 8
        count = int.from_bytes(data[position:begin], "little", signed=True)
        if count != storage.count:
            raise _Unfit(f"is damaged: storage {_printable(key)} has another size than it says")
        position = begin + count * storage.dtype.itemsize
        arrays[key] = _array(memoryview(data)[begin:position], storage, "little")
    return {key: _strided(tensor, arrays) for key, tensor in described.items()}


def _array(raw: bytes | memoryview, storage: _Storage, order: str) -> np.ndarray:
    if len(raw) != storage.count * storage.dtype.itemsize:
        raise _Unfit(f"is damaged or cut short: storage {_printable(storage.key)} is incomplete")
    array = np.frombuffer(raw, storage.dtype)
    return array if order == sys.byteorder else array.byteswap()


def _state_dict(found: Any) -> dict[str, _Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
            break
    if not isinstance(found, dict) or not found:
        raise _Unfit("holds no state dict: save one with torch.save(model.state_dict(), FILE)")
    for key, value in found.items():
        if not isinstance(value, _Tensor) or not isinstance(key, str) or not key.isprintable():
            raise _Unfit(f"is not a state dict: its entry {_printable(key)} is not a tensor")
    return found


def _strided(tensor: _Tensor, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The tensor as a view; `_tensor` has seen to it that it lies within its storage."""
    storage = tensor.storage
    if storage.key not in arrays:
        raise _Unfit(f"is damaged: storage {_printable(storage.key)} is missing")
    part = arrays[storage.key][storage.start + tensor.offset :]
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(part, tensor.shape, strides, writeable=False)


class _Unpickler:
    """Runs one pickle of a stream, and leaves the stream behind it.

    Attributes:
      storages: by key, as the pickle describes them.
    """

    def __init__(self, stream: io.BytesIO):
        self._stream = stream
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """What the pickle describes."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
            if count == _INSTRUCTIONS:
                raise _Unfit("is no state dict: its pickle is too long for one")
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _VALUES:
                self._stack.append(_VALUES[opcode.name](argument))
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
                raise _unknown(argument.replace(" ", ".") if argument else "an object of a class")
            else:
                raise _Unfit(
                    f"is no state dict: its pickle has the instruction {opcode.name}, which "
                    "none needs"
                )
        raise EOFError  # not reached: genops raises where STOP is missing

    def _marked(self) -> list:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _list(self, _: None) -> None:
        self._stack.append(self._marked())

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._marked()))

    def _short_tuple(self, length: int) -> None:
        if length > len(self._stack):
            raise IndexError("the stack is empty")
        items = tuple(self._stack[-length:])
        del self._stack[-length:]
        self._stack.append(items)

    def _append(self, items: list) -> None:
        self._stack[-1].extend(items)  # no other type here has it

    def _set(self, items: list) -> None:
        self._stack[-1].update(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def _set_one(self, _: None) -> None:
        value = self._stack.pop()
        self._set([self._stack.pop(), value])

    def _memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _global(self, name: str) -> None:
        if name not in _CALLS and name not in _DTYPES:
            raise _unknown(name.replace(" ", "."))
        self._stack.append(_Global(name))

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("not a name")
        self._global(f"{module} {name}")

    def _reduce(self, _: None) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        if type(name) is not _Global or type(arguments) is not tuple or len(arguments) > 8:
            raise TypeError("not to be called")
        self._stack.append(_CALLS[name](*arguments))

    def _build(self, _: None) -> None:
        """`state_dict()` hangs versions of its modules to the dictionary: they are left out."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            raise TypeError("not a dictionary")

    def _persistent(self, _: None) -> None:
        storage = _storage(self._stack.pop())
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise _Unfit(f"is damaged: it says two things of storage {_printable(storage.key)}")
        self._stack.append(storage)


_VALUES = {
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
         "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"), lambda value: value),
    "NONE": lambda _: None, "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (), "EMPTY_LIST": lambda _: [], "EMPTY_DICT": lambda _: {},
}  # fmt: skip
_STEPS = {
    "PROTO": lambda run, version: None,
    "FRAME": lambda run, length: None,  # a hint for reading ahead
    "MARK": _Unpickler._mark,
    "LIST": _Unpickler._list,
    "TUPLE": _Unpickler._tuple,
    "TUPLE1": lambda run, _: run._short_tuple(1),
    "TUPLE2": lambda run, _: run._short_tuple(2),
    "TUPLE3": lambda run, _: run._short_tuple(3),
    "APPEND": lambda run, _: run._append([run._stack.pop()]),
    "APPENDS": lambda run, _: run._append(run._marked()),
    "SETITEM": _Unpickler._set_one,
    "SETITEMS": lambda run, _: run._set(run._marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Unpickler._memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"),
                    lambda run, index: run._stack.append(run._memo[index])),
    "GLOBAL": _Unpickler._global,
    "STACK_GLOBAL": _Unpickler._stack_global,
    "REDUCE": _Unpickler._reduce,
    "BUILD": _Unpickler._build,
    "BINPERSID": _Unpickler._persistent,
}  # fmt: skip


def _dictionary(pairs) -> dict:
    found = {}
    for key, value in pairs:
        # A tuple of tuples of tuples … takes for ever to hash.
        if type(key) not in (str, int):
            raise TypeError("a key that is neither text nor a number")
        found[key] = value
    return found


def _ordered(pairs: Any = None) -> dict:
    """Python 2 pickles a list of all pairs."""
    if pairs is None:
        return {}
    if type(pairs) is not list:
        raise TypeError("not a list of pairs")
    found = _dictionary(pairs)
    pairs.clear()  # one long list cannot be made into thousands of dictionaries
    return found


def _storage(saved: Any) -> _Storage:
    words: Any = saved if type(saved) is tuple and len(saved) in (5, 6) else ()
    tag, kind, key, _, count, *view = words
    start, size = 0, count
    if view and view[0] is not None:
        _, start, size = view[0]
    if tag != "storage" or type(kind) is not _Global or kind not in _DTYPES or type(key) is not str:
        raise TypeError("not a storage")
    if not _naturals((count, start, size)) or start + size > count:
        raise _Unfit(f"is damaged: the size of storage {_printable(key)} cannot be")
    return _Storage(key, _DTYPES[kind], count, start, size)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if type(storage) is not _Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError("not a tensor")
    fits = len(shape) == len(strides) <= _DIMENSIONS and _naturals((offset, *shape, *strides))
    if fits and 0 not in shape:
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        fits = last < storage.size and math.prod(shape) <= storage.size
    if not fits:
        raise _Unfit(f"is damaged: a tensor reaches beyond storage {_printable(storage.key)}")
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if type(tensor) is not _Tensor:
        raise TypeError("not a tensor")
    return tensor


_CALLS = {
    "collections OrderedDict": _ordered,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}


def _naturals(numbers: tuple) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _unknown(name: str) -> _Unfit:
    return _Unfit(
        f"asks for {_printable(name)}, and fgjax makes nothing but tensors from "
        "a PyTorch file: save the weights alone, torch.save(model.state_dict(), FILE)"
    )


def _printable(text: Any) -> str:
    """At most 80 letters that no terminal acts on; of anything but text and numbers the type."""
    shown = str(text) if type(text) in (str, int, _Global) else type(text).__name__
    return ascii(shown)[1:-1][:80]
