"""What commands print holds words of strangers: a model's name, a file's, a contract's error."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from rich.console import Console

from offchain.cli import context
from offchain.cli.context import readable_errors
from offchain.cli.views import describe_outputs, show_job_table, show_model
from offchain.errors import InterlockError, InvalidInputError, UnrecoverableError

pytestmark = pytest.mark.unit

MARKUP = "[/] [/x.json] [bold]"


def model(**changes: Any) -> dict[str, Any]:
    """A model as ``GET /v1/models/{model}`` describes it; see ``ModelAnswer``."""
    segment = {"operators": "Gemm", "input_shape": [1, 4], "output_shape": [1, 2], "rows": 20, "log_rows": 6}
    segment |= {"output_kind": "kzg", "is_exact": True, "ambiguities": [], "closing_link_is_unique": False}
    segment |= {"predicted": None}
    accuracy = {
        "samples": 9,
        "float_accuracy": 1.0,
        "fixed_accuracy": 0.9,
        "agreement": 0.9,
        "max_error": 0.01,
        "source": "held-out",
    }
    answer = {"model": "0x12", "name": "digits", "segments": [segment], "accuracy": accuracy, "srs_origin": "ceremony"}
    answer["batch"] = 1
    return answer | changes


@pytest.mark.parametrize(
    ("origin", "shown"),
    [("ceremony", "SRS: ceremony"), ("local-ceremony", "SRS: local-ceremony"), ("insecure-dev", "could forge proofs")],
)
def test_show_model__any_srs_origin__is_named(capsys: pytest.CaptureFixture[str], origin: str, shown: str) -> None:
    show_model(model(srs_origin=origin))
    assert shown in capsys.readouterr().out


def test_show_model__name_with_markup__is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_model(model(name=MARKUP))
    assert MARKUP in capsys.readouterr().out


def test_show_model__ambiguous_segment__is_told_with_its_link_and_what_was_planned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offchain.cli.views.console", Console(width=200))
    [first] = model()["segments"]
    doubtful = first | {"output_kind": "poseidon", "closing_link_is_unique": True, "is_exact": False}
    doubtful |= {"ambiguities": ["rescale: [/]"], "predicted": {"seconds": 1.5, "bytes": 3 << 20}}
    show_model(model(segments=[first, doubtful]))
    printed = capsys.readouterr().out
    for cell in ("│ one ", "│ kzg, one of many │", "│ rescale: [/] │ poseidon ", "│ 1.50 ", "│ 3 "):
        assert cell in printed
    assert describe_outputs(model(segments=[first, doubtful])) == "ambiguous in 1 of 2"
    assert describe_outputs(model()) == "one"


def job(**changes: Any) -> dict[str, Any]:
    """A job as ``GET /v1/jobs/{job}`` describes it; see ``JobAnswer``."""
    answer = {"job": "0x12", "phase": "failed", "segments": [], "reason": None, "trouble": None, "result": None}
    return answer | {"queue": None, "route": None} | changes


def test_show_job_table__words_of_strangers_with_markup__are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_job_table(job(reason=MARKUP, trouble=MARKUP, route={"cid": MARKUP, "reasons": [MARKUP]}))
    assert capsys.readouterr().out.count(MARKUP) == 4


def test_show_job_table__unusual_segment__is_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.console, "_width", 200)
    votes = [{"vote": vote} for vote in ("unavailable", None, "bad_input", "unavailable")]
    segment = {"index": 0, "label": "proved", "attempt": 1, "overturned": True, "is_contested": False}
    segment |= {"stake_for": "2", "stake_total": "3", "link_out": None, "proved_by": None, "committee": votes}
    show_job_table(job(segments=[segment], queue={"running": 1, "most_running": 2, "waiting": 3}))
    printed = capsys.readouterr().out
    assert "0 (attempt 2)" in printed
    assert "proved, overturned, 1 voted bad input, 2 voted unavailable" in printed
    assert "queued: 1 of 2 jobs of the model run, 3 wait; Next: interlock job cancel 0x12" in printed


def test_show_job_table__route_without_its_document__says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_job_table(job(route={"cid": "Qm1", "reasons": None}))
    assert "policy chosen by route Qm1:\n  its document cannot be had now" in capsys.readouterr().out


@pytest.mark.parametrize("error", [InvalidInputError(MARKUP, MARKUP, MARKUP), UnrecoverableError(MARKUP)])
def test_readable_errors__markup_in_an_error__is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str], error: InterlockError
) -> None:
    with pytest.raises(typer.Exit) as caught, readable_errors():
        raise error
    assert caught.value.exit_code == 2
    assert MARKUP in capsys.readouterr().err
    assert context.errors.stderr
