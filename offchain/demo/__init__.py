"""The main job: two real models, from training to audit, with what it took."""

from offchain.demo.run import run_demo

__all__ = ["run_demo"]
