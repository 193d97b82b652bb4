"""Whatever is sent: no route breaks, each answers as the document says, and none lets in who has no token."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given
from hypothesis import settings as examples
from schemathesis.generation import GenerationMode

from ndif_batch.server import gate
from ndif_batch.server.app import create_app
from tests import toy
from tests.server.serving import everybody
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import CHECKS
    from schemathesis.core.result import Ok

RULES_BEYOND_THE_DOCUMENT = "positive_data_acceptance"
"""A graph, a space and a worker's message have rules that no JSON Schema tells."""

STARTS_A_PROCESS = "POST /v1/models"
TELLS_ERRORS_IN_ITS_OWN_WORDS = "POST /v1/worker"
EXAMPLES = 12


@dataclass(frozen=True)
class Fuzzed:
    """The API over an application in this process, and the token of an administrator."""

    schema: schemathesis.BaseSchema
    headers: dict[str, str]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with toy.client(tmp_path_factory.mktemp("fuzz")) as behind, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "STRANGERS_BURST", 10**9)
        submit(behind)
        with working(behind, ToyEngine()) as worker:
            worker.run()
        headers = {"Authorization": f"Bearer {everybody(behind.queue)['root']}"}
        schema = schemathesis.openapi.from_asgi(
            "/v1/openapi.json", create_app(behind.queue, behind.settings), headers=headers
        )
        yield Fuzzed(schema, headers)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_route_stands_what_the_document_allows_and_what_it_does_not(fuzzed: Fuzzed, mode: GenerationMode) -> None:
    left_out: list[Any] = [check for check in CHECKS.get_all() if check.__name__ == RULES_BEYOND_THE_DOCUMENT]
    assert left_out
    tried = 0
    for found in fuzzed.schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        is_wrong = mode is GenerationMode.NEGATIVE
        if operation.label == STARTS_A_PROCESS or (is_wrong and not operation.body):
            continue
        if is_wrong and operation.label == TELLS_ERRORS_IN_ITS_OWN_WORDS:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @examples(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        def asks(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers=fuzzed.headers, excluded_checks=left_out)

        asks()
        tried += 1
    assert tried > 10
