"""Where the contracts lie on a chain."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from offchain.errors import InvalidInputError


@dataclass(frozen=True)
class Deployment:
    """Addresses of one deployment, with the block from which its events are to be read.

    The views (see ``contracts/views``) are None where a record is older than they are: nothing here needs them.
    """

    chain_id: int
    block: int
    registry: str
    verifier: str
    staking: str
    jobs: str
    verified_inference: str | None = None
    validation_registry: str | None = None

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read a record.

        Raises:
            InvalidInputError: there is none, or it is not one.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise InvalidInputError(
                "deployment", f"{path} does not exist", "start a network with `interlock up`, or run the migrations"
            ) from error
        except (ValueError, TypeError) as error:
            raise InvalidInputError("deployment", f"{path} is not a deployment record", "deploy again") from error
