"""Fixtures of the tests of PyTorch's files."""

import pytest

from fgjax.errors import UserError
from fgjax.models import torch_files


@pytest.fixture
def read(tmp_path):
    def run(data):
        path = tmp_path / "w.pth"
        path.write_bytes(data)
        return torch_files.read(path)

    return run


@pytest.fixture
def refusal(read, tmp_path):
    """The sentence by which a file is refused, without the path that it begins with."""

    def run(data):
        with pytest.raises(UserError) as caught:
            read(data)
        sentence = str(caught.value)
        assert sentence.startswith(str(tmp_path / "w.pth")) and "\n" not in sentence
        assert sentence.isascii() and sentence.endswith(".") and len(sentence) < 400
        return sentence.removeprefix(str(tmp_path / "w.pth "))

    return run
