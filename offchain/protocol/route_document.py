"""The route document: a demand, the conditions, the decision and its reasons, as canonical JSON.

It is pinned on IPFS, and the digest of its CIDv0 goes on chain with the job as ``routeCid``. An auditor routes the
inputs again: a decision that does not follow from them is refused. So the rules, their constants and their wording
belong to the format: whoever changes one of them changes ``FORMAT``, and keeps the old rules for the old documents.

What it does not show is that the conditions were true when they were written down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from offchain.errors import InvalidInputError
from offchain.protocol.canonical import canonical_json
from offchain.protocol.economics import Unroutable
from offchain.protocol.route_terms import Conditions, Criticality, Demand, Deployment, ModelSize, Privacy, Route
from offchain.protocol.routing import route
from offchain.protocol.types import Policy

FORMAT = "interlock.route.v1"
MAX_ROUTE_BYTES = 1 << 16
MAX_COUNT_BITS = 256
_MEND = "use the route document as it was pinned"
_DECIMAL = re.compile("0|[1-9][0-9]{0,77}")


@dataclass(frozen=True)
class RouteDocument:
    """A decision with everything that it follows from."""

    demand: Demand
    conditions: Conditions
    route: Route

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON; amounts of wei are decimal strings, since many readers of JSON lose digits."""
        decision = asdict(self.route)
        reasons = decision.pop("reasons")
        policy = decision.pop("policy") | {"challenge_seconds": decision.pop("challenge_seconds")}
        record = {
            "format": FORMAT,
            "demand": asdict(self.demand),
            "conditions": asdict(self.conditions),
            "decision": {**decision, "policy": policy},
            "reasons": reasons,
        }
        return canonical_json(_plain(record))


def write_route_document(demand: Demand, conditions: Conditions) -> RouteDocument:
    """Route a demand and keep all that the decision follows from.

    Raises:
        Unroutable: see :func:`offchain.protocol.routing.route`.
    """
    return RouteDocument(demand, conditions, route(demand, conditions))


def parse_route_document(content: bytes) -> RouteDocument:
    """Read a route document, and route its inputs again.

    Raises:
        InvalidInputError: it is not canonical, not complete, or its decision does not follow from its inputs.
    """
    record = _read(content)
    try:
        demand, conditions = _read_demand(record["demand"]), _read_conditions(record["conditions"])
        document = write_route_document(demand, conditions)
    except Unroutable as error:
        raise InvalidInputError("route.decision", f"its own inputs are refused ({error})", _MEND) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError("route", f"fields are wrong ({error})", _MEND) from error
    expected = json.loads(document.to_bytes())
    for name in ("demand", "conditions", "decision", "reasons"):
        if record.get(name) != expected[name]:
            why = "it does not follow from the inputs" if name in ("decision", "reasons") else "its fields are wrong"
            raise InvalidInputError(f"route.{name}", why, _MEND)
    if document.to_bytes() != content:  # fields that belong to nothing, or values equal only to Python
        raise InvalidInputError("route", "it says more than a route does", _MEND)
    return document


def disagreements(document: RouteDocument, policy: Policy, fee_wei: int, model: ModelSize) -> tuple[str, ...]:
    """Compare a job with the document that it names: a line for each point in which it is not what was decided.

    Args:
        policy, fee_wei: of the job on chain.
        model: of the manifest of the job's model.
    """
    decided = document.route
    lines = [
        f"policy.{name} is {value}, and {wanted} was decided"
        for name, value in asdict(policy).items()
        if value != (wanted := asdict(decided.policy)[name])
    ]
    if fee_wei < decided.fee_wei:
        lines.append(f"the fee is {fee_wei} wei, and at least {decided.fee_wei} was decided")
    if model != document.demand.model:
        lines.append("the model is not of the size that was decided on")
    return tuple(lines)


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one, key) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one, name) for one in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if name.endswith("_wei") else value


def _read(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_ROUTE_BYTES:
        raise InvalidInputError("route", f"{len(content)} bytes are too many", f"keep to {MAX_ROUTE_BYTES}")
    try:
        record = json.loads(content)
        is_canonical = canonical_json(record) == content
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("route", f"it is not JSON ({error})", _MEND) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InvalidInputError("route.format", f"it is not {FORMAT}", "use a route document of this version")
    if not is_canonical:
        raise InvalidInputError("route", "its bytes are not canonical", _MEND)
    return record


def _read_demand(raw: dict[str, Any]) -> Demand:
    record = _typed(raw)
    return Demand(
        **{
            **record,
            "criticality": Criticality(record["criticality"]),
            "privacy": Privacy(record["privacy"]),
            "model": ModelSize(**record["model"]),
        }
    )


def _read_conditions(raw: dict[str, Any]) -> Conditions:
    record = _typed(raw)
    return Conditions(**{**record, "deployment": Deployment(**record["deployment"])})


def _typed(value: Any, name: str = "") -> Any:
    """Invert :func:`_plain`, but for enumerations."""
    if isinstance(value, dict):
        return {key: _typed(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return tuple(_typed(one, name) for one in value)
    if name.endswith("_wei"):
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            raise ValueError(f"{name} is no decimal string")
        return int(value)
    if type(value) is int and value.bit_length() > MAX_COUNT_BITS:
        raise ValueError(f"{name} is too large")
    return value
