"""What slave hosts hand in of jobs before their client has come, which lost its master and adds them to the next one.

A slave host finds a new master as soon as a client does, and what it has may be of jobs that nobody there knows
yet. It is kept for a while, within bounds. Whether a job that is added is the one that it was told of, the desk
decides: nothing in here knows of clients, or of the ledger.
"""

from __future__ import annotations

from papyros.bundles import is_more_to_come
from papyros.distributed.batches import JobOutcome
from papyros.encoded import asks_for_retry

__all__ = ["Early", "EarlyNews"]

#: So many bytes of outcomes are kept; other jobs run again.
EARLY_BYTES = 256 << 20


class EarlyNews:
    """What was told of a job that nobody knew.

    Attributes:
        parts: what was told of a bundle that was not over yet.
        outcome: the outcome, if it is known.
        since: when the last of all that came.
    """

    __slots__ = ("outcome", "parts", "since")

    def __init__(self) -> None:
        self.parts: list[JobOutcome] = []
        self.outcome: JobOutcome | None = None
        self.since = 0.0


class Early:
    """What was told of jobs that nobody knows yet, by their sessions and numbers.

    Attributes:
        size: how many bytes of outcomes there are.
    """

    def __init__(self) -> None:
        self.size = 0
        self._news: dict[tuple[str, int], EarlyNews] = {}

    def __len__(self) -> int:
        return len(self._news)

    def keep(self, told: JobOutcome, now: float) -> None:
        """Keep what is told of a job; its first outcome counts, but for a failure that was tried again meanwhile."""
        key = (told.session, told.number)
        news = self._news.get(key) or EarlyNews()
        more = is_more_to_come(told.outcome)
        if not more and news.outcome is not None and asks_for_retry(news.outcome.outcome):
            self.size -= len(news.outcome.outcome)
            news.outcome = None
        if (more or news.outcome is None) and self.size + len(told.outcome) <= EARLY_BYTES:
            self.size += len(told.outcome)
            self._news[key] = news
            news.since = now
            if more:
                news.parts.append(told)
            else:
                news.outcome = told

    def take(self, key: tuple[str, int]) -> EarlyNews:
        """Hand out what was told of a job."""
        news = self._news.pop(key, None) or EarlyNews()
        self.size -= sum(len(told.outcome) for told in news.parts)
        if news.outcome is not None:
            self.size -= len(news.outcome.outcome)
        return news

    def forget(self, before: float) -> None:
        """Forget what came before that moment."""
        for key in [key for key, news in self._news.items() if news.since < before]:
            self.take(key)
