"""Calls of the object that a distributed master exposes, as its daemon makes them, but without a network."""

from __future__ import annotations

from typing import Any

from Pyro5.callcontext import current_context

from papyros.distributed.bells import Waiting
from papyros.distributed.messages import ANNOTATION, joined
from papyros.distributed.service import MasterService

__all__ = ["call_service"]


def call_service(service: MasterService, method: str, *args: Any, message: bytes = b"") -> tuple[Any, memoryview]:
    """Call a method; return its answer, which is a ticket if it has to wait for one, and the batch beside it."""
    current_context.annotations = {ANNOTATION: message}
    current_context.response_annotations = {}
    answer = getattr(service, method)(*args)
    if isinstance(answer, Waiting):
        answer = answer.attempt(answer.seconds <= 0)
    return answer, memoryview(joined(current_context.response_annotations.get(ANNOTATION, b"")))
