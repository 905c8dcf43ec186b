"""Make every missing block of a rank: samples side by side, in an order and with a result that timing cannot change.

With a chat server, blocks overlap so that its slots stay full to the end of a config. In process, one block is made
after the other: which calls form a batch then depends on the recipe alone.
"""

import asyncio
import collections
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tqdm import tqdm

from selflong.errors import UserError
from selflong.llm.engine import CallFailedError
from selflong.records import Example, example_schema
from selflong.synthesis.blocks import Block
from selflong.synthesis.draft import Draft, DroppedError, Workbench
from selflong.synthesis.long_output import long_output_sample
from selflong.synthesis.short_replay import short_replay_sample
from selflong.synthesis.tally import Tally
from selflong.synthesis.workflow import long_input_sample

MAKERS: dict[str, Callable[[Draft], Coroutine[Any, Any, Example]]] = {
    "long_input": long_input_sample,
    "long_output": long_output_sample,
    "short_replay": short_replay_sample,
}
CALL_FAILED = "call failed"
# A config of which the first rows all fail is stopped: something is wrong with the recipe or the generator.
HOPELESS_ROWS = 32


async def make_blocks(bench: Workbench, blocks: Sequence[Block], live_line: Callable[[], str]) -> None:
    """Make and write `blocks`. Raises UserError if a config's first rows all fail."""
    example_schema()  # imports what writing needs before the first call, not between calls
    in_flight = bench.synthesis.generator.samples_in_flight
    samples = asyncio.Semaphore(in_flight)
    # Rows wait in open blocks for their slowest neighbour: twice as many keep `in_flight` of them busy.
    open_blocks = asyncio.Semaphore(1 if bench.in_process else max(1, 2 * in_flight // len_of(blocks)))
    watch = _Watch(sum(block.stop - block.start for block in blocks), live_line)
    try:
        async with asyncio.TaskGroup() as group:
            for block in blocks:
                await open_blocks.acquire()
                task = group.create_task(_make_block(bench, block, samples, watch))
                task.add_done_callback(lambda _: open_blocks.release())
    except BaseExceptionGroup as several:
        raise _first(several) from several
    finally:
        watch.bar.close()


def len_of(blocks: Sequence[Block]) -> int:
    """Rows of a block."""
    return max((block.stop - block.start for block in blocks), default=1)


async def _make_block(bench: Workbench, block: Block, samples: asyncio.Semaphore, watch: "_Watch") -> None:
    async def one(index: int) -> tuple[Example | None, Tally]:
        async with samples:
            made = await make_sample(bench, block.name, index)
        watch.saw(block.name, made[1])
        return made

    made = await asyncio.gather(*(one(index) for index in range(block.start, block.stop)))
    total = Tally()
    for _, tally in made:
        total.add(tally)
    bench.engine.journal.commit()
    examples = [example for example, _ in made if example]
    if bench.in_process:
        block.write(examples, total)
    else:  # Parquet is written beside the calls, not between them
        await asyncio.to_thread(block.write, examples, total)


async def make_sample(bench: Workbench, name: str, index: int) -> tuple[Example | None, Tally]:
    """The first attempt at row `index` that passes every gate, and what all attempts cost.

    None if no attempt passes, or if a call keeps failing: such a row is tried again by the next run.
    """
    config, gates, total = bench.synthesis.configs[name], bench.synthesis.gates, Tally()
    reason = ""
    for attempt in range(gates.max_attempts):
        draft = Draft(bench, name, config, index, attempt)
        total.tried += 1
        try:
            example = await MAKERS[config.kind](draft)
        except DroppedError as error:
            reason = str(error)
        except CallFailedError as error:
            reason = f"{CALL_FAILED}: {error}"
        else:
            total.kept += 1
            total.add(draft.tally)
            return example, total
        total.dropped[reason] += 1
        total.add(draft.tally)
        if reason.startswith(CALL_FAILED):
            break
    total.failed[f"{name}/{index}"] = reason
    return None, total


class _Watch:
    """The progress line, and the eye on configs of which nothing passes."""

    def __init__(self, total: int, live_line: Callable[[], str]) -> None:
        self.bar = tqdm(total=total, desc="dataset", unit=" rows", disable=total == 0)
        self.live_line = live_line
        self.made: collections.Counter[str] = collections.Counter()
        self.lost: collections.Counter[str] = collections.Counter()
        self.failed: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def saw(self, name: str, tally: Tally) -> None:
        self.bar.set_postfix_str(self.live_line(), refresh=False)
        self.bar.update()
        self.made[name] += tally.kept
        self.failed[name].update(tally.dropped)
        self.lost[name] += len(tally.failed)
        if not self.made[name] and self.lost[name] >= HOPELESS_ROWS:
            raise UserError(
                f"synthesis.configs.{name}",
                f"the first {HOPELESS_ROWS} rows all fail ({dict(self.failed[name].most_common(3))})",
                "look at the most frequent reason; change target_length, the gates or the generator",
            )


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain exception of a group."""
    inner = several.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
