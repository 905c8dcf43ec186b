"""Find documents for an instruction: bm25s over the whole corpus, in process.

The paper retrieves with E5-mistral-7b; a lexical retriever needs no weights and serves to fill a long context with
related text.
"""

import collections
from collections.abc import Sequence
from typing import Any

from selflong.records import Document

K1, B = 0.9, 0.4
"""Anserini's defaults for passages: several words of a question count more than one word said often."""


class Bm25Retriever:
    """BM25 (lucene variant) with English stop words and stemming; ties by document order.

    Words of a question that stand in more than `max_document_percent` of the documents are ignored, unless all do.
    """

    def __init__(self, documents: Sequence[Document], max_document_percent: float) -> None:
        import bm25s
        import Stemmer

        self.documents = documents
        self.tokenizer: Any = bm25s.tokenization.Tokenizer(stemmer=Stemmer.Stemmer("english"), stopwords="en")
        ids = self.tokenizer.tokenize([d.text for d in documents], return_as="ids", show_progress=False)
        self.index: Any = bm25s.BM25(method="lucene", k1=K1, b=B)
        self.index.index((ids, self.tokenizer.get_vocab_dict()), show_progress=False)
        counts = collections.Counter(word for document in ids for word in set(document))
        limit = len(documents) * max_document_percent / 100
        self.common = {word for word, count in counts.items() if count > limit}

    def retrieve(self, instruction: str, count: int) -> list[int]:
        """Return the positions of the `count` best documents, best first; documents that share no word are left out."""
        # Ids, not the tuple form: that one turns the whole vocabulary round on every query (60-160 ms).
        words = self.tokenizer.tokenize([instruction], update_vocab=False, return_as="ids", show_progress=False)[0]
        words = [word for word in words if word not in self.common] or words
        if not words:
            return []
        count = min(count, len(self.documents))
        found, scores = self.index.retrieve([words], k=count, show_progress=False, n_threads=0)
        ranked = sorted(zip(-scores[0], found[0], strict=True))
        return [int(position) for score, position in ranked if score < 0]


def open_retriever(retrieval, index):
    from selflong.synthesis.corpus import read_documents

    r = Bm25Retriever(read_documents(index.parent / "corpus" / "documents.parquet"), retrieval.max_document_percent)
    r.name = "bm25"
    return r


Retriever = Bm25Retriever
