"""A worker that lies: ``python -m tests.faults.dishonest_worker CONFIG.json``.

It commits to an output that is off by one, with the very link that this output has, reveals it and passes it on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from offchain.protocol.duties import JobView
from offchain.protocol.field import FIELD_MODULUS
from offchain.protocol.links import LinkKind, link_of_commitment, link_of_values
from offchain.protocol.types import Link
from offchain.worker.__main__ import run
from offchain.worker.daemon import Worker
from offchain.worker.memory import Work


class DishonestWorker(Worker):
    """Honest in everything but the answer."""

    def execute(self, view: JobView, segment: int) -> Work:
        """Compute the right output, and stand by another one."""
        work = super().execute(view, segment)
        outputs = ((work.outputs[0] + 1) % FIELD_MODULUS, *work.outputs[1:])
        circuits = self._executor.circuits(view.job.model_id)
        if circuits[segment].output_kind is LinkKind.PUBLIC:
            link = link_of_values(outputs)
        else:
            # As the next segment's proof would show it.
            link = link_of_commitment(self._executor._prover.commit(outputs, circuits[segment + 1]))
        return replace(work, outputs=outputs, link=Link(link))


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), DishonestWorker))
