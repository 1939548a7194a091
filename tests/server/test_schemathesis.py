"""Requests made up from the server's own description: none is answered with a server's error, or otherwise than described."""

from collections import Counter
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import serving
from tests.server.conftest import Client
from tests.server.support import Prepared, problem

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    missing_required_header,
    allow_header_conformance,
]
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.mark.filterwarnings("ignore")
def test_made_up_requests_are_answered_as_described(full: tuple[serving.Served, Prepared]) -> None:
    sent, failures = _run(*full, examples=3)
    assert not failures, "\n\n".join(failures)
    assert sent["requests"] > 200
    assert sent["2xx"] > 50, sent  # it gets beyond what refuses


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")
def test_many_made_up_requests_are_answered_as_described(full: tuple[serving.Served, Prepared]) -> None:
    sent, failures = _run(*full, examples=150, derandomize=False)
    print(
        f"\nschemathesis: {sent['requests']:,} requests to {sent['operations']} operations "
        f"({', '.join(f'{kind}: {count:,}' for kind, count in sorted(sent.items()) if kind.endswith('xx'))}), "
        f"{sent['5xx']} server errors, {len(failures)} violations of the description"
    )
    assert not failures, "\n\n".join(failures)
    assert sent["5xx"] == 0


def test_no_route_of_the_api_answers_without_a_token_that_is_known(
    full: tuple[serving.Served, Prepared], clients: Client
) -> None:
    served, made = full
    http = clients(served, None)
    unknown = "Bearer dr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    for path, method in _operations(http):
        if path.startswith("/v1/"):
            for header in (None, "Bearer", unknown, "Basic YWRtaW46YWRtaW4=", "bearer dr_"):
                headers = {"Upload-Offset": "0"} if header is None else {"Upload-Offset": "0", "Authorization": header}
                answer = http.request(method, served.url + _real(path, made), headers=headers)
                problem(answer, 401, "not_authenticated")
                assert answer.headers["www-authenticate"] == "Bearer"


def test_every_other_method_of_a_path_is_refused(full: tuple[serving.Served, Prepared], clients: Client) -> None:
    served, made = full
    http = clients(served)
    paths: dict[str, set[str]] = {}
    for path, method in _operations(http):
        paths.setdefault(_real(path, made), set()).add(method)
    # `…/branches/{name}` has a pattern of its own: no two descriptions are one path here
    for path, methods in paths.items():
        for method in set(METHODS) - methods:
            problem(http.request(method, served.url + path), 405)


def _operations(http: httpx.Client) -> list[tuple[str, str]]:
    described = http.get(str(http.base_url.join("/openapi.json"))).json()
    return [(path, method) for path, item in described["paths"].items() for method in item if method in METHODS]


def _real(path: str, made: Prepared) -> str:
    dataset = made.datasets[0]
    values = {
        "dataset_id": dataset,
        "version_id": made.versions[dataset][0],
        "file_id": made.files[0],
        "upload_id": made.uploads[0],
        "token_id": made.tokens[0],
        "review_id": 1,
        "name": "dev",
    }
    return path.format(**values)


def _run(
    served: serving.Served, made: Prepared, *, examples: int, derandomize: bool = True
) -> tuple[Counter[str], list[str]]:
    """Send requests to every operation; how many there were, and what was wrong, once for each operation and mistake."""
    token = f"Bearer {served.token('admin')}"
    own = served.owner.tokens("admin")[0].id
    config = schemathesis.Config.from_dict({"generation": {"database": "none"}})
    schema = schemathesis.openapi.from_url(served.url + "/openapi.json", config=config)
    sent: Counter[str] = Counter()
    failures: dict[str, str] = {}
    with requests.Session() as session:
        session.headers["Authorization"] = token
        for found in schema.get_all_operations():
            operation = found.ok()
            sent["operations"] += 1
            strategy = st.one_of(
                operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
                operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
                operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
            )

            @settings(
                max_examples=examples,
                derandomize=derandomize,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy, pick=st.integers(0, 999))
            def send(case: Any, pick: int) -> None:
                _make_real(case, pick, made, own)
                response = case.call(session=session, headers={"Authorization": token})
                sent["requests"] += 1
                if response.content == b"Invalid HTTP request received.":
                    return  # not HTTP: the protocol's parser refuses it, no route of ours
                sent[f"{response.status_code // 100}xx"] += 1
                try:
                    case.validate_response(response, checks=CHECKS)
                except FailureGroup as group:
                    for mistake in group.exceptions:
                        key = f"{case.method} {case.operation.path}: {type(mistake).__name__}"
                        failures.setdefault(
                            key, f"{key}\n{mistake}\n{response.content[:400]!r}\n{case.as_curl_command()[:800]}"
                        )

            try:
                send()
            except Exception as error:  # hypothesis finds nothing to send: a mistake of the description
                failures.setdefault(operation.label, f"{operation.label}: {error!r:.500}")
    return sent, list(failures.values())


def _make_real(case: Any, pick: int, made: Prepared, own: int) -> None:
    """Let three of four well-formed requests be about what is there; never about the token in use."""
    values = case.path_parameters or {}
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if values.get("token_id") == own:
        values["token_id"] = made.tokens[-1]
    if not positive or pick % 4 == 0:
        return
    query = case.query if isinstance(case.query, dict) else {}
    # what deletes whole datasets takes the last ones, all else the first ones
    deletes = case.method.upper() == "DELETE" and case.operation.path == "/v1/datasets/{dataset_id}"
    half = len(made.datasets) // 2
    dataset = made.datasets[half + pick % half] if deletes else made.datasets[pick % half]
    real: dict[str, Any] = {
        "dataset_id": dataset,
        "version_id": made.versions[dataset][pick % 3],
        "file_id": made.files[pick % len(made.files)],
        "upload_id": made.uploads[pick % len(made.uploads)],
        "token_id": made.tokens[pick % len(made.tokens)],
    }
    if "name" in values:
        real["name"] = "carol" if "/users/" in case.operation.path else ("dev", "spare", "july", "main")[pick % 4]
    for name in values:
        values[name] = real.get(name, values[name])
    for name in query:
        if name in ("ref", "before", "after", "left", "right"):
            query[name] = ("main", "dev", "july", "v1", "main~1")[pick % 5]
        elif name in ("name", "dataset") and isinstance(query[name], str):
            query[name] = "raw/d0"
        elif name in ("content_hash", "file"):
            query[name] = made.hashes[pick % len(made.hashes)]
        elif name == "cursor":
            query[name] = "MQ=="
    body = case.body if isinstance(case.body, dict) else {}
    if case.media_type == "application/json" and pick % 2:
        for name, value in (("ref", "v1"), ("source", "main"), ("user", "bob"), ("branch", "main")):
            if isinstance(body.get(name), str):
                body[name] = value
        for name in ("name", "pointer_name", "dataset_name"):
            if isinstance(body.get(name), str):
                body[name] = f"raw/d{pick % 6}" if "grants" in case.path or "prot" in case.path else f"n{pick}"
