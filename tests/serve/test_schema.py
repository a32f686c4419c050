"""The API does what its schema says, whatever is sent: schemathesis tries."""

import importlib.util

import pytest

from fgjax.serve.app import Limits, create_app
from tests.serve.test_app import Known

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("schemathesis"),
        reason="pip install -r requirements-browser.txt",
    ),
]


@pytest.mark.parametrize("path", ["/api/model", "/api/predict", "/api/explain"])
def test_whatever_is_sent_the_answer_is_one_of_the_schemas(path):
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    app = create_app(Known(), Limits(images=3, bytes=2000, pixels=10_000, waiting=4))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    (operation,) = [one.ok() for one in schema.get_all_operations() if one.ok().path == path]
    seen = set()

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case):
        answer = case.call()
        seen.add(answer.status_code)
        assert answer.status_code < 500
        case.validate_response(answer)

    ask()
    assert seen <= {200, 400, 411, 413, 422, 429} and seen & {200, 422}
