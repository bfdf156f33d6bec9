"""Workers: processes on this machine or a Ray cluster, each with a loaded model, which together look like one engine."""

from darumeru.workers.pool import Pool, open_pool

__all__ = ["Pool", "open_pool"]
