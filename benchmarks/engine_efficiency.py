"""How busy the engine keeps a server's slots, with every answer kept for a resume.

A server in a process of its own has 64 slots and takes 200 ms a call. 512 samples make 4 calls each, every prompt built
from the answer before. Efficiency = busy slot-seconds / 64 / wall, the wall from the first call to the last answer on
disk: 1 is a perfect client. CPU is the client process's, in ms a call. Ours is run twice: to the last row in its shard,
and the engine alone. Peers, in the same run and against the same server: bare asyncio + aiohttp without any journal,
and datatrove's InferenceRunner with its resume on, if installed. That one commits every answer alone and durably, at
most as fast as the disk syncs, so the disk's rate is told, too.

    python benchmarks/engine_efficiency.py [--runs 3]     # uvloop is used where it is installed: pip install .[fast]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SLOTS, CALL_SECONDS = 64, 0.2
SAMPLES, CALLS_PER_SAMPLE = 512, 4
IN_FLIGHT = 2 * SLOTS
MODEL = "org/model"
ANSWER = "The manual says that " + "this holds unless told otherwise, and " * 12 + "nothing else."
BARS = {"efficiency": 0.95, "cpu_ms": 0.6}

Ask = Callable[[str], Coroutine[Any, Any, str]]


@dataclass(frozen=True)
class Result:
    """One client's run."""

    wall_seconds: float
    busy_seconds: float
    cpu_seconds: float
    calls: int

    @property
    def efficiency(self) -> float:
        return self.busy_seconds / SLOTS / self.wall_seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_seconds / self.calls


def serve(pipe: Connection) -> None:
    """The server process: send the port, then busy seconds and calls whenever asked (which sets both to 0)."""
    from aiohttp import web

    slots, counted = asyncio.Semaphore(SLOTS), {"busy": 0.0, "calls": 0}

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        async with slots:
            started = time.monotonic()
            await asyncio.sleep(CALL_SECONDS)
            counted["busy"] += time.monotonic() - started
            counted["calls"] += 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
        usage = {"prompt_tokens": 400, "completion_tokens": 90, "total_tokens": 490}
        completion = {"id": "call", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response({**completion, "choices": [choice], "usage": usage})

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]})

    def tell() -> None:
        pipe.recv()
        pipe.send(dict(counted))
        counted.update(busy=0.0, calls=0)

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", complete)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    from selflong.llm.event_loop import run_async

    run_async(main())


async def make_samples(ask: Ask) -> None:
    """512 chains of 4 calls; every prompt is about 2 kB and unlike all others."""

    async def make_sample(number: int) -> None:
        text = "a passage of some length. " * 60
        for step in range(CALLS_PER_SAMPLE):
            text = await ask(f"Sample {number}, step {step}. Read and answer.\n{text}{'and so on. ' * 60}")

    await asyncio.gather(*(make_sample(number) for number in range(SAMPLES)))


def run_engine(base_url: str, folder: Path) -> tuple[float, float]:
    """Ours: Engine + ChatEndpoint + Journal. Returns wall and CPU seconds."""
    from selflong.llm.endpoint import ChatEndpoint
    from selflong.llm.engine import Engine
    from selflong.llm.event_loop import run_async
    from selflong.llm.journal import Journal

    async def main() -> tuple[float, float]:
        with Journal(folder / "calls.sqlite") as journal:
            model = ChatEndpoint(base_url, MODEL, IN_FLIGHT)
            engine = Engine(model, journal, 32_768, None, "v1")

            async def ask(prompt: str) -> str:
                return (await engine.ask("reading", prompt, 512)).text

            wall, cpu = time.monotonic(), time.process_time()
            await make_samples(ask)
            journal.commit()
            spent = time.monotonic() - wall, time.process_time() - cpu
            await model.close()
            return spent

    return run_async(main())


def run_bare(base_url: str, folder: Path) -> tuple[float, float]:
    """The least that can be done: one aiohttp session and a semaphore, nothing kept."""
    import aiohttp

    from selflong.llm.event_loop import run_async

    async def main() -> tuple[float, float]:
        slots = asyncio.Semaphore(IN_FLIGHT)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(prompt: str) -> str:
                body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 512}
                async with slots, session.post(base_url + "/chat/completions", json=body) as response:
                    completion = await response.json()
                return str(completion["choices"][0]["message"]["content"])

            wall, cpu = time.monotonic(), time.process_time()
            await make_samples(ask)
            return time.monotonic() - wall, time.process_time() - cpu

    return run_async(main())


def run_datatrove(base_url: str, folder: Path) -> tuple[float, float]:
    """datatrove's InferenceRunner with request cache and checkpoints, one document a sample."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    first: list[tuple[float, float]] = []

    async def rollout(document: Document, generate: Any) -> str:
        first.append((time.monotonic(), time.process_time()))  # its own start-up and health check stay out
        text = document.text
        for step in range(CALLS_PER_SAMPLE):
            prompt = f"Sample {document.id}, step {step}. Read and answer.\n{text}{'and so on. ' * 60}"
            text = (await generate({"messages": [{"role": "user", "content": prompt}], "max_tokens": 512})).text
        return str(text)

    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path=MODEL,
        endpoint_url=base_url.removesuffix("/v1"),
        rollouts_per_document=1,
        max_concurrent_generations=IN_FLIGHT,
        max_concurrent_documents=SAMPLES,
        metric_interval=3600,
    )
    writer = JsonlWriter(str(folder / "out"), output_filename="${rank}_chunk_${chunk_index}.jsonl", compression=None)
    runner = InferenceRunner(
        rollout_fn=rollout,
        config=config,
        output_writer=writer,
        checkpoints_local_dir=str(folder / "checkpoints"),
        records_per_chunk=SAMPLES,
    )
    documents = [Document(text="a passage of some length. " * 60, id=str(i)) for i in range(SAMPLES)]
    runner.run(iter(documents), rank=0, world_size=1)
    wall, cpu = first[0]
    return time.monotonic() - wall, time.process_time() - cpu


def run_rows(base_url: str, folder: Path) -> tuple[float, float]:
    """Ours to the last row: blocks, gates and shards as well."""
    from clients.rows_written import run_synthesis

    return run_synthesis(base_url, folder, MODEL, IN_FLIGHT, SAMPLES, CALLS_PER_SAMPLE)


CLIENTS: dict[str, Callable[[str, Path], tuple[float, float]]] = {
    "selflong, rows written": run_rows,
    "selflong, journal on": run_engine,
    "asyncio + aiohttp, nothing kept": run_bare,
    "datatrove, resume on": run_datatrove,
}


def measure(client: str, base_url: str, pipe: Connection) -> Result:
    """Run one client in a process of its own, so that no other's imports, caches and sockets count."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_client, args=(client, base_url, folder, theirs))
        pipe.send("reset")
        pipe.recv()
        process.start()
        theirs.close()
        try:
            wall, cpu = ours.recv()
        except EOFError:
            raise RuntimeError(f"{client} failed; see above") from None
        process.join()
    pipe.send("counts")
    counted = pipe.recv()
    assert counted["calls"] >= SAMPLES * CALLS_PER_SAMPLE
    return Result(wall, counted["busy"], cpu, counted["calls"])


def _client(client: str, base_url: str, folder: str, pipe: Connection) -> None:
    os.environ["LOGURU_LEVEL"] = "ERROR"  # datatrove tells much
    pipe.send(CLIENTS[client](base_url, Path(folder)))


def durable_commits_per_second() -> float:
    """What this disk takes in SQLite's default mode, for one second."""
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "commits.sqlite", isolation_level=None)
        database.execute("CREATE TABLE commits (number INTEGER)")
        started, count = time.monotonic(), 0
        while time.monotonic() < started + 1:
            database.execute("INSERT INTO commits VALUES (?)", (count,))
            count += 1
        database.close()
    return count / (time.monotonic() - started)


def report(found: dict[str, list[Result]], runs: int) -> None:
    """The table, and the ratio of the medians: a peer that waits for the disk varies with it."""
    print(f"{'efficiency of ' + str(runs) + ' runs':34} {'best':>6} {'median':>7} {'worst':>6} {'CPU ms/call':>12}")
    medians = {}
    for client, results in found.items():
        values = sorted(result.efficiency for result in results)
        medians[client] = statistics.median(values)
        cpu_ms = statistics.median(result.cpu_ms for result in results)
        print(f"{client:34} {values[-1]:6.3f} {medians[client]:7.3f} {values[0]:6.3f} {cpu_ms:12.2f}")
    ours, *peers = medians
    for peer in peers:
        print(f"ours / {peer}: {medians[ours] / medians[peer]:.2f} x the efficiency")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    pipe, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    base_url = f"http://127.0.0.1:{pipe.recv()}/v1"
    found: dict[str, list[Result]] = {}
    for _ in range(runs):  # in turn, so that what else the machine does is shared fairly
        print(f"this disk: {durable_commits_per_second():.0f} durable commits a second")
        for client in CLIENTS:
            try:
                result = measure(client, base_url, pipe)
                found.setdefault(client, []).append(result)
            except RuntimeError as error:
                print(error)
    server.terminate()
    report(found, runs)
    print("bars:", json.dumps(BARS))


if __name__ == "__main__":
    main()
