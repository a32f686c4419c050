"""Numbers are right however XLA compiles: the canary, what it decides, and who is told."""

import ast
import json
import logging

import jax
import jax.numpy as jnp
import pytest

from fgjax import compilation, xla_flags
from fgjax.compilation import LIBRARY_OFF, PRODUCTS, REDUCTIONS
from tests import finished

ROOT = finished.ROOT
FORCED = f"--{xla_flags.OPTION}=LIBRARY_FUSION_TYPE_REDUCE"


def faulty(choice):
    return bool(compilation.wrong_programs(choice))


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a process that asks for the first time."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(xla_flags, "_added", True)
    for function in (compilation.options, compilation._tell):
        function.cache_clear()
    yield tmp_path / "cache"
    for function in (compilation.options, compilation._tell):
        function.cache_clear()


def asked(monkeypatch, wrong):
    """A canary that knows its answers; what it was asked."""
    questions = []

    def answer(choice):
        questions.append(choice)
        return wrong(choice)

    monkeypatch.setattr(compilation, "wrong_programs", answer)
    return questions


@pytest.mark.parametrize("products", [False, True])
def test_the_options_that_fgjax_uses_are_right(products):
    assert compilation.wrong_programs(compilation.options(products=products)) == []


def test_and_in_float64():
    with jax.enable_x64(True):
        assert compilation.wrong_programs(LIBRARY_OFF) == []


def test_without_them_this_jax_is_wrong():
    if xla_flags._jaxlib() not in xla_flags.FAULTY and not faulty(REDUCTIONS):
        pytest.skip("this jaxlib computes right numbers with its library")
    assert len(compilation.wrong_programs(REDUCTIONS)) == 2
    assert xla_flags._jaxlib() in xla_flags.FAULTY, "a release that xla_flags does not know yet"


def test_numbers_that_are_not_finite_are_wrong(monkeypatch):
    monkeypatch.setattr(compilation, "_programs", lambda p, t, s: {
        "squared norms of turned points": jnp.full(len(p), jnp.nan)})  # fmt: skip
    assert compilation.wrong_programs(LIBRARY_OFF) == ["squared norms of turned points in float32"]


def test_what_is_quick_stays_where_it_is_right(fresh, monkeypatch):
    asked(monkeypatch, lambda choice: [])
    assert compilation.options() == REDUCTIONS
    assert compilation.options(products=True) == PRODUCTS


def test_the_library_is_off_where_the_canary_fails(fresh, monkeypatch):
    asked(monkeypatch, lambda choice: [] if choice == LIBRARY_OFF else ["norms"])
    assert compilation.options() == compilation.options(products=True) == LIBRARY_OFF


def test_the_answer_is_remembered_until_circumstances_change(fresh, monkeypatch):
    questions = asked(monkeypatch, lambda choice: [])
    for _ in range(2):
        compilation.options.cache_clear()
        assert compilation.options() == REDUCTIONS
    assert len(questions) == 1
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    compilation.options.cache_clear()
    compilation.options()
    assert len(questions) == 2


def test_a_broken_or_missing_cache_only_costs_time(fresh, monkeypatch):
    questions = asked(monkeypatch, lambda choice: [])
    compilation.options()
    (path,) = fresh.glob("canary-*.json")
    assert json.loads(path.read_text()) == []
    path.write_text("{")
    compilation.options.cache_clear()
    assert compilation.options() == REDUCTIONS and len(questions) == 2
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(path / "no folder"))
    compilation.options.cache_clear()
    assert compilation.options() == REDUCTIONS and len(questions) == 3


def test_an_xla_that_does_not_know_the_option_is_left_to_itself(fresh, monkeypatch):
    unknown = {"xla_cpu_nobody_knows_this": "1"}
    for name in ("REDUCTIONS", "PRODUCTS", "LIBRARY_OFF"):
        monkeypatch.setattr(compilation, name, unknown)
    assert compilation.options() == {}


def test_other_backends_are_left_to_themselves(fresh, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compilation.options() == {} == compilation.options(products=True)


def test_flags_that_force_wrong_numbers_are_obeyed_and_named_once(fresh, monkeypatch, caplog):
    asked(monkeypatch, lambda choice: ["norms"])
    monkeypatch.setattr(xla_flags, "_added", False)
    monkeypatch.setenv("XLA_FLAGS", FORCED)
    with caplog.at_level(logging.WARNING):
        assert compilation.options() == compilation.options(products=True) == {}
    (said,) = caplog.messages
    assert said.endswith(f": take {xla_flags.OPTION} out of XLA_FLAGS.")


def test_no_way_out_is_named_too(fresh, monkeypatch, caplog):
    asked(monkeypatch, lambda choice: ["norms"])
    with caplog.at_level(logging.WARNING):
        assert compilation.options() == {}
    assert caplog.messages[0].endswith(": install another jaxlib.")


def test_a_decorated_function_asks_when_it_is_called(monkeypatch):
    calls = []
    monkeypatch.setattr(compilation, "options", lambda **chosen: calls.append(chosen) or {})
    double = compilation.jit(lambda x, times: x * times, products=True, static_argnames="times")
    assert not calls
    assert float(double(3.0, times=2)) == 6 and calls == [{"products": True}]
    double(3.0, times=4)
    assert "mul" in double.lower(3.0, times=2).as_text() and len(calls) == 1
    assert double.trace(3.0, times=2).jaxpr.out_avals[0].shape == ()


# What happens on import, in processes as people have them.


def said_by(code, data_dir, tmp_path, **more):
    environment = finished.environment(data_dir, tmp_path, **more)
    done = finished.run("-c", code, environment=environment)
    return done.stdout + done.stderr


PLAIN = """
import sys, jax, jax.numpy as jnp, numpy as np
from fgjax import compilation, losses
arrays, wanted = compilation._known(np.float32)
found = jax.jit(compilation._programs)(*arrays)
print("right" if all(np.allclose(found[k], wanted[k], rtol=1e-3, atol=1e-3) for k in found)
      else "wrong")
"""


def test_a_program_that_a_user_compiles_himself_is_right(data_dir, tmp_path):
    assert said_by(PLAIN, data_dir, tmp_path) == "right\n"


def test_a_users_own_flags_stay(data_dir, tmp_path):
    code = "import os, fgjax, jax; print(os.environ['XLA_FLAGS'].split(), jax.device_count())"
    several = "--xla_force_host_platform_device_count=3"
    said = said_by(code, data_dir, tmp_path, XLA_FLAGS=several)
    assert several in said and said.endswith("3\n")
    code = "import os, fgjax; print(os.environ['XLA_FLAGS'])"
    assert said_by(code, data_dir, tmp_path, XLA_FLAGS=FORCED) == f"{FORCED}\n"


def test_importing_starts_neither_jax_nor_a_device(data_dir, tmp_path):
    code = "import sys, fgjax; print('jax' in sys.modules)"
    assert said_by(code, data_dir, tmp_path) == "False\n"
    code = ("from fgjax import losses, evaluation, localization\nfrom fgjax.methods import ghns\n"
            "from jax._src.xla_bridge import backends_are_initialized as started\n"
            "print(started())")  # fmt: skip
    assert said_by(code, data_dir, tmp_path) == "False\n"


def test_who_imports_too_late_is_told_and_fgjax_itself_stays_right(data_dir, tmp_path):
    if xla_flags._jaxlib() not in xla_flags.FAULTY:
        pytest.skip("this jaxlib computes right numbers with its library")
    late = "import jax; jax.devices()\n"
    said = said_by(late + PLAIN, data_dir, tmp_path)
    assert said.startswith("wrong\n")
    assert f"import fgjax before JAX computes anything, or set XLA_FLAGS={xla_flags.OFF}." in said
    own = PLAIN.replace("jax.jit(", "compilation.jit(")
    assert said_by(late + own, data_dir, tmp_path).startswith("right\n")


def test_flags_that_force_the_faulty_library_are_named_by_the_doctor(data_dir, tmp_path):
    if not faulty(REDUCTIONS):
        pytest.skip("this jaxlib computes right numbers with its library")
    environment = finished.environment(data_dir, tmp_path, HF_HUB_OFFLINE="1", XLA_FLAGS=FORCED)
    said = finished.run("-m", "fgjax.doctor", environment=environment).stdout
    assert "[note] XLA computes wrong numbers here: squared norms of turned points" in said
    assert f"    → take {xla_flags.OPTION} out of XLA_FLAGS\n" in said


# Nothing is compiled past it.


def sources():
    """Python files, and the code of notebooks, by name."""
    for folder in ("fgjax", "docs/generate", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        yield path.relative_to(ROOT).as_posix(), "\n".join(code)


@pytest.mark.parametrize(("name", "text"), list(sources()), ids=[name for name, _ in sources()])
def test_everything_is_compiled_by_compilation_jit(name, text):
    if name == "fgjax/compilation.py":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            written = f"{node.value.id}.{node.attr}"
            assert written not in ("jax.jit", "jax.pmap", "nnx.jit", "nnx.pmap"), node.lineno
        if isinstance(node, ast.ImportFrom) and node.module in ("jax", "flax.nnx"):
            assert not {alias.name for alias in node.names} & {"jit", "pmap"}, node.lineno


def test_on_gpus_products_are_the_librarys(fresh, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compilation.options() == compilation.LIBRARY_PRODUCTS


def test_on_gpus_too_xla_is_left_alone_where_it_or_its_user_says_so(fresh, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert compilation.options() == {}
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(compilation, "LIBRARY_PRODUCTS", {"xla_gpu_no_such_option": True})
    compilation.options.cache_clear()
    assert compilation.options() == {}
