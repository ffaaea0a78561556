"""What proofs are predicted to take on this machine: as it was measured, or by rules of thumb where it was not.

Nothing waits for the measuring: until it is done, and where it fails, the rules hold.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from offchain.errors import InterlockError
from offchain.planning.costs import CircuitShape, CostModel
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, SegmentCircuit
from offchain.proving.service import predicted_bytes

_log = logging.getLogger(__name__)

PROVE_SECONDS_AT_2_10_ROWS = 0.4
"""Of a circuit of 2^10 rows on a quiet machine, and twice as much for each doubling."""


class NotMeasured(InterlockError):
    """Nothing is known of this machine, and it was not to be measured."""


class Predictions:
    """Predictions that get better once this machine's model is there.

    Args:
        model: what is known from the start.
    """

    def __init__(self, model: CostModel | None = None) -> None:
        self._model = model
        self._shapes: dict[Path, CircuitShape | None] = {}

    @property
    def are_measured(self) -> bool:
        """Whether the machine's model is there."""
        return self._model is not None

    def learn(self, prover: EzklProver, *, may_measure: bool) -> threading.Thread:
        """Load the machine's model beside everything else; measure the machine first if that was never done.

        Args:
            prover: whose cache the model is kept in.
            may_measure: whether to spend a minute of processor time on it.
        """
        thread = threading.Thread(target=self._learn, args=(prover, may_measure), name="measure", daemon=True)
        thread.start()
        return thread

    def prove_seconds(self, circuit: SegmentCircuit) -> float:
        """How long a proof takes, alone on the machine."""
        shape = self._shape(circuit)
        if self._model is None or shape is None:
            return predicted_seconds(circuit.log_rows)
        return self._model.prove_seconds(shape)

    def prove_bytes(self, circuit: SegmentCircuit) -> int:
        """Peak memory of a proof: the larger of what the key's size says and what was measured."""
        by_key, shape = predicted_bytes(circuit), self._shape(circuit)
        return by_key if self._model is None or shape is None else max(by_key, self._model.prove_bytes(shape))

    def _shape(self, circuit: SegmentCircuit) -> CircuitShape | None:
        if self._model is None:
            return None
        if circuit.directory not in self._shapes:
            from offchain.tuning.shape import shape_of

            try:
                self._shapes[circuit.directory] = shape_of(circuit.settings.read_bytes())
            except (CircuitRefused, OSError, KeyError, ValueError) as error:
                # A circuit that cannot be priced is still served.
                _log.warning("the circuit in %s is predicted by rules of thumb: %s", circuit.directory, error)
                self._shapes[circuit.directory] = None
        return self._shapes[circuit.directory]

    def _learn(self, prover: EzklProver, may_measure: bool) -> None:
        from offchain.tuning.machine import MachineModel

        def begin(what: str, share: float) -> None:
            if not may_measure:
                raise NotMeasured("this machine was never measured; see `measure_machine`")
            _log.info("%s: %.0f %%", what, 100 * share)

        try:
            # It reports before its first measurement, which is where it can still be kept from measuring.
            model = MachineModel.load_or_measure(prover, progress=begin)
        except NotMeasured as error:
            _log.info("proofs are predicted by rules of thumb: %s", error)
        except Exception as error:  # a worker without a model is one that works by rules of thumb
            unforeseen = None if isinstance(error, InterlockError) else error
            _log.warning("proofs are predicted by rules of thumb: %s", error, exc_info=unforeseen)
        else:
            self._model = model
            _log.info("proofs are predicted as measured on %s", model.describe())


def predicted_seconds(log_rows: int) -> float:
    """How long a proof is expected to take where nothing was measured: time goes with the rows of the circuit."""
    return PROVE_SECONDS_AT_2_10_ROWS * float(2 ** (log_rows - 10))
