"""The event loop under a chat server's calls: uvloop where it is installed (extra `fast`), else asyncio's own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end on the fastest loop there is. Results never depend on which."""
    try:
        import uvloop
    except ImportError:  # no extra, or a platform that it does not support
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
