"""The protocol's details that servers differ in."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from selflong.llm.engine import GREEDY, Sampling
from selflong.llm.protocol import request_body, retry_after_seconds, server_words


def test_retry_after_may_be_a_date_and_is_bounded() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < retry_after_seconds({"Retry-After": date}) <= 60
    assert retry_after_seconds({"Retry-After": "86400"}) == 600
    for useless in ("soon", "-5", "nan", ""):
        assert retry_after_seconds({"Retry-After": useless}) == 0


@pytest.mark.parametrize(
    "content",
    [
        b'{"error": {"message": "no  room"}}',
        b'{"error": "no room", "error_type": "x"}',
        b'{"detail": "no room"}',
        b"no\nroom",
    ],
)
def test_the_servers_words_are_found_in_every_shape(content: bytes) -> None:
    assert server_words(content) == "no room"


def test_top_p_of_one_is_not_sent_because_tgi_refuses_it() -> None:
    assert "top_p" not in json.loads(request_body("m", [], 1, GREEDY))
    assert json.loads(request_body("m", [], 1, Sampling(0.5, 0.9)))["top_p"] == 0.9
