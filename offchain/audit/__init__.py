"""Auditing a job from a chain RPC and an IPFS node alone."""

from offchain.audit.auditing import audit
from offchain.audit.report import AuditReport
from offchain.audit.table import render

__all__ = ["AuditReport", "audit", "render"]
