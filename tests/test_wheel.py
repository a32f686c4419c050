"""What people install: the wheel's contents, and its command in an environment of its own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--config.data.dataset=synthetic_aircraft/4", "--config.data.image_size=32",
    "--config.data.held_out=0.25", "--config.method.samples=8", "--config.method.parts=grid",
    "--config.method.classifier.epochs=1", "--config.method.margin.epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("fgjax", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt",
                 "requirements-docs.txt", "requirements-serve.txt", "requirements-faiss.txt",
                 "requirements-onnx.txt", "requirements-writers.txt"):  # fmt: skip
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
               f"--wheel-dir={out}", str(source)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("fgjax-*.whl"))


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_no_other_name_is_installed_at_the_top(names):
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "fgjax" in tops
    assert all(top == "fgjax" or top.endswith(".dist-info") for top in tops)


def test_every_file_of_the_package_travels(names):
    packaged = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fgjax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged <= set(names)
    assert "fgjax/py.typed" in names and "fgjax/data/datasets/flowers.txt" in names


def test_configs_travel_from_their_one_source(names, wheel):
    configs = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
    assert sorted(n.split("/")[-1] for n in names if n.startswith("fgjax/configs/")) == configs
    with zipfile.ZipFile(wheel) as archive:
        for name in configs:
            assert archive.read(f"fgjax/configs/{name}") == (ROOT / "configs" / name).read_bytes()


class Installed:
    """A virtual environment with the wheel, used from an empty folder."""

    def __init__(self, home: pathlib.Path, data_dir: str):
        self.folder = home / "empty"
        self.folder.mkdir(parents=True)
        self.python = home / "venv" / "bin" / "python"
        self._environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "JAX_PLATFORMS": "cpu",
            "FGJAX_DATA": data_dir, "JAX_COMPILATION_CACHE_DIR": str(home / "xla"),
        }  # fmt: skip

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess:
        """Run `fgjax …`."""
        done = subprocess.run(
            [str(self.python.with_name("fgjax")), *words], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
        return done


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory, data_dir):
    """With this environment's packages as dependencies, so that nothing is downloaded."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False)
    site = next((home / "venv").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", f"--python={home / 'venv' / 'bin' / 'python'}"]
    command = [*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return Installed(home, data_dir)


def test_it_is_a_command_in_an_empty_folder(installed):
    assert "fgjax train   --config=aircraft:demo" in installed("--help").stdout
    listed = installed("configs").stdout
    assert [line.split()[0] for line in listed.splitlines()[:8]] == sorted(
        path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__"
    )
    assert "lapm[,small][,paper] | ccfr[,small][,paper] | ghns[,small][,paper] | hdcl" in listed


def test_unknown_words_list_what_there_is(installed):
    error = installed("trian", code=2).stderr
    known = "train, predict, search, export, push, study, index, learn, forget, serve, "
    known += "compare, doctor, configs"
    assert f"no command 'trian'; there are {known}" in error
    error = installed("train", "--config=airplane:demo", code=2).stderr
    assert "the config airplane does not exist: name one of aircraft, cars, cub," in error


def test_the_doctor_knows_the_wheels_requirements_and_extras(installed):
    said = installed("doctor").stdout
    assert "all packages as fgjax wants them" in said


@pytest.mark.slow
def test_a_run_and_a_prediction_from_pip_install_alone(wheel, tmp_path, data_dir, tiny_dataset):
    """Dependencies as pip resolves them, into an environment with nothing in it."""
    installed = Installed(tmp_path, data_dir)
    venv.create(tmp_path / "venv", with_pip=True)
    command = [str(installed.python), "-m", "pip", "install", "-q", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    installed("train", "--config=aircraft:demo", *TINY, "--dry-run")
    assert not (installed.folder / "runs").exists()
    installed("train", "--config=aircraft:demo", *TINY)
    workdir = "runs/aircraft-lapm-demo"
    results = json.loads((installed.folder / workdir / "results.json").read_text())
    assert results["protocol"]["packages"]["fgjax"] == "0.1.0"
    image = installed.folder / "image.jpg"
    image.write_bytes(tiny_dataset.test.source[0]["image"])
    found = json.loads(installed("predict", f"--workdir={workdir}", "image.jpg", "--json").stdout)
    assert len(found[0]["top"]) == 5 and (installed.folder / found[0]["picture"]).exists()
