"""One training sample, as in Figure 1 of the paper: instruction → documents → reading → response.

    instruction  the generator writes it from a random chunk (several questions: from a random chunk each)
    documents    retrieved for it, until the target length is full; shuffled
    reading      every chunk of every document is read for the instruction; "nothing relevant" is an outcome
    response     written from what was read, never from the documents and never from anything planted

A sample is a pure function of (recipe, seed, config, index). One that fails a gate raises `DroppedError`.
"""

import asyncio
import collections
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from selflong.llm.engine import Engine
from selflong.recipe import DatasetConfig, Synthesis
from selflong.records import Chunk, Document, Example
from selflong.synthesis.chunks import chunk
from selflong.synthesis.prompts import VERSION, Prompts, UnusableError
from selflong.synthesis.retrieval import Bm25Retriever


class DroppedError(Exception):
    """A sample that is not kept; the message is the reason under which it is counted."""


class Workflow:
    """Makes samples of one dataset config after another from one corpus with one generator."""

    def __init__(
        self,
        synthesis: Synthesis,
        documents: Sequence[Document],
        retriever: Bm25Retriever,
        engine: Engine,
        prompts: Prompts,
        count_generator_tokens: Callable[[str], int],
        count_sample_tokens: Callable[[str, str], int],
    ) -> None:
        """`count_generator_tokens` counts a text, `count_sample_tokens` a chat of (user, assistant) by the student."""
        self.synthesis, self.documents, self.retriever, self.engine = synthesis, documents, retriever, engine
        self.prompts, self.count_generator_tokens = prompts, count_generator_tokens
        self.count_sample_tokens = count_sample_tokens
        self.ignored: collections.Counter[str] = collections.Counter()
        self._chunks: dict[int, list[Chunk]] = {}
        self._document_tokens: dict[int, int] = {}

    async def sample(self, name: str, config: DatasetConfig, index: int) -> Example:
        """Make sample `index` of config `name`. Raises DroppedError."""
        rng = np.random.default_rng([self.synthesis.seed, _stable_number(name), index])
        if config.kind == "long_output":
            return await self._long_output(config, index, rng)
        questions = await self._write_instructions(int(rng.choice(config.num_questions)), rng)
        instruction = self.prompts.join_instructions(questions)
        chosen = self._retrieve(questions, instruction, config.target_length, rng)
        findings, read = await self._read(questions, chosen)
        responses = await asyncio.gather(*map(self._respond, questions, findings))
        prompt = self.prompts.user_turn([self.documents[i].text for i in chosen], instruction)
        completion = self.prompts.join_responses(list(responses))
        num_tokens = self.count_sample_tokens(prompt, completion)
        if num_tokens > config.target_length:
            raise DroppedError("longer than the target length")
        relevant = {position for position, finding in read if finding}
        return Example(
            index=index,
            kind=config.kind,
            prompt=prompt,
            completion=completion,
            instruction=instruction,
            document_ids=tuple(self.documents[i].id for i in chosen),
            relevant_depths_percent=self._depths(chosen, relevant),
            num_chunks=sum(len(self._chunks_of(i)) for i in chosen),
            num_relevant_chunks=sum(1 for _, finding in read if finding),
            num_tokens=num_tokens,
            generator=self.synthesis.generator.model,
            prompt_version=VERSION,
            seed=self.synthesis.seed,
        )

    # -- 1. instruction

    async def _write_instructions(self, count: int, rng: np.random.Generator) -> list[str]:
        """Up to `count` different instructions, each from a random chunk of its own. Raises DroppedError if none."""
        streams = rng.spawn(count)
        written = await asyncio.gather(*map(self._write_instruction, streams))
        different = list(dict.fromkeys(text for text in written if text))
        if not different:
            raise DroppedError("no usable instruction")
        return different

    async def _write_instruction(self, rng: np.random.Generator) -> str | None:
        for _ in range(self.synthesis.gates.max_instruction_attempts):
            chunks = self._chunks_of(int(rng.integers(len(self.documents))))
            text = chunks[int(rng.integers(len(chunks)))].text
            limit = self.synthesis.generator.max_instruction_tokens
            reply = await self.engine.ask("instruction", self.prompts.instruction(text), limit)
            try:
                return self.prompts.parse_instruction(reply.text, text)
            except UnusableError as reason:
                self.ignored[str(reason)] += 1
        return None

    # -- 2. documents

    def _retrieve(self, questions: list[str], instruction: str, target: int, rng: np.random.Generator) -> list[int]:
        """Positions of the retrieved documents that fill `target` tokens, response budget included, shuffled."""
        ranked = [self.retriever.retrieve(question, self.synthesis.retrieval.candidates) for question in questions]
        longest = max(map(len, ranked))
        candidates = [r[rank] for rank in range(longest) for r in ranked if rank < len(r)]
        budget = target - self._response_budget(len(questions))
        used = self.count_sample_tokens(self.prompts.user_turn([], instruction), "")
        chosen: list[int] = []
        for position in dict.fromkeys(candidates):
            needed = self._tokens_of(position)
            if used + needed <= budget:
                chosen.append(position)
                used += needed
            elif budget - used < 16:  # no document is shorter
                break
        # Counts add up to within a token a document, so the whole is counted once and the last ones give way.
        while chosen and self._prompt_tokens(chosen, instruction) > budget:
            chosen.pop()
        if not chosen:
            raise DroppedError("no retrieved document fits the target length")
        return [chosen[i] for i in rng.permutation(len(chosen))]

    def _response_budget(self, num_questions: int) -> int:
        return num_questions * self.synthesis.generator.max_response_tokens

    def _prompt_tokens(self, chosen: list[int], instruction: str) -> int:
        texts = [self.documents[i].text for i in chosen]
        return self.count_sample_tokens(self.prompts.user_turn(texts, instruction), "")

    # -- 3. reading

    async def _read(
        self, questions: list[str], chosen: list[int]
    ) -> tuple[list[list[str]], list[tuple[int, str | None]]]:
        """Read every chunk for every question: distinct findings a question, and (document, finding) a reading."""
        findings, everything = [], []
        readings = [
            self._read_chunk(question, position, piece.text)
            for question in questions
            for position in chosen
            for piece in self._chunks_of(position)
        ]
        done = await asyncio.gather(*readings)
        share = len(done) // len(questions)
        for number in range(len(questions)):
            read = done[number * share : (number + 1) * share]
            everything += read
            distinct = list(dict.fromkeys(finding for _, finding in read if finding))
            if not distinct:
                raise DroppedError("nothing relevant in any chunk")
            if self.synthesis.gates.one_distinct_finding and len(distinct) > 1:
                raise DroppedError("contradicting readings")
            findings.append(distinct)
        return findings, everything

    async def _read_chunk(self, question: str, position: int, text: str) -> tuple[int, str | None]:
        limit = self.synthesis.generator.max_reading_tokens
        reply = await self.engine.ask("reading", self.prompts.reading(question, text), limit)
        try:
            return position, self.prompts.parse_reading(reply.text)
        except UnusableError as reason:
            self.ignored[str(reason)] += 1
            return position, None

    # -- 4. response

    async def _respond(self, question: str, findings: list[str]) -> str:
        findings = await self._condense(question, findings)
        limit = self.synthesis.generator.max_response_tokens
        reply = await self.engine.ask("response", self.prompts.response(question, findings), limit)
        if reply.finish_reason == "length":
            raise DroppedError("response cut at its token limit")
        try:
            return self.prompts.parse_response(reply.text)
        except UnusableError as reason:
            raise DroppedError(str(reason)) from reason

    async def _condense(self, question: str, findings: list[str]) -> list[str]:
        """Read the findings themselves again, chunk by chunk, until they fit one call. Ends: each round must shrink."""
        generator = self.synthesis.generator
        budget = generator.context_length - generator.max_response_tokens - 16  # template tokens, counted in `ask`
        size = self.count_generator_tokens(self.prompts.response(question, findings))
        while size > budget:
            pieces = chunk("\n\n".join(findings), self.synthesis.reading.chunk_tokens, self.count_generator_tokens)
            read = await asyncio.gather(*(self._read_chunk(question, 0, piece) for piece in pieces))
            findings = [finding for _, finding in read if finding]
            if not findings:
                raise DroppedError("nothing relevant left after condensing")
            last, size = size, self.count_generator_tokens(self.prompts.response(question, findings))
            if size >= last:
                raise DroppedError("findings do not get shorter")
        return findings

    # -- long output

    async def _long_output(self, config: DatasetConfig, index: int, rng: np.random.Generator) -> Example:
        """A document as the response to a writing instruction that the generator derives from its beginning."""
        start = int(rng.integers(len(self.documents)))
        wanted = int(np.exp(rng.uniform(np.log(16), np.log(config.target_length - 16))))
        text, used = self._joined_documents(start, wanted, config.target_length - 32)
        opening = next(chunk(text, self.synthesis.reading.chunk_tokens, self.count_generator_tokens))
        limit = self.synthesis.generator.max_instruction_tokens
        reply = await self.engine.ask("topic", self.prompts.topic(opening), limit)
        try:
            topic = self.prompts.parse_topic(reply.text)
        except UnusableError as reason:
            raise DroppedError(str(reason)) from reason
        instruction = self.prompts.writing(len(text.split()), topic)
        num_tokens = self.count_sample_tokens(instruction, text)
        if num_tokens > config.target_length:
            raise DroppedError("longer than the target length")
        return Example(
            index, config.kind, instruction, text, instruction, tuple(self.documents[i].id for i in used), (), 1, 1,
            num_tokens, self.synthesis.generator.model, VERSION, self.synthesis.seed,
        )  # fmt: skip

    def _joined_documents(self, start: int, wanted_tokens: int, limit: int) -> tuple[str, list[int]]:
        """Neighbouring documents of one source from `start` on, about `wanted_tokens` and at most `limit` tokens."""
        used, size = [start], self._tokens_of(start)
        source = self.documents[start].source
        for position in range(start + 1, len(self.documents)):
            needed = self._tokens_of(position)
            if self.documents[position].source != source or size >= wanted_tokens or size + needed > limit:
                break
            used.append(position)
            size += needed
        return "\n".join(self.documents[i].text for i in used), used

    # -- documents and their chunks

    def _chunks_of(self, position: int) -> list[Chunk]:
        if position not in self._chunks:
            document, limit = self.documents[position], self.synthesis.reading.chunk_tokens
            pieces = chunk(document.text, limit, self.count_generator_tokens)
            self._chunks[position] = [Chunk(document.id, piece) for piece in pieces]
        return self._chunks[position]

    def _tokens_of(self, position: int) -> int:
        """Tokens that a document adds to a prompt, its separator included."""
        if position not in self._document_tokens:
            empty = self.count_sample_tokens("", "")
            self._document_tokens[position] = self.count_sample_tokens(self.documents[position].text + "\n", "") - empty
        return self._document_tokens[position]

    def _depths(self, chosen: list[int], relevant: set[int]) -> tuple[float, ...]:
        """Where the relevant documents start, in percent of all document tokens."""
        total, before, depths = sum(map(self._tokens_of, chosen)), 0, []
        for position in chosen:
            if position in relevant:
                depths.append(round(100 * before / total, 1))
            before += self._tokens_of(position)
        return tuple(depths)


def _stable_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def as_row(example: Example) -> dict[str, Any]:
    """An example as a row of `records.example_features`."""
    row = dict(example.__dict__)
    row["prompt"] = [{"role": "user", "content": example.prompt}]
    row["completion"] = [{"role": "assistant", "content": example.completion}]
    return row
