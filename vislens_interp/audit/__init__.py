"""The audit: tests that can fail, run on the pictures of every method."""

from vislens_interp.audit.result import AuditResult, Row
from vislens_interp.audit.run import audit

__all__ = ["AuditResult", "Row", "audit"]
