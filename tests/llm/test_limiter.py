"""The limiter: never more than allowed, less when overloaded, nobody during a pause, no slot ever lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from selflong.llm.limiter import DECREASE, Limiter


def run(most: int, body: Callable[[Limiter], Awaitable[None]]) -> Limiter:
    limiter = Limiter(most)
    asyncio.run(asyncio.wait_for(_await(body(limiter)), 10))
    return limiter


async def _await(body: Awaitable[None]) -> None:
    await body


def test_slots_are_handed_out_in_the_order_of_asking() -> None:
    order: list[int] = []

    async def call(limiter: Limiter, number: int) -> None:
        await limiter.acquire()
        order.append(number)
        assert limiter.in_flight <= 2
        await asyncio.sleep(0.001)
        limiter.release()

    async def body(limiter: Limiter) -> None:
        await asyncio.gather(*(call(limiter, i) for i in range(9)))

    assert run(2, body).in_flight == 0
    assert order == list(range(9))


def test_one_decrease_a_round_trip_and_never_below_one() -> None:
    async def body(limiter: Limiter) -> None:
        started = [await limiter.acquire() for _ in range(10)]
        for number in started:
            limiter.overloaded(number)
        assert limiter.allowed == 10 * DECREASE
        for _ in range(10):
            limiter.release()
        for _ in range(30):
            limiter.overloaded(await limiter.acquire())
            limiter.release()
        assert limiter.allowed == 1.0

    run(10, body)


def test_a_round_trip_of_answers_allows_one_more_up_to_the_most() -> None:
    async def body(limiter: Limiter) -> None:
        limiter.overloaded(0)
        for _ in range(8):
            limiter.succeeded()
        assert 8.9 < limiter.allowed <= 9.0
        for _ in range(100):
            limiter.succeeded()
        assert limiter.allowed == 10

    run(10, body)


def test_fewer_allowed_than_in_flight_waits_for_the_surplus_to_end() -> None:
    async def body(limiter: Limiter) -> None:
        for _ in range(10):
            await limiter.acquire()
        limiter.overloaded(0)
        waiting = asyncio.create_task(limiter.acquire())
        for _ in range(2):
            limiter.release()
            await asyncio.sleep(0)
        assert not waiting.done()
        limiter.release()
        await waiting

    run(10, body)


def test_nobody_starts_during_a_pause_and_everybody_after_it() -> None:
    async def body(limiter: Limiter) -> None:
        await limiter.acquire()
        paused = time.monotonic()
        limiter.pause(0.2)
        limiter.pause(0.05)  # a shorter one does not end a longer one
        limiter.release()
        await asyncio.gather(*(limiter.acquire() for _ in range(3)))
        assert time.monotonic() - paused >= 0.2

    run(4, body)


def test_cancelled_calls_give_their_slots_back() -> None:
    async def body(limiter: Limiter) -> None:
        await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limiter.release()  # hands the slot to the second, which is cancelled before it wakes up
        waiting[1].cancel()
        await waiting[2]
        limiter.release()
        assert limiter.in_flight == 0

    run(1, body)
