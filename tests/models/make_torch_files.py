"""Writes `tests/models/pth/*.pth`, small files of both formats, with PyTorch itself.

    pip install torch==2.13.0 numpy && python -m tests.models.make_torch_files

The tests read them without it. `expected` says what is in them.
"""

import collections
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "pth"
NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
         "bool")  # fmt: skip


def expected() -> dict[str, np.ndarray]:
    """The arrays by key, bfloat16 as float32."""
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {f"dtype.{name}": np.arange(5).astype(name)
              for name in NAMES if name not in ("bool", "bfloat16")}  # fmt: skip
    arrays["dtype.bfloat16"] = np.arange(5, dtype=np.float32)
    arrays["dtype.bool"] = np.array([True, False, True, True, False])
    arrays["turned"] = base.transpose(2, 0, 1)
    arrays["slice"] = base[1, 1:, 2]
    arrays["base"] = base
    arrays["scalar"] = np.array(7.0, np.float32)
    arrays["empty"] = np.zeros((0, 3), np.float32)
    arrays["parameter"] = np.array([0.5, -0.5], np.float32)
    arrays["bn.num_batches_tracked"] = np.array(0)
    arrays["bn.running_var"] = np.ones(2, np.float32)
    return arrays


def main() -> None:
    """Needs PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    arrays = expected()
    state = collections.OrderedDict()
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # as `state_dict()` has it
    for key, array in arrays.items():
        state[key] = torch.from_numpy(np.array(array, order="C"))
    state["dtype.bfloat16"] = state["dtype.bfloat16"].bfloat16()
    state["turned"] = state["base"].permute(2, 0, 1)
    state["slice"] = state["base"][1, 1:, 2]
    state["parameter"] = torch.nn.Parameter(state["parameter"])
    optimizer = {"state": {0: {"step": state["scalar"]}}, "groups": [{"lr": 0.1}]}
    wrapped = {"epoch": 3, "best": 0.5, "arch": "tiny", "done": True, "state_dict": state,
               "optimizer": optimizer}  # fmt: skip
    FOLDER.mkdir(exist_ok=True)
    for kind, zipped in (("old", False), ("zip", True)):
        for name, content, protocol in (
            (kind, state, 2), (f"{kind}-wrapped", wrapped, 2), (f"{kind}-protocol5", state, 5),
        ):  # fmt: skip
            torch.save(
                content, FOLDER / f"{name}.pth", pickle_protocol=protocol,
                _use_new_zipfile_serialization=zipped,
            )  # fmt: skip


if __name__ == "__main__":
    main()
