"""How many calls one chat server gets at a time: additive increase, multiplicative decrease, and a pause for all.

Stands between `llm/endpoint.py` and the network. It starts at its most, since the user knows the server's slots; every
overloaded round trip takes a fifth away, every round trip of answers gives one call back.
"""

import asyncio
import collections
import time

# TGI refuses at once whatever exceeds its --max-concurrent-requests. A fifth less is then still above four fifths of
# what it takes: with about twice the slots in flight none of them runs dry, which halving would risk.
DECREASE = 0.8


class Limiter:
    """Slots for calls, handed out in the order of asking. Of one event loop at a time, like an asyncio.Semaphore."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.allowed = float(most)
        self.in_flight = 0
        self._decreases = 0
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    async def acquire(self) -> int:
        """Wait for a slot; return the number that `overloaded` wants to know. Every slot is given back by `release`."""
        if not self._waiting and self._is_free():
            self.in_flight += 1
            return self._decreases
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        self._hand_out()
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self.release()
            raise
        return self._decreases

    def release(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self._hand_out()

    def succeeded(self) -> None:
        """Note an answer: as many as are allowed at a time, about a round trip of them, allow one more."""
        self.allowed = min(self.most, self.allowed + 1 / self.allowed)

    def overloaded(self, acquired: int) -> None:
        """Note a refusal for load by the call whose `acquire` returned `acquired`.

        Calls that had started before the last decrease say nothing about it: one decrease a round trip.
        """
        if acquired == self._decreases:
            self._decreases += 1
            self.allowed = max(1.0, self.allowed * DECREASE)

    def pause(self, seconds: float) -> None:
        """Let nobody start for `seconds`; calls under way may end."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _is_free(self) -> bool:
        return self.in_flight < int(self.allowed) and time.monotonic() >= self._paused_until

    def _hand_out(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._is_free():
            slot = self._waiting.popleft()
            if not slot.done():  # cancelled ones are
                slot.set_result(None)
                self.in_flight += 1
        left = self._paused_until - time.monotonic()
        if self._waiting and left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._hand_out)
