"""What decides a stage: its fingerprint, and the folder that is refused."""

import copy
import dataclasses
import json

import pytest

from fgjax import config as config_module
from fgjax.config import Training, before, differences, flatten, identity, without_added
from fgjax.errors import UserError
from fgjax.training.run import Run

# How a run is carried out, and its name.
CARRIED_OUT = {
    "name", "reuse", "remat", "writers", "data.data_dir", "data.manual_dir", "data.workers",
    "data.prefetch", "data.patience", "checkpoints.every_steps", "checkpoints.evaluate_every",
    "checkpoints.keep",
}  # fmt: skip
# What the dataset's name and fingerprint say.
OF_THE_DATASET = {
    "data.dataset", "data.path", "data.test_share", "data.split_seed", "data.annotations",
}  # fmt: skip


def other(value):
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


def changed(config, name):
    """A copy of a config in which one dotted field is another."""
    config = copy.deepcopy(config)
    *path, last = name.split(".")
    holder = config
    for part in path:
        holder = getattr(holder, part)
    setattr(holder, last, other(getattr(holder, last)))
    return config


class FakeDataset:
    """As much of a dataset as a stage's identity reads."""

    def __init__(self, labels, name="birds", fingerprint="abc"):
        self.name, self.fingerprint = name, fingerprint
        self.train = type("Split", (), {"labels": labels})


@pytest.fixture
def fingerprint(tmp_path):
    """Of a stage under a config; every call has a workdir of its own."""
    numbers = iter(range(1000))

    def make(config=None, *settings, dataset=None, **options):
        run = Run(config or bare(), dataset or FakeDataset([0, 0, 1, 1]),
                  tmp_path / str(next(numbers)))  # fmt: skip
        return run.stage("some", *settings, **options).fingerprint

    return make


@dataclasses.dataclass
class Method:
    """A method's own settings."""

    alpha: float = 1.0
    later: float = config_module.added(0.5, before=0.0)


def bare():
    return config_module.Config(method=Method())


FIELDS = sorted(name for name in flatten(bare()) if not name.startswith("method."))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_that_decides_a_result_decides_the_stage(name, fingerprint):
    """A new field of the config fails here until a stage's identity knows it, or one of the lists
    above says why it need not.
    """
    same = fingerprint(changed(bare(), name)) == fingerprint()
    assert same == (name in CARRIED_OUT | OF_THE_DATASET)


@pytest.mark.parametrize("name", sorted(flatten(Training())))
def test_every_field_of_its_settings_decides_the_stage(name, fingerprint):
    assert fingerprint(None, changed(Training(), name)) != fingerprint(None, Training())


def test_dataset_extras_and_earlier_stages_decide_the_stage(fingerprint, tmp_path):
    run = Run(bare(), FakeDataset([0, 1]), tmp_path / "before")
    one, two = run.stage("one"), run.stage("two")
    again = Run(bare(), FakeDataset([0, 1], name="cars"), tmp_path / "again").stage("one")
    found = [
        fingerprint(),
        fingerprint(dataset=FakeDataset([0, 1], name="cars")),
        fingerprint(dataset=FakeDataset([0, 1], fingerprint="abd")),
        fingerprint(margin=0.5),
        fingerprint(margin=0.25),
        fingerprint(after=(one,)),
        fingerprint(after=(again,)),
        fingerprint(after=(two,)),
        fingerprint(after=(one, two)),
        run.stage("three").fingerprint,
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(after=(two, one)) == fingerprint(after=(one, two))
    assert fingerprint() == fingerprint()


def test_what_the_identity_of_a_run_leaves_out():
    """The run's name stays in it: two rows of a study keep their workdirs apart."""
    flat = flatten(bare())  # fields of later versions that say what was done anyway go as well
    as_before = set(flat) - set(without_added(flat, before(bare())))
    assert set(flat) - set(identity(bare())) == CARRIED_OUT - {"name"} | as_before


def test_flatten_names_every_leaf():
    found = flatten(bare())
    assert found["data.augmentation.crop_scale"] == 0.875
    assert "data" not in found and "data.augmentation" not in found
    assert all(f"optimizer.{f.name}" in flatten(Training())
               for f in dataclasses.fields(config_module.Optimizer))  # fmt: skip
    assert flatten(config_module.Row("a", {}, metric="b"), "x.") == {
        "x.name": "a", "x.overrides": {}, "x.paper": None, "x.metric": "b",
        "x.paper_also": {}, "x.search": True, "x.note": "",
    }  # fmt: skip

    @dataclasses.dataclass
    class Scales:
        of: tuple[float, ...] = (0.2, 0.4)

    assert flatten(Scales()) == {"of": [0.2, 0.4]}  # as JSON gives it back


def test_differences_are_one_sentence_a_field():
    old, new = {"a": 1, "b": [1, 2], "gone": "x", "same": None}, {"a": 2, "b": [1], "c": 0.5}
    assert differences(old, new | {"same": None}) == [
        "a: 1 -> 2", "b: [1, 2] -> [1]", "c: 'absent' -> 0.5", "gone: 'x' -> 'absent'",
    ]  # fmt: skip
    assert differences(old, dict(old)) == []
    assert differences({}, {"a": None}) == ["a: 'absent' -> None"]
    assert differences({"a": None}, {}) == ["a: None -> 'absent'"]


def test_a_folder_of_another_config_is_refused_by_field(tmp_path):
    run = Run(bare(), FakeDataset([0, 1]), tmp_path)
    first = run.stage("some", Training(), margin=0.5, scales=(1, 2))
    assert first.folder == tmp_path / "some" and not first.done
    stored = json.loads((first.folder / "stage.json").read_text())
    assert stored["dtype"] == "float32" and stored["scales"] == [1, 2] and stored["epochs"] == 30
    assert set(stored) == {
        "stage", "seed", "backbone", "pretrained", "dtype", "last_stride", "pooling", "dropout",
        "freeze", "dataset", "dataset_fingerprint", "held_out", "image_size",
        "augmentation.crop_scale", "augmentation.flip", "augmentation.color", "revision", "margin",
        "scales", "shots",
        *flatten(Training()),
    }  # fmt: skip
    assert (stored["stage"], stored["dataset"], stored["dataset_fingerprint"]) == (
        "some", "birds", "abc",
    )  # fmt: skip
    again = run.stage("some", Training(), margin=0.5, scales=(1, 2))
    assert again.fingerprint == first.fingerprint and run.stages == {"some": again}
    for name, wanted in (("dtype", r"dtype: 'float32' -> 'float32x'"), ("seed", r"seed: 0 -> 1")):
        with pytest.raises(UserError, match=wanted):
            Run(changed(bare(), name), FakeDataset([0, 1]), tmp_path).stage(
                "some", Training(), margin=0.5, scales=(1, 2)
            )


def test_a_pool_keeps_stages_by_what_decides_them(tmp_path):
    pool, data = tmp_path / "pool", FakeDataset([0, 1])
    one = Run(bare(), data, tmp_path / "a", pool).stage("some")
    same = Run(changed(bare(), "name"), data, tmp_path / "b", pool).stage("some")
    two = Run(changed(bare(), "seed"), data, tmp_path / "c", pool).stage("some")
    assert one.folder == same.folder == pool / f"some-{one.fingerprint}"
    assert two.folder != one.folder and two.folder.parent == pool
    assert len(one.fingerprint) == 12


def test_what_is_reused(tmp_path):
    data, theirs = FakeDataset([0, 1]), tmp_path / "theirs"
    source = Run(bare(), data, theirs)
    finished, open_one = source.stage("finished", margin=1), source.stage("open")
    finished.finish({"top1": 0.5})
    config = bare()
    config.reuse = str(theirs)
    run = Run(config, data, tmp_path / "ours")
    taken = run.stage("finished", margin=1)
    assert taken.folder == theirs / "finished" and taken.metrics == {"top1": 0.5} and taken.done
    assert run.stages["finished"] is taken
    assert run.stage("open").folder == tmp_path / "ours" / "open"  # theirs never ended
    assert run.stage("finished", margin=2).folder == tmp_path / "ours" / "finished"  # does not fit
    with pytest.raises(UserError, match=r"cannot be reused: it holds a stage .*margin: 1 -> 3"):
        run.stage("finished", margin=3, shared=True)
    for name in ("open", "absent"):
        with pytest.raises(UserError, match=f"no finished stage {name}"):
            run.stage(name, shared=True)
    assert run.stage("finished", margin=1, shared=True).folder == finished.folder
    assert not open_one.done


def as_json(folder):
    return json.loads((folder / "stage.json").read_text())


def test_a_revision_is_another_stage(fingerprint, tmp_path):
    assert len({fingerprint(revision=number) for number in (1, 2, 3)}) == 3
    assert fingerprint(revision=1) == fingerprint()
    data = FakeDataset([0, 1])
    old = Run(bare(), data, tmp_path).stage("some")
    old.finish({"top1": 1})
    with pytest.raises(UserError, match="revision: 1 -> 2"):
        Run(bare(), data, tmp_path).stage("some", revision=2)
    used = Run(bare(), data, tmp_path, finished=True).stage("some", revision=3)
    assert used.folder == old.folder and used.fingerprint == old.fingerprint and used.done
    with pytest.raises(UserError, match="margin"):  # of whatever revision, but not of other values
        Run(bare(), data, tmp_path, finished=True).stage("some", revision=3, margin=1)


def test_stages_without_a_field_are_what_was_done_before_it(tmp_path):
    """As an earlier version wrote them: no revision, and no field that came later."""
    config, data = bare(), FakeDataset([0, 1])
    config.method.later = 0.0
    made = Run(config, data, tmp_path).stage("some", config.method)
    stored = as_json(made.folder)
    assert (stored["later"], stored["revision"]) == (0.0, 1)
    del stored["later"], stored["revision"]
    (made.folder / "stage.json").write_text(json.dumps(stored))
    made.finish({})
    again = Run(config, data, tmp_path).stage("some", config.method)
    assert again.done and again.fingerprint == made.fingerprint
    new = bare()
    with pytest.raises(UserError, match=r"\(later: 0\.0 -> 0\.5\)"):
        Run(new, data, tmp_path).stage("some", new.method)
    del stored["alpha"]  # a field that was there from the start is missed
    (made.folder / "stage.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"\(alpha: 'absent' -> 1\.0\)"):
        Run(config, data, tmp_path).stage("some", config.method)


def test_an_added_field_changes_a_fingerprint_unless_it_says_what_was_done_before(tmp_path):
    @dataclasses.dataclass
    class Before:
        alpha: float = 1.0

    run = lambda name: Run(bare(), FakeDataset([0, 1]), tmp_path / name)  # noqa: E731
    old = run("a").stage("some", Before()).fingerprint
    assert run("b").stage("some", Method(later=0.0)).fingerprint == old
    assert run("c").stage("some", Method()).fingerprint != old


def test_added_fields_of_a_config():
    @dataclasses.dataclass
    class Outer:
        inner: Method = dataclasses.field(default_factory=Method)
        sizes: tuple = config_module.added((3, 4), before=(1, 2))

    assert before(Outer()) == {"inner.later": 0.0, "sizes": [1, 2]}
    assert before(Outer(), "x.") == {"x.inner.later": 0.0, "x.sizes": [1, 2]}
    flat, earlier = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 4}
    assert without_added(flat, earlier) == {"b": 2, "c": 3}
    config = config_module.Config(method=Method(later=0.0))
    assert "method.later" not in identity(config) and identity(bare())["method.later"] == 0.5
