"""A job's history replayed from its events, by the rules of the contracts."""

from offchain.audit.replay.findings import Findings, Topic
from offchain.audit.replay.jobs import Replay, replay

__all__ = ["Findings", "Replay", "Topic", "replay"]
