"""A thousand random settings of all demos: carried out in shapes, or refused in a sentence."""

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests import fuzzing


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_settings_work_or_are_refused(number, unchecked_types):
    outcomes = set()

    @seed(number)
    @settings(max_examples=250, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(fuzzing.overrides(fuzzing.DEMOS, own=False))
    def each(drawn):
        outcome, said = fuzzing.tried(*drawn)
        outcomes.add(outcome)
        assert outcome != "wrong", f"{drawn}: {said}"

    each()
    assert outcomes == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("sentence", "fine"),
    [
        ("config.seed is -1, but must be positive.", True),
        ("the weights nowhere/nothing are not here.", True),
        ("the seed is wrong.", True),
        ("something is wrong.", False),
        ("config.seed is -1, but must be positive", False),
        ("config.seed is -1\nand more.", False),
    ],
)
def test_what_counts_as_a_refusal(sentence, fine, tmp_path):
    changes = {"seed": -1, "pretrained": "nowhere/nothing"}
    found, _ = fuzzing.judged(sentence, changes, tmp_path / "none")
    assert (found == "refused") == fine
    assert fuzzing.judged(sentence, changes, tmp_path)[0] == "wrong"  # something was written
