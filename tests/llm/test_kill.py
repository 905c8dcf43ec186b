"""kill -9 at random moments: the next run goes on, and pays again for no more than what was in flight."""

import collections
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from selflong.llm.journal import Journal
from tests.chat_server import ChatServer, Fault

IN_FLIGHT, NUM_CALLS, KILLS = 16, 400, 4

PROGRAM = """
import asyncio, sys
from pathlib import Path
from selflong.llm.endpoint import ChatEndpoint
from selflong.llm.engine import Engine
from selflong.llm.event_loop import run_async
from selflong.llm.journal import Journal

base_url, path, in_flight, num_calls = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

async def main(journal):
    model = ChatEndpoint(base_url, "org/model", in_flight)
    engine = Engine(model, journal, 4096, None, "v1")
    await asyncio.gather(*(engine.ask("reading", f"call {i}", 50) for i in range(num_calls)))
    await model.close()

with Journal(path) as journal:
    run_async(main(journal))
"""


def test_a_killed_run_pays_again_for_no_more_than_was_in_flight(tmp_path: Path) -> None:
    path, rng = tmp_path / "calls.sqlite", random.Random(0)
    slow = Fault(delay_seconds=0.05)
    with ChatServer(lambda messages: "answer " + messages[-1]["content"], fault=lambda number: slow) as server:
        command = [sys.executable, "-c", PROGRAM, server.base_url, str(path), str(IN_FLIGHT), str(NUM_CALLS)]
        for _ in range(KILLS):
            until = len(server.requests) + rng.randrange(IN_FLIGHT, NUM_CALLS // KILLS)
            run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
            while len(server.requests) < until:
                assert run.poll() is None, "the run ended before it could be killed"
                time.sleep(0.001)
            run.kill()
            run.wait()
        assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}).returncode == 0
        asked = collections.Counter(request.key for request in server.requests)
    assert len(asked) == NUM_CALLS
    assert 0 < asked.total() - NUM_CALLS <= KILLS * IN_FLIGHT
    with Journal(path) as journal:
        texts = {row[0] for row in journal.database.execute("SELECT text FROM calls")}
    assert texts == {f"answer call {i}" for i in range(NUM_CALLS)}
