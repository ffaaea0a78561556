"""Circuits, witnesses and proofs behind the :class:`~offchain.proving.port.Prover` port.

The one adapter drives ezkl in killable child processes; nothing outside this package imports ezkl.
"""
